//! What cannot apply to podnet, and why.

use super::Unused;

const CONNECTION: &str = "the agent has its own access to the API server (--kubeconfig or its pod's service account)";
const LOG: &str = "the agent's log is set by PODNET_LOG in its environment";
const ALL_LOCAL: &str = "podnet knows pods by its pools, whatever interface or range they are behind";
const TOLD: &str = "changes come by watches and damage is noticed as it happens, so nothing waits for a period";
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
    ("nftables.syncPeriod", "30s", TOLD),
    ("nftables.minSyncPeriod", "1s", "a change takes a millisecond and waits for none before it"),
    ("ipvs.minSyncPeriod", "1s", "a change takes a millisecond and waits for none before it"),
    ("portRange", "", "no port is chosen from it, as in kube-proxy"),
];

/// Those of the given fields that cannot apply.
pub(super) fn of(given: Vec<(String, String)>) -> Vec<Unused> {
    given
        .into_iter()
        .filter_map(|(field, value)| {
            let below =
                |name: &str| field == name || field.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
            let (_, _, why) = TABLE.iter().find(|(name, as_good, _)| below(name) && value != *as_good)?;
            Some(Unused { field, why })
        })
        .collect()
}
