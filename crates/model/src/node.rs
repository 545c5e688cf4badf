//! A node as its peers see it.

use ipnet::IpNet;

use crate::{NodeAddr, NodeName, labels::Labels};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.labels`, which pools' node selectors match.
    pub labels: Labels,
    /// The first `InternalIP` of `status.addresses`; its peers send encapsulated packets there.
    pub addr: NodeAddr,
    /// The node's address with its prefix length, where the node published it (`projectcalico.org/IPv4Address`).
    pub subnet: Option<IpNet>,
    /// Its lease has expired: its condition `Ready` is `Unknown`, which the node lifecycle controller says of a node that it does not
    /// hear from.
    pub lost: bool,
}
