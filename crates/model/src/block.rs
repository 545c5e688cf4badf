//! IPAM blocks: the unit in which nodes own addresses and routes are made.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, NodeName};

/// The range of a block, its identity in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockCidr(pub IpNet);

impl BlockCidr {
    /// How many addresses it has, all of which pods can have: they are host routes, so that the first and the last are as good as any
    /// other.
    #[must_use]
    pub fn size(self) -> usize {
        1_usize.checked_shl(u32::from(self.0.max_prefix_len() - self.0.prefix_len())).unwrap_or(usize::MAX)
    }

    /// The address at a place in it, from 0; none beyond its end.
    #[must_use]
    pub fn nth(self, offset: usize) -> Option<IpAddr> {
        let addr = match self.0.network() {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).checked_add(u32::try_from(offset).ok()?)?).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).checked_add(u128::try_from(offset).ok()?)?).into(),
        };
        self.0.contains(&addr).then_some(addr)
    }

    /// An address's place in it, from 0; none for one that is not of it.
    #[must_use]
    pub fn offset_of(self, addr: IpAddr) -> Option<usize> {
        if !self.0.contains(&addr) {
            return None;
        }
        match (self.0.network(), addr) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => usize::try_from(u32::from(addr) - u32::from(first)).ok(),
            (IpAddr::V6(first), IpAddr::V6(addr)) => usize::try_from(u128::from(addr) - u128::from(first)).ok(),
            _ => None,
        }
    }

    /// Its family.
    #[must_use]
    pub const fn family(self) -> Family {
        Family::of_net(&self.0)
    }
}

impl fmt::Display for BlockCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block and the node that owns it (`IPAMBlock.spec.affinity`, `host:NAME`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `spec.cidr`.
    pub cidr: BlockCidr,
    /// The owner; none for a block that was given up and not yet deleted.
    pub owner: Option<NodeName>,
    /// How many addresses nobody holds, as last published.
    pub free: usize,
    /// Which ones somebody holds, as last published.
    pub held: Held,
    /// Addresses that the owner lent to other nodes.
    pub loans: Vec<Loan>,
    /// Other nodes wait for the owner's answer (annotation `ipam.podnet.io/requests`).
    pub is_asked: bool,
}

impl Block {
    /// A block of which nothing is lent or asked, all of whose addresses are free.
    #[must_use]
    pub fn new(cidr: BlockCidr, owner: Option<NodeName>) -> Self {
        Self { cidr, owner, free: cidr.size(), held: Held::default(), loans: Vec::new(), is_asked: false }
    }
}

/// Which addresses of a block somebody holds: a bit for each, by its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Box<[u64]>);

impl Held {
    /// Whether somebody holds the address at a place, from 0.
    #[must_use]
    pub fn has(&self, offset: usize) -> bool {
        self.0.get(offset / 64).is_some_and(|bits| bits >> (offset % 64) & 1 == 1)
    }
}

/// For each place, from 0, whether somebody holds the address.
impl FromIterator<bool> for Held {
    fn from_iter<I: IntoIterator<Item = bool>>(places: I) -> Self {
        let mut bits = Vec::new();
        for (offset, is_held) in places.into_iter().enumerate() {
            if offset.is_multiple_of(64) {
                bits.push(0);
            }
            if let Some(last) = bits.last_mut() {
                *last |= u64::from(is_held) << (offset % 64);
            }
        }
        Self(bits.into())
    }
}

/// One address of a block that a pod on another node than the block's owner has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loan {
    /// The address.
    pub addr: IpAddr,
    /// The node that the pod is on.
    pub node: NodeName,
    /// What the address is freed by.
    pub handle: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::Held;

    #[test]
    fn who_holds_what_is_known_of_each_place_and_of_none_beyond() {
        for size in [0, 1, 64, 65, 4096] {
            let is_held = |place: usize| place.is_multiple_of(3) && place < size;
            let held: Held = (0..size).map(is_held).collect();
            assert!((0..size + 130).all(|place| held.has(place) == is_held(place)), "{size} places");
        }
    }
}
