//! Encryption.

use super::*;
use crate::step::{Peer, Route, Wireguard};

fn felix() -> Change {
    Change::Felix(Some(Felix { wireguard: true, ..Felix::default() }))
}

fn keyed(change: Change, number: u8) -> Change {
    with(change, |node| node.wireguard_key = Some(key(number).public))
}

/// The cluster of two subnets, encryption on, and keys 1 to 3 of the nodes that are named.
fn encrypted(mode: EncapMode, published: &[u8]) -> Overlay {
    let mut overlay = cluster(mode);
    overlay.set_keys(vec![key(1), key(11)]);
    overlay.apply(&felix());
    for number in published {
        overlay.apply(&keyed(node_number(*number), *number));
    }
    overlay
}

fn node_number(number: u8) -> Change {
    node(&format!("node{number}"), ["", "172.29.0.11", "172.29.0.12", "172.29.1.13"][usize::from(number)])
}

fn through_wireguard(via: &str) -> Option<RouteTarget> {
    through_wireguard_from("172.29.0.11", via)
}

fn through_wireguard_from(source: &str, via: &str) -> Option<RouteTarget> {
    let [source, via] = [source, via].map(|addr| addr.parse().unwrap());
    Some(RouteTarget::OnLink { device: "podnet.wg".into(), via, source: Some(source) })
}

fn problems(overlay: &Overlay) -> Vec<String> {
    overlay.problems().map(|problem| problem.to_string()).collect()
}

#[test]
fn with_wireguard_on_every_peer_with_a_key_is_reached_through_it_whatever_the_pool_says() {
    for mode in [EncapMode::Never, EncapMode::CrossSubnet, EncapMode::Always] {
        let overlay = encrypted(mode, &[1, 2, 3]);
        assert_eq!(route(&overlay, "10.233.64.64/26"), through_wireguard("172.29.0.12"));
        assert_eq!(route(&overlay, "10.233.64.128/26"), through_wireguard("172.29.1.13"));
        assert_eq!(problems(&overlay), [""; 0]);
    }
}

#[test]
fn what_the_node_itself_sends_through_wireguard_has_the_nodes_address_of_now() {
    let mut overlay = encrypted(EncapMode::Always, &[1, 2]);
    assert_eq!(route(&overlay, "10.233.64.64/26"), through_wireguard_from("172.29.0.11", "172.29.0.12"));
    let steps =
        overlay.set_underlay(Place { addr: Some("172.29.0.99".parse().unwrap()), ..Place::on("eth0".into(), 1500) });
    let target = through_wireguard_from("172.29.0.99", "172.29.0.12").unwrap();
    let moved = Route { dst: "10.233.64.64/26".parse().unwrap(), target };
    assert!(steps.contains(&Step::SetRoute(moved)), "{steps:?}");
}

#[test]
fn a_peer_gets_its_blocks_and_may_send_from_them_and_from_its_own_address() {
    let overlay = encrypted(EncapMode::Always, &[1, 2]);
    let end = &overlay.desired().peers[&("podnet.wg".into(), key(2).public)];
    assert_eq!(end.endpoint.to_string(), "172.29.0.12:51820");
    let ranges: Vec<_> = end.ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.233.64.64/26", "172.29.0.12/32"]);
    let device = overlay.desired().tunnels.get(&LinkName::from("podnet.wg"));
    let Some(Tunnel::Wireguard(Wireguard { port, mtu, key: own, .. })) = device else { panic!("no device") };
    assert_eq!((*port, *mtu, own), (51820, 1440, &key(1).private));
}

#[test]
fn to_a_peer_without_a_key_packets_go_as_the_pool_says_and_that_is_told() {
    let overlay = encrypted(EncapMode::Always, &[1, 2]);
    assert_eq!(route(&overlay, "10.233.64.128/26"), on_link("172.29.1.13"));
    let message = "packets to node node3 are not encrypted: it has not published a WireGuard key of its own";
    assert_eq!(problems(&overlay), [message]);
}

#[test]
fn a_node_that_says_something_wrong_has_its_routes_and_that_is_told() {
    let mut overlay = cluster(EncapMode::Always);
    overlay.apply(&with(node_number(2), |node| node.wrong = Some("its key is no key".into())));
    assert_eq!(route(&overlay, "10.233.64.64/26"), on_link("172.29.0.12"));
    let message = "node node2: its key is no key; what it says there is ignored until it is mended";
    assert_eq!(problems(&overlay), [message]);
}

#[test]
fn nothing_is_encrypted_before_the_own_node_shows_a_key_of_ours() {
    let mut overlay = encrypted(EncapMode::Always, &[2, 3]);
    assert!(overlay.wants_wireguard() && overlay.desired().tunnels.is_empty());
    overlay.apply(&keyed(node_number(1), 9));
    assert!(overlay.desired().tunnels.is_empty(), "a key that is not ours");
    assert_eq!(route(&overlay, "10.233.64.64/26"), on_link("172.29.0.12"));
}

#[test]
fn the_device_takes_the_next_key_when_the_own_node_shows_it() {
    let mut overlay = encrypted(EncapMode::Always, &[1, 2, 3]);
    let steps = overlay.apply(&keyed(node_number(1), 11));
    let Some(Step::SetTunnel(Tunnel::Wireguard(device))) = steps.first() else { panic!("{steps:?}") };
    assert_eq!(device.key, key(11).private);
}

#[test]
fn a_peers_new_key_takes_its_ranges_over_before_the_old_one_goes() {
    let mut overlay = encrypted(EncapMode::Always, &[1, 2, 3]);
    let steps = overlay.apply(&keyed(node_number(2), 22));
    let [Step::SetPeer(Peer { key: new, .. }), Step::RemovePeer(Peer { key: old, .. })] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!((*new, *old), (key(22).public, key(2).public));
}

#[test]
fn of_two_nodes_with_one_key_the_first_by_name_is_believed() {
    let mut overlay = encrypted(EncapMode::Always, &[1, 2]);
    overlay.apply(&keyed(node_number(3), 2));
    assert_eq!(route(&overlay, "10.233.64.64/26"), through_wireguard("172.29.0.12"));
    assert_eq!(route(&overlay, "10.233.64.128/26"), on_link("172.29.1.13"));
    assert_eq!(problems(&overlay).len(), 1);
}

#[test]
fn a_block_that_holds_a_nodes_address_gets_no_route_for_a_tunnel_would_carry_its_own_packets() {
    let mut overlay = encrypted(EncapMode::Always, &[1, 2, 3]);
    overlay.apply(&pool("wide", "172.29.0.0/16", EncapMode::Always));
    overlay.apply(&block("172.29.1.0/26", Some("node2")));
    assert_eq!(route(&overlay, "172.29.1.0/26"), None);
    let message = "block 172.29.1.0/26 of node node2 gets no route: it holds the address of node node3 on the underlay";
    assert_eq!(problems(&overlay), [message]);
    // When the address is no longer in it, it is routed.
    overlay.apply(&gone(&node_number(3)));
    assert_eq!(route(&overlay, "172.29.1.0/26"), through_wireguard("172.29.0.12"));
}

#[test]
fn without_wireguard_in_the_kernel_everything_goes_as_the_pool_says_and_that_is_told() {
    let mut overlay = overlay();
    overlay.config.support.wireguard = false;
    overlay.set_keys(vec![key(1)]);
    for change in [
        keyed(node_number(1), 1),
        keyed(node_number(2), 2),
        pool("default", "10.233.64.0/18", EncapMode::Always),
        block("10.233.64.64/26", Some("node2")),
        felix(),
    ] {
        overlay.apply(&change);
    }
    assert_eq!(route(&overlay, "10.233.64.64/26"), on_link("172.29.0.12"));
    assert!(!overlay.wants_wireguard());
    let message = "this node's packets are not encrypted: its kernel does not have WireGuard";
    assert_eq!(problems(&overlay), [message]);
}
