//! Which pod has which address, and so which search path: what the node's resolver knows of those who ask it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use podnet_dns::{name::Name, server::ClientSearch};
use podnet_model::{Change, Pod, PodKey};

/// This node's pods, by their addresses.
#[derive(Debug, Default)]
pub struct Clients(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What the node's own `resolv.conf` searches: kubelets put it behind the cluster's names.
    of_node: Vec<Name>,
    pods: HashMap<PodKey, Pod>,
    searches: HashMap<IpAddr, (PodKey, Arc<ClientSearch>)>,
}

impl Clients {
    /// Takes a change in.
    pub fn learn(&self, change: &Change) {
        let Change::Pod(key, pod) = change else { return };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.searches.retain(|_, (owner, _)| owner != key);
        known.pods.remove(key);
        if let Some(pod) = pod.as_ref().filter(|pod| !pod.finished) {
            known.take(pod.clone());
        }
    }

    /// The node's own search path, as its `resolv.conf(5)` has it.
    pub(crate) fn set_node(&self, resolv_conf: &str) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.of_node = searched(resolv_conf);
        known.searches.clear();
        for pod in std::mem::take(&mut known.pods).into_values() {
            known.take(pod);
        }
    }

    /// The search path of who has an address; none where that is not known for certain.
    #[must_use]
    pub(crate) fn search_of(&self, addr: IpAddr) -> Option<Arc<ClientSearch>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.searches.get(&addr).map(|(_, search)| Arc::clone(search))
    }
}

impl Known {
    fn take(&mut self, pod: Pod) {
        let own = pod.searches.as_deref().map(|names| names.iter().map(|name| Name::of_text(name)).collect());
        // With a name that cannot be asked for, nothing is certain.
        if let Some(Ok(own)) = own {
            let own: Vec<Name> = own;
            let mut behind = self.of_node.clone();
            behind.extend(own.into_iter().filter(|name| !self.of_node.contains(name)));
            let search = Arc::new(ClientSearch { namespace: pod.key.namespace.clone(), behind });
            for addr in &pod.addrs {
                self.searches.insert(addr.0, (pod.key.clone(), Arc::clone(&search)));
            }
        }
        self.pods.insert(pod.key.clone(), pod);
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
            "status": {"podIPs": [{"ip": addr}]},
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
        let plain = || json!({"containers": []});
        clients.learn(&pod("old", "10.244.0.2", plain()));
        clients.learn(&pod("new", "10.244.0.2", plain()));
        clients.learn(&Change::Pod(PodKey::new("web", "old"), None));
        assert!(told(&clients, "10.244.0.2").is_some());
        clients.learn(&Change::Pod(PodKey::new("web", "new"), None));
        assert_eq!(told(&clients, "10.244.0.2"), None);
    }
}
