//! One family's range of Services' addresses and what of it is taken.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// What is taken of a service network. However large the network, only what is taken is kept and looked at.
#[derive(Debug)]
pub(super) struct AddressRange {
    cidr: IpNet,
    taken: BTreeSet<IpAddr>,
    /// Offset in the network of the address given last.
    last: u128,
}

impl AddressRange {
    pub(super) fn new(cidr: IpNet) -> Self {
        let last = band(usable(&cidr));
        Self { cidr, taken: BTreeSet::new(), last }
    }

    /// The service network.
    pub(super) fn cidr(&self) -> &IpNet {
        &self.cidr
    }

    /// Whether Services can have this address: in the network, not its first and not its last one.
    pub(super) fn is_usable(&self, address: IpAddr) -> bool {
        offset(&self.cidr, address).is_some_and(|offset| (1..=usable(&self.cidr)).contains(&offset))
    }

    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.taken.contains(&address)
    }

    /// The next free address after the one given last; the band at the beginning comes last.
    pub(super) fn next(&self) -> Option<IpAddr> {
        let size = usable(&self.cidr);
        let band = band(size);
        // At most one more candidate than addresses are taken has to be looked at.
        let after = (self.last.max(band) + 1)..=size;
        let before = (band + 1)..=self.last.max(band);
        let reserved = 1..=band;
        after
            .chain(before)
            .chain(reserved)
            .filter_map(|offset| at(&self.cidr, offset))
            .find(|address| !self.taken.contains(address))
    }

    /// Takes an address; one of another network changes nothing. Answers whether it was free.
    pub(super) fn take(&mut self, address: IpAddr) -> bool {
        let Some(offset) = offset(&self.cidr, address) else { return false };
        let size = usable(&self.cidr);
        let was_free = self.taken.insert(address);
        if was_free && offset > band(size) && offset <= size {
            self.last = offset;
        }
        was_free
    }

    /// As [`Self::take`], for what was given before the server started: the order is continued after the highest.
    pub(super) fn restore(&mut self, address: IpAddr) {
        let last = self.last;
        self.take(address);
        self.last = self.last.max(last);
    }

    pub(super) fn give_back(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

/// How many addresses Services can have: all but the network's own and the broadcast address.
fn usable(cidr: &IpNet) -> u128 {
    let bits = cidr.max_prefix_len() - cidr.prefix_len();
    1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX).saturating_sub(2)
}

/// How many addresses at the beginning are kept for Services that ask for one: a sixteenth, at least 16 and at most 256; none
/// of a network so small that this would be all of it.
fn band(usable: u128) -> u128 {
    let band = (usable / 16).clamp(16, 256);
    if band < usable { band } else { 0 }
}

fn offset(cidr: &IpNet, address: IpAddr) -> Option<u128> {
    match (cidr.network(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if cidr.contains(&IpAddr::V4(address)) => {
            Some(u128::from(u32::from(address) - u32::from(network)))
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if cidr.contains(&IpAddr::V6(address)) => {
            Some(u128::from(address) - u128::from(network))
        }
        _ => None,
    }
}

fn at(cidr: &IpNet, offset: u128) -> Option<IpAddr> {
    match cidr.network() {
        IpAddr::V4(network) => Some(IpAddr::V4(u32::from(network).checked_add(u32::try_from(offset).ok()?)?.into())),
        IpAddr::V6(network) => Some(IpAddr::V6(u128::from(network).checked_add(offset)?.into())),
    }
}
