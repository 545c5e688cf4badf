//! flannel's mode: the node's pods have addresses of its `spec.podCIDR`.
//!
//! With flannel's configuration in the cluster, the part of its range that this node has is a pool, of a family before all other
//! pools: so nothing is claimed that could be another node's part, whether podnet or flannel runs there. A part of IPv4 is a single block;
//! a part of IPv6 is too large to be one, and the node takes blocks of it as of any pool. As flannel's bridge and devices have them, the
//! first two addresses, and of IPv4 the last, are given to no pod.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use podnet_model::{Family, Pool, PoolName};

use super::{NodeIpam, claims::is_block};

impl NodeIpam {
    /// Puts the parts of now in the place of those of before.
    pub(super) fn follow_flannel(&mut self) {
        for family in Family::ALL {
            if let Some(name) = self.parts[family].take() {
                self.pools.remove(&name);
                self.reserved.remove(&reservation(&name));
            }
            let Some(pool) = self.own_part(family) else { continue };
            let part = pool.cidr;
            let first = part.hosts().find(|addr| *addr != part.network()).unwrap_or(part.network());
            let last = Some(part.broadcast()).filter(|_| family == Family::V4);
            let ends: Vec<IpAddr> = [part.network(), first].into_iter().chain(last).collect();
            self.reserved.insert(reservation(&pool.name), ends.into_iter().map(IpNet::from).collect());
            self.parts[family] = Some(pool.name.clone());
            self.pools.insert(pool.name.clone(), pool);
        }
    }

    fn own_part(&self, family: Family) -> Option<Pool> {
        let (namespace, conf) = self.net_confs.first_key_value()?;
        let of_network = conf.pool(namespace, family)?;
        let part = self.pod_cidrs.iter().find(|part| of_network.cidr.contains(*part) && has_room(part))?;
        let block_size = match part {
            IpNet::V4(part) => part.prefix_len(),
            IpNet::V6(part) => part.prefix_len().max(of_network.block_size),
        };
        Some(Pool { cidr: *part, block_size, ..of_network })
    }

    /// The range that is this node's and that an address is of, and the address that the node has in it: the first of its part of
    /// flannel's range; in a block of another pool it has none.
    #[must_use]
    pub fn own_range_of(&self, addr: IpAddr) -> Option<(IpNet, Option<IpAddr>)> {
        let part = self.parts[Family::of(&addr)].as_ref().and_then(|name| self.pools.get(name)).map(|pool| pool.cidr);
        if let Some(part) = part.filter(|part| part.contains(&addr)) {
            return Some((part, part.hosts().find(|addr| *addr != part.network())));
        }
        self.blocks().find(|block| block.0.contains(&addr)).map(|block| (block.0, None))
    }

    /// Whether a pool is this node's part of flannel's range.
    pub(super) fn is_part(&self, pool: &Pool) -> bool {
        self.parts[Family::of_net(&pool.cidr)].as_ref() == Some(&pool.name)
    }
}

/// Whether a part can be kept account of, and has addresses for pods.
fn has_room(part: &IpNet) -> bool {
    match part {
        IpNet::V4(part) => is_block(&(*part).into()) && part.prefix_len() <= 29,
        IpNet::V6(part) => part.prefix_len() <= 125,
    }
}

/// No IPReservation can have that name.
fn reservation(pool: &PoolName) -> Arc<str> {
    format!("{pool}/ends").into()
}
