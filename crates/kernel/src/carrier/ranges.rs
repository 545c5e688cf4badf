//! Who has which addresses.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

/// Shortest header of an IPv4 packet (RFC 791).
const HEADER: usize = 20;

/// Ranges by the node that has them, the longest prefix first: there are few lengths, and a look for each.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    by_length: BTreeMap<Reverse<u8>, HashMap<Ipv4Addr, Ipv4Addr>>,
}

impl Ranges {
    pub(super) fn new(ranges: &BTreeMap<Ipv4Net, Ipv4Addr>) -> Self {
        let mut by_length: BTreeMap<_, HashMap<_, _>> = BTreeMap::new();
        for (range, node) in ranges {
            by_length.entry(Reverse(range.prefix_len())).or_default().insert(range.network(), *node);
        }
        Self { by_length }
    }

    /// The node that a packet goes to.
    pub(super) fn destination(&self, packet: &[u8]) -> Option<Ipv4Addr> {
        self.node(address(packet, 16)?)
    }

    /// Whether a packet may come from a node: it has the packet's source, or is it.
    pub(super) fn may_send(&self, packet: &[u8], node: Ipv4Addr) -> bool {
        address(packet, 12).is_some_and(|source| {
            let holder = self.node(source);
            holder == Some(node) || (source == node && holder.is_none() && self.knows(node))
        })
    }

    fn node(&self, addr: Ipv4Addr) -> Option<Ipv4Addr> {
        self.by_length.iter().find_map(|(Reverse(length), nodes)| {
            let range = Ipv4Net::new(addr, *length).ok()?;
            nodes.get(&range.network()).copied()
        })
    }

    fn knows(&self, node: Ipv4Addr) -> bool {
        self.by_length.values().any(|nodes| nodes.values().any(|known| *known == node))
    }
}

/// The address at that place of an IPv4 header.
fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let is_ipv4 = packet.len() >= HEADER && packet[0] >> 4 == 4;
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    is_ipv4.then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet
    }

    #[test]
    fn the_longest_range_around_an_address_says_whose_it_is() {
        let text = [("10.1.0.0/16", [192, 0, 2, 1]), ("10.1.2.0/24", [192, 0, 2, 2]), ("10.1.2.7/32", [192, 0, 2, 3])];
        let ranges = text.map(|(range, node)| (range.parse().unwrap(), Ipv4Addr::from(node)));
        let ranges = Ranges::new(&ranges.into_iter().collect());
        let node = |destination| ranges.destination(&packet([10, 9, 9, 9], destination)).map(|node| node.octets()[3]);
        assert_eq!([node([10, 1, 9, 9]), node([10, 1, 2, 9]), node([10, 1, 2, 7])], [Some(1), Some(2), Some(3)]);
        assert_eq!(node([10, 2, 0, 1]), None);
        let from = |source, node: u8| ranges.may_send(&packet(source, [10, 9, 9, 9]), [192, 0, 2, node].into());
        assert!(from([10, 1, 2, 9], 2) && !from([10, 1, 2, 9], 1), "only from whoever has it");
        assert!(from([192, 0, 2, 2], 2) && !from([192, 0, 2, 2], 1), "the node itself");
        assert!(!from([192, 0, 2, 9], 9), "a stranger");
    }

    #[test]
    fn what_is_no_packet_goes_nowhere() {
        let ranges = Ranges::new(&[("0.0.0.0/0".parse().unwrap(), [192, 0, 2, 1].into())].into());
        let mut other = packet([10, 0, 0, 1], [10, 0, 0, 2]);
        other[0] = 0x65;
        for wrong in [&[][..], &[0x45; 19], &other] {
            assert_eq!(ranges.destination(wrong), None);
            assert!(!ranges.may_send(wrong, [192, 0, 2, 1].into()));
        }
    }
}
