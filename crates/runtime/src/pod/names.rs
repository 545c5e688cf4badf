//! `/etc/hosts`, `/etc/resolv.conf` and the host name of a pod, as kubelet makes them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};

/// Linux's limit for a host name is 64 with the terminating zero (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 63;

/// Where names come from on this node.
#[derive(Clone, Debug)]
pub(crate) struct DnsSettings {
    pub(crate) cluster_dns: IpAddr,
    pub(crate) cluster_domain: String,
    /// The text of the node's resolv.conf.
    pub(crate) node_resolv_conf: String,
}

/// The pod's host name: `spec.hostname` or its name.
pub(crate) fn hostname(pod: &Pod) -> String {
    let wished = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = wished.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(MAX_HOSTNAME);
    name.truncate(name.trim_end_matches(['-', '.']).len());
    name
}

/// The text of `/etc/hosts` of a pod with an address of its own.
pub(crate) fn hosts(pod: &Pod, addresses: &[IpAddr], domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod);
    let subdomain = pod.spec.as_ref().and_then(|spec| spec.subdomain.clone()).filter(|name| !name.is_empty());
    for address in addresses {
        match (&subdomain, &pod.metadata.namespace) {
            (Some(subdomain), Some(namespace)) => {
                text += &format!("{address}\t{name}.{subdomain}.{namespace}.svc.{domain}\t{name}\n");
            }
            _ => text += &format!("{address}\t{name}\n"),
        }
    }
    text + &host_aliases(pod)
}

/// The entries that a pod asked for.
pub(crate) fn host_aliases(pod: &Pod) -> String {
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if aliases.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = aliases
        .iter()
        .map(|alias| format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")))
        .collect();
    format!("\n# Entries added by HostAliases.\n{}", lines.concat())
}

#[derive(Default)]
struct ResolvConf {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

/// The text of `/etc/resolv.conf` by `dnsPolicy` and `dnsConfig`.
pub(crate) fn resolv_conf(pod: &Pod, settings: &DnsSettings) -> String {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let node = ResolvConf::parse(&settings.node_resolv_conf);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let on_host = spec.host_network.unwrap_or(false);
    let mut conf = match policy {
        "None" => ResolvConf::default(),
        "Default" => node,
        "ClusterFirst" if on_host => node,
        _ => ResolvConf::of_cluster(pod.metadata.namespace.as_deref().unwrap_or("default"), settings, node),
    };
    if let Some(config) = &spec.dns_config {
        conf.merge(config);
    }
    conf.text()
}

impl ResolvConf {
    fn of_cluster(namespace: &str, settings: &DnsSettings, node: Self) -> Self {
        let domain = &settings.cluster_domain;
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        searches.extend(node.searches);
        searches.dedup();
        Self {
            nameservers: vec![settings.cluster_dns.to_string()],
            searches,
            options: vec![("ndots".into(), Some("5".into()))],
        }
    }

    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().map(Into::into)),
                // The last search line counts (resolv.conf(5)).
                Some("search" | "domain") => {
                    conf.searches = words.filter(|word| *word != ".").map(Into::into).collect();
                }
                Some("options") => conf.options.extend(words.map(|word| match word.split_once(':') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                })),
                _ => {}
            }
        }
        conf
    }

    fn merge(&mut self, config: &PodDNSConfig) {
        let add = |list: &mut Vec<String>, more: Option<&Vec<String>>| {
            for item in more.into_iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut self.nameservers, config.nameservers.as_ref());
        add(&mut self.searches, config.searches.as_ref());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            self.options.retain(|(known, _)| known != name);
            self.options.push((name.clone(), option.value.clone()));
        }
    }

    fn text(&self) -> String {
        let mut text: String = self.nameservers.iter().map(|address| format!("nameserver {address}\n")).collect();
        if !self.searches.is_empty() {
            text = format!("search {}\n{text}", self.searches.join(" "));
        }
        if !self.options.is_empty() {
            let options: Vec<String> = self
                .options
                .iter()
                .map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}")))
                .collect();
            text += &format!("options {}\n", options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::{from_value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "it reads like the manifest")]
    fn pod(spec: k8s_openapi::serde_json::Value) -> Pod {
        from_value(json!({ "metadata": { "name": "web-0", "namespace": "shop" }, "spec": spec })).unwrap()
    }

    fn settings() -> DnsSettings {
        DnsSettings {
            cluster_dns: "10.233.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            node_resolv_conf: "search corp.example\nnameserver 192.0.2.1\noptions edns0\n".into(),
        }
    }

    #[test]
    fn by_default_names_are_looked_for_in_the_cluster_first() {
        let text = resolv_conf(&pod(json!({ "containers": [] })), &settings());
        assert_eq!(
            text,
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.233.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn default_and_host_network_mean_the_nodes_own_names() {
        let own = "search corp.example\nnameserver 192.0.2.1\noptions edns0\n";
        assert_eq!(resolv_conf(&pod(json!({ "containers": [], "dnsPolicy": "Default" })), &settings()), own);
        assert_eq!(resolv_conf(&pod(json!({ "containers": [], "hostNetwork": true })), &settings()), own);
        let mixed = pod(json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }));
        assert!(resolv_conf(&mixed, &settings()).contains("nameserver 10.233.0.10"));
    }

    #[test]
    fn a_pods_own_settings_are_merged() {
        let pod = pod(json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.2.3.4"], "searches": ["a.b"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }));
        assert_eq!(resolv_conf(&pod, &settings()), "search a.b\nnameserver 1.2.3.4\noptions ndots:2 edns0\n");
    }

    #[test]
    fn hosts_knows_the_pod_its_subdomain_and_its_aliases() {
        let pod = pod(json!({ "containers": [], "subdomain": "db",
            "hostAliases": [{ "ip": "192.0.2.9", "hostnames": ["one", "two"] }] }));
        let text = hosts(&pod, &["10.1.2.3".parse().unwrap()], "cluster.local");
        assert!(text.contains("10.1.2.3\tweb-0.db.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("192.0.2.9\tone\ttwo\n"));
    }

    #[test]
    fn a_long_name_is_cut_to_what_linux_takes() {
        let long: Pod = from_value(json!({ "metadata": { "name": format!("{}-b", "a".repeat(62)) } })).unwrap();
        assert_eq!(hostname(&long), "a".repeat(62));
    }
}
