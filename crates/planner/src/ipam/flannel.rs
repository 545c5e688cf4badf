//! flannel's mode: the node's pods have addresses of its `spec.podCIDR`.
//!
//! With flannel's configuration in the cluster, the part of its range that this node has is a pool of a single block, before all
//! other pools: so nothing is claimed that could be another node's part, whether podnet or flannel runs there. As flannel's bridge and
//! devices have them, the first two addresses and the last are given to no pod.

use std::{net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};
use podnet_model::{Pool, PoolName};

use super::{NodeIpam, claims::is_block};

/// A part that is smaller has no address for pods.
const SMALLEST_PART: u8 = 29;

impl NodeIpam {
    /// Puts the part of now in the place of that of before.
    pub(super) fn follow_flannel(&mut self) {
        if let Some(name) = self.part.take() {
            self.pools.remove(&name);
            self.reserved.remove(&reservation(&name));
        }
        let Some((pool, part)) = self.own_part() else { return };
        let ends = [part.network(), part.hosts().next().unwrap_or(part.network()), part.broadcast()];
        self.reserved.insert(reservation(&pool.name), ends.map(|end| IpNet::from(IpAddr::from(end))).to_vec());
        self.part = Some(pool.name.clone());
        self.pools.insert(pool.name.clone(), pool);
    }

    fn own_part(&self) -> Option<(Pool, Ipv4Net)> {
        let (namespace, conf) = self.net_confs.first_key_value()?;
        let fits = |part: &Ipv4Net| is_block(&(*part).into()) && part.prefix_len() <= SMALLEST_PART;
        let inside = |cidr: &IpNet| match cidr {
            IpNet::V4(part) => Some(*part).filter(|part| conf.network.contains(part) && fits(part)),
            IpNet::V6(_) => None,
        };
        let part = self.pod_cidrs.iter().find_map(inside)?;
        let of_network = conf.pool(namespace);
        Some((Pool { cidr: part.into(), block_size: part.prefix_len(), ..of_network }, part))
    }

    /// Whether a pool is this node's part of flannel's range.
    pub(super) fn is_part(&self, pool: &Pool) -> bool {
        self.part.as_ref() == Some(&pool.name)
    }
}

/// No IPReservation can have that name.
fn reservation(pool: &PoolName) -> Arc<str> {
    format!("{pool}/ends").into()
}
