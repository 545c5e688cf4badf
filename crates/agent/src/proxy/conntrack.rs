//! Connection tracking's settings, as kube-proxy's configuration wants them.

use std::time::Duration;

use podnet_kernel::{
    fastpath::CONNTRACK_LIBERAL,
    sysctl::{self, SysctlError},
};
use podnet_model::proxy::ConntrackConfig;

/// A setting of the namespace, the field that asks for it, and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) field: &'static str,
    pub(super) key: &'static str,
    pub(super) value: u64,
    /// More is as good.
    pub(super) at_least: bool,
}

/// As many connections share a bucket when tracking is full, as with kube-proxy.
const BUCKET: u64 = 4;

/// How many buckets there are to find connections in.
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

/// What the configuration asks for on a machine of so many cores. What it leaves to the kernel is not among them.
pub(super) fn settings(config: &ConntrackConfig, cores: u32) -> Vec<Setting> {
    let seconds = |timeout: Option<Duration>| timeout.map(|timeout| timeout.as_secs().max(1));
    let max = config.max(cores).map(u64::from);
    [
        ("conntrack.maxPerCore", "net.netfilter.nf_conntrack_max", max),
        // Of the machine, as the number of connections is: only its own namespace can set it.
        ("conntrack.maxPerCore", BUCKETS, max.map(|max| max / BUCKET)),
        (
            "conntrack.tcpEstablishedTimeout",
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            seconds(config.tcp_established_timeout),
        ),
        (
            "conntrack.tcpCloseWaitTimeout",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
            seconds(config.tcp_close_wait_timeout),
        ),
        // It is never set back: the fast path needs it, and so may others.
        ("conntrack.tcpBeLiberal", CONNTRACK_LIBERAL, config.tcp_be_liberal.then_some(1)),
        ("conntrack.udpTimeout", "net.netfilter.nf_conntrack_udp_timeout", seconds(config.udp_timeout)),
        (
            "conntrack.udpStreamTimeout",
            "net.netfilter.nf_conntrack_udp_timeout_stream",
            seconds(config.udp_stream_timeout),
        ),
    ]
    .into_iter()
    .filter_map(|(field, key, value)| Some(Setting { field, key, value: value?, at_least: key == BUCKETS }))
    .collect()
}

/// Sets what differs, in the calling thread's namespace. Answers whether anything did.
pub(super) fn set(setting: &Setting) -> Result<bool, SysctlError> {
    let wanted = setting.value.to_string();
    let found = sysctl::read_here(setting.key)?;
    let is_enough = || found.parse::<u64>().is_ok_and(|found| found >= setting.value);
    if found == wanted || setting.at_least && is_enough() {
        return Ok(false);
    }
    sysctl::set_here(setting.key, &wanted).map(|()| true)
}

/// Whether packets beyond a connection's window are taken for the connection's in the calling thread's namespace; not without connection
/// tracking.
pub(super) fn is_liberal() -> bool {
    sysctl::read_here(CONNTRACK_LIBERAL).is_ok_and(|found| found != "0")
}

#[cfg(test)]
mod tests {
    use podnet_kernel::{conntrack, netns::NetNs};

    use super::*;

    #[test]
    fn what_is_left_to_the_kernel_is_not_set() {
        let of = |config: &ConntrackConfig| -> Vec<(&str, u64)> {
            settings(config, 8).into_iter().map(|setting| (setting.field, setting.value)).collect()
        };
        assert_eq!(
            of(&ConntrackConfig::default()),
            [
                ("conntrack.maxPerCore", 262_144),
                ("conntrack.maxPerCore", 65_536),
                ("conntrack.tcpEstablishedTimeout", 86_400),
                ("conntrack.tcpCloseWaitTimeout", 3600)
            ]
        );
        let config = ConntrackConfig {
            max_per_core: None,
            min: None,
            tcp_established_timeout: None,
            tcp_close_wait_timeout: None,
            tcp_be_liberal: true,
            udp_timeout: Some(Duration::from_millis(10)),
            udp_stream_timeout: Some(Duration::from_secs(90)),
        };
        assert_eq!(
            of(&config),
            [("conntrack.tcpBeLiberal", 1), ("conntrack.udpTimeout", 1), ("conntrack.udpStreamTimeout", 90)]
        );
    }

    #[test]
    fn settings_are_of_the_namespace_and_what_cannot_be_set_is_an_error() {
        let path = format!("/run/netns/podnet-test-conntrack-{}", std::process::id());
        let netns = NetNs::create(&path).unwrap();
        let done = netns.run(|| {
            conntrack::load().unwrap();
            for setting in settings(&ConntrackConfig::default(), 1).into_iter().skip(2) {
                assert!(set(&setting).unwrap() && !set(&setting).unwrap(), "{setting:?}");
                assert_eq!(sysctl::read_here(setting.key).unwrap(), setting.value.to_string());
            }
            for (value, is_so) in [("1", true), ("0", false)] {
                sysctl::set_here(CONNTRACK_LIBERAL, value).unwrap();
                assert_eq!(is_liberal(), is_so);
            }
            let max = Setting { field: "", key: "net.netfilter.nf_conntrack_max", value: 12_345, at_least: false };
            assert!(set(&max).is_err(), "it is the machine's");
            let buckets = |value| Setting { key: BUCKETS, value, at_least: true, ..max.clone() };
            assert!(!set(&buckets(1)).unwrap(), "there are more");
            assert!(set(&buckets(1 << 40)).is_err(), "they are the machine's, too");
        });
        NetNs::remove(&path).unwrap();
        done.unwrap();
    }
}
