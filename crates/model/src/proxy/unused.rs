//! What cannot apply to podnet, and why.

use super::{Unused, section::Given};

const CONNECTION: &str = "the agent has its own access to the API server (--kubeconfig or its pod's service account)";
const LOG: &str = "the agent's log is set by PODNET_LOG in its environment";
const ALL_LOCAL: &str = "podnet knows pods by its pools, whatever interface or range they are behind";
const TOLD: &str = "changes come by watches and damage is noticed as it happens, so nothing waits for a period";
const AT_ONCE: &str = "a change takes a millisecond and waits for none before it";
const UNKNOWN: &str =
    "a KubeProxyConfiguration has no such field: it is misspelt, in the wrong place or of another version";
const TWICE: &str = "it stands there twice; the last one counts";
const WINDOWS: &str = "it is for Windows alone";

/// Fields by the beginning of their path; the value that is as good as not given; why they cannot apply.
const TABLE: &[(&str, &str, &str)] = &[
    ("featureGates", "", "podnet has no feature gates: what it has is on"),
    ("clientConnection", "", CONNECTION),
    ("logging", "", LOG),
    ("hostnameOverride", "", "the node's name is what the agent is started with (--name)"),
    (
        "bindAddress",
        "0.0.0.0",
        "a node's addresses are those of its underlay; nodePortAddresses says where NodePorts are",
    ),
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
    let useless = given.said.into_inner().into_iter().filter_map(|(field, value)| {
        let (_, _, why) = TABLE.iter().find(|(name, as_good, _)| below(&field, name) && value != *as_good)?;
        Some(Unused { field, why })
    });
    let unknown = given.unknown.into_inner().into_iter().map(|field| Unused { field, why: UNKNOWN });
    let twice = twice.into_iter().map(|field| Unused { field, why: TWICE });
    useless.chain(unknown).chain(twice).collect()
}
