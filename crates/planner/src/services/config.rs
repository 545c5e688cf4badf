//! What the planning of Services depends on beside the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{Family, NodeAddr, NodeName};

use super::MASQUERADE_MARK;
use crate::border::of_family;

/// What the planning depends on that no change of the cluster tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesConfig {
    /// The family of the addresses that are planned for.
    pub family: Family,
    /// The node that is planned for.
    pub node: NodeName,
    /// Its addresses, the one first by which other nodes know it.
    pub node_addrs: Vec<NodeAddr>,
    /// At which of them NodePorts are.
    pub node_port_addresses: NodePortAddresses,
    /// Loopback addresses at which NodePorts are too, for the node itself; those of the other family are passed by.
    pub loopback: Vec<IpAddr>,
    /// Where pods' addresses come from, beside the pools.
    pub pod_cidrs: Vec<IpNet>,
    /// The bits of the packet mark that ask for masquerading, [`MASQUERADE_MARK`] as a rule.
    pub masquerade_mark: u32,
    /// All that goes to a ClusterIP is masqueraded (`masqueradeAll`), pods' connections too.
    pub masquerade_all: bool,
    /// In mode `iptables` what is forwarded and fits no connection is dropped, as kube-proxy does where connection tracking is not liberal
    /// (`conntrack.tcpBeLiberal`): such a packet would come to a pod, or to its client, from an address that it does not know, and be answered
    /// by a reset.
    pub drops_invalid: bool,
}

impl ServicesConfig {
    /// As kube-proxy's configuration is where it says nothing.
    #[must_use]
    pub const fn new(family: Family, node: NodeName, node_addrs: Vec<NodeAddr>) -> Self {
        Self {
            family,
            node,
            node_addrs,
            node_port_addresses: NodePortAddresses::Primary,
            loopback: Vec::new(),
            pod_cidrs: Vec::new(),
            masquerade_mark: MASQUERADE_MARK,
            masquerade_all: false,
            drops_invalid: true,
        }
    }

    /// The node's first address of the family.
    #[must_use]
    pub fn primary(&self) -> Option<IpAddr> {
        self.node_addrs.iter().map(|addr| addr.0).find(|addr| Family::of(addr) == self.family)
    }

    /// Where NodePorts are.
    pub(super) fn node_port_addrs(&self) -> Vec<IpAddr> {
        let loopback = self.loopback.iter().copied().filter(|addr| Family::of(addr) == self.family);
        match &self.node_port_addresses {
            NodePortAddresses::Primary => self.primary().into_iter().chain(loopback).collect(),
            NodePortAddresses::Ranges(ranges) => {
                let all = of_family(self.family, &self.node_addrs).into_iter();
                all.filter(|addr| ranges.iter().any(|range| range.contains(addr))).chain(loopback).collect()
            }
        }
    }
}

/// At which addresses of a node NodePorts are (`nodePortAddresses` of kube-proxy's configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The one of each family by which other nodes know it (`primary`).
    #[default]
    Primary,
    /// All that are in one of these ranges.
    Ranges(Vec<IpNet>),
}
