use std::net::{IpAddr, Ipv4Addr};

use podnet_planner::step::{FdbEntry, Neighbour, Route, RouteTarget, Vxlan};

use super::*;
use crate::{
    link::{self, Veth, VethPeer},
    sysctl,
    testing::{TestNs, eventually, mac},
};

const UNDERLAY: &str = "192.0.2";

/// Two nodes on one wire, and what each plans for the other.
struct Nodes {
    namespaces: [TestNs; 2],
    sockets: [RtSocket; 2],
}

impl Nodes {
    fn new(tag: &str) -> Self {
        let namespaces = ["a", "b"].map(|name| TestNs::new(&format!("{tag}-{name}")));
        let mut sockets = [0, 1].map(|index: usize| RtSocket::open_in(&namespaces[index]).unwrap());
        let peer = VethPeer { name: "eth0", mac: None, netns: Some(&namespaces[1]) };
        link::create_veth(&mut sockets[0], &Veth { name: "eth0", mac: None, peer, mtu: 1500 }).unwrap();
        for (number, namespace) in (1..).zip(&namespaces) {
            namespace.command("ip link set eth0 up");
            namespace.command(&format!("ip addr add {UNDERLAY}.{number}/24 dev eth0"));
            sysctl::set(namespace, "net.ipv4.ip_forward", "1").unwrap();
        }
        Self { namespaces, sockets }
    }
}

fn underlay(number: u8) -> Ipv4Addr {
    format!("{UNDERLAY}.{number}").parse().unwrap()
}

fn overlay(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 233, number, 0)
}

fn vxlan(number: u8) -> Vxlan {
    Vxlan {
        name: "vxlan.podnet".into(),
        vni: 4096,
        port: 4789,
        local: underlay(number).into(),
        mac: mac(9, number),
        mtu: 1450,
        addrs: [overlay(number).into()].into(),
    }
}

/// What node `number` plans for node `other`.
fn towards(number: u8, other: u8) -> Vec<Step> {
    let device = LinkName::from("vxlan.podnet");
    let via = overlay(other).into();
    let dst = format!("10.233.{other}.0/24").parse().unwrap();
    let own = format!("10.233.{number}.0/26").parse().unwrap();
    vec![
        Step::SetVxlan(vxlan(number)),
        Step::SetFdb(FdbEntry { device: device.clone(), mac: mac(9, other), remote: underlay(other).into() }),
        Step::SetNeighbour(Neighbour { device: device.clone(), addr: via, mac: mac(9, other) }),
        Step::SetRoute(Route { dst, target: RouteTarget::OnLink { device, via, source: None } }),
        Step::SetRoute(Route { dst: own, target: RouteTarget::Blackhole }),
        Step::SetRoute(Route {
            dst: format!("10.200.{number}.0/24").parse().unwrap(),
            target: RouteTarget::Via(underlay(other).into()),
        }),
    ]
}

fn device() -> LinkName {
    "vxlan.podnet".into()
}

#[test]
fn two_nodes_reach_each_other_through_vxlan() {
    let mut nodes = Nodes::new("exec-ping");
    apply(&mut nodes.sockets[0], &towards(1, 2)).unwrap();
    apply(&mut nodes.sockets[1], &towards(2, 1)).unwrap();
    nodes.namespaces[0].command("ping -c 1 -W 2 10.233.2.0");
    // As large as the device carries, not to be cut into pieces.
    nodes.namespaces[1].command("ping -c 1 -W 2 -M do -s 1422 10.233.1.0");
}

#[test]
fn what_was_applied_is_what_is_observed_and_applying_it_again_changes_nothing() {
    let mut nodes = Nodes::new("exec-observe");
    let socket = &mut nodes.sockets[0];
    let steps = towards(1, 2);
    for _ in 0..2 {
        assert_eq!(apply(socket, &steps).unwrap(), Applied::default());
        let observed = observe(socket, &[&device()]).unwrap();
        assert_eq!(observed.vxlans.clone().into_values().next(), Some(vxlan(1)));
        assert_eq!(setting(&observed), steps[1..].iter().map(|step| format!("{step:?}")).collect());
    }
}

/// The steps that would make what is observed, but for the device.
fn setting(observed: &Observed) -> std::collections::BTreeSet<String> {
    let routes = observed.routes.iter().cloned().map(Step::SetRoute);
    let neighbours = observed.neighbours.iter().cloned().map(Step::SetNeighbour);
    let fdb = observed.fdb.iter().cloned().map(Step::SetFdb);
    routes.chain(neighbours).chain(fdb).map(|step| format!("{step:?}")).collect()
}

#[test]
fn what_a_node_sends_has_the_routes_source_and_not_its_first_address() {
    let mut nodes = Nodes::new("exec-source");
    nodes.namespaces[0].command("ip link set lo up");
    nodes.namespaces[0].command("ip addr add 203.0.113.5/32 dev lo");
    let socket = &mut nodes.sockets[0];
    let vxlan = Vxlan { addrs: Default::default(), ..vxlan(1) };
    let target = |source| RouteTarget::OnLink { device: device(), via: underlay(2).into(), source };
    let dst = "10.233.2.0/24".parse().unwrap();
    let chosen = Route { dst, target: target(None) };
    let given = Route { dst, target: target(Some(underlay(1).into())) };
    apply(socket, &[Step::SetVxlan(vxlan), Step::SetRoute(chosen.clone())]).unwrap();
    assert!(nodes.namespaces[0].command("ip route get 10.233.2.7").contains("src 203.0.113.5"));
    assert_eq!(observe(socket, &[&device()]).unwrap().routes, [chosen].into());
    apply(socket, &[Step::SetRoute(given.clone())]).unwrap();
    assert!(nodes.namespaces[0].command("ip route get 10.233.2.7").contains("src 192.0.2.1"));
    assert_eq!(observe(socket, &[&device()]).unwrap().routes, [given].into());
}

#[test]
fn removing_undoes_setting_and_can_be_done_twice() {
    let mut nodes = Nodes::new("exec-remove");
    let socket = &mut nodes.sockets[0];
    let steps = towards(1, 2);
    apply(socket, &steps).unwrap();
    let removals: Vec<Step> = steps.into_iter().rev().map(removal).collect();
    for _ in 0..2 {
        apply(socket, &removals).unwrap();
        assert_eq!(observe(socket, &[&device()]).unwrap(), Observed::default());
    }
}

fn removal(step: Step) -> Step {
    match step {
        Step::SetVxlan(vxlan) => Step::RemoveLink(vxlan.name),
        Step::SetRoute(route) => Step::RemoveRoute(route),
        Step::SetNeighbour(neighbour) => Step::RemoveNeighbour(neighbour),
        Step::SetFdb(entry) => Step::RemoveFdb(entry),
        other => other,
    }
}

#[test]
fn a_device_is_changed_where_the_kernel_can_and_made_anew_where_it_cannot() {
    let mut nodes = Nodes::new("exec-change");
    let socket = &mut nodes.sockets[0];
    apply(socket, &towards(1, 2)).unwrap();
    let changed = Vxlan { mac: mac(9, 7), mtu: 1400, addrs: [overlay(7).into()].into(), ..vxlan(1) };
    assert_eq!(apply(socket, &[Step::SetVxlan(changed.clone())]).unwrap().remade, []);
    let observed = observe(socket, &[&device()]).unwrap();
    assert_eq!((observed.vxlans.clone().into_values().next(), observed.fdb.len()), (Some(changed.clone()), 1));
    let other = Vxlan { vni: 5000, ..changed };
    assert_eq!(apply(socket, &[Step::SetVxlan(other.clone())]).unwrap().remade, [device()]);
    let observed = observe(socket, &[&device()]).unwrap();
    assert_eq!(
        (observed.vxlans.clone().into_values().next(), observed.fdb.len(), observed.neighbours.len()),
        (Some(other), 0, 0)
    );
}

#[test]
fn a_step_on_a_device_that_is_not_there_fails_by_its_index_and_those_before_it_are_done() {
    let mut nodes = Nodes::new("exec-fail");
    let socket = &mut nodes.sockets[0];
    let blackhole = Route { dst: "10.5.0.0/16".parse().unwrap(), target: RouteTarget::Blackhole };
    let lost = Route { dst: "10.6.0.0/16".parse().unwrap(), target: RouteTarget::Device("nowhere".into()) };
    let error = apply(socket, &[Step::SetRoute(blackhole.clone()), Step::SetRoute(lost.clone())]).unwrap_err();
    assert_eq!((error.index, *error.step), (1, Step::SetRoute(lost)));
    assert_eq!(error.source.to_string(), "cannot make route 10.6.0.0/16: there is no device nowhere");
    assert_eq!(observe(socket, &[&device()]).unwrap().routes.into_iter().collect::<Vec<_>>(), [blackhole]);
}

#[test]
fn a_step_that_the_kernel_refuses_fails_by_its_index() {
    let mut nodes = Nodes::new("exec-refuse");
    let unreachable = RouteTarget::Via("198.51.100.1".parse().unwrap());
    let refused = Step::SetRoute(Route { dst: "10.6.0.0/16".parse().unwrap(), target: unreachable });
    let steps = [towards(1, 2), vec![refused.clone()]].concat();
    let error = apply(&mut nodes.sockets[0], &steps).unwrap_err();
    assert_eq!((error.index, *error.step), (steps.len() - 1, refused));
}

#[test]
fn a_device_that_another_program_left_is_named_and_hinders_only_what_stands_on_ours() {
    let mut nodes = Nodes::new("exec-left");
    nodes.namespaces[0].command("ip link add flannel.1 type vxlan id 4096 dstport 4789 local 192.0.2.1 nolearning");
    let error = apply(&mut nodes.sockets[0], &towards(1, 2)).unwrap_err();
    assert_eq!(
        error.source.to_string(),
        "cannot make device vxlan.podnet: device flannel.1 has VXLAN's UDP port 4789 and identifier 4096 already; if the program that \
         made it is not used any more, remove it: ip link delete flannel.1"
    );
    let observed = observe(&mut nodes.sockets[0], &[&device()]).unwrap();
    let done: Vec<String> = observed.routes.iter().map(|route| route.dst.to_string()).collect();
    assert_eq!(done, ["10.200.1.0/24", "10.233.1.0/26"], "what does not need the device");
    nodes.namespaces[0].command("ip link show flannel.1");
    nodes.namespaces[0].command("ip link delete flannel.1");
    apply(&mut nodes.sockets[0], &towards(1, 2)).unwrap();
    assert_eq!(observe(&mut nodes.sockets[0], &[&device()]).unwrap().routes.len(), 3);
}

#[test]
fn a_device_that_has_the_port_in_another_manner_is_named() {
    let mut nodes = Nodes::new("exec-port");
    nodes.namespaces[0].command("ip link add cilium_vxlan type vxlan external dstport 4789");
    nodes.namespaces[0].command("ip link set cilium_vxlan up");
    let error = apply(&mut nodes.sockets[0], &towards(1, 2)).unwrap_err().source.to_string();
    assert!(error.contains("device cilium_vxlan has VXLAN's UDP port 4789"), "{error}");
}

#[test]
fn hundreds_of_blocks_are_routed_in_a_few_system_calls() {
    let mut nodes = Nodes::new("exec-many");
    let socket = &mut nodes.sockets[0];
    let route = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let dst = format!("10.{}.{low}.0/24", 100 + high).parse().unwrap();
        Step::SetRoute(Route { dst, target: RouteTarget::Via(underlay(2).into()) })
    };
    let steps: Vec<Step> = (0..1000).map(route).collect();
    let start = std::time::Instant::now();
    apply(socket, &steps).unwrap();
    println!("1000 routes in {:?}", start.elapsed());
    assert_eq!(observe(socket, &[&device()]).unwrap().routes.len(), 1000);
}

/// What node `number` plans for node `other` where IPv6 is inside, outside, or both.
fn towards_by_ipv6(number: u8, other: u8, outside: &str) -> Vec<Step> {
    let device = LinkName::from("vxlan.podnet");
    let at = |number: u8| -> IpAddr { format!("{outside}{number}").parse().unwrap() };
    let via = podnet_planner::overlay::vtep_next_hop(mac(9, other)).into();
    let range = |number: u8| format!("fd00:233::{number}:0/112").parse().unwrap();
    let on_link = RouteTarget::OnLink { device: device.clone(), via, source: None };
    let mtu = if at(1).is_ipv4() { 1450 } else { 1430 };
    vec![
        Step::SetVxlan(Vxlan { local: at(number), addrs: Default::default(), mtu, ..vxlan(number) }),
        Step::SetFdb(FdbEntry { device: device.clone(), mac: mac(9, other), remote: at(other) }),
        Step::SetNeighbour(Neighbour { device, addr: via, mac: mac(9, other) }),
        Step::SetRoute(Route { dst: range(other), target: on_link.clone() }),
        Step::SetRoute(Route { dst: format!("10.233.{other}.0/24").parse().unwrap(), target: on_link }),
        Step::SetRoute(Route { dst: range(number), target: RouteTarget::Blackhole }),
    ]
}

#[test]
fn vxlan_carries_ipv6_over_either_family_and_what_was_applied_is_observed() {
    for (tag, outside) in [("exec-6in4", "192.0.2."), ("exec-6in6", "2001:db8::")] {
        let mut nodes = Nodes::new(tag);
        for (number, namespace) in (1..).zip(&nodes.namespaces) {
            namespace.command(&format!("ip addr add 2001:db8::{number}/64 dev eth0 nodad"));
            namespace.command("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.disable_ipv6=1");
            // Where pods would be.
            namespace.command("ip link set lo up");
            namespace.command(&format!("ip addr add fd00:233::{number}:5/128 dev lo"));
            namespace.command(&format!("ip addr add 10.233.{number}.5/32 dev lo"));
            eventually("the kernel has come to the addresses, from a work queue of its own", || {
                let local = namespace.command("ip -6 route show table local");
                local.contains(&format!("2001:db8::{number} ")) && local.contains(&format!("fd00:233::{number}:5 "))
            });
        }
        for (number, other) in [(1, 2), (2, 1)] {
            let socket = &mut nodes.sockets[usize::from(number) - 1];
            let steps = towards_by_ipv6(number, other, outside);
            for _ in 0..2 {
                assert_eq!(apply(socket, &steps).unwrap(), Applied::default());
                let observed = observe(socket, &[&device()]).unwrap();
                assert_eq!(observed.vxlans.values().next().cloned().map(Step::SetVxlan).as_ref(), steps.first());
                assert_eq!(setting(&observed), steps[1..].iter().map(|step| format!("{step:?}")).collect());
            }
        }
        nodes.namespaces[0].command("ping -c 1 -W 2 -I fd00:233::1:5 fd00:233::2:5");
        nodes.namespaces[1].command("ping -c 1 -W 2 -I 10.233.2.5 10.233.1.5");
        // Below 1280 bytes the kernel takes IPv6 away, and forgets that it was let.
        nodes.namespaces[0].command(&format!("ip link set {} mtu 1200", device()));
        apply(&mut nodes.sockets[0], &towards_by_ipv6(1, 2, outside)).unwrap();
        nodes.namespaces[0].command("ping -c 1 -W 2 -I fd00:233::1:5 fd00:233::2:5");
        let shown = nodes.namespaces[0].command(&format!("ip -6 addr show dev {}", device()));
        assert_eq!(shown, "", "it needs no address of its own");
        let removals: Vec<Step> = towards_by_ipv6(1, 2, outside).into_iter().rev().map(removal).collect();
        for _ in 0..2 {
            apply(&mut nodes.sockets[0], &removals).unwrap();
            assert_eq!(observe(&mut nodes.sockets[0], &[&device()]).unwrap(), Observed::default());
        }
    }
}
