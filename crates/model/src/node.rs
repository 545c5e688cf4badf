//! A node as its peers see it.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{NodeAddr, NodeName, flannel::Lease, labels::Labels, wireguard::PublicKey};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.labels`, which pools' node selectors match.
    pub labels: Labels,
    /// Where its peers send packets for its pods: the address that the node published (`projectcalico.org/IPv4Address`), or else
    /// its first `InternalIP`.
    pub addr: NodeAddr,
    /// The first `InternalIP` of `status.addresses`: where Kubernetes knows it.
    pub internal: Option<NodeAddr>,
    /// The node's address with its prefix length, where the node published it (`projectcalico.org/IPv4Address`).
    pub subnet: Option<IpNet>,
    /// Its lease has expired: its condition `Ready` is `Unknown`, which the node lifecycle controller says of a node that it does not
    /// hear from.
    pub lost: bool,
    /// `spec.podCIDRs`: the node's part of the pods' range, where the cluster gives such.
    pub pod_cidrs: Vec<IpNet>,
    /// The key that packets to it are encrypted with, where the node published one (`projectcalico.org/WireguardPublicKey`, or
    /// flannel's `backend-data`).
    pub wireguard_key: Option<PublicKey>,
    /// What it says of itself to flannel's nodes.
    pub lease: Option<Lease>,
    /// What is wrong with its annotations beyond its address: they count as absent, and the node as there.
    pub wrong: Option<Arc<str>>,
}

impl Node {
    /// A node that has said nothing but its address.
    #[must_use]
    pub fn new(name: NodeName, addr: NodeAddr) -> Self {
        Self {
            name,
            labels: Labels::default(),
            addr,
            internal: None,
            subnet: None,
            lost: false,
            pod_cidrs: Vec::new(),
            wireguard_key: None,
            lease: None,
            wrong: None,
        }
    }
}
