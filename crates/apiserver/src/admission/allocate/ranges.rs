//! The two ranges and what of them is taken.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use super::request::{Holdings, NodePort};

/// What is taken of the service network and of the node ports.
#[derive(Debug)]
pub(super) struct Ranges {
    cidr: IpNet,
    addresses: BTreeSet<IpAddr>,
    /// Offset in the network of the address given last.
    last_address: u128,
    node_ports: RangeInclusive<u16>,
    ports: BTreeSet<NodePort>,
    /// The port given last.
    last_port: u16,
}

impl Ranges {
    pub(super) fn new(cidr: IpNet, node_ports: RangeInclusive<u16>) -> Self {
        let last_port = node_ports.start().saturating_add(port_band(&node_ports)).saturating_sub(1);
        let last_address = address_band(usable(&cidr));
        Self { cidr, addresses: BTreeSet::new(), last_address, node_ports, ports: BTreeSet::new(), last_port }
    }

    /// The service network.
    pub(super) fn cidr(&self) -> &IpNet {
        &self.cidr
    }

    /// The node ports.
    pub(super) fn node_ports(&self) -> &RangeInclusive<u16> {
        &self.node_ports
    }

    /// Whether Services can have this address: in the network, not its first and not its last one.
    pub(super) fn is_usable(&self, address: IpAddr) -> bool {
        offset(&self.cidr, address).is_some_and(|offset| (1..=usable(&self.cidr)).contains(&offset))
    }

    pub(super) fn address_taken(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub(super) fn port_taken(&self, port: &NodePort) -> bool {
        self.ports.contains(port)
    }

    /// The next free address after the one given last; the band at the beginning comes last.
    pub(super) fn next_address(&self) -> Option<IpAddr> {
        let size = usable(&self.cidr);
        let band = address_band(size);
        // At most one more candidate than addresses are taken has to be looked at, however large the network.
        let after = (self.last_address.max(band) + 1)..=size;
        let before = (band + 1)..=self.last_address.max(band);
        let reserved = 1..=band;
        after
            .chain(before)
            .chain(reserved)
            .filter_map(|offset| at(&self.cidr, offset))
            .find(|a| !self.addresses.contains(a))
    }

    /// The next port that is free for all these protocols, after the one given last; the band at the beginning comes last.
    pub(super) fn next_port(&self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let (start, end) = (*self.node_ports.start(), *self.node_ports.end());
        let first = start.saturating_add(port_band(&self.node_ports));
        let last = self.last_port.max(first.saturating_sub(1));
        let after = last.saturating_add(1).max(first)..=end;
        let before = first..=last.min(end);
        let reserved = start..=first.saturating_sub(1);
        after.chain(before).chain(reserved).find(|port| is_free(*port))
    }

    pub(super) fn take(&mut self, holdings: &Holdings) {
        for address in &holdings.addresses {
            let Some(offset) = offset(&self.cidr, *address) else { continue };
            if self.addresses.insert(*address)
                && offset > address_band(usable(&self.cidr))
                && offset <= usable(&self.cidr)
            {
                self.last_address = offset;
            }
        }
        for port in &holdings.ports {
            let first = self.node_ports.start().saturating_add(port_band(&self.node_ports));
            if self.ports.insert(*port) && (first..=*self.node_ports.end()).contains(&port.number) {
                self.last_port = port.number;
            }
        }
    }

    /// As [`Self::take`], for what was given before the server started: the order is continued after the highest.
    pub(super) fn restore(&mut self, holdings: &Holdings) {
        let (address, port) = (self.last_address, self.last_port);
        self.take(holdings);
        self.last_address = self.last_address.max(address);
        self.last_port = self.last_port.max(port);
    }

    pub(super) fn give_back(&mut self, holdings: &Holdings) {
        for address in &holdings.addresses {
            self.addresses.remove(address);
        }
        for port in &holdings.ports {
            self.ports.remove(port);
        }
    }
}

/// How many addresses Services can have: all but the network's own and the broadcast address.
fn usable(cidr: &IpNet) -> u128 {
    let bits = cidr.max_prefix_len() - cidr.prefix_len();
    1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX).saturating_sub(2)
}

/// How many addresses at the beginning are kept for Services that ask for one: a sixteenth, at least 16 and at most 256; none
/// of a network so small that this would be all of it.
fn address_band(usable: u128) -> u128 {
    let band = (usable / 16).clamp(16, 256);
    if band < usable { band } else { 0 }
}

/// The same for ports: a thirty-second, at least 16 and at most 128.
fn port_band(ports: &RangeInclusive<u16>) -> u16 {
    let size = ports.end().saturating_sub(*ports.start()).saturating_add(1);
    let band = (size / 32).clamp(16, 128);
    if band < size { band } else { 0 }
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
