//! What cannot apply to podnet, and why.

use super::{Mode, NodePortAddresses, ProxyConfig, RulesConfig, Unused, section::Given};

const CONNECTION: &str = "the agent has its own access to the API server (--kubeconfig or its pod's service account)";
const LOG: &str = "the agent's log is set by PODNET_LOG in its environment";
const ALL_LOCAL: &str = "podnet knows pods by its pools, whatever interface or range they are behind";
const TOLD: &str = "changes come by watches and damage is noticed as it happens, so nothing waits for a period";
const AT_ONCE: &str = "a change takes a millisecond and waits for none before it";
const UNKNOWN: &str =
    "a KubeProxyConfiguration has no such field: it is misspelt, in the wrong place or of another version";
const TWICE: &str = "it stands there twice; the last one counts";
const WINDOWS: &str = "it is for Windows alone";
const BOUND: &str = "its family says where health and metrics are told, and no more: a node's addresses are those of its underlay, and \
                     nodePortAddresses says where NodePorts are";
/// All addresses of IPv6: that says the family and no more.
const ALL_OF_IPV6: (&str, &str) = ("bindAddress", "::");
const AT_SOCKETS: &str = "in mode ebpf connections of pods have their backend from the first packet on and keep their address; it counts for \
                          what rules translate alone";
const OF_THE_AGENT: &str =
    "in mode userspace the agent makes the connections to backends itself, and no packet is marked";
const NOT_AT_LOOPBACK: &str =
    "in mode ipvs NodePorts are at no loopback address: virtual servers send nothing from one to elsewhere";

/// Fields by the beginning of their path; the value that is as good as not given; why they cannot apply.
const TABLE: &[(&str, &str, &str)] = &[
    ("featureGates", "", "podnet has no feature gates: what it has is on"),
    ("clientConnection", "", CONNECTION),
    ("logging", "", LOG),
    ("hostnameOverride", "", "the node's name is what the agent is started with (--name)"),
    ("bindAddress", "0.0.0.0", BOUND),
    ("bindAddressHardFail", "", "the agent goes on without a port that is taken and tries it again: pods need it"),
    ("enableProfiling", "", "the agent serves no profiles"),
    ("showHiddenMetricsForVersion", "", "no metric is hidden"),
    ("winkernel", "", WINDOWS),
    ("windowsRunAsService", "", WINDOWS),
    ("detectLocalMode", "ClusterCIDR", ALL_LOCAL),
    ("detectLocal", "", ALL_LOCAL),
    ("oomScoreAdj", "-999", "it is for whoever starts the agent to set"),
    ("configSyncPeriod", "15m0s", TOLD),
    (
        "iptables.syncPeriod",
        "30s",
        "damage is looked for twice a second; the period only says when /healthz takes the rules for late",
    ),
    (
        "iptables.minSyncPeriod",
        "1s",
        "a change writes the chains of its own Service alone and waits for none before it",
    ),
    ("nftables.syncPeriod", "30s", TOLD),
    ("nftables.minSyncPeriod", "1s", AT_ONCE),
    ("ipvs.minSyncPeriod", "1s", AT_ONCE),
    ("portRange", "", "no port is chosen from it, as in kube-proxy"),
];

/// Those of the given fields that cannot apply, then those that are not known or stand twice.
pub(super) fn of(given: Given, twice: Vec<String>) -> Vec<Unused> {
    let below =
        |field: &str, name: &str| field == name || field.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let said = given.said.into_inner().into_iter().filter(|(field, value)| (&**field, &**value) != ALL_OF_IPV6);
    let useless = said.filter_map(|(field, value)| {
        let (_, _, why) = TABLE.iter().find(|(name, as_good, _)| below(&field, name) && value != *as_good)?;
        Some(Unused { field, why })
    });
    let unknown = given.unknown.into_inner().into_iter().map(|field| Unused { field, why: UNKNOWN });
    let twice = twice.into_iter().map(|field| Unused { field, why: TWICE });
    useless.chain(unknown).chain(twice).collect()
}

/// Those of a mode's own fields that cannot apply in it, though they do in others.
pub(super) fn in_mode(config: &ProxyConfig, mode: Mode) -> Vec<Unused> {
    let ProxyConfig { nftables, node_port_addresses, .. } = config;
    let other_bit = nftables.masquerade_bit != RulesConfig::default().masquerade_bit;
    // Ranges have no bits beyond their length: one that begins in 127.0.0.0/8 lies in it, and of IPv6 there is one address alone.
    let at_loopback = match node_port_addresses {
        NodePortAddresses::Within(ranges) => ranges.iter().any(|range| range.network().is_loopback()),
        NodePortAddresses::Unsaid | NodePortAddresses::Primary => false,
    };
    let told = match mode {
        Mode::Ebpf => vec![(nftables.masquerade_all, "nftables.masqueradeAll", AT_SOCKETS)],
        Mode::Userspace => vec![
            (other_bit, "nftables.masqueradeBit", OF_THE_AGENT),
            (nftables.masquerade_all, "nftables.masqueradeAll", OF_THE_AGENT),
        ],
        Mode::Ipvs => vec![(at_loopback, "nodePortAddresses", NOT_AT_LOOPBACK)],
        Mode::Nftables | Mode::Iptables => Vec::new(),
    };
    let told = told.into_iter().filter(|(is_so, ..)| *is_so);
    told.map(|(_, field, why)| Unused { field: field.to_owned(), why }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &str) -> ProxyConfig {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        ProxyConfig::parse(&format!("{head}{fields}")).unwrap()
    }

    #[test]
    fn what_cannot_apply_in_one_mode_is_told_for_that_mode_alone() {
        let config = parse(
            "nftables: {masqueradeAll: true, masqueradeBit: 15}\niptables: {masqueradeAll: true, masqueradeBit: 15}\n\
             nodePortAddresses: [192.0.2.0/24, 127.0.0.0/8]\n",
        );
        let told = |config: &ProxyConfig, mode| -> Vec<String> {
            config.unused_in(mode).into_iter().map(|unused| unused.field).collect()
        };
        assert_eq!(config.unused(), []);
        assert_eq!(told(&config, Mode::Ebpf), ["nftables.masqueradeAll"]);
        assert_eq!(told(&config, Mode::Userspace), ["nftables.masqueradeBit", "nftables.masqueradeAll"]);
        assert_eq!(told(&config, Mode::Ipvs), ["nodePortAddresses"]);
        for mode in [Mode::Nftables, Mode::Iptables] {
            assert_eq!(told(&config, mode), [""; 0], "{mode}");
        }
        for (ranges, is_told) in
            [("['::1/128']", true), ("[127.0.0.0/4, '::/0', '::1/127']", false), ("[primary]", false)]
        {
            let config = parse(&format!("nodePortAddresses: {ranges}"));
            assert_eq!(!config.unused_in(Mode::Ipvs).is_empty(), is_told, "{ranges}");
        }
        for mode in Mode::ALL {
            assert_eq!(told(&ProxyConfig::default(), mode), [""; 0], "{mode}");
        }
    }
}
