//! A pod as the network sees it.

use std::{net::IpAddr, sync::Arc};

use crate::{NodeName, PodAddr, PodKey, labels::Labels};

/// A pod of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// `metadata.uid`: tells a pod from an earlier one of the same name.
    pub uid: Arc<str>,
    /// The node that it was scheduled to.
    pub node: Option<NodeName>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// It shares its node's network namespace (`spec.hostNetwork`), so podnet gives it nothing.
    pub host_network: bool,
    /// `status.podIPs`, empty until the runtime reported them.
    pub addrs: Vec<PodAddr>,
    /// It has ended for good (`status.phase` is `Succeeded` or `Failed`).
    pub finished: bool,
    /// What its annotations ask of IPAM.
    pub request: AddressRequest,
}

/// What a pod's annotations ask of IPAM (`cni.projectcalico.org/*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRequest {
    /// `ipAddrs`: exactly these addresses.
    pub addrs: Vec<IpAddr>,
    /// `ipv4pools`: pools by name or CIDR, in order of preference.
    pub ipv4_pools: Vec<Arc<str>>,
}
