mod dual;
mod flannel;
mod sequences;
mod wireguard;

use ipnet::IpNet;
use podnet_model::{EncapMode, LinkName, Loan, NodeAddr, wireguard::PrivateKey};

use super::*;
use crate::step::{Ipip, Tunnel, Vxlan};

fn overlay() -> Overlay {
    Overlay::new(OverlayConfig::new("node1".into(), "eth0".into(), 1500))
}

fn node(name: &str, addr: &str) -> Change {
    let addr: IpAddr = addr.parse().unwrap();
    let subnet = IpNet::new(addr, 24).unwrap();
    let node = Node { subnet: Some(subnet), ..Node::new(name.into(), NodeAddr(addr)) };
    Change::Node(name.into(), Some(node))
}

/// The same node with something said of it.
fn with(change: Change, edit: impl FnOnce(&mut Node)) -> Change {
    match change {
        Change::Node(name, Some(mut node)) => {
            edit(&mut node);
            Change::Node(name, Some(node))
        }
        other => other,
    }
}

fn key(number: u8) -> KeyPair {
    KeyPair { public: PublicKey([number; 32]), private: PrivateKey([number; 32]) }
}

fn pool(name: &str, cidr: &str, vxlan: EncapMode) -> Change {
    pool_with(name, cidr, vxlan, EncapMode::Never)
}

fn ipip_pool(name: &str, cidr: &str, ipip: EncapMode) -> Change {
    pool_with(name, cidr, EncapMode::Never, ipip)
}

fn pool_with(name: &str, cidr: &str, vxlan: EncapMode, ipip: EncapMode) -> Change {
    let pool = Pool { vxlan, ipip, nat_outgoing: true, ..Pool::new(name.into(), cidr.parse().unwrap()) };
    Change::Pool(name.into(), Some(pool))
}

fn block(cidr: &str, owner: Option<&str>) -> Change {
    let cidr = BlockCidr(cidr.parse().unwrap());
    Change::Block(cidr, Some(Block::new(cidr, owner.map(Into::into))))
}

fn gone(change: &Change) -> Change {
    match change {
        Change::Node(name, _) => Change::Node(name.clone(), None),
        Change::Pool(name, _) => Change::Pool(name.clone(), None),
        Change::Block(cidr, _) => Change::Block(*cidr, None),
        Change::NetConf(namespace, _) => Change::NetConf(namespace.clone(), None),
        Change::Felix(_) => Change::Felix(None),
        Change::Proxy(_) => Change::Proxy(None),
        other => other.clone(),
    }
}

fn after(changes: &[Change]) -> Overlay {
    let mut overlay = overlay();
    for change in changes {
        overlay.apply(change);
    }
    overlay
}

/// Two nodes on one subnet, a third on another, a block each, in a pool of the given mode.
fn cluster(mode: EncapMode) -> Overlay {
    cluster_with(pool("default", "10.233.64.0/18", mode))
}

fn cluster_with(pool: Change) -> Overlay {
    after(&[
        node("node1", "172.29.0.11"),
        node("node2", "172.29.0.12"),
        node("node3", "172.29.1.13"),
        pool,
        block("10.233.64.0/26", Some("node1")),
        block("10.233.64.64/26", Some("node2")),
        block("10.233.64.128/26", Some("node3")),
    ])
}

/// The device by IPv4 outside.
fn vxlan(state: &State) -> Option<Vxlan> {
    state.vxlans.get(&LinkName::from("podnet.vxlan")).cloned()
}

/// The one by IPv6.
fn vxlan6(state: &State) -> Option<Vxlan> {
    state.vxlans.get(&LinkName::from("podnet.vxlan6")).cloned()
}

fn route(overlay: &Overlay, dst: &str) -> Option<RouteTarget> {
    overlay.desired().routes.get(&dst.parse::<IpNet>().unwrap()).cloned()
}

fn on_link(via: &str) -> Option<RouteTarget> {
    Some(RouteTarget::OnLink { device: "podnet.vxlan".into(), via: via.parse().unwrap(), source: None })
}

/// The same by IPv6 outside.
fn on_link6(via: &str) -> Option<RouteTarget> {
    Some(RouteTarget::OnLink { device: "podnet.vxlan6".into(), via: via.parse().unwrap(), source: None })
}

fn via(addr: &str) -> Option<RouteTarget> {
    Some(RouteTarget::Via(addr.parse().unwrap()))
}

#[test]
fn the_mode_of_the_pool_and_the_subnet_choose_the_way_to_a_peer() {
    for (mode, same, other) in [
        (EncapMode::Always, on_link("172.29.0.12"), on_link("172.29.1.13")),
        (EncapMode::CrossSubnet, via("172.29.0.12"), on_link("172.29.1.13")),
        (EncapMode::Never, via("172.29.0.12"), None),
    ] {
        let overlay = cluster(mode);
        assert_eq!(route(&overlay, "10.233.64.64/26"), same, "{mode:?}");
        assert_eq!(route(&overlay, "10.233.64.128/26"), other, "{mode:?}");
        assert_eq!(route(&overlay, "10.233.64.0/26"), Some(RouteTarget::Blackhole), "{mode:?}");
        assert_eq!(!overlay.desired().vxlans.is_empty(), mode != EncapMode::Never);
    }
}

#[test]
fn ipip_pools_are_routed_through_the_ipip_device() {
    let ipip =
        |via: &str| Some(RouteTarget::OnLink { device: "podnet.ipip".into(), via: via.parse().unwrap(), source: None });
    for (mode, same, other) in [
        (EncapMode::Always, ipip("172.29.0.12"), ipip("172.29.1.13")),
        (EncapMode::CrossSubnet, via("172.29.0.12"), ipip("172.29.1.13")),
    ] {
        let overlay = cluster_with(ipip_pool("default", "10.233.64.0/18", mode));
        assert_eq!(route(&overlay, "10.233.64.64/26"), same, "{mode:?}");
        assert_eq!(route(&overlay, "10.233.64.128/26"), other, "{mode:?}");
        let state = overlay.desired();
        let wanted = Ipip { name: "podnet.ipip".into(), local: "172.29.0.11".parse().unwrap(), mtu: 1480 };
        assert_eq!(state.tunnels.values().collect::<Vec<_>>(), [&Tunnel::Ipip(wanted)], "{mode:?}");
        assert!(state.vxlans.is_empty() && state.neighbours.is_empty() && state.fdb.is_empty(), "{mode:?}");
    }
}

#[test]
fn a_change_of_mode_replaces_routes_before_the_old_device_goes() {
    let mut overlay = cluster(EncapMode::Always);
    let steps = overlay.apply(&ipip_pool("default", "10.233.64.0/18", EncapMode::Always));
    assert_eq!(steps.iter().map(kind).collect::<Vec<_>>(), ["tunnel", "route", "route", "no link"]);
    let steps = overlay.apply(&pool("default", "10.233.64.0/18", EncapMode::Always));
    let kinds: Vec<_> = steps.iter().map(kind).collect();
    assert_eq!(kinds, ["vxlan", "fdb", "fdb", "neighbour", "neighbour", "route", "route", "no link"]);
}

#[test]
fn a_kernel_without_ipip_is_reported_and_the_rest_goes_on() {
    let config = OverlayConfig::new("node1".into(), "eth0".into(), 1500);
    let mut overlay = Overlay::new(OverlayConfig { support: Support { ipip: false, ..Support::ALL }, ..config });
    for change in [
        node("node1", "172.29.0.11"),
        node("node2", "172.29.0.12"),
        ipip_pool("default", "10.233.64.0/18", EncapMode::Always),
        block("10.233.64.0/26", Some("node1")),
        block("10.233.64.64/26", Some("node2")),
    ] {
        overlay.apply(&change);
    }
    assert_eq!(overlay.desired().routes.len(), 1, "the own block");
    assert!(overlay.desired().tunnels.is_empty());
    let message = "block 10.233.64.64/26 of node node2 gets no route: pool default asks for IPIP, which this node's kernel \
                   does not have";
    assert_eq!(overlay.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [message]);
}

#[test]
fn what_the_underlay_cannot_route_is_reported_and_says_what_to_do() {
    let problems: Vec<_> = cluster(EncapMode::Never).problems().map(|problem| problem.to_string()).collect();
    assert_eq!(
        problems,
        [
            "block 10.233.64.128/26 of node node3 gets no route: the node is on another subnet and pool default has vxlanMode and \
          ipipMode Never; set one of them to CrossSubnet, or let the underlay's routers know the block"
        ]
    );
}

#[test]
fn every_peer_has_a_neighbour_and_an_fdb_entry_on_the_device() {
    let state = cluster(EncapMode::Always).desired().clone();
    let vxlan = vxlan(&state).unwrap();
    assert_eq!((vxlan.local.to_string().as_str(), vxlan.mtu, vxlan.addrs.len()), ("172.29.0.11", 1450, 0));
    for (name, addr) in [("node2", "172.29.0.12"), ("node3", "172.29.1.13")] {
        let (addr, mac) = (addr.parse::<IpAddr>().unwrap(), vtep_mac(&name.into()));
        assert_eq!(state.neighbours[&(vxlan.name.clone(), addr)], mac);
        assert_eq!(state.fdb[&(vxlan.name.clone(), mac)], addr);
    }
    assert_eq!((state.neighbours.len(), state.fdb.len()), (2, 2));
}

#[test]
fn the_first_vxlan_pool_brings_the_device_before_neighbours_before_routes() {
    let mut overlay = cluster(EncapMode::Never);
    let steps = overlay.apply(&pool("default", "10.233.64.0/18", EncapMode::Always));
    let kinds: Vec<_> = steps.iter().map(kind).collect();
    assert_eq!(kinds, ["vxlan", "fdb", "fdb", "neighbour", "neighbour", "route", "route"]);
}

/// A kernel walks through all next hops of a device for each route that does not follow another one by its own.
#[test]
fn routes_by_one_next_hop_are_set_one_after_the_other() {
    let mut overlay = cluster(EncapMode::Always);
    for third in 0..6 {
        let owner = if third % 2 == 0 { "node2" } else { "node3" };
        overlay.apply(&block(&format!("10.233.64.{}/26", third * 64 % 256), Some(owner)));
        overlay.apply(&block(&format!("10.233.65.{}/26", third * 64 % 256), Some(owner)));
    }
    let routes = overlay.repair(&State::default()).into_iter().filter_map(|step| match step {
        Step::SetRoute(route) => Some(route.target),
        _ => None,
    });
    let mut hops: Vec<_> = routes.filter(|target| matches!(target, RouteTarget::OnLink { .. })).collect();
    assert!(hops.len() >= 6, "{hops:?}");
    hops.dedup();
    assert_eq!(hops.len(), 2, "{hops:?}");
}

#[test]
fn the_last_vxlan_pool_takes_the_device_with_it_after_its_routes() {
    let mut overlay = cluster(EncapMode::Always);
    let steps = overlay.apply(&pool("default", "10.233.64.0/18", EncapMode::Never));
    assert_eq!(steps.iter().map(kind).collect::<Vec<_>>(), ["route", "no route", "no link"]);
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::SetVxlan(_) => "vxlan",
        Step::SetTunnel(_) => "tunnel",
        Step::RemoveLink(_) => "no link",
        Step::SetRoute(_) => "route",
        Step::RemoveRoute(_) => "no route",
        Step::SetNeighbour(_) => "neighbour",
        Step::RemoveNeighbour(_) => "no neighbour",
        Step::SetFdb(_) => "fdb",
        Step::RemoveFdb(_) => "no fdb",
        Step::SetPeer(_) => "peer",
        Step::RemovePeer(_) => "no peer",
    }
}

#[test]
fn a_change_of_one_block_is_one_step() {
    let mut overlay = cluster(EncapMode::Always);
    assert_eq!(overlay.apply(&block("10.233.65.0/26", Some("node2"))).len(), 1);
    assert_eq!(overlay.apply(&block("10.233.65.0/26", Some("node2"))), []);
    let steps = overlay.apply(&gone(&block("10.233.65.0/26", None)));
    assert!(matches!(&steps[..], [Step::RemoveRoute(_)]), "{steps:?}");
}

#[test]
fn a_borrowed_address_is_routed_to_the_node_that_borrowed_it() {
    let lent = |borrower: Option<&str>, owner: &str| {
        let cidr = BlockCidr("10.0.1.0/26".parse().unwrap());
        let loan = |node: &str| Loan { addr: "10.0.1.7".parse().unwrap(), node: node.into(), handle: "h".into() };
        let loans = borrower.map(loan).into_iter().collect();
        Change::Block(cidr, Some(Block { loans, ..Block::new(cidr, Some(owner.into())) }))
    };
    let mut overlay = after(&[
        pool("p", "10.0.0.0/16", EncapMode::Never),
        node("node1", "172.16.0.1"),
        node("node2", "172.16.0.2"),
        node("node3", "172.16.0.3"),
    ]);
    overlay.apply(&lent(Some("node3"), "node2"));
    assert_eq!(route(&overlay, "10.0.1.0/26"), via("172.16.0.2"));
    assert_eq!(route(&overlay, "10.0.1.7/32"), via("172.16.0.3"));
    // On the borrower the pod's own route is the one; on the owner it is longer than the block's blackhole.
    overlay.apply(&lent(Some("node1"), "node2"));
    assert_eq!(route(&overlay, "10.0.1.7/32"), None);
    overlay.apply(&lent(Some("node3"), "node1"));
    assert_eq!(route(&overlay, "10.0.1.7/32"), via("172.16.0.3"));
    assert_eq!(route(&overlay, "10.0.1.0/26"), Some(RouteTarget::Blackhole));
    overlay.apply(&lent(None, "node1"));
    assert_eq!(route(&overlay, "10.0.1.7/32"), None);
    overlay.apply(&lent(Some("node3"), "node1"));
    overlay.apply(&gone(&lent(None, "node1")));
    assert_eq!(route(&overlay, "10.0.1.7/32"), None);
}

#[test]
fn a_node_that_leaves_takes_its_routes_and_entries_with_it() {
    let mut overlay = cluster(EncapMode::Always);
    let steps = overlay.apply(&gone(&node("node3", "172.29.1.13")));
    assert_eq!(steps.iter().map(kind).collect::<Vec<_>>(), ["route", "no neighbour", "no fdb"]);
    // What is sent there does not go round: the way out of the cluster may lead back.
    assert_eq!(route(&overlay, "10.233.64.128/26"), Some(RouteTarget::Blackhole));
    let problems: Vec<_> = overlay.problems().collect();
    let block = BlockCidr("10.233.64.128/26".parse().unwrap());
    assert_eq!(problems, [Problem::UnknownNode { block, node: "node3".into() }]);
}

#[test]
fn a_node_whose_lease_expired_keeps_its_routes_unless_the_configuration_says_otherwise() {
    let lost = |change: &Change, lost| match change.clone() {
        Change::Node(name, Some(node)) => Change::Node(name, Some(Node { lost, ..node })),
        other => other,
    };
    let node3 = node("node3", "172.29.1.13");
    let mut patient = cluster(EncapMode::Always);
    assert_eq!(patient.apply(&lost(&node3, true)), []);
    let mut quick = cluster(EncapMode::Always);
    quick.config.without_lost_nodes = true;
    let kinds = |steps: Vec<Step>| steps.iter().map(kind).collect::<Vec<_>>();
    assert_eq!(kinds(quick.apply(&lost(&node3, true))), ["route", "no neighbour", "no fdb"]);
    assert_eq!(kinds(quick.apply(&lost(&node3, false))), ["fdb", "neighbour", "route"]);
    assert_eq!(quick.desired(), patient.desired());
    assert_eq!(quick.apply(&lost(&node("node1", "172.29.0.11"), true)), [], "itself a node always knows");
}

#[test]
fn a_block_in_no_pool_has_no_route_and_is_reported() {
    let mut overlay = cluster(EncapMode::Always);
    overlay.apply(&block("192.0.2.0/26", Some("node2")));
    assert_eq!(route(&overlay, "192.0.2.0/26"), None);
    let message = "block 192.0.2.0/26 of node node2 is in no pool: it gets no route";
    assert_eq!(overlay.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [message]);
}

#[test]
fn of_two_nodes_with_one_address_the_first_by_name_is_believed() {
    let mut overlay = cluster(EncapMode::Always);
    overlay.apply(&node("node0", "172.29.0.12"));
    assert_eq!(route(&overlay, "10.233.64.64/26"), None);
    let problem = "node node2 has the address 172.29.0.12 of node node0: nothing is sent to it there, and blocks that need it get \
                   no routes";
    assert!(overlay.problems().any(|found| found.to_string() == problem));
    overlay.apply(&gone(&node("node0", "172.29.0.12")));
    assert_eq!(overlay.desired(), cluster(EncapMode::Always).desired());
}

#[test]
fn a_nested_pool_decides_for_its_own_blocks() {
    let mut overlay = cluster(EncapMode::Always);
    overlay.apply(&pool("near", "10.233.64.64/26", EncapMode::CrossSubnet));
    assert_eq!(route(&overlay, "10.233.64.64/26"), via("172.29.0.12"));
}

#[test]
fn repair_puts_back_what_others_removed_and_leaves_pods_routes_alone() {
    let overlay = cluster(EncapMode::Always);
    let mut observed = overlay.desired().clone();
    let pod = "10.233.64.5/32".parse::<IpNet>().unwrap();
    observed.routes.insert(pod, RouteTarget::Device("pn1234".into()));
    observed.routes.remove(&"10.233.64.64/26".parse::<IpNet>().unwrap());
    observed.routes.insert("10.233.99.0/26".parse().unwrap(), RouteTarget::Blackhole);
    observed.fdb.clear();
    let steps = overlay.repair(&observed);
    assert_eq!(steps.iter().map(kind).collect::<Vec<_>>(), ["fdb", "fdb", "route", "no route"]);
    for step in &steps {
        observed.apply(step);
    }
    observed.routes.remove(&pod);
    assert_eq!(&observed, overlay.desired());
}

#[test]
fn damage_is_told_object_by_object() {
    let overlay = cluster(EncapMode::Always);
    let mut observed = overlay.desired().clone();
    observed.routes.insert("10.233.64.5/32".parse().unwrap(), RouteTarget::Device("pn1234".into()));
    assert_eq!(overlay.damages(&observed), []);
    observed.vxlans.values_mut().next().unwrap().mtu = 1300;
    observed.routes.remove(&"10.233.64.64/26".parse::<IpNet>().unwrap());
    observed.routes.insert("10.233.64.128/26".parse().unwrap(), RouteTarget::Via("172.29.0.1".parse().unwrap()));
    observed.routes.insert("10.233.99.0/26".parse().unwrap(), RouteTarget::Blackhole);
    let told: Vec<String> = overlay.damages(&observed).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "device podnet.vxlan has MTU 1300 and not 1450",
            "route 10.233.64.64/26 was removed or replaced",
            "route 10.233.64.128/26 leads to 172.29.0.1 and not to 172.29.1.13 on podnet.vxlan",
            "route 10.233.99.0/26 is there and should not be",
        ]
    );
    observed.vxlans.clear();
    observed.fdb.clear();
    assert_eq!(overlay.damages(&observed).len(), 1 + 3 + 2);
}

#[test]
fn a_node_that_moved_knows_its_subnet_before_its_object_shows_it() {
    let mut overlay = cluster(EncapMode::CrossSubnet);
    let moved: IpAddr = "172.29.1.111".parse().unwrap();
    let IpAddr::V4(addr) = moved else { unreachable!() };
    let subnet = IpNet::new(moved, 24).ok();
    overlay.set_underlay(Place { addr: Some(addr), subnet, ..Place::on("eth0".into(), 1500) });
    assert_eq!(route(&overlay, "10.233.64.64/26"), on_link("172.29.0.12"), "no gateway on a subnet that was left");
    assert_eq!(route(&overlay, "10.233.64.128/26"), via("172.29.1.13"));
    let planned = overlay.desired().clone();
    overlay.apply(&node("node1", "172.29.1.111"));
    assert_eq!(*overlay.desired(), planned, "the object changes nothing any more");
}

#[test]
fn the_devices_follow_the_underlay_and_pods_have_room_for_what_any_pool_may_use() {
    let mut overlay = cluster(EncapMode::CrossSubnet);
    assert_eq!(overlay.pod_mtu(), 1450);
    let place = Place { addr: Some("192.0.2.1".parse().unwrap()), ..Place::on("eth1".into(), 9000) };
    let steps = overlay.set_underlay(place.clone());
    assert_eq!(kind(&steps[0]), "vxlan");
    let vxlan = vxlan(overlay.desired()).unwrap();
    assert_eq!((vxlan.mtu, vxlan.local.to_string().as_str(), overlay.pod_mtu()), (8950, "192.0.2.1", 8950));
    assert_eq!(overlay.set_underlay(place), []);
    overlay.apply(&pool("default", "10.233.64.0/18", EncapMode::Never));
    assert_eq!(overlay.pod_mtu(), 9000);
    overlay.apply(&ipip_pool("other", "10.5.0.0/16", EncapMode::CrossSubnet));
    assert_eq!(overlay.pod_mtu(), 8980);
    overlay.config.pod_mtu = Some(1400);
    assert_eq!(overlay.pod_mtu(), 1400);
}

#[test]
fn one_node_that_moves_among_many_is_a_handful_of_steps() {
    let mut overlay = overlay();
    overlay.apply(&pool("default", "100.64.0.0/10", EncapMode::Always));
    for number in 1..=500_u32 {
        overlay.apply(&node(&format!("node{number}"), &format!("172.29.{}.{}", number / 200, number % 200 + 1)));
    }
    for number in 0..2000_u32 {
        let first = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(100, 64, 0, 0)) + number * 64);
        overlay.apply(&block(&format!("{first}/26"), Some(&format!("node{}", number % 500 + 1))));
    }
    let steps = overlay.apply(&node("node7", "172.29.9.7"));
    // Four routes, an FDB entry, and a neighbour that comes and one that goes.
    assert_eq!(steps.len(), 4 + 1 + 2, "{steps:?}");
    assert_eq!(overlay.apply(&node("node7", "172.29.9.7")), []);
}

#[test]
fn a_device_that_was_changed_gets_all_its_entries_anew() {
    let overlay = cluster(EncapMode::Always);
    let mut observed = overlay.desired().clone();
    observed.vxlans.values_mut().next().unwrap().port = 8472;
    assert_eq!(overlay.repair(&observed).len(), 1 + 2 + 2 + 2);
}
