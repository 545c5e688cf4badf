//! The ranges and what of them is taken.

use std::{collections::BTreeSet, ops::RangeInclusive};

use ipnet::IpNet;

use super::{
    addresses::AddressRange,
    holdings::{Family, Holdings, NodePort},
};

/// What is taken of the service networks and of the node ports.
#[derive(Debug)]
pub(super) struct Ranges {
    /// One for each family of the cluster, that which Services get without asking first.
    addresses: Vec<AddressRange>,
    node_ports: RangeInclusive<u16>,
    ports: BTreeSet<NodePort>,
    /// The port given last.
    last_port: u16,
}

impl Ranges {
    /// At most one network of each family; further ones are passed over.
    pub(super) fn new(networks: impl IntoIterator<Item = IpNet>, node_ports: RangeInclusive<u16>) -> Self {
        let last_port = node_ports.start().saturating_add(port_band(&node_ports)).saturating_sub(1);
        let mut addresses: Vec<AddressRange> = Vec::new();
        for network in networks {
            if addresses.iter().all(|known| Family::of_net(known.cidr()) != Family::of_net(&network)) {
                addresses.push(AddressRange::new(network));
            }
        }
        Self { addresses, node_ports, ports: BTreeSet::new(), last_port }
    }

    /// The families of the cluster, that which Services get without asking first.
    pub(super) fn families(&self) -> Vec<Family> {
        self.addresses.iter().map(|range| Family::of_net(range.cidr())).collect()
    }

    /// The addresses of a family.
    pub(super) fn of(&self, family: Family) -> Option<&AddressRange> {
        self.addresses.iter().find(|range| Family::of_net(range.cidr()) == family)
    }

    /// The node ports.
    pub(super) fn node_ports(&self) -> &RangeInclusive<u16> {
        &self.node_ports
    }

    pub(super) fn port_taken(&self, port: &NodePort) -> bool {
        self.ports.contains(port)
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

    /// Takes these; answers those of them that were free.
    pub(super) fn take(&mut self, holdings: &Holdings) -> Holdings {
        let mut taken = Holdings::default();
        for address in &holdings.addresses {
            if self.addresses.iter_mut().any(|range| range.take(*address)) {
                taken.addresses.insert(*address);
            }
        }
        for port in &holdings.ports {
            let first = self.node_ports.start().saturating_add(port_band(&self.node_ports));
            if self.ports.insert(*port) {
                taken.ports.insert(*port);
                if (first..=*self.node_ports.end()).contains(&port.number) {
                    self.last_port = port.number;
                }
            }
        }
        taken
    }

    /// As [`Self::take`], for what was given before the server started: the order is continued after the highest.
    pub(super) fn restore(&mut self, holdings: &Holdings) {
        for address in &holdings.addresses {
            self.addresses.iter_mut().for_each(|range| range.restore(*address));
        }
        let port = self.last_port;
        self.take(&Holdings { ports: holdings.ports.clone(), ..Holdings::default() });
        self.last_port = self.last_port.max(port);
    }

    /// Frees what `dropped` has and `kept` has not.
    pub(super) fn give_back(&mut self, dropped: &Holdings, kept: &Holdings) {
        for address in dropped.addresses.difference(&kept.addresses) {
            self.addresses.iter_mut().for_each(|range| range.give_back(*address));
        }
        for port in dropped.ports.difference(&kept.ports) {
            self.ports.remove(port);
        }
    }
}

/// How many ports at the beginning are kept for Services that ask for one: a thirty-second, at least 16 and at most 128; none of a
/// range so small that this would be all of it.
fn port_band(ports: &RangeInclusive<u16>) -> u16 {
    let size = ports.end().saturating_sub(*ports.start()).saturating_add(1);
    let band = (size / 32).clamp(16, 128);
    if band < size { band } else { 0 }
}
