//! A pod as the network sees it.

use std::{net::IpAddr, sync::Arc};

use crate::{
    Dual, Family, NodeName, PodAddr, PodKey,
    labels::Labels,
    limits::{InvalidLimit, PodLimits},
};

/// A pod of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// `metadata.uid`: tells a pod from an earlier one of the same name.
    pub uid: Arc<str>,
    /// Of the API's image of a static pod: the uid that the kubelet, which alone knows that pod, calls it by.
    pub static_uid: Option<Arc<str>>,
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
    /// Its resolver has the cluster's search path, and behind that these names beside its node's (`spec.dnsPolicy`, `spec.dnsConfig`);
    /// none where it has another path, or searches in a manner of its own.
    pub searches: Option<Box<[Arc<str>]>>,
    /// With fewer dots its resolver completes a name before it asks for it as it stands (`ndots` of `spec.dnsConfig.options`), 0 to 15, which is
    /// the most that resolvers know (`resolv.conf(5)`); none where it does as every pod.
    pub ndots: Option<u8>,
    /// What its annotations ask of IPAM. A wrong annotation does not hide the pod: its ADD fails with this error.
    pub request: Result<AddressRequest, InvalidRequest>,
    /// How its annotations limit its traffic. Wrong ones do not hide the pod either.
    pub limits: Result<PodLimits, InvalidLimit>,
}

/// What a pod's annotations ask of IPAM (`cni.projectcalico.org/*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRequest {
    /// `ipAddrs`: exactly these addresses.
    pub addrs: Vec<IpAddr>,
    /// `ipAddrsNoIpam`: exactly these addresses, of no pool: somebody else keeps them apart.
    pub addrs_no_ipam: Vec<IpAddr>,
    /// `ipv4pools` and `ipv6pools`: pools by name or CIDR, in order of preference.
    pub pools: Dual<Vec<Arc<str>>>,
    /// `ipam.podnet.io/sticky`: the addresses that the pod of this name had before, for as long as this StatefulSet is there.
    pub sticky: Option<StickyOwner>,
}

/// The StatefulSet that a pod is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyOwner {
    /// Its name.
    pub name: Arc<str>,
    /// Its `metadata.uid`.
    pub uid: Arc<str>,
}

/// Why a pod's annotations cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// More than one address of a family is asked for.
    #[error("there cannot be more than one {family} address in the annotation {annotation}")]
    TooMany {
        /// The annotation.
        annotation: &'static str,
        /// The family.
        family: Family,
    },
    /// Two annotations that say the opposite.
    #[error("the annotations {first} and {second} cannot both be set")]
    Both {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// The pod's name is not that of an earlier one.
    #[error("the annotation {annotation} is for pods of a StatefulSet, whose names come back")]
    NotSticky {
        /// The annotation.
        annotation: &'static str,
    },
    /// It is neither true nor false.
    #[error("the annotation {annotation} is {value:?}; it must be \"true\" or \"false\"")]
    Boolean {
        /// The annotation.
        annotation: &'static str,
        /// Its value.
        value: String,
    },
    /// It is no JSON list of strings.
    #[error("the annotation {annotation} is {value:?}; it must be a JSON list of strings: {reason}")]
    List {
        /// The annotation.
        annotation: &'static str,
        /// Its value.
        value: String,
        /// What the JSON decoder said.
        reason: String,
    },
    /// An entry is no address.
    #[error("the annotation {annotation} lists {value:?}, which is no IP address")]
    Address {
        /// The annotation.
        annotation: &'static str,
        /// The entry.
        value: String,
    },
    /// An entry is neither a pool's name nor a range of the family.
    #[error("the annotation {annotation} lists {value:?}, which is neither the name of a pool nor an {family} range")]
    Pool {
        /// The annotation.
        annotation: &'static str,
        /// The family that the annotation is about.
        family: Family,
        /// The entry.
        value: String,
    },
}
