//! IPv6.

use super::{WEB, rig};
use crate::{message::rtype, server::fixture::query};

#[test]
fn section_2_2_an_address_has_sixteen_octets_in_network_order() {
    let response = rig().answer(&query(WEB, rtype::AAAA));
    assert!(response.ends_with(&[0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]), "{response:02x?}");
}

#[test]
fn section_2_5_addresses_have_names_below_ip6_arpa() {
    let nibbles: String = "7000000000000000000000000000000".chars().flat_map(|nibble| [nibble, '.']).collect();
    let name = format!("{}d.f.ip6.arpa", &nibbles[..60]);
    assert_eq!(rig().ask(&name, rtype::PTR), ["NOERROR", "PTR web.web.svc.cluster.local"], "{name}");
}
