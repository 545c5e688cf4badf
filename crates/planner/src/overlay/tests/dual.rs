//! Pods of both families, on an underlay of either or both.

use super::*;
use crate::step::Wireguard;

/// A node with an address of each family, or of one.
fn dual(number: u8, subnet: u8, families: &str) -> Change {
    let v4 = format!("172.29.{subnet}.1{number}");
    let v6 = format!("fd00:29:0:{subnet}::1{number}");
    let name = format!("node{number}");
    match families {
        "v4" => node(&name, &v4),
        "v6" => {
            let addr = NodeAddr(v6.parse().unwrap());
            let node = Node { subnet6: IpNet::new(addr.0, 64).ok(), ..Node::new(name.as_str().into(), addr) };
            Change::Node(node.name.clone(), Some(node))
        }
        _ => with(node(&name, &v4), |node| {
            let addr = v6.parse().unwrap();
            node.addr6 = Some(NodeAddr(addr));
            node.subnet6 = IpNet::new(addr, 64).ok();
        }),
    }
}

const BLOCKS: [(&str, &str); 4] = [
    ("10.233.64.64/26", "fd00:10:233::40/122"),
    ("10.233.64.128/26", "fd00:10:233::80/122"),
    ("10.233.64.0/26", "fd00:10:233::/122"),
    ("10.233.0.0/16", "fd00:10:233::/64"),
];

/// Two nodes on one subnet, a third on another, all with addresses of these families; blocks of both.
fn of(families: &str, v4: (EncapMode, EncapMode), v6: (EncapMode, EncapMode)) -> Overlay {
    let [(near4, near6), (far4, far6), (own4, own6), (range4, range6)] = BLOCKS;
    after(&[
        dual(1, 0, families),
        dual(2, 0, families),
        dual(3, 1, families),
        pool_with("four", range4, v4.0, v4.1),
        pool_with("six", range6, v6.0, v6.1),
        block(own4, Some("node1")),
        block(own6, Some("node1")),
        block(near4, Some("node2")),
        block(near6, Some("node2")),
        block(far4, Some("node3")),
        block(far6, Some("node3")),
    ])
}

fn vxlan_mode(mode: EncapMode) -> (EncapMode, EncapMode) {
    (mode, EncapMode::Never)
}

/// The next hop inside VXLAN to a node.
fn behind(name: &str) -> String {
    vtep_next_hop(vtep_mac(&name.into())).to_string()
}

fn told(overlay: &Overlay) -> Vec<String> {
    overlay.problems().map(|problem| problem.to_string()).collect()
}

#[test]
fn with_addresses_of_both_families_each_block_has_the_way_that_its_pool_says() {
    let (near, far) = (on_link(&behind("node2")), on_link(&behind("node3")));
    for (mode, to_near, to_far) in [
        (EncapMode::Always, near.clone(), far.clone()),
        (EncapMode::CrossSubnet, via("fd00:29::12"), far),
        (EncapMode::Never, via("fd00:29::12"), None),
    ] {
        let overlay = of("both", vxlan_mode(mode), vxlan_mode(mode));
        assert_eq!(route(&overlay, BLOCKS[0].1), to_near, "{mode:?}");
        assert_eq!(route(&overlay, BLOCKS[1].1), to_far, "{mode:?}");
        assert_eq!(route(&overlay, BLOCKS[2].1), Some(RouteTarget::Blackhole), "{mode:?}");
        let without: Vec<_> = cluster(mode).desired().routes.values().cloned().collect();
        let routes = overlay.desired().routes.iter().filter(|(dst, _)| dst.addr().is_ipv4());
        assert_eq!(routes.map(|(_, target)| target.clone()).collect::<Vec<_>>(), without, "those of IPv4 are as ever");
    }
}

#[test]
fn one_device_over_ipv4_carries_both_and_a_peer_has_a_next_hop_for_each() {
    let overlay = of("both", vxlan_mode(EncapMode::Always), vxlan_mode(EncapMode::CrossSubnet));
    let state = overlay.desired();
    let device = vxlan(state).unwrap();
    assert_eq!((device.local.to_string().as_str(), device.mtu, overlay.pod_mtu()), ("172.29.0.11", 1450, 1450));
    let mac = vtep_mac(&"node2".into());
    assert_eq!(state.fdb[&(device.name.clone(), mac)].to_string(), "172.29.0.12");
    for next_hop in ["172.29.0.12", &behind("node2")] {
        assert_eq!(state.neighbours[&(device.name.clone(), next_hop.parse().unwrap())], mac);
    }
    assert_eq!((state.neighbours.len(), state.fdb.len()), (4, 2));
    assert_eq!(told(&overlay), [""; 0]);
}

#[test]
fn next_hops_of_ipv6_come_and_go_with_the_pools_that_need_them() {
    let mut overlay = cluster(EncapMode::Always);
    let steps = overlay.apply(&pool("six", "fd00:10:233::/64", EncapMode::Always));
    assert_eq!(steps.iter().map(kind).collect::<Vec<_>>(), ["neighbour", "neighbour"]);
    let steps = overlay.apply(&gone(&pool("six", "fd00:10:233::/64", EncapMode::Always)));
    assert_eq!(steps.iter().map(kind).collect::<Vec<_>>(), ["no neighbour", "no neighbour"]);
    assert_eq!(overlay.desired(), cluster(EncapMode::Always).desired());
}

#[test]
fn pods_have_ipv6_on_an_underlay_that_has_only_ipv4() {
    let overlay = of("v4", vxlan_mode(EncapMode::Never), vxlan_mode(EncapMode::CrossSubnet));
    assert_eq!(route(&overlay, BLOCKS[0].1), on_link(&behind("node2")), "no next hop but inside VXLAN");
    assert_eq!(route(&overlay, BLOCKS[0].0), via("172.29.0.12"));
    let overlay = of("v4", vxlan_mode(EncapMode::CrossSubnet), vxlan_mode(EncapMode::Never));
    assert_eq!(route(&overlay, BLOCKS[0].1), None);
    let message = "block fd00:10:233::40/122 of node node2 gets no route: without encapsulation this node and that one need an IPv6 \
                   address on the underlay; give them one, or set vxlanMode of pool six to CrossSubnet or Always";
    assert_eq!(told(&overlay)[0], message);
}

#[test]
fn without_ipv4_on_the_underlay_both_families_go_by_ipv6() {
    let overlay = of("v6", vxlan_mode(EncapMode::Always), vxlan_mode(EncapMode::Always));
    let device = vxlan6(overlay.desired()).unwrap();
    assert_eq!((device.local.to_string().as_str(), device.mtu, overlay.pod_mtu()), ("fd00:29::11", 1430, 1430));
    for block in [BLOCKS[1].0, BLOCKS[1].1] {
        assert_eq!(route(&overlay, block), on_link6(&behind("node3")));
    }
    let state = overlay.desired();
    assert_eq!(state.fdb[&(device.name, vtep_mac(&"node3".into()))].to_string(), "fd00:29:0:1::13");
    assert_eq!((state.neighbours.len(), state.fdb.len()), (2, 2));
    // A plain route of IPv4 through a next hop of IPv6.
    let overlay = of("v6", vxlan_mode(EncapMode::CrossSubnet), vxlan_mode(EncapMode::Never));
    assert_eq!(route(&overlay, BLOCKS[0].0), via("fd00:29::12"));
    assert_eq!(route(&overlay, BLOCKS[0].1), via("fd00:29::12"));
    assert_eq!(route(&overlay, BLOCKS[1].0), on_link6(&behind("node3")));
}

#[test]
fn a_node_without_ipv4_and_one_of_both_families_reach_each_other_by_ipv6() {
    let always = vxlan_mode(EncapMode::Always);
    let mac = vtep_mac(&"node2".into());
    let both = of("both", always, always);
    let mut overlay = both.clone();
    let steps = overlay.apply(&dual(2, 0, "v6"));
    assert_eq!(kind(&steps[0]), "vxlan");
    let state = overlay.desired();
    let (four, six) = (vxlan(state).unwrap(), vxlan6(state).unwrap());
    assert_eq!((four.local.to_string().as_str(), four.mtu), ("172.29.0.11", 1450));
    assert_eq!((six.local.to_string().as_str(), six.mtu, six.mac, six.vni), ("fd00:29::11", 1430, four.mac, four.vni));
    assert_eq!(overlay.pod_mtu(), 1430, "pods have room for either");
    for block in [BLOCKS[0].0, BLOCKS[0].1] {
        assert_eq!(route(&overlay, block), on_link6(&behind("node2")));
    }
    assert_eq!(route(&overlay, BLOCKS[1].0), on_link("172.29.1.13"), "others go as ever");
    let at = |device: &str, mac| state.fdb.get(&(device.into(), mac)).map(ToString::to_string);
    assert_eq!((at("podnet.vxlan", mac), at("podnet.vxlan6", mac).as_deref()), (None, Some("fd00:29::12")));
    assert_eq!(at("podnet.vxlan6", vtep_mac(&"node3".into())), None);
    assert_eq!(told(&overlay), [""; 0]);
    // The other side sees it alike: what comes by IPv6 is heard there.
    let mut theirs = of("v6", always, always);
    theirs.apply(&dual(2, 0, "both"));
    assert_eq!(route(&theirs, BLOCKS[0].0), on_link6(&behind("node2")));
    assert!(vxlan(theirs.desired()).is_none() && told(&theirs).is_empty());
    // With the last such node the device goes.
    let steps = overlay.apply(&dual(2, 0, "both"));
    assert_eq!(kind(steps.last().unwrap()), "no link");
    assert_eq!(overlay.desired(), both.desired());
}

#[test]
fn where_two_nodes_have_no_family_in_common_there_is_no_tunnel_and_both_say_so() {
    let always = vxlan_mode(EncapMode::Always);
    for (ours, theirs, message) in [
        ("v4", "v6", "has only an IPv6 address on the underlay, and this one only an IPv4 address"),
        ("v6", "v4", "has only an IPv4 address on the underlay, and this one only an IPv6 address"),
    ] {
        let mut overlay = of(ours, always, always);
        overlay.apply(&dual(2, 0, theirs));
        assert_eq!(
            [BLOCKS[0].0, BLOCKS[0].1].map(|block| route(&overlay, block)),
            [None, None],
            "nobody would hear it"
        );
        assert!(!overlay.desired().fdb.keys().any(|(_, mac)| *mac == vtep_mac(&"node2".into())));
        let told = told(&overlay);
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|told| told.contains(message) && told.contains("of the other family")), "{told:?}");
        overlay.apply(&dual(1, 0, "both"));
        assert!(
            matches!(route(&overlay, BLOCKS[0].1), Some(RouteTarget::OnLink { .. })),
            "one of them with both is enough"
        );
    }
    // As they are, packets go by what both have.
    let never = vxlan_mode(EncapMode::Never);
    let mut overlay = of("v6", never, never);
    overlay.apply(&dual(2, 0, "both"));
    assert_eq!(
        [BLOCKS[0].0, BLOCKS[0].1].map(|block| route(&overlay, block)),
        [via("fd00:29::12"), via("fd00:29::12")]
    );
}

#[test]
fn a_node_that_gets_an_ipv4_address_takes_it_for_its_tunnels() {
    let always = vxlan_mode(EncapMode::Always);
    let mut overlay = of("v6", always, always);
    overlay.apply(&dual(2, 0, "both"));
    let mut there = overlay.desired().clone();
    let steps = overlay.apply(&dual(1, 0, "both"));
    steps.iter().for_each(|step| there.apply(step));
    assert_eq!(there, *overlay.desired());
    assert_eq!(
        [route(&overlay, BLOCKS[0].0), route(&overlay, BLOCKS[1].0)],
        [on_link("172.29.0.12"), on_link6(&behind("node3"))]
    );
}

#[test]
fn a_device_of_the_other_name_that_has_what_a_new_one_needs_goes_first() {
    let overlay = of("v6", vxlan_mode(EncapMode::Always), vxlan_mode(EncapMode::Always));
    let mut observed = State::default();
    let old = vxlan6(overlay.desired()).unwrap();
    observed.vxlans.insert("podnet.vxlan".into(), Vxlan { name: "podnet.vxlan".into(), ..old });
    let kinds: Vec<_> = overlay.repair(&observed).iter().map(kind).collect();
    assert_eq!((kinds[0], kinds[1]), ("no link", "vxlan"));
    assert_eq!(kinds.iter().filter(|kind| **kind == "no link").count(), 1);
}

#[test]
fn what_cannot_be_encrypted_between_two_families_is_not_sent_in_the_clear() {
    let mut overlay = encrypted("v6");
    overlay.apply(&with(dual(2, 0, "v4"), |node| node.wireguard_key = Some(key(2).public)));
    assert_eq!([BLOCKS[0].0, BLOCKS[0].1].map(|block| route(&overlay, block)), [None, None]);
    assert!(told(&overlay)[0].contains("has only an IPv4 address"));
    assert!(!overlay.desired().peers.contains_key(&("podnet.wg".into(), key(2).public)));
    // One that has both is sent to by IPv6.
    overlay.apply(&with(dual(2, 0, "both"), |node| node.wireguard_key = Some(key(2).public)));
    let end = &overlay.desired().peers[&("podnet.wg".into(), key(2).public)];
    assert_eq!(end.endpoint.to_string(), "[fd00:29::12]:51820");
}

#[test]
fn a_kernel_without_ipv6_is_told_of_and_has_the_routes_of_ipv4() {
    let mut overlay = overlay();
    overlay.config.support.ipv6 = false;
    for change in [
        dual(1, 0, "v4"),
        dual(2, 0, "v4"),
        pool("four", BLOCKS[3].0, EncapMode::Always),
        pool("six", BLOCKS[3].1, EncapMode::Always),
        block(BLOCKS[0].0, Some("node2")),
        block(BLOCKS[0].1, Some("node2")),
    ] {
        overlay.apply(&change);
    }
    assert_eq!((overlay.desired().routes.len(), overlay.desired().neighbours.len()), (1, 1));
    assert_eq!(
        told(&overlay),
        ["block fd00:10:233::40/122 gets no route: this node's kernel was started without IPv6"]
    );
}

#[test]
fn an_underlay_too_small_for_ipv6_carries_ipv4_and_says_so() {
    let message = "IPv6 does not work on this node: packets have room for 1230 bytes here, and IPv6 needs 1280; there are no routes of \
                   IPv6 to other nodes nor tunnels by IPv6, and new pods get no IPv6 addresses (pools of IPv6: six); raise the MTU of the \
                   underlay's device (or the --mtu of the agent), or disable these pools";
    let always = vxlan_mode(EncapMode::Always);
    let wide = of("both", always, always);
    let mut overlay = wide.clone();
    let steps = overlay.set_underlay(Place::on("eth0".into(), 1280));
    assert!(!steps.iter().any(|step| matches!(step, Step::SetNeighbour(neighbour) if neighbour.addr.is_ipv6())));
    assert_eq!(
        BLOCKS.map(|(v4, v6)| (route(&overlay, v4).is_some(), route(&overlay, v6).is_some()))[..3],
        [(true, false), (true, false), (true, true)]
    );
    assert!(!overlay.desired().neighbours.keys().any(|(_, addr)| addr.is_ipv6()));
    assert_eq!(told(&overlay), [message]);
    overlay.set_underlay(Place::on("eth0".into(), 1500));
    assert_eq!((overlay.desired(), told(&overlay).len()), (wide.desired(), 0));

    // By IPv6 outside too, where even IPv4 needs next hops of IPv6.
    let mut overlay = of("v6", always, always);
    overlay.set_underlay(Place::on("eth0".into(), 1300));
    assert_eq!(BLOCKS[..2].iter().filter_map(|(v4, v6)| route(&overlay, v4).or(route(&overlay, v6))).count(), 0);
    assert!(overlay.desired().neighbours.is_empty() && told(&overlay)[0].contains("1230 bytes"));

    // Pods' own interfaces count where no tunnel does.
    let never = vxlan_mode(EncapMode::Never);
    let mut overlay = of("both", never, never);
    overlay.set_underlay(Place::on("eth0".into(), 1200));
    assert_eq!((route(&overlay, BLOCKS[0].0), route(&overlay, BLOCKS[0].1)), (via("172.29.0.12"), None));
    overlay.set_underlay(Place::on("eth0".into(), 1280));
    assert_eq!(route(&overlay, BLOCKS[0].1), via("fd00:29::12"));
}

#[test]
fn ipip_carries_no_ipv6_and_the_problem_says_what_to_set() {
    let ipip = (EncapMode::Never, EncapMode::Always);
    let overlay = of("both", ipip, ipip);
    assert!(matches!(route(&overlay, BLOCKS[0].0), Some(RouteTarget::OnLink { .. })));
    assert_eq!(route(&overlay, BLOCKS[0].1), None);
    let message = "block fd00:10:233::40/122 of node node2 gets no route: pool six asks for IPIP, which carries IPv4 between IPv4 \
                   addresses only; set its ipipMode to Never and its vxlanMode to CrossSubnet or Always";
    assert_eq!(told(&overlay)[0], message);
    // Nor can it carry IPv4 where the nodes have none.
    let overlay = of("v6", ipip, vxlan_mode(EncapMode::Never));
    assert_eq!((route(&overlay, BLOCKS[0].0), overlay.desired().tunnels.len()), (None, 0));
    assert!(told(&overlay).iter().any(|told| told.contains("pool four asks for IPIP")));
}

fn encrypted(families: &str) -> Overlay {
    let mode = vxlan_mode(EncapMode::CrossSubnet);
    let mut overlay = of(families, mode, mode);
    let IpAddr::V6(addr6) = "fd00:29::11".parse().unwrap() else { unreachable!() };
    let addr6 = Some(addr6).filter(|_| families != "v4");
    overlay.set_keys(vec![key(1)]);
    overlay.set_underlay(Place { addr6, ..Place::on("eth0".into(), 1500) });
    overlay.apply(&Change::Felix(Some(Felix { wireguard: true, ..Felix::default() })));
    for (number, subnet) in [(1, 0), (2, 0), (3, 1)] {
        overlay.apply(&with(dual(number, subnet, families), |node| node.wireguard_key = Some(key(number).public)));
    }
    overlay
}

#[test]
fn wireguard_carries_both_families_and_a_peer_may_send_from_either_address() {
    let overlay = encrypted("both");
    let through = |via: &str, source: &str| {
        let (via, source) = (via.parse().unwrap(), source.parse().ok());
        Some(RouteTarget::OnLink { device: "podnet.wg".into(), via, source })
    };
    assert_eq!(route(&overlay, BLOCKS[0].0), through("172.29.0.12", "172.29.0.11"));
    assert_eq!(route(&overlay, BLOCKS[0].1), through(&behind("node2"), "fd00:29::11"));
    let end = &overlay.desired().peers[&("podnet.wg".into(), key(2).public)];
    assert_eq!(end.endpoint.to_string(), "172.29.0.12:51820");
    let ranges: Vec<_> = end.ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.233.64.64/26", "172.29.0.12/32", "fd00:10:233::40/122", "fd00:29::12/128"]);
    // Without an IPv6 address the node can send nothing of its own.
    assert_eq!(route(&encrypted("v4"), BLOCKS[0].1), through(&behind("node2"), ""));
}

#[test]
fn wireguard_over_ipv6_has_less_room() {
    let overlay = encrypted("v6");
    let end = &overlay.desired().peers[&("podnet.wg".into(), key(2).public)];
    assert_eq!(end.endpoint.to_string(), "[fd00:29::12]:51820");
    let device = overlay.desired().tunnels.get(&LinkName::from("podnet.wg"));
    let Some(Tunnel::Wireguard(Wireguard { mtu, .. })) = device else { panic!("no device") };
    assert_eq!((*mtu, overlay.pod_mtu()), (1420, 1420));
}

#[test]
fn an_address_of_ipv6_belongs_to_one_node_and_into_no_block() {
    let mut overlay = of("both", vxlan_mode(EncapMode::Always), vxlan_mode(EncapMode::Always));
    let take =
        |number, addr: &str| with(dual(number, 0, "both"), |node| node.addr6 = Some(NodeAddr(addr.parse().unwrap())));
    overlay.apply(&take(2, "fd00:29:0:1::13"));
    let message = "node node3 has the address fd00:29:0:1::13 of node node2: nothing is sent to it there, and blocks that need it \
                   get no routes";
    assert_eq!(told(&overlay), [message]);
    // Encapsulated packets go to the address that is its alone.
    assert_eq!(
        [BLOCKS[1].0, BLOCKS[1].1].map(|block| route(&overlay, block)),
        [on_link("172.29.1.13"), on_link(&behind("node3"))]
    );
    overlay.apply(&pool_with("six", BLOCKS[3].1, EncapMode::Never, EncapMode::Never));
    assert_eq!(route(&overlay, BLOCKS[1].1), None, "as it is, nothing can be sent to it");
    assert!(!told(&overlay).iter().any(|told| told.contains(BLOCKS[1].1)), "told of the node alone");
    assert_eq!(route(&overlay, BLOCKS[1].0), on_link("172.29.1.13"));
    overlay.apply(&pool_with("six", BLOCKS[3].1, EncapMode::Always, EncapMode::Never));
    overlay.apply(&take(2, "fd00:10:233::41"));
    assert_eq!(route(&overlay, BLOCKS[0].1), None);
    assert!(told(&overlay)[0].ends_with("it holds the address of node node2 on the underlay"));
    assert_eq!(route(&overlay, BLOCKS[1].1), on_link(&behind("node3")));
}

#[test]
fn a_wireguard_peer_may_not_send_from_an_address_that_it_is_not_believed_to_have() {
    let mut overlay = encrypted("both");
    overlay.apply(&with(dual(3, 1, "both"), |node| {
        node.wireguard_key = Some(key(3).public);
        node.addr6 = Some(NodeAddr("fd00:29::12".parse().unwrap()));
    }));
    let ranges = |number| {
        let end = &overlay.desired().peers[&("podnet.wg".into(), key(number).public)];
        end.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ranges(2), "10.233.64.64/26 172.29.0.12/32 fd00:10:233::40/122 fd00:29::12/128");
    assert_eq!(ranges(3), "10.233.64.128/26 172.29.1.13/32 fd00:10:233::80/122");
}

#[test]
fn a_node_that_gets_another_ipv6_address_is_routed_by_it() {
    let mut overlay = of("both", vxlan_mode(EncapMode::CrossSubnet), vxlan_mode(EncapMode::CrossSubnet));
    let place = Place {
        addr6: "fd00:29:0:1::99".parse().ok(),
        subnet6: "fd00:29:0:1::99/64".parse().ok(),
        ..Place::on("eth0".into(), 1500)
    };
    overlay.set_underlay(place);
    assert_eq!(route(&overlay, BLOCKS[0].1), on_link(&behind("node2")), "no gateway on a subnet that was left");
    assert_eq!(route(&overlay, BLOCKS[1].1), via("fd00:29:0:1::13"));
    assert_eq!(route(&overlay, BLOCKS[0].0), via("172.29.0.12"), "by IPv4 nothing changed");
}
