//! What kube-proxy's configuration says of the rules of Services.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::{
    Change, Dual, Family, Pool, PoolName, ProxyConfig,
    proxy::{IpvsConfig, Mode, NodePortAddresses as Said},
};

use crate::services::{NodePortAddresses, Plan, Services, loopback};

/// What kube-proxy's configuration says of rules in a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    /// `nodePortAddresses`.
    pub node_port_addresses: NodePortAddresses,
    /// Loopback addresses at which they are too.
    pub loopback: Vec<IpAddr>,
    /// `clusterCIDR`.
    pub cluster_cidrs: Dual<Option<IpNet>>,
    /// The bit of `masqueradeBit`.
    pub masquerade_mark: u32,
    /// `masqueradeAll`.
    pub masquerade_all: bool,
    /// What fits no connection is dropped: not with `conntrack.tcpBeLiberal`.
    pub drops_invalid: bool,
    /// `ipvs`.
    pub ipvs: IpvsConfig,
}

impl RuleSettings {
    /// What it says of a mode.
    #[must_use]
    pub fn of(config: &ProxyConfig, mode: Mode) -> Self {
        let rules = config.rules(mode);
        Self {
            node_port_addresses: node_port_addresses(config, mode),
            loopback: if serves_loopback(mode) { self::loopback(config, mode) } else { Vec::new() },
            cluster_cidrs: config.cluster_cidrs,
            masquerade_mark: rules.masquerade_mark(),
            masquerade_all: rules.masquerade_all,
            drops_invalid: !config.conntrack.tcp_be_liberal,
            ipvs: config.ipvs.clone(),
        }
    }

    /// Tells Services what of it they are planned by.
    pub fn configure(&self, services: &mut Services) -> Plan {
        let (at, loopback) = (self.node_port_addresses.clone(), self.loopback.clone());
        services.configure(at, loopback, self.masquerade_mark, self.masquerade_all, self.drops_invalid)
    }

    /// `clusterCIDR` of a family as a change: a range of pods as a pool's is, but nobody draws from it. No pool can have the name.
    #[must_use]
    pub fn range_of_pods(&self, family: Family) -> Change {
        let name = PoolName::from(format!("kube-proxy/clusterCIDR/{family}"));
        let pool = self.cluster_cidrs[family].map(|range| Pool::new(name.clone(), range));
        Change::Pool(name, pool)
    }
}

/// Where NodePorts are to be. Where nothing is said the modes differ as kube-proxy's do.
#[must_use]
pub fn node_port_addresses(config: &ProxyConfig, mode: Mode) -> NodePortAddresses {
    match &config.node_port_addresses {
        Said::Unsaid if matches!(mode, Mode::Iptables | Mode::Ipvs) => {
            NodePortAddresses::Ranges(vec![Ipv4Net::default().into(), Ipv6Net::default().into()])
        }
        Said::Unsaid | Said::Primary => NodePortAddresses::Primary,
        Said::Within(ranges) => NodePortAddresses::Ranges(ranges.clone()),
    }
}

/// At which loopback addresses NodePorts may be in a mode that can serve them there. Where nothing is said that is 127.0.0.1 and ::1: what
/// people try first on a node. `primary` is without.
#[must_use]
pub fn loopback(config: &ProxyConfig, mode: Mode) -> Vec<IpAddr> {
    match &config.node_port_addresses {
        _ if mode == Mode::Iptables && !config.localhost_node_ports => Vec::new(),
        Said::Unsaid => loopback::LOCALHOSTS.to_vec(),
        Said::Primary => Vec::new(),
        Said::Within(ranges) => loopback::within(ranges),
    }
}

/// Virtual servers send nothing from a loopback address to elsewhere: the kernel's would lose it.
const fn serves_loopback(mode: Mode) -> bool {
    !matches!(mode, Mode::Ipvs)
}
