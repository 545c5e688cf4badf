//! A node as its peers see it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{Dual, NodeAddr, NodeName, flannel::Lease, labels::Labels, wireguard::PublicKey};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.labels`, which pools' node selectors match.
    pub labels: Labels,
    /// Where its peers send packets for its pods: the address that the node published (`projectcalico.org/IPv4Address`), or, of a
    /// node that published none of either family, its first `InternalIP` of IPv4. That of a node without IPv4 is of IPv6.
    pub addr: NodeAddr,
    /// The same by IPv6 (`projectcalico.org/IPv6Address`, or the first `InternalIP` of IPv6), where it has one.
    pub addr6: Option<NodeAddr>,
    /// The first `InternalIP` of `status.addresses`, one of IPv4 before others: where Kubernetes knows it.
    pub internal: Option<NodeAddr>,
    /// The first `InternalIP` of IPv6.
    pub internal6: Option<NodeAddr>,
    /// Every `InternalIP` and `ExternalIP` of `status.addresses`, in order: it may have more network interfaces than peers use.
    pub addresses: Vec<IpAddr>,
    /// The node's address with its prefix length, where the node published it (`projectcalico.org/IPv4Address`).
    pub subnet: Option<IpNet>,
    /// The same by IPv6 (`projectcalico.org/IPv6Address`).
    pub subnet6: Option<IpNet>,
    /// Its lease has expired: its condition `Ready` is `Unknown`, which the node lifecycle controller says of a node that it does not
    /// hear from.
    pub lost: bool,
    /// It is being deleted, or about to be (taint `ToBeDeletedByClusterAutoscaler`): load balancers shall use others.
    pub leaving: bool,
    /// `spec.podCIDRs`: the node's part of the pods' range, where the cluster gives such.
    pub pod_cidrs: Vec<IpNet>,
    /// The key that packets to it are encrypted with, where the node published one (`projectcalico.org/WireguardPublicKey`, or
    /// flannel's `backend-data`).
    pub wireguard_key: Option<PublicKey>,
    /// What it says of itself to flannel's nodes.
    pub lease: Option<Lease>,
    /// What it shall say there instead of its own addresses (`public-ip-overwrite`, `public-ipv6-overwrite`).
    pub overwrites: Dual<Option<IpAddr>>,
    /// Where its agent's records of flows go whether somebody follows or not, as marks with commas between them, where it says so
    /// (`flows.podnet.io/recorded-to`).
    pub recorded_to: Option<Arc<str>>,
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
            addr6: Some(addr).filter(|addr| addr.0.is_ipv6()),
            internal: None,
            internal6: None,
            addresses: Vec::new(),
            subnet: None,
            subnet6: None,
            lost: false,
            leaving: false,
            pod_cidrs: Vec::new(),
            wireguard_key: None,
            lease: None,
            overwrites: Dual::default(),
            recorded_to: None,
            wrong: None,
        }
    }

    /// Its addresses of both families: where peers send, and where Kubernetes knows it. Those are often the same, and told twice then.
    pub fn own_addrs(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(self.addr), self.addr6, self.internal, self.internal6].into_iter().flatten().map(|addr| addr.0)
    }

    /// Its first `InternalIP` of each family.
    #[must_use]
    pub fn internals(&self) -> Dual<Option<IpAddr>> {
        let v4 = self.internal.map(|internal| internal.0).filter(IpAddr::is_ipv4);
        Dual { v4, v6: self.internal6.map(|internal| internal.0) }
    }

    /// Its address on the underlay by IPv4.
    #[must_use]
    pub const fn v4(&self) -> Option<Ipv4Addr> {
        match self.addr.0 {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }

    /// Its address on the underlay by IPv6.
    #[must_use]
    pub const fn v6(&self) -> Option<Ipv6Addr> {
        match self.addr6 {
            Some(NodeAddr(IpAddr::V6(addr))) => Some(addr),
            _ => None,
        }
    }
}
