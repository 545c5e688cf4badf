//! Which object something on the way comes from.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{NodeName, PodKey, ServiceKey, crd::block_name, service::ServiceKind};

use super::{Cluster, Object};

impl Cluster {
    /// The block that a route to this range is for: its object, or, where nodes' parts are flannel's, the node's.
    pub(super) fn object_of_range(&self, range: IpNet) -> Option<Object> {
        let block = self.blocks.values().find(|block| block.cidr.0 == range).or_else(|| self.block_of(range.addr()));
        if let Some(block) = block {
            return Some(Object::global("ipamblock", block_name(block.cidr)));
        }
        let owner = self.nodes().values().find(|node| node.pod_cidrs.contains(&range))?;
        Some(node(&owner.name))
    }

    /// The pool that says what becomes of packets from an address.
    pub(super) fn object_of_pool(&self, addr: IpAddr) -> Option<Object> {
        self.pool_of(addr).map(|pool| Object::global("ippool", &pool.name))
    }

    /// The Service that has this ClusterIP, whichever port of it is asked.
    pub(super) fn object_of_cluster_ip(&self, addr: IpAddr) -> Option<Object> {
        let has = |kind: &ServiceKind| match kind {
            ServiceKind::Virtual { cluster_ips } => cluster_ips.iter().any(|own| own.0 == addr),
            ServiceKind::Headless | ServiceKind::External { .. } => false,
        };
        self.services().values().find(|one| has(&one.kind)).map(|one| service(&one.key))
    }
}

/// A pod.
pub(super) fn pod(key: &PodKey) -> Object {
    Object::namespaced("pod", &key.namespace, &key.name)
}

/// A node.
pub(super) fn node(name: &NodeName) -> Object {
    Object::global("node", name)
}

/// A Service.
pub(super) fn service(key: &ServiceKey) -> Object {
    Object::namespaced("service", &key.namespace, &key.name)
}
