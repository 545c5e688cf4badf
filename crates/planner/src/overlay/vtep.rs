//! The Ethernet address of a node's VXLAN device.

use std::net::Ipv6Addr;

use podnet_model::{Mac, NodeName};

/// The VTEP MAC of a node: a function of its name, so that peers know it without being told and a restart cannot change it.
///
/// It is FNV-1a (64 bits) of the name, finished with the mixer of SplitMix64 (FNV's high bits know little of the last
/// characters, in which node names differ), of which the first 48 bits are taken, with the first byte marked as locally
/// administered and unicast (IEEE 802, bits 1 and 0): 46 bits of hash. Among 5,000 nodes two share one with a probability of
/// about 2 in 10 million. The function is part of the protocol between nodes: it must never change.
#[must_use]
pub fn vtep_mac(node: &NodeName) -> Mac {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = node.as_str().bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [a, b, c, d, e, f, ..] = (hash ^ (hash >> 31)).to_be_bytes();
    Mac([(a & 0xfc) | 0x02, b, c, d, e, f])
}

/// The next hop inside VXLAN to the device with this MAC, where the underlay's addresses cannot be it: the link-local address that
/// belongs to the MAC (RFC 4291, appendix A). The device need not have it: a permanent neighbour says where it is.
#[must_use]
pub fn vtep_next_hop(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The MAC that such a next hop is made of.
pub(super) fn vtep_of(next_hop: Ipv6Addr) -> Option<Mac> {
    let [.., a, b, c, _, _, d, e, f] = next_hop.octets();
    let mac = Mac([a ^ 2, b, c, d, e, f]);
    (vtep_next_hop(mac) == next_hop).then_some(mac)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_vtep_mac_is_local_unicast_and_differs_between_nodes() {
        let macs: BTreeSet<_> = (0..5000).map(|number| vtep_mac(&format!("node{number}").into())).collect();
        assert_eq!(macs.len(), 5000);
        assert!(macs.iter().all(|mac| mac.0[0] & 0b11 == 0b10));
    }

    #[test]
    fn the_next_hop_inside_tells_the_mac_that_it_is_of() {
        let mac = vtep_mac(&"node1".into());
        let next_hop = vtep_next_hop(mac);
        assert_eq!(next_hop.to_string(), "fe80::801d:1fff:fe0d:a406");
        assert_eq!(vtep_of(next_hop), Some(mac));
        assert_eq!(["fe80::1", "fd00::801d:1fff:fe0d:a406"].map(|addr| vtep_of(addr.parse().unwrap())), [None; 2]);
    }

    #[test]
    fn the_vtep_mac_of_a_name_never_changes() {
        assert_eq!(vtep_mac(&"node1".into()).to_string(), "82:1d:1f:0d:a4:06");
    }
}
