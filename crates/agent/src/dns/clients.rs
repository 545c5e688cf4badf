//! Which pod has which address, and so which search path, and what its namespace's Services are called: what the node's resolver knows
//! of those who ask it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use podnet_dns::{name::Name, server::ClientSearch};
use podnet_model::{Change, Namespace, Pod, PodKey, ServiceKey};

/// This node's pods, by their addresses, and the cluster's Services.
#[derive(Debug, Default)]
pub struct Clients(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What the node's own `resolv.conf` searches: kubelets put it behind the cluster's names. None: it was not read yet.
    of_node: Option<Arc<[Name]>>,
    pods: HashMap<PodKey, Held>,
    /// Those that were made since that file was read last: it may have been another one by then.
    young: HashSet<PodKey>,
    searches: HashMap<IpAddr, (PodKey, Arc<ClientSearch>)>,
    services: HashMap<Namespace, HashSet<Arc<str>>>,
}

#[derive(Debug)]
struct Held {
    pod: Pod,
    /// What the node searched when the pod was made, which stays so for the pod; none: it is not known for certain.
    of_node: Option<Arc<[Name]>>,
}

impl Clients {
    /// Takes a change in.
    pub fn learn(&self, change: &Change) {
        match change {
            Change::Pod(key, pod) => self.known().learn_pod(key, pod.as_ref().filter(|pod| !pod.finished)),
            Change::Service(key, service) => self.known().learn_service(key, service.is_some()),
            _ => {}
        }
    }

    /// The node's own search path, as its `resolv.conf(5)` has it now: it counts for pods that are made from now on. Whether it is
    /// another one than before.
    pub(crate) fn set_node(&self, resolv_conf: &str) -> bool {
        self.known().set_node(searched(resolv_conf).into())
    }

    /// The search path of who has an address; none where that is not known for certain.
    #[must_use]
    pub(crate) fn search_of(&self, addr: IpAddr) -> Option<Arc<ClientSearch>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.searches.get(&addr).map(|(_, search)| Arc::clone(search))
    }

    /// Whether a namespace has a Service of this name; it may have one as long as no Service at all is known.
    #[must_use]
    pub(crate) fn has_service(&self, namespace: &Namespace, name: &[u8]) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let services = known.services.get(namespace).zip(std::str::from_utf8(name).ok());
        known.services.is_empty() || services.is_some_and(|(services, name)| services.contains(name))
    }

    fn known(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn_pod(&mut self, key: &PodKey, pod: Option<&Pod>) {
        let (before, is_young) = (self.forget(key), self.young.remove(key));
        let Some(pod) = pod else { return };
        let before = before.filter(|held| held.pod.uid == pod.uid);
        let is_made = before.as_ref().is_none_or(|held| held.pod.addrs.is_empty() && !pod.addrs.is_empty());
        let of_node = match before {
            // It was made under one of two paths.
            Some(held) if is_made && held.of_node != self.of_node => None,
            Some(held) => held.of_node,
            None => self.of_node.clone(),
        };
        if is_made || is_young {
            self.young.insert(key.clone());
        }
        self.take(pod.clone(), of_node);
    }

    fn forget(&mut self, key: &PodKey) -> Option<Held> {
        self.searches.retain(|_, (owner, _)| owner != key);
        self.pods.remove(key)
    }

    fn learn_service(&mut self, key: &ServiceKey, is_there: bool) {
        if is_there {
            self.services.entry(key.namespace.clone()).or_default().insert(Arc::clone(&key.name));
        } else if let Some(services) = self.services.get_mut(&key.namespace) {
            services.remove(&key.name);
            if services.is_empty() {
                self.services.remove(&key.namespace);
            }
        }
    }

    fn set_node(&mut self, now: Arc<[Name]>) -> bool {
        let young = std::mem::take(&mut self.young);
        if self.of_node.as_ref() == Some(&now) {
            return false;
        }
        let is_first = self.of_node.replace(Arc::clone(&now)).is_none();
        let (concerned, of_node): (HashSet<PodKey>, _) =
            if is_first { (self.pods.keys().cloned().collect(), Some(now)) } else { (young, None) };
        for key in concerned {
            if let Some(held) = self.forget(&key) {
                self.take(held.pod, of_node.clone());
            }
        }
        true
    }

    fn take(&mut self, pod: Pod, of_node: Option<Arc<[Name]>>) {
        let own = pod
            .searches
            .as_deref()
            .map(|names| names.iter().map(|name| Name::of_text(name)).collect::<Result<Vec<Name>, _>>());
        // With a name that cannot be asked for, nothing is certain.
        let search = own.and_then(Result::ok).zip(of_node.as_deref()).map(|(own, of_node)| {
            let more = own.into_iter().filter(|name| !of_node.contains(name));
            let behind = of_node.iter().cloned().chain(more).collect();
            Arc::new(ClientSearch { namespace: pod.key.namespace.clone(), behind })
        });
        for addr in &pod.addrs {
            // It may be that of a pod that is gone, which is not known yet.
            match &search {
                Some(search) => self.searches.insert(addr.0, (pod.key.clone(), Arc::clone(search))),
                None => self.searches.remove(&addr.0),
            };
        }
        self.pods.insert(pod.key.clone(), Held { pod, of_node });
    }
}

/// The names that a `resolv.conf(5)` searches: those of its last line of the kind.
fn searched(resolv_conf: &str) -> Vec<Name> {
    let lines = resolv_conf.lines().map(str::split_whitespace);
    let of_line = |mut words: std::str::SplitWhitespace<'_>| {
        matches!(words.next(), Some("search" | "domain"))
            .then(|| words.filter(|word| *word != ".").filter_map(|word| Name::of_text(word).ok()).collect())
    };
    lines.filter_map(of_line).next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as api;
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "it reads like the manifest")]
    fn pod(name: &str, addr: &str, spec: Value) -> Change {
        let pod: api::Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "web", "uid": name}, "spec": spec,
            "status": {"podIPs": Some(addr).filter(|addr| !addr.is_empty()).map(|addr| json!([{"ip": addr}])).unwrap_or_default()},
        }))
        .unwrap();
        let pod = Pod::try_from(&pod).unwrap();
        Change::Pod(pod.key.clone(), Some(pod))
    }

    fn told(clients: &Clients, addr: &str) -> Option<String> {
        let search = clients.search_of(addr.parse().unwrap())?;
        let behind: Vec<String> = search.behind.iter().map(ToString::to_string).collect();
        Some(format!("{} {}", search.namespace, behind.join(" ")))
    }

    #[test]
    fn a_pod_s_search_path_is_known_where_it_is_the_cluster_s() {
        let clients = Clients::default();
        clients.learn(&pod("plain", "10.244.0.2", json!({"containers": []})));
        assert_eq!(told(&clients, "10.244.0.2"), None, "the node's own is not known yet");
        clients.set_node("search old.example\nnameserver 192.0.2.1\nsearch corp.example .\n");
        let more = json!({"containers": [], "dnsConfig": {"searches": ["lab.example.", "corp.example"]}});
        clients.learn(&pod("more", "10.244.0.3", more));
        assert_eq!(told(&clients, "10.244.0.2").as_deref(), Some("web corp.example."));
        assert_eq!(told(&clients, "10.244.0.3").as_deref(), Some("web corp.example. lab.example."));
        for (name, spec) in [
            ("default", json!({"containers": [], "dnsPolicy": "Default"})),
            ("none", json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"searches": ["a.b"]}})),
            ("host", json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})),
            ("strict", json!({"containers": [], "dnsConfig": {"options": [{"name": "no-tld-query"}]}})),
            ("odd", json!({"containers": [], "dnsConfig": {"searches": ["a..b"]}})),
        ] {
            clients.learn(&pod(name, "10.244.0.4", spec));
            assert_eq!(told(&clients, "10.244.0.4"), None, "{name}");
        }
    }

    #[test]
    fn an_address_is_its_new_owner_s_whoever_is_told_of_first() {
        let clients = Clients::default();
        clients.set_node("");
        let plain = || json!({"containers": []});
        clients.learn(&pod("old", "10.244.0.2", plain()));
        clients.learn(&pod("new", "10.244.0.2", plain()));
        clients.learn(&Change::Pod(PodKey::new("web", "old"), None));
        assert!(told(&clients, "10.244.0.2").is_some());
        // One with another path, while nobody has said yet that the one before is gone.
        clients.learn(&pod("other", "10.244.0.2", json!({"containers": [], "dnsPolicy": "Default"})));
        assert_eq!(told(&clients, "10.244.0.2"), None);
        clients.learn(&pod("new", "10.244.0.2", plain()));
        clients.learn(&Change::Pod(PodKey::new("web", "new"), None));
        assert_eq!(told(&clients, "10.244.0.2"), None);
    }

    #[test]
    fn a_changed_search_path_of_the_node_counts_for_pods_that_are_made_then() {
        let clients = Clients::default();
        let plain = || json!({"containers": []});
        let one = |addr: &str| told(&clients, addr);
        assert!(clients.set_node("search one.example\n"));
        for (name, addr) in [("old", "10.244.0.2"), ("waiting", ""), ("replaced", "10.244.0.4")] {
            clients.learn(&pod(name, addr, plain()));
        }
        assert!(!clients.set_node("# the same\nsearch one.example\n"));
        clients.learn(&pod("young", "10.244.0.5", plain()));
        assert_eq!(one("10.244.0.5").as_deref(), Some("web one.example."));
        assert!(clients.set_node("search two.example\n"));
        clients.learn(&pod("new", "10.244.0.6", plain()));
        clients.learn(&pod("waiting", "10.244.0.3", plain()));
        clients.learn(&Change::Pod(PodKey::new("web", "replaced"), None));
        clients.learn(&pod("replaced", "10.244.0.4", plain()));
        // What else changes of a pod changes nothing.
        clients.learn(&pod("old", "10.244.0.2", plain()));
        assert!(!clients.set_node("search two.example\n"));
        assert_eq!(one("10.244.0.2").as_deref(), Some("web one.example."));
        assert_eq!(one("10.244.0.4").as_deref(), Some("web two.example."));
        assert_eq!(one("10.244.0.6").as_deref(), Some("web two.example."));
        // Which of the two these have nobody told.
        assert_eq!((one("10.244.0.3"), one("10.244.0.5")), (None, None));
    }

    #[test]
    fn a_namespace_s_services_are_known_by_their_names() {
        let clients = Clients::default();
        let service = |namespace: &str, name: &str| {
            let service: api::Service = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace}, "spec": {"type": "ExternalName", "externalName": "a.example"},
            }))
            .unwrap();
            let service = podnet_model::convert::Partly::<podnet_model::Service>::try_from(&service).unwrap().right;
            Change::Service(service.key.clone(), Some(service))
        };
        let has = |namespace: &str, name: &[u8]| clients.has_service(&namespace.into(), name);
        assert!(has("web", b"api"), "they are not listed yet");
        clients.learn(&service("web", "db"));
        clients.learn(&service("shop", "api"));
        assert!(has("web", b"db") && has("shop", b"api"));
        assert!(!has("web", b"api") && !has("other", b"db") && !has("web", b"\xff"));
        clients.learn(&Change::Service(ServiceKey::new("web", "db"), None));
        clients.learn(&Change::Service(ServiceKey::new("web", "never"), None));
        assert!(!has("web", b"db") && has("shop", b"api"));
    }
}
