//! What is taken is what is there, and what is sent of it is that as well.

use std::net::Ipv4Addr;

use podnet_model::{
    HOST_MAC, Mac, PodKey, Protocol,
    cni::PortMapping,
    limits::{Limits, PacketRate, PodLimits},
    proxy::Mode,
    wireguard::PrivateKey,
};
use podnet_planner::{
    attachments::{Attached, Attachments},
    ipam::Handle,
    ruleset::{BackendAddress, BackendKey, BackendMap, FrontendKey, RuleSet},
    step::{Ipip, ROUTE_PROTOCOL, RouteTarget, Step, Wireguard},
    trace::{Facts, Link as PodLink},
};

use super::*;
use crate::testing::TestNs;

const VXLAN: &str = "podnet.vxlan";

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn told(kernel: Snapshot) -> Told {
    let mut facts = Facts::new("eth0".into(), 1500, Mode::Ebpf);
    facts.no_nat_cidrs.push("10.96.0.0/12".parse().unwrap());
    let port = PortMapping { host_ip: addr("::"), protocol: Protocol::Udp, host_port: 53, container_port: 5353 };
    let mac = Some(Mac([2, 0, 0, 0, 0, 3]));
    let segments = vec!["10.1.1.0/26".parse().unwrap()];
    let link = PodLink { device: "pn0".into(), bridge: Some("cni0".into()), mac, segments, ports: vec![port] };
    facts.links.insert(addr("fd00::5"), link);
    Told { facts, is_configured_alone: true, kernel, pods: Vec::new() }
}

/// What is sent, as it is read again.
fn sent(told: &Told) -> (String, Told) {
    let text = told.write(MOST_BYTES).unwrap();
    let read = Told::read(&text).unwrap();
    (String::from_utf8(text).unwrap(), read)
}

/// A node's way to another one, as its executor makes it.
fn steps() -> Vec<Step> {
    let (mac, via, remote) = (Mac([2, 0, 0, 0, 0, 9]), addr("10.1.2.0"), addr("192.0.2.2"));
    let vxlan = Vxlan {
        name: VXLAN.into(),
        vni: 4096,
        port: 4789,
        local: addr("192.0.2.1"),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1450,
        addrs: [addr("10.1.1.0")].into(),
    };
    let onlink = RouteTarget::OnLink { device: VXLAN.into(), via, source: None };
    vec![
        Step::SetVxlan(vxlan),
        Step::SetFdb(FdbEntry { device: VXLAN.into(), mac, remote }),
        Step::SetNeighbour(Neighbour { device: VXLAN.into(), addr: via, mac }),
        Step::SetRoute(Route { dst: "10.1.2.0/26".parse().unwrap(), target: onlink }),
        Step::SetRoute(Route { dst: "10.1.1.0/26".parse().unwrap(), target: RouteTarget::Blackhole }),
    ]
}

/// A table with a frontend that has so many backends.
fn backends(count: u8) -> RuleSet {
    let frontend = FrontendKey { addr: addr("10.96.0.1"), protocol: podnet_model::Protocol::Tcp, port: 80 };
    let to = |number: u8| BackendAddress { addr: Ipv4Addr::new(10, 1, 1, number).into(), port: 8080 };
    let elements = (0..count).map(|slot| (BackendKey { frontend, slot: slot.into() }, to(slot))).collect();
    RuleSet { backend_maps: [("backends".into(), BackendMap { elements })].into(), ..RuleSet::empty(Family::V4) }
}

#[test]
fn what_a_namespace_has_is_taken_and_sent_whole() {
    let namespace = TestNs::new("snapshot");
    namespace.command("ip link add eth0 type bridge");
    namespace.command("ip link set eth0 mtu 1400 up");
    namespace.command("ip addr add 192.0.2.1/24 dev eth0");
    namespace.command("ip link add idle type bridge");
    sysctl::set(&namespace, "net.ipv4.ip_forward", "1").unwrap();
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    executor::apply(&mut socket, &steps()).unwrap();
    let (mut rules, planned) = (NftSocket::open_in(&namespace).unwrap(), backends(3));
    rules.replace(nftables::TABLE, &planned).unwrap();
    namespace.command("nft add table inet wall");
    namespace.command("nft add chain inet wall across { type filter hook forward priority 0 ; policy drop ; }");
    namespace.command("nft add chain inet wall open { type filter hook forward priority 1 ; policy accept ; }");
    let name = LinkName::from(VXLAN);
    let (_, read) = sent(&told(Snapshot::take(&namespace, &[&name], MOST_ELEMENTS).unwrap()));
    let Told { facts, is_configured_alone, kernel, .. } = read;
    assert_eq!((facts, is_configured_alone), (told(Snapshot::default()).facts, true));
    assert_eq!(kernel.observed(), State::from(executor::observe(&mut socket, &[&name]).unwrap()));
    for step in steps() {
        let mut after = kernel.observed();
        after.apply(&step);
        assert_eq!(after, kernel.observed(), "{step:?}");
    }
    for (device, mtu, is_up) in [("eth0", 1400, true), ("idle", 1500, false), (VXLAN, 1450, true)] {
        assert!(kernel.devices.contains(&Device { name: device.into(), mtu, is_up }), "{:?}", kernel.devices);
    }
    assert_eq!(kernel.settings[FORWARDING4], "1");
    let rules = kernel.rules.unwrap();
    assert_eq!(rules.differences(nftables::TABLE, &planned), [""; 0]);
    let told = rules.differences(nftables::TABLE, &backends(2));
    assert_eq!(told, ["backends of table podnet-services has 1 frontends with wrong or missing backends"]);
    assert_eq!(rules.differences(border::TABLE, &planned), ["there is no table podnet that does anything"]);
    let six = RuleSet { family: Family::V6, ..planned };
    assert_eq!(rules.differences(nftables::TABLE, &six), ["there is no table podnet-services that does anything"]);
    let walls: Vec<String> = rules.walls.iter().map(ToString::to_string).collect();
    assert_eq!(walls, ["inet wall across"]);
}

#[test]
fn permanent_neighbours_of_all_devices_are_taken_and_others_are_not() {
    let namespace = TestNs::new("snapshot-neigh");
    namespace.command("ip link add pn0 type veth peer name pn1");
    namespace.command("ip link set pn0 up");
    namespace.command("ip link set pn1 up");
    for (pod, device) in [("10.1.1.5", "pn0"), ("fd00::5", "pn0"), ("10.1.1.6", "pn1")] {
        namespace.command(&format!("ip neigh add {pod} lladdr {HOST_MAC} dev {device} nud permanent"));
    }
    namespace.command(&format!("ip neigh add 10.1.1.7 lladdr {HOST_MAC} dev pn1 nud reachable"));
    let kernel = Snapshot::take(&namespace, &[], MOST_ELEMENTS).unwrap();
    let at = |device: &str, pod: &str| Neighbour { device: device.into(), addr: addr(pod), mac: HOST_MAC };
    assert_eq!(kernel.neighbours, [at("pn0", "10.1.1.5"), at("pn0", "fd00::5"), at("pn1", "10.1.1.6")]);
}

#[test]
fn sets_beyond_what_is_told_are_named_and_are_no_difference() {
    let namespace = TestNs::new("snapshot-many");
    let planned = backends(200);
    NftSocket::open_in(&namespace).unwrap().replace(nftables::TABLE, &planned).unwrap();
    let rules = Snapshot::take(&namespace, &[], 199).unwrap().rules.unwrap();
    assert_eq!(rules.differences(nftables::TABLE, &planned), [""; 0]);
    let told = "backends of table podnet-services has 200 elements, which are too many to be told";
    assert_eq!(rules.unlisted(nftables::TABLE, &planned), [told]);
    let whole = Snapshot::take(&namespace, &[], 200).unwrap().rules.unwrap();
    assert_eq!(whole.unlisted(nftables::TABLE, &planned), [""; 0]);
}

/// Both directions alike.
fn limited(rate: u32, connections: u32) -> PodLimits {
    let packets = Some(PacketRate { rate, burst: 5 });
    let limits = Limits { packets, connections: Some(connections), ..Limits::default() };
    PodLimits { egress: limits.clone(), ingress: limits }
}

#[test]
fn of_tables_in_which_all_pods_are_it_is_told_what_differs_at_the_addresses_that_are_asked_for() {
    let namespace = TestNs::new("snapshot-pods");
    let (pod, other) = (addr("10.1.1.5"), addr("10.1.1.6"));
    let mut attachments = Attachments::default();
    for (device, number, addr) in [("pn1", 1, pod), ("pn2", 2, other)] {
        let mac = Mac([2, 0, 0, 0, 0, number]);
        let attached = Attached { device: device.into(), mac, addrs: vec![addr], ports: Vec::new(), segment: None };
        attachments.add(Handle::from(device), attached).unwrap();
    }
    let pods = attachments.desired(Family::V4);
    let (one, two) = (limited(100, 3), limited(7, 9));
    let all = limits::rules(Family::V4, [(pod, &one), (other, &two)]).unwrap();
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    socket.replace(attachments::TABLE, &pods).unwrap();
    socket.replace(limits::TABLE, &all).unwrap();
    let rules = || Snapshot::take(&namespace, &[], MOST_ELEMENTS).unwrap().rules.unwrap();
    let part = |limits: &PodLimits| limits::part(Family::V4, [(pod, limits)]);
    let differs = |rules: &Rules, table: &str, wanted: &RuleSet| -> Vec<(bool, String)> {
        let faults = rules.differences_of(table, wanted, &[pod].into());
        faults.into_iter().map(|fault| (fault.is_missing, fault.what)).collect()
    };
    let told = |is_missing: bool, what: &str| (is_missing, what.to_owned());
    let (kernel, pure) = (rules(), Rules::of([(attachments::TABLE, &pods), (limits::TABLE, &all)]));
    for rules in [&kernel, &pure] {
        assert!(differs(rules, attachments::TABLE, &pods).is_empty());
        assert!(differs(rules, limits::TABLE, &part(&one)).is_empty());
        let packets = |way: &str| {
            let what = "has 10.1.1.5 with 100 packets/s, 5 at once and not with 50 packets/s, 5 at once";
            told(false, &format!("packets-{way} of table podnet-limits {what}"))
        };
        let slower = differs(rules, limits::TABLE, &part(&limited(50, 3)));
        assert_eq!(slower, [packets("from"), packets("to")]);
        let fewer = differs(rules, limits::TABLE, &part(&limited(100, 2)));
        assert_eq!(fewer.iter().filter(|(is_missing, _)| *is_missing).count(), 2, "{fewer:?}");
        let chain = "chain to-10.1.1.5 of table podnet-limits has a rule that is none of podnet's: handle ";
        assert!(fewer.iter().any(|(is_missing, what)| !is_missing && what.starts_with(chain)), "{fewer:?}");
        let none = differs(rules, limits::TABLE, &limits::part(Family::V4, []));
        let foreign = told(false, "packets-to of table podnet-limits has 10.1.1.5, which is none of podnet's");
        assert!(none.len() == 8 && none.contains(&foreign), "{none:?}");
    }
    namespace.command("nft delete element ip podnet-pods senders { pn1 . 02:00:00:00:00:01 . 10.1.1.5 }");
    namespace.command("nft delete element ip podnet-pods senders { pn2 . 02:00:00:00:00:02 . 10.1.1.6 }");
    namespace.command("nft add element ip podnet-pods senders { pn1 . 02:00:00:00:00:09 . 10.1.1.5 }");
    namespace.command("nft delete element ip podnet-limits limited-from { 10.1.1.5 }");
    let kernel = rules();
    let expected = [
        told(true, "senders of table podnet-pods lacks pn1 . 02:00:00:00:00:01 . 10.1.1.5"),
        told(false, "senders of table podnet-pods has pn1 . 02:00:00:00:00:09 . 10.1.1.5, which is none of podnet's"),
    ];
    assert_eq!(differs(&kernel, attachments::TABLE, &pods), expected);
    let lacks = told(true, "limited-from of table podnet-limits lacks 10.1.1.5");
    assert_eq!(differs(&kernel, limits::TABLE, &part(&one)), [lacks]);
    let nothing = Rules::default();
    assert!(differs(&nothing, limits::TABLE, &limits::part(Family::V4, [])).is_empty());
    let gone = told(true, "there is no table podnet-limits that does anything");
    assert_eq!(differs(&nothing, limits::TABLE, &part(&one)), [gone]);
}

#[test]
fn what_is_too_much_is_not_told() {
    let told = told(Snapshot::default());
    let whole = told.write(MOST_BYTES).unwrap().len();
    assert_eq!(told.write(whole).unwrap().len(), whole);
    assert!(matches!(told.write(whole - 1), Err(Unwritable::TooMuch { most }) if most == whole - 1));
}

#[test]
fn another_form_and_another_order_are_named_before_anything_else_is_read() {
    let read = |text: &str| Told::read(text.as_bytes()).unwrap_err().to_string();
    let other = read(r#"{"version": 6, "order": "little", "node": "something new"}"#);
    assert!(other.contains("form 6") && other.contains("agents' version"), "{other}");
    let order = read(r#"{"version": 5, "order": "middle", "node": 1}"#);
    assert!(order.contains("middle-endian"), "{order}");
    let (text, _) = sent(&told(Snapshot::default()));
    assert!(matches!(Told::read(&text.as_bytes()[..text.len() - 1]), Err(Unreadable::Form(_))));
    let more = text.replace("\"devices\"", "\"device\"");
    assert!(matches!(Told::read(more.as_bytes()), Err(Unreadable::Form(_))));
}

#[test]
fn the_private_key_is_not_sent() {
    let name = LinkName::from("podnet.wg");
    let key = PrivateKey([7; 32]);
    let wireguard = Wireguard { name: name.clone(), port: 51820, mtu: 1420, mark: 1, key: key.clone() };
    let ipip = Tunnel::Ipip(Ipip { name: "podnet.ipip".into(), local: Ipv4Addr::new(192, 0, 2, 1), mtu: 1480 });
    let tunnels = [(name, Tunnel::Wireguard(wireguard.clone())), ("podnet.ipip".into(), ipip.clone())];
    let kernel = Snapshot::of(Observed { tunnels: tunnels.into(), ..Observed::default() });
    let (text, read) = sent(&told(kernel.clone()));
    assert!(!text.contains(&key.reveal()) && !text.contains("podnet.wg"), "{text}");
    assert_eq!(read.kernel.tunnels, [ipip]);
    // Nor could it be, if somebody put it there.
    let careless = Snapshot { tunnels: vec![Tunnel::Wireguard(wireguard)], ..kernel };
    assert!(matches!(told(careless).write(MOST_BYTES), Err(Unwritable::Form(_))));
}

#[test]
fn of_a_pod_its_devices_its_route_and_its_gateway_are_taken_unless_there_is_too_much() {
    let (pod, gateway) = (TestNs::new("snapshot-pod"), addr("169.254.1.1"));
    pod.command("ip link add eth0 mtu 1400 type veth peer name other");
    pod.command("ip link set eth0 up");
    pod.command("ip link set other up");
    pod.command(&format!("ip neigh add {gateway} lladdr {HOST_MAC} dev eth0 nud permanent"));
    pod.command(&format!("ip route add default via {gateway} dev eth0 onlink proto {ROUTE_PROTOCOL}"));
    // What is not podnet's, and at another device.
    pod.command("ip route add 192.0.2.0/24 dev eth0");
    pod.command(&format!("ip neigh add 169.254.1.2 lladdr {HOST_MAC} dev other nud permanent"));
    pod.command("nft add table ip podnet");
    let kernel = Snapshot::inside(&pod).unwrap();
    let target = RouteTarget::OnLink { device: POD_END.into(), via: gateway, source: None };
    assert_eq!(kernel.routes, [Route { dst: "0.0.0.0/0".parse().unwrap(), target }]);
    assert_eq!(kernel.neighbours, [Neighbour { device: POD_END.into(), addr: gateway, mac: HOST_MAC }]);
    assert!(kernel.devices.contains(&Device { name: POD_END.into(), mtu: 1400, is_up: true }), "{:?}", kernel.devices);
    assert_eq!(kernel.rules, None);
    let route = |number| {
        let dst = format!("10.9.{number}.0/24").parse().unwrap();
        Step::SetRoute(Route { dst, target: RouteTarget::Blackhole })
    };
    let steps: Vec<Step> = (0..MOST_INSIDE).map(route).collect();
    executor::apply(&mut RtSocket::open_in(&pod).unwrap(), &steps).unwrap();
    assert!(matches!(Snapshot::inside(&pod), Err(SnapshotError::Crowded(count)) if count > MOST_INSIDE));
}

#[test]
fn pods_are_sent_with_the_node_and_of_none_that_are_asked_for_nothing() {
    let none = told(Snapshot::default());
    let (text, read) = sent(&none);
    assert!(!text.contains("\"pods\"") && read == none, "{text}");
    let device = Device { name: POD_END.into(), mtu: 1450, is_up: true };
    let inside = Snapshot { devices: vec![device], ..Snapshot::default() };
    let pods = vec![
        (PodKey::new("shop", "web"), Ok(inside)),
        (PodKey::new("shop", "db"), Err("it has no address on this node".to_owned())),
    ];
    let some = Told { pods, ..none };
    assert_eq!(sent(&some).1, some);
}
