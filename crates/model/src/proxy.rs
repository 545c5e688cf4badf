//! What a KubeProxyConfiguration (`kubeproxy.config.k8s.io/v1alpha1`) says, with its defaults, its checks, and what of it cannot apply.
//!
//! As with kube-proxy, a field that is zero (`""`, `0`, `0s`, `null`, `[]`) counts as not given, so that what kubeadm writes is taken as it is.
//! Also as with kube-proxy, which then reads leniently, a field that is not known and one that stands twice refuse nothing: each is told by its
//! name ([`ProxyConfig::unused`]), and the rest counts.

mod duration;
mod lenient;
mod parse;
mod section;
#[cfg(test)]
mod tests;
mod unused;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Dual, Family};

/// How Services are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At the socket for pods and the node itself, by `nftables` for what comes from outside.
    Ebpf,
    /// By one table of nf_tables for each family.
    Nftables,
    /// By iptables-restore, in kube-proxy's chains.
    Iptables,
    /// By the kernel's virtual servers.
    Ipvs,
    /// By the agent itself, which accepts connections and makes others.
    Userspace,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ebpf, Self::Nftables, Self::Iptables, Self::Ipvs, Self::Userspace];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A KubeProxyConfiguration. Fields that podnet has no use for are checked, and told by [`ProxyConfig::unused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `mode`; none (`""`) means the best that the kernel has.
    pub mode: Option<Mode>,
    /// `clusterCIDR`: pods' addresses, at most one range of each family; they count beside those of the pools.
    pub cluster_cidrs: Dual<Option<IpNet>>,
    /// `nodePortAddresses`.
    pub node_port_addresses: NodePortAddresses,
    /// `iptables.*`, for the modes `iptables` and `ipvs`.
    pub iptables: RulesConfig,
    /// `iptables.localhostNodePorts`: NodePorts answer on 127.0.0.1 too. For the mode `iptables` alone; true where not given.
    pub localhost_node_ports: bool,
    /// `nftables.*`, for all other modes.
    pub nftables: RulesConfig,
    /// `ipvs.*`.
    pub ipvs: IpvsConfig,
    /// `conntrack.*`.
    pub conntrack: ConntrackConfig,
    /// `healthzBindAddress`; 0.0.0.0:10256 where not given, or `[::]:10256` where `bindAddress` is of IPv6. Either stands for all addresses of
    /// both families.
    pub healthz: SocketAddr,
    /// `metricsBindAddress`; 127.0.0.1:10249 where not given, or `[::1]:10249` where `bindAddress` is of IPv6.
    pub metrics: SocketAddr,
    unused: Vec<Unused>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        let (healthz, metrics) = told_at(Family::V4);
        Self {
            mode: None,
            cluster_cidrs: Dual::default(),
            node_port_addresses: NodePortAddresses::default(),
            iptables: RulesConfig { min_sync_period: Duration::from_secs(1), ..RulesConfig::default() },
            localhost_node_ports: true,
            nftables: RulesConfig { min_sync_period: Duration::from_secs(1), ..RulesConfig::default() },
            ipvs: IpvsConfig::default(),
            conntrack: ConntrackConfig::default(),
            healthz,
            metrics,
            unused: Vec::new(),
        }
    }
}

/// Where kube-proxy tells its health and its metrics if nothing else is said and `bindAddress` is of the family.
const fn told_at(family: Family) -> (SocketAddr, SocketAddr) {
    let (all, own) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Family::V6 => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    (SocketAddr::new(all, 10256), SocketAddr::new(own, 10249))
}

impl ProxyConfig {
    /// Reads a document in YAML or JSON.
    ///
    /// # Errors
    /// The first fault, with its field, what stands there and what may.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        parse::parse(text)
    }

    /// What was given but cannot apply to podnet in any mode, in the order of the configuration's fields.
    #[must_use]
    pub fn unused(&self) -> &[Unused] {
        &self.unused
    }

    /// What else was given and cannot apply in this mode, of what the mode's rules are told.
    #[must_use]
    pub fn unused_in(&self, mode: Mode) -> Vec<Unused> {
        unused::in_mode(self, mode)
    }

    /// What the mode's rules are told.
    #[must_use]
    pub const fn rules(&self, mode: Mode) -> &RulesConfig {
        match mode {
            Mode::Iptables | Mode::Ipvs => &self.iptables,
            Mode::Ebpf | Mode::Nftables | Mode::Userspace => &self.nftables,
        }
    }
}

/// On which of its addresses a node answers at NodePorts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Nothing is said: on all with the modes `iptables` and `ipvs`, otherwise as [`NodePortAddresses::Primary`].
    #[default]
    Unsaid,
    /// On those of its Node object (`primary`).
    Primary,
    /// On all that lie in one of these ranges, at least one.
    Within(Vec<IpNet>),
}

/// What rules are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesConfig {
    /// `masqueradeBit`: which bit of a packet's mark asks for masquerading; 14 where not given.
    pub masquerade_bit: u8,
    /// `masqueradeAll`: all that goes to a ClusterIP gets the node's address, pods' connections too.
    pub masquerade_all: bool,
    /// `syncPeriod`: how often all is looked at; 30 s where not given.
    pub sync_period: Duration,
    /// `minSyncPeriod`: the least time between two changes.
    pub min_sync_period: Duration,
}

impl Default for RulesConfig {
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::ZERO,
        }
    }
}

impl RulesConfig {
    /// The bits of the packet mark that ask for masquerading: one.
    #[must_use]
    pub const fn masquerade_mark(&self) -> u32 {
        1 << self.masquerade_bit
    }
}

/// `ipvs.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsConfig {
    /// `scheduler`; `rr` where not given.
    pub scheduler: &'static str,
    /// `strictARP`: the node answers ARP for a Service's address on no device.
    pub strict_arp: bool,
    /// `excludeCIDRs`: virtual servers in these ranges are somebody else's.
    pub exclude_cidrs: Vec<IpNet>,
    /// `tcpTimeout`: of an idle connection; none leaves it as it is, as for the others.
    pub tcp_timeout: Option<Duration>,
    /// `tcpFinTimeout`: of one that ends.
    pub tcp_fin_timeout: Option<Duration>,
    /// `udpTimeout`.
    pub udp_timeout: Option<Duration>,
    /// `syncPeriod`: how often all is looked at; 30 s where not given.
    pub sync_period: Duration,
    /// `minSyncPeriod`: the least time between two changes; 1 s where not given.
    pub min_sync_period: Duration,
}

impl Default for IpvsConfig {
    fn default() -> Self {
        Self {
            scheduler: SCHEDULERS[0],
            strict_arp: false,
            exclude_cidrs: Vec::new(),
            tcp_timeout: None,
            tcp_fin_timeout: None,
            udp_timeout: None,
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::from_secs(1),
        }
    }
}

/// The kernel's schedulers of virtual servers, the default first.
pub const SCHEDULERS: [&str; 11] = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh"];

/// `conntrack.*`. None leaves the kernel's value as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackConfig {
    /// `maxPerCore`: connections for each core; 32768 where not given.
    pub max_per_core: Option<u32>,
    /// `min`: connections however few cores there are; 131072 where not given.
    pub min: Option<u32>,
    /// `tcpEstablishedTimeout`; 24 h where not given.
    pub tcp_established_timeout: Option<Duration>,
    /// `tcpCloseWaitTimeout`; 1 h where not given.
    pub tcp_close_wait_timeout: Option<Duration>,
    /// `tcpBeLiberal`: packets outside a connection's window belong to it all the same.
    pub tcp_be_liberal: bool,
    /// `udpTimeout`: of a connection without an answer.
    pub udp_timeout: Option<Duration>,
    /// `udpStreamTimeout`: of one with answers.
    pub udp_stream_timeout: Option<Duration>,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        Self {
            max_per_core: Some(32 * 1024),
            min: Some(128 * 1024),
            tcp_established_timeout: Some(Duration::from_secs(24 * 3600)),
            tcp_close_wait_timeout: Some(Duration::from_secs(3600)),
            tcp_be_liberal: false,
            udp_timeout: None,
            udp_stream_timeout: None,
        }
    }
}

impl ConntrackConfig {
    /// How many connections the kernel shall be able to track; none leaves that to it.
    #[must_use]
    pub fn max(&self, cores: u32) -> Option<u32> {
        let scaled = self.max_per_core?.saturating_mul(cores);
        Some(scaled.max(self.min.unwrap_or(0)))
    }
}

/// A field that cannot be as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}; it must be {allowed}")]
pub struct Fault {
    /// Its path, `ipvs.scheduler`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

/// A field that is given, and is nothing to podnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// Its path, `featureGates.AllAlpha`.
    pub field: String,
    /// Why it cannot apply, and what does instead.
    pub why: &'static str,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}
