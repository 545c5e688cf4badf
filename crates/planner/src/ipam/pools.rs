//! Which families a pod gets addresses of, and which pools it draws from.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{Family, Pool};

use super::{AllocationRequest, IpamError, NodeIpam, PoolSource, Wish, wanted};
use crate::overlay::IPV6_LEAST_MTU;

impl NodeIpam {
    /// How many bytes IPv6 packets have room for on this node, in pods' interfaces and between nodes. Where that is less than IPv6 needs
    /// ([`IPV6_LEAST_MTU`]), pods get IPv6 addresses only where somebody asks for one, and then fail for it: with an address by which it
    /// reaches nobody a pod would be worse off than without.
    pub fn set_room_for_ipv6(&mut self, mtu: u32) {
        self.room_for_ipv6 = mtu;
    }

    const fn has_room_for_ipv6(&self) -> bool {
        self.room_for_ipv6 >= IPV6_LEAST_MTU
    }

    /// Whether the wish has an error that no block or loan can mend, for each family before an address of any is given.
    ///
    /// # Errors
    ///
    /// Why a pool that it names, or any, gives no address.
    pub fn foresee(&self, request: &AllocationRequest<'_>, family: Family) -> Result<(), IpamError> {
        let wish = request.wish;
        if self.ledger.address_of(&request.handle, family).is_some() {
            return Ok(());
        }
        if family == Family::V6 && !self.has_room_for_ipv6() {
            let pools: Vec<_> = self.pools_of(family).map(|pool| pool.name.as_str()).collect();
            let pools = if pools.is_empty() { "none".to_owned() } else { pools.join(", ") };
            return Err(IpamError::SmallMtu { node: self.node.clone(), mtu: self.room_for_ipv6, pools });
        }
        let is_exact = [&wish.addrs_no_ipam, &wish.addrs].iter().any(|addrs| wanted(addrs, family).is_some());
        let is_kept = wish.sticky.is_some() && self.sticky.of(&request.pod, family).is_some();
        if is_exact || is_kept {
            return Ok(());
        }
        self.pools_for(wish, family).map(drop)
    }

    /// The pools of a family for a wish, in order of preference: those it names, otherwise all that serve this node and select the pod's
    /// namespace, by name.
    pub(super) fn pools_for(&self, wish: &Wish, family: Family) -> Result<Vec<Pool>, IpamError> {
        if let Some(list) = &wish.pools[family] {
            return list.names.iter().map(|name| self.named_pool(name, &list.source, family)).collect();
        }
        let pools: Vec<Pool> = self.serving_pools(wish, family).cloned().collect();
        if pools.is_empty() {
            let reason = |pool: &Pool| match pool.disabled {
                true => format!("{} is disabled", pool.name),
                _ if pool.manual => format!("{} is for pods that name it", pool.name),
                _ if self.serves(pool) => format!("{} selects namespaces {}", pool.name, pool.namespace_selector),
                _ => format!("{} selects nodes {}", pool.name, pool.node_selector),
            };
            let reasons: Vec<_> = self.pools_of(family).map(reason).collect();
            let reasons = if reasons.is_empty() { "there is none".to_owned() } else { reasons.join(", ") };
            return Err(IpamError::NoPool { family, node: self.node.clone(), reasons });
        }
        Ok(pools)
    }

    /// The pools of a family that pods of this wish's namespace draw from on this node without naming them.
    fn serving_pools(&self, wish: &Wish, family: Family) -> impl Iterator<Item = &Pool> {
        let part = self.pools_of(family).find(|pool| self.is_part(pool));
        let selects = |pool: &&Pool| self.serves(pool) && pool.namespace_selector.matches(&wish.namespace_labels);
        self.pools_of(family).filter(selects).filter(move |pool| part.is_none_or(|part| part.name == pool.name))
    }

    fn pools_of(&self, family: Family) -> impl Iterator<Item = &Pool> {
        self.pools.values().filter(move |pool| Family::of_net(&pool.cidr) == family)
    }

    /// A pool that a pod asks for by name or range. It need not select this node: who names a pool overrides the selection.
    fn named_pool(&self, name: &str, source: &PoolSource, family: Family) -> Result<Pool, IpamError> {
        let by_cidr = || self.pools.values().find(|pool| name.parse() == Ok(pool.cidr));
        let pool = self.pools.get(&name.into()).or_else(by_cidr);
        let pool = pool.ok_or_else(|| IpamError::UnknownPool {
            name: name.to_owned(),
            from: source.clone(),
            pools: self.describe_pools(),
        })?;
        if Family::of_net(&pool.cidr) != family {
            let (cidr, from) = (pool.cidr, source.clone());
            return Err(IpamError::WrongFamily { family, pool: pool.name.clone(), cidr, from });
        }
        if pool.disabled {
            return Err(IpamError::DisabledPool { pool: pool.name.clone() });
        }
        Ok(pool.clone())
    }

    /// Of which families a pod gets an address. Addresses that are asked for are all that it gets. Otherwise it gets one of IPv4, unless
    /// that is turned off or there are IPv6 pools only; and one of IPv6 where somebody asks for it, or a pool serves it and
    /// the node has IPv6, and room for its packets.
    #[must_use]
    pub fn families(&self, wish: &Wish) -> Vec<Family> {
        let asked: Vec<IpAddr> = wish.addrs.iter().chain(&wish.addrs_no_ipam).copied().collect();
        let wants = |family: Family| {
            if !asked.is_empty() {
                return asked.iter().any(|addr| Family::of(addr) == family);
            }
            if wish.pools[family].is_some() {
                return true;
            }
            wish.assign[family].unwrap_or_else(|| match family {
                Family::V4 => !self.is_of_ipv6_alone(wish),
                // Where there is nothing else to have, the error says what is wrong with it.
                Family::V6 if !self.has_room_for_ipv6() => self.config.ipv6 && self.is_of_ipv6_alone(wish),
                Family::V6 => self.config.ipv6 && self.serving_pools(wish, family).next().is_some(),
            })
        };
        Family::ALL.into_iter().filter(|family| wants(*family)).collect()
    }

    /// Nobody made an IPv4 pool, and there are IPv6 addresses to be had.
    fn is_of_ipv6_alone(&self, wish: &Wish) -> bool {
        self.pools_of(Family::V4).next().is_none() && self.serving_pools(wish, Family::V6).next().is_some()
    }

    /// Whether pods of this node get addresses of the pool without naming it.
    pub(super) fn serves(&self, pool: &Pool) -> bool {
        !pool.disabled && !pool.manual && pool.node_selector.matches(&self.labels)
    }

    /// The smallest pool around a range; of equal ones the first by name.
    pub(super) fn pool_around(&self, range: IpNet) -> Option<&Pool> {
        let around = self.pools.values().filter(|pool| pool.cidr.contains(&range));
        around.min_by_key(|pool| (u8::MAX - pool.cidr.prefix_len(), &pool.name))
    }

    pub(super) fn describe_pools(&self) -> String {
        let pools: Vec<_> = self.pools.values().map(|pool| format!("{} ({})", pool.name, pool.cidr)).collect();
        if pools.is_empty() { "none".to_owned() } else { pools.join(", ") }
    }
}
