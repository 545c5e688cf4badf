//! IPPools: the ranges that pods' addresses come from.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{PoolName, labels::NodeSelector};

/// An IPPool (`crd.projectcalico.org/v1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `metadata.name`.
    pub name: PoolName,
    /// `spec.cidr`.
    pub cidr: IpNet,
    /// `spec.blockSize`: prefix length of a block; 26 (IPv4) and 122 (IPv6) where not given.
    pub block_size: u8,
    /// `spec.vxlanMode`.
    pub vxlan: EncapMode,
    /// `spec.ipipMode`; not both are other than `Never`.
    pub ipip: EncapMode,
    /// `spec.natOutgoing`.
    pub nat_outgoing: bool,
    /// `spec.disabled`: existing addresses stay, no new ones are given.
    pub disabled: bool,
    /// `spec.assignmentMode` is `Manual`: only pods that ask for the pool or an address of it draw from it.
    pub manual: bool,
    /// `spec.nodeSelector`.
    pub node_selector: NodeSelector,
    /// `spec.namespaceSelector`: the same language, over the labels of the pod's namespace.
    pub namespace_selector: NodeSelector,
}

impl Pool {
    /// As an IPPool that says its range alone: plain routes, untranslated, for every node and namespace, blocks of 64 addresses.
    #[must_use]
    pub fn new(name: PoolName, cidr: IpNet) -> Self {
        Self {
            name,
            cidr,
            block_size: if matches!(cidr, IpNet::V4(_)) { 26 } else { 122 },
            vxlan: EncapMode::Never,
            ipip: EncapMode::Never,
            nat_outgoing: false,
            disabled: false,
            manual: false,
            node_selector: NodeSelector::all(),
            namespace_selector: NodeSelector::all(),
        }
    }
}

/// When packets to another node's block are encapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncapMode {
    /// Plain routes only.
    #[default]
    Never,
    /// To every node.
    Always,
    /// Only to nodes on another subnet.
    CrossSubnet,
}
