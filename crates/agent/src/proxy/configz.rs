//! The configuration as it was read, as `/configz` of kube-proxy tells it: defaults filled in, under the fields' own names. What of it is refused
//! is there, too: which mode serves `/proxyMode` tells.

use std::time::Duration;

use ipnet::IpNet;
use podnet_model::{
    Family, ProxyConfig,
    proxy::{NodePortAddresses, RulesConfig},
};
use serde_json::{Value, json};

/// The group of the configuration's API, by which kube-proxy names it.
const GROUP: &str = "kubeproxy.config.k8s.io";

/// In JSON.
pub(super) fn configz(config: &ProxyConfig) -> String {
    let ProxyConfig {
        mode, cluster_cidrs, node_port_addresses, iptables, localhost_node_ports, nftables, ipvs, ..
    } = config;
    let ranges = |ranges: &[IpNet]| ranges.iter().map(IpNet::to_string).collect::<Vec<_>>();
    let addresses = match node_port_addresses {
        NodePortAddresses::Unsaid => Vec::new(),
        NodePortAddresses::Primary => vec!["primary".to_owned()],
        NodePortAddresses::Within(within) => ranges(within),
    };
    let pods: Vec<IpNet> = Family::ALL.into_iter().filter_map(|family| cluster_cidrs[family]).collect();
    let mut of_iptables = rules(iptables);
    of_iptables["localhostNodePorts"] = (*localhost_node_ports).into();
    let conntrack = &config.conntrack;
    let value = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.map_or("", podnet_model::proxy::Mode::name),
        "clusterCIDR": ranges(&pods).join(","),
        "nodePortAddresses": addresses,
        "healthzBindAddress": config.healthz.to_string(),
        "metricsBindAddress": config.metrics.to_string(),
        "iptables": of_iptables,
        "nftables": rules(nftables),
        "ipvs": {
            "scheduler": ipvs.scheduler,
            "strictARP": ipvs.strict_arp,
            "excludeCIDRs": ranges(&ipvs.exclude_cidrs),
            "tcpTimeout": span(ipvs.tcp_timeout),
            "tcpFinTimeout": span(ipvs.tcp_fin_timeout),
            "udpTimeout": span(ipvs.udp_timeout),
            "syncPeriod": span(Some(ipvs.sync_period)),
            "minSyncPeriod": span(Some(ipvs.min_sync_period)),
        },
        "conntrack": {
            "maxPerCore": conntrack.max_per_core,
            "min": conntrack.min,
            "tcpEstablishedTimeout": span(conntrack.tcp_established_timeout),
            "tcpCloseWaitTimeout": span(conntrack.tcp_close_wait_timeout),
            "tcpBeLiberal": conntrack.tcp_be_liberal,
            "udpTimeout": span(conntrack.udp_timeout),
            "udpStreamTimeout": span(conntrack.udp_stream_timeout),
        },
    });
    json!({ GROUP: value }).to_string()
}

fn rules(rules: &RulesConfig) -> Value {
    json!({
        "masqueradeBit": rules.masquerade_bit,
        "masqueradeAll": rules.masquerade_all,
        "syncPeriod": span(Some(rules.sync_period)),
        "minSyncPeriod": span(Some(rules.min_sync_period)),
    })
}

/// As the configuration spells durations; what is left to the kernel is zero there.
fn span(duration: Option<Duration>) -> String {
    let duration = duration.unwrap_or_default();
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_a_configuration_that_says_the_same() {
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
                    clusterCIDR: 10.0.0.0/8,fd00::/48\nnodePortAddresses: [192.0.2.0/24]\n\
                    iptables: {masqueradeBit: 9, minSyncPeriod: 250ms, localhostNodePorts: false}\n\
                    ipvs: {scheduler: lc, strictARP: true, excludeCIDRs: [192.0.2.0/25], tcpTimeout: 900s}\n\
                    conntrack: {maxPerCore: 7, udpTimeout: 20s}\nmetricsBindAddress: 127.0.0.1:7777\n";
        for text in [text, "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"] {
            let config = ProxyConfig::parse(text).unwrap();
            let told: Value = serde_json::from_str(&configz(&config)).unwrap();
            let again = ProxyConfig::parse(&told[GROUP].to_string());
            assert_eq!(again.as_ref(), Ok(&config), "{told}");
        }
    }
}
