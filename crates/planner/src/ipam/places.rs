//! Where in a pool its blocks can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The places at which a pool's blocks can be.
pub(super) struct Places {
    range: IpNet,
    block_size: u8,
    /// How many there are.
    pub(super) total: u128,
}

impl Places {
    /// None where a block is larger than the pool, or the places cannot be counted.
    pub(super) fn of(range: IpNet, block_size: u8) -> Option<Self> {
        let total = 1_u128.checked_shl(u32::from(block_size.checked_sub(range.prefix_len())?))?;
        Some(Self { range, block_size, total })
    }

    /// The bits of an address behind the block's.
    fn shift(&self) -> u32 {
        u32::from(self.range.max_prefix_len().saturating_sub(self.block_size))
    }

    /// The block at a place; none behind the end.
    pub(super) fn block(&self, place: u128) -> Option<IpNet> {
        let offset = place.checked_shl(self.shift())?;
        let addr = match self.range.network() {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).checked_add(u32::try_from(offset).ok()?)?).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).checked_add(offset)?).into(),
        };
        IpNet::new(addr, self.block_size).ok()
    }

    /// The place of the block around an address of the pool, or behind it.
    pub(super) fn of_addr(&self, addr: IpAddr) -> Option<u128> {
        let offset = match (self.range.network(), addr) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => u32::from(addr).checked_sub(u32::from(first))?.into(),
            (IpAddr::V6(first), IpAddr::V6(addr)) => u128::from(addr).checked_sub(u128::from(first))?,
            _ => return None,
        };
        offset.checked_shr(self.shift())
    }
}
