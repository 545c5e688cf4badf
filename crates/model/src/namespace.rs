//! A namespace as IPAM sees it.

use std::sync::Arc;

use crate::{Dual, Namespace, labels::Labels, pod::InvalidRequest};

/// What a Namespace object says about the addresses of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceScope {
    /// `metadata.name`.
    pub name: Namespace,
    /// `metadata.labels`, which pools' `namespaceSelector`s look at.
    pub labels: Labels,
    /// The annotations `cni.projectcalico.org/ipv4pools` and `ipv6pools`: pools by name or CIDR, in order of preference. A wrong
    /// annotation does not hide the namespace: its pods' ADDs fail with this error unless they say themselves what they want.
    pub pools: Dual<Result<Vec<Arc<str>>, InvalidRequest>>,
}
