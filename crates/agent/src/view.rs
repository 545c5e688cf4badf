//! What the agent knows of this node and its pods, so that an ADD asks nobody.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use podnet_model::{Change, Dual, Namespace, NamespaceScope, NodeName, Pod, PodKey, limits::PodLimits};
use tokio::sync::{Notify, watch};

use crate::{announce::Announcements, dns::Clients};

/// This node, its pods and the namespaces, as last told by the watch.
#[derive(Debug)]
pub struct View {
    node: NodeName,
    pods: Mutex<HashMap<PodKey, Pod>>,
    namespaces: Mutex<HashMap<Namespace, NamespaceScope>>,
    changed: Condvar,
    namespaces_changed: Condvar,
    /// What this node's object shows of the node's addresses; none before there is one.
    published: watch::Sender<Option<Dual<Option<IpNet>>>>,
    /// Pods whose limits changed, or are told for the first time.
    limits_changed: Mutex<BTreeSet<PodKey>>,
    limits_told: Notify,
    announcements: Arc<Announcements>,
    clients: Arc<Clients>,
}

impl View {
    /// For this node; nothing is known yet.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            announcements: Arc::new(Announcements::new(node.clone())),
            clients: Arc::default(),
            node,
            pods: Mutex::default(),
            namespaces: Mutex::default(),
            changed: Condvar::new(),
            namespaces_changed: Condvar::new(),
            published: watch::Sender::new(None),
            limits_changed: Mutex::default(),
            limits_told: Notify::new(),
        }
    }

    /// Takes a change in.
    pub fn learn(&self, change: &Change) {
        self.announcements.learn(change);
        self.clients.learn(change);
        match change {
            Change::Pod(key, pod) => {
                let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
                if self.limits_differ(pods.get(key), pod.as_ref()) {
                    self.limits_changed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
                    self.limits_told.notify_one();
                }
                match pod {
                    Some(pod) => pods.insert(key.clone(), pod.clone()),
                    None => pods.remove(key),
                };
                self.changed.notify_all();
            }
            Change::Namespace(name, scope) => {
                let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
                match scope {
                    Some(scope) => namespaces.insert(name.clone(), scope.clone()),
                    None => namespaces.remove(name),
                };
                self.namespaces_changed.notify_all();
            }
            Change::Node(name, node) if *name == self.node => {
                let shown = node.as_ref().map(|node| Dual { v4: node.subnet, v6: node.subnet6 });
                self.published.send_if_modified(|known| std::mem::replace(known, shown) != shown);
            }
            _ => {}
        }
    }

    fn limits_differ(&self, before: Option<&Pod>, now: Option<&Pod>) -> bool {
        let unlimited = Ok(PodLimits::default());
        // A pod that is gone is detached, which its limits go with.
        now.is_some_and(|now| before.map_or(&unlimited, |before| &before.limits) != &now.limits)
    }

    /// What is known of load balancers' addresses.
    #[must_use]
    pub fn announcements(&self) -> &Arc<Announcements> {
        &self.announcements
    }

    /// What is known of those who ask the node's resolver.
    #[must_use]
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Waits until limits of pods change, and tells whose.
    pub async fn limits_changed(&self) -> BTreeSet<PodKey> {
        loop {
            self.limits_told.notified().await;
            let changed = std::mem::take(&mut *self.limits_changed.lock().unwrap_or_else(PoisonError::into_inner));
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// What this node's object shows of the node's addresses, as it changes; none while there is none.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Option<Dual<Option<IpNet>>>> {
        self.published.subscribe()
    }

    /// The pod, awaited for at most `patience` where it is not known yet: the runtime may have heard of it a moment earlier. With a
    /// `uid`, an earlier pod of the same name does not count; a static pod's is that of the kubelet or of its image in the API.
    #[must_use]
    pub fn pod(&self, key: &PodKey, uid: Option<&str>, patience: Duration) -> Option<Pod> {
        let is_it = |pod: &&Pod| uid.is_none_or(|uid| *pod.uid == *uid || pod.static_uid.as_deref() == Some(uid));
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let (pods, _) = self
            .changed
            .wait_timeout_while(pods, patience, |pods| pods.get(key).as_ref().filter(|pod| is_it(pod)).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        pods.get(key).filter(is_it).cloned()
    }

    /// The namespace, awaited for at most `patience` where it is not known yet: the watch of pods may be ahead of the one of
    /// namespaces, and without its namespace a pod would get an address of a pool that is not meant for it.
    #[must_use]
    pub fn namespace(&self, name: &Namespace, patience: Duration) -> Option<NamespaceScope> {
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let (namespaces, _) = self
            .namespaces_changed
            .wait_timeout_while(namespaces, patience, |namespaces| !namespaces.contains_key(name))
            .unwrap_or_else(PoisonError::into_inner);
        namespaces.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as api;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_static_pod_is_known_by_the_uid_that_the_kubelet_calls_it_by() {
        let mirror: api::Pod = serde_json::from_value(json!({"metadata": {
            "name": "etcd-node1", "namespace": "kube-system", "uid": "of-the-mirror",
            "annotations": {"kubernetes.io/config.mirror": "of-the-file"},
        }}))
        .unwrap();
        let pod = Pod::try_from(&mirror).unwrap();
        let (view, key) = (View::new("node1".into()), pod.key.clone());
        view.learn(&Change::Pod(key.clone(), Some(pod)));
        let is_known = |uid| view.pod(&key, uid, Duration::ZERO).is_some();
        assert!(is_known(Some("of-the-file")) && is_known(Some("of-the-mirror")) && is_known(None));
        assert!(!is_known(Some("of-an-earlier-file")));
    }
}
