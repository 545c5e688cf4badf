//! Pods on a bridge of their node.

use podnet_model::{
    Block, BlockCidr, Change, ClusterIp, EncapMode, Endpoint, EndpointSlice, Mac, Node, NodeAddr, PodAddr, PodKey,
    Service, ServiceKey, ServicePort, SliceKey, TargetPort,
    cni::PortMapping,
    endpoints::EndpointPort,
    limits::{Bandwidth, Limits, PacketRate, PodLimits},
    proxy::Mode,
    service::{Port, ServiceKind},
};

use super::{super::*, passed, pod, pool};
use crate::{
    attachments::TABLE,
    step::{Neighbour, Step},
};

const NODE: &str = "192.0.2.11";
const SERVICE: &str = "10.96.0.10";

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two pods on a bridge, whose block is a segment to them by IPv4 alone, and one of the same block that has a link of its own.
fn cluster(mode: Mode) -> Cluster {
    planned(mode, changes(), [false; 2])
}

/// The cluster of these objects, with the links of its pods. What passes the bridge is shown to rules of these families.
fn planned(mode: Mode, changes: Vec<Change>, shows_bridged: [bool; 2]) -> Cluster {
    let port = PortMapping { host_ip: addr("0.0.0.0"), protocol: Protocol::Tcp, host_port: 8080, container_port: 80 };
    let on_bridge = |device: &str, ports: &[PortMapping]| Link {
        bridge: Some("br-one".into()),
        segments: vec!["10.1.1.0/26".parse().unwrap()],
        ports: ports.to_vec(),
        ..Link::routed(device.into())
    };
    let (own, near) = (on_bridge("pn-5", &[]), on_bridge("pn-6", &[port]));
    let links = [
        (addr("10.1.1.5"), own.clone()),
        (addr("fd00::5"), own),
        (addr("10.1.1.6"), near.clone()),
        (addr("fd00::6"), near),
        (addr("10.1.1.7"), Link::routed("pn-7".into())),
    ];
    let facts = Facts { links: links.into(), shows_bridged, ..Facts::new("eth0".into(), 1500, mode) };
    Cluster::new(changes, [(NodeName::from("node1"), facts)].into())
}

fn changes() -> Vec<Change> {
    let subnet = Some("192.0.2.11/24".parse().unwrap());
    let node = Node { subnet, ..Node::new("node1".into(), NodeAddr(addr(NODE))) };
    let range = pool(EncapMode::Never, EncapMode::Never);
    let block = BlockCidr("10.1.1.0/26".parse().unwrap());
    let mut changes = vec![
        Change::Node("node1".into(), Some(node)),
        Change::Pool(range.name.clone(), Some(range)),
        Change::Block(block, Some(Block::new(block, Some("node1".into())))),
        pod("routed", "node1", "10.1.1.7"),
    ];
    for (name, own, own6) in [("p1", "10.1.1.5", "fd00::5"), ("near", "10.1.1.6", "fd00::6")] {
        let Change::Pod(key, Some(mut pod)) = pod(name, "node1", own) else { panic!("a pod") };
        pod.addrs.push(PodAddr(addr(own6)));
        changes.push(Change::Pod(key, Some(pod)));
    }
    changes.extend(service());
    changes
}

/// A Service whose only endpoint is the neighbour.
fn service() -> [Change; 2] {
    let key = ServiceKey::new("default", "web");
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(addr(SERVICE))] };
    let endpoint = Endpoint { node: Some("node1".into()), ..Endpoint::new(PodAddr(addr("10.1.1.6"))) };
    let slice = EndpointSlice {
        key: SliceKey::new("default", "web-1"),
        service: key.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: TargetPort(80) }],
        endpoints: vec![endpoint],
        triggered: None,
        unproxied: false,
    };
    let service = Service::new(key.clone(), kind, vec![port]);
    [Change::Service(key, Some(service)), Change::Slice(slice.key.clone(), Some(slice))]
}

/// The only way there.
fn path(mode: Mode, from: &Source, to: &str, port: u16) -> Path {
    path_in(&cluster(mode), from, to, port)
}

fn path_in(cluster: &Cluster, from: &Source, to: &str, port: u16) -> Path {
    let target = Target { addr: addr(to), protocol: Protocol::Tcp, port };
    let mut paths = cluster.trace(from, target).unwrap().paths;
    assert_eq!(paths.len(), 1, "{to}: {paths:?}");
    paths.remove(0)
}

fn own() -> Source {
    Source::Pod(PodKey::new("default", "p1"))
}

const SENT: [&str; 2] = ["pod default/p1 sent eth0", "node node1 received pn-5"];
const THERE: [&str; 2] = ["node node1 routed pn-6", "pod default/near delivered eth0"];

#[test]
fn neighbours_on_a_bridge_reach_each_other_past_the_node() {
    let path = path(Mode::Nftables, &own(), "10.1.1.6", 80);
    assert_eq!(passed(&path), [SENT, THERE].concat());
    assert_eq!(path.end, End { verdict: Verdict::Arrives, why: "pod default/near on node node1".into() });
    assert_eq!(path.hops[0].rule.as_deref(), Some("10.1.1.0/26 dev eth0 scope link"));
    assert_eq!(path.hops[0].stands, [], "what its gateway is the node knows");
    // What is chosen before there is a packet is a neighbour as well.
    let chosen = self::path(Mode::Ebpf, &own(), SERVICE, 80);
    assert_eq!(passed(&chosen)[1..], [SENT, THERE].concat());
}

/// The objects where both pods on the bridge are limited in all that there is, and what is said of it on the way to there: in words, and by what.
fn limited(mode: Mode, shows_bridged: [bool; 2], to: &str) -> Vec<(String, String)> {
    let bandwidth = Some(Bandwidth { rate: 1_000_000, burst: None, peak: None });
    let limits = Limits { bandwidth, packets: Some(PacketRate { rate: 1000, burst: 5 }), connections: Some(7) };
    let mut changes = changes();
    for change in &mut changes {
        if let Change::Pod(_, Some(pod)) = change {
            pod.limits = Ok(PodLimits { ingress: limits.clone(), egress: limits.clone() });
        }
    }
    let path = path_in(&planned(mode, changes, shows_bridged), &own(), to, 80);
    let judged = path.hops.iter().filter(|hop| hop.kind == Kind::Judged);
    judged.map(|hop| (hop.what.clone(), hop.rule.clone().unwrap())).collect()
}

#[test]
fn of_limits_neighbours_meet_bandwidth_alone_unless_they_are_shown_to_rules() {
    for shows_bridged in [[false; 2], [false, true]] {
        let judged = limited(Mode::Nftables, shows_bridged, "10.1.1.6");
        assert_eq!(judged.len(), 2, "{judged:?}");
        assert!(judged.iter().all(|(what, _)| what.starts_with("at most 1000000 bits/s")), "{judged:?}");
    }
    let judged = limited(Mode::Nftables, [true, false], "10.1.1.6");
    let expected = [
        ("at most 1000000 bits/s from", "qdisc tbf"),
        ("at most 1000 packets/s from", "nftables, table podnet-limits, prerouting from-pods: "),
        ("at most 7 connections from", "nftables, table podnet-limits, prerouting from-pods: "),
        ("at most 1000 packets/s to", "nftables, table podnet-limits, forward forwarded → to-pods: "),
        ("at most 7 connections to", "nftables, table podnet-limits, forward forwarded → to-pods: "),
        ("at most 1000000 bits/s to", "qdisc tbf"),
    ];
    assert_eq!(judged.len(), expected.len(), "{judged:?}");
    for ((what, rule), (words, by)) in judged.iter().zip(expected) {
        assert!(what.starts_with(words) && rule.starts_with(by), "{what}: {rule}");
    }
}

#[test]
fn what_ipvs_sends_to_a_pod_meets_the_limits_of_the_nodes_own_packets() {
    for (mode, chain) in [(Mode::Nftables, "forward forwarded"), (Mode::Ipvs, "output of-the-node")] {
        let judged = limited(mode, [false; 2], SERVICE);
        let to = judged.iter().filter(|(what, _)| what.starts_with("at most 7 connections to"));
        let rules: Vec<&str> = to.map(|(_, rule)| rule.as_str()).collect();
        let expected = format!("nftables, table podnet-limits, {chain} → to-pods: ");
        assert!(matches!(rules[..], [rule] if rule.starts_with(&expected)), "{mode}: {rules:?}");
    }
}

#[test]
fn who_may_send_by_a_bridge_is_asked_at_its_port() {
    let entries = |shows_bridged, to: &str| {
        let path = path_in(&planned(Mode::Nftables, changes(), shows_bridged), &own(), to, 80);
        path.hops.iter().flat_map(|hop| hop.entries.clone()).collect::<Vec<Entry>>()
    };
    let (one, other) = (addr("10.1.1.5"), addr("10.1.1.6"));
    let past_rules = [Entry::Port(one), Entry::Bandwidth(one), Entry::Bandwidth(other)];
    assert_eq!(entries([false; 2], "10.1.1.6"), past_rules);
    let shown = [Entry::Port(one), Entry::Limits(one), Entry::Limits(other)];
    assert_eq!(entries([true; 2], "10.1.1.6"), shown);
    let to_node = [Entry::Port(one), Entry::Limits(one), Entry::Limits(addr("10.1.1.7"))];
    assert_eq!(entries([false; 2], "10.1.1.7"), to_node);
    for (to, set) in [("10.1.1.6", "senders4"), ("10.1.1.7", "senders4"), ("fd00::6", "senders6")] {
        let path = path(Mode::Nftables, &own(), to, 80);
        let rule = path.hops[1].rule.as_deref().unwrap();
        assert!(rule.contains("of pn-5 alone"), "{to}: {rule}");
        assert!(rule.ends_with(&format!("(table bridge podnet-pods, set {set})")), "{to}: {rule}");
    }
}

#[test]
fn what_rules_translate_as_it_comes_in_by_a_port_passes_the_bridges_own_device_by() {
    let past = ["node node1 translated -", "node node1 masqueraded -"];
    for (to, port) in [(SERVICE, 80), (NODE, 8080)] {
        let path = path_in(&planned(Mode::Nftables, changes(), [true, false]), &own(), to, port);
        assert_eq!(passed(&path), [&SENT[..], &past, &THERE].concat(), "{to}");
        assert_eq!((path.source, path.end.verdict), (addr(NODE), Verdict::Arrives), "{to}");
        let routed = path.hops.iter().find(|hop| hop.kind == Kind::Routed).unwrap();
        assert_eq!(routed.rule.as_deref(), Some("10.1.1.6 dev br-one scope link"), "{to}");
        assert_eq!(routed.stands.len(), 1, "{to}: {routed:?}");
    }
    let passes_bridge = |mode, shows_bridged, to: &str, port| {
        let path = path_in(&planned(mode, changes(), shows_bridged), &own(), to, port);
        assert_eq!(path.end.verdict, Verdict::Arrives, "{mode} {to}");
        path.hops.iter().any(|hop| hop.device.as_ref().is_some_and(|device| device.as_str() == "br-one"))
    };
    // Of another family is shown, or translated by who is no rule, or not translated.
    assert!(passes_bridge(Mode::Nftables, [false, true], SERVICE, 80));
    for mode in [Mode::Ipvs, Mode::Userspace] {
        assert!(passes_bridge(mode, [true; 2], SERVICE, 80), "{mode}");
        assert!(!passes_bridge(mode, [true; 2], NODE, 8080), "{mode}");
    }
    for to in ["fd00::6", "10.1.1.7"] {
        assert!(passes_bridge(Mode::Nftables, [true; 2], to, 80), "{to}");
    }
}

#[test]
fn the_neighbour_that_a_pod_on_a_bridge_is_to_its_node_is_the_bridges_own() {
    let mac = Mac([2; 6]);
    let link = Link { bridge: Some("br-one".into()), mac: Some(mac), ..Link::routed("pn-6".into()) };
    let facts = Facts { links: [(addr("10.1.1.6"), link)].into(), ..Facts::new("eth0".into(), 1500, Mode::Nftables) };
    let cluster = Cluster::new(changes(), [(NodeName::from("node1"), facts)].into());
    let path = path_in(&cluster, &Source::Node("node1".into()), "10.1.1.6", 80);
    let routed = path.hops.iter().find(|hop| hop.kind == Kind::Routed).unwrap();
    let neighbour = Neighbour { device: "br-one".into(), addr: addr("10.1.1.6"), mac };
    assert_eq!((routed.stands.len(), routed.stands.last()), (2, Some(&Step::SetNeighbour(neighbour))));
}

#[test]
fn what_is_no_neighbours_passes_the_bridge_to_the_node() {
    let by_bridge = ["node node1 received br-one"];
    // By IPv6 there are no neighbours, and to who is not on the bridge the node answers in their place.
    for (to, then) in [
        ("fd00::6", [&["node node1 routed br-one"][..], &THERE].concat()),
        ("10.1.1.7", vec!["node node1 routed pn-7", "pod default/routed delivered eth0"]),
        (NODE, vec!["node node1 delivered -"]),
    ] {
        let path = path(Mode::Nftables, &own(), to, 80);
        assert_eq!(passed(&path), [&SENT[..], &by_bridge, &then].concat(), "{to}");
    }
    let node = path(Mode::Nftables, &Source::Node("node1".into()), "10.1.1.6", 80);
    assert_eq!(passed(&node), [&["node node1 sent -", "node node1 routed br-one"][..], &THERE].concat());
}

#[test]
fn for_an_address_of_the_block_that_nobody_has_nobody_answers() {
    let path = path(Mode::Nftables, &own(), "10.1.1.8", 80);
    assert_eq!(passed(&path), ["pod default/p1 sent -"]);
    let why = "no pod has 10.1.1.8, which is of a block of node node1";
    assert_eq!(path.end, End { verdict: Verdict::Lost, why: why.into() });
}

#[test]
fn each_hop_on_the_way_to_a_service_names_its_object_and_a_port_that_it_has_not_names_the_service() {
    let web = Some(Object::namespaced("service", "default", "web"));
    let served = path(Mode::Nftables, &own(), SERVICE, 80);
    assert!(served.hops.iter().all(|hop| hop.object.is_some()), "{:#?}", served.hops);
    let masqueraded = served.hops.iter().find(|hop| hop.kind == Kind::Masqueraded).unwrap();
    assert_eq!(masqueraded.object, web);
    let refused = path(Mode::Nftables, &own(), SERVICE, 81);
    assert_eq!(refused.end.verdict, Verdict::Refused);
    let judged = refused.hops.iter().find(|hop| hop.kind == Kind::Judged).unwrap();
    assert_eq!(judged.object, web);
}

#[test]
fn a_neighbour_that_would_answer_past_a_translation_is_asked_by_the_node() {
    for (to, port) in [(SERVICE, 80), (NODE, 8080)] {
        let path = path(Mode::Nftables, &own(), to, port);
        let node = ["received br-one", "translated -", "masqueraded -", "routed br-one"];
        let node = node.map(|hop| format!("node node1 {hop}"));
        let node: Vec<&str> = node.iter().map(String::as_str).collect();
        assert_eq!(passed(&path), [&SENT[..], &node, &THERE].concat(), "{to}");
        assert_eq!((path.source, path.end.verdict), (addr(NODE), Verdict::Arrives), "{to}");
        let masqueraded = path.hops.iter().find(|hop| hop.kind == Kind::Masqueraded).unwrap();
        let rule = masqueraded.rule.as_deref().unwrap();
        assert!(rule.contains(TABLE) && rule.contains("an attachment to its neighbour"), "{to}: {rule}");
    }
}
