//! Two nodes with VXLAN between them and a pod on each, for tests.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use podnet_kernel::snapshot::{Device, FORWARDING4, Rules, Snapshot, Told};
use podnet_model::{
    Block, BlockCidr, Change, EncapMode, Family, HOST_MAC, LinkName, Mac, Node, NodeAddr, NodeName, Pod, PodAddr,
    PodKey, Pool, Protocol,
    labels::Labels,
    limits::{InvalidLimit, PodLimits},
    pod::AddressRequest,
    proxy::Mode,
};
use podnet_planner::{
    attachments, overlay,
    step::{FdbEntry, Neighbour, Route, RouteTarget},
    trace::{Facts, Link, Source, Target, Trace},
};

use super::state::State;
use crate::report::Failure;

/// The numbers of the nodes, and of their pods.
const NUMBERS: [u8; 2] = [1, 2];

pub(super) fn node(number: u8) -> NodeName {
    NodeName::from(format!("node{number}"))
}

fn addr(number: u8) -> IpAddr {
    [10, 1, number, 5].into()
}

fn changes() -> Vec<Change> {
    let range = "10.1.0.0/16".parse().unwrap();
    let pool = Pool { vxlan: EncapMode::Always, nat_outgoing: true, ..Pool::new("pods".into(), range) };
    let mut changes = vec![Change::Pool(pool.name.clone(), Some(pool))];
    for number in NUMBERS {
        let (name, net) = (node(number), format!("192.0.2.1{number}/24").parse::<IpNet>().unwrap());
        let object = Node { subnet: Some(net), ..Node::new(name.clone(), NodeAddr(net.addr())) };
        changes.push(Change::Node(name.clone(), Some(object)));
        let cidr = BlockCidr(format!("10.1.{number}.0/26").parse().unwrap());
        changes.push(Change::Block(cidr, Some(Block::new(cidr, Some(name)))));
        changes.push(pod(number));
    }
    changes
}

fn pod(number: u8) -> Change {
    let key = PodKey::new("default", &format!("p{number}"));
    let pod = Pod {
        key: key.clone(),
        uid: "u".into(),
        static_uid: None,
        searches: None,
        ndots: None,
        node: Some(node(number)),
        labels: Labels::default(),
        host_network: false,
        addrs: vec![PodAddr(addr(number))],
        finished: false,
        request: Ok(AddressRequest::default()),
        limits: Ok(PodLimits::default()),
    };
    Change::Pod(key, Some(pod))
}

/// The cluster as somebody knows it who is elsewhere.
pub(super) fn state() -> State {
    let usual = |number| (node(number), Facts::new("eth0".into(), 1500, Mode::Nftables));
    State::of(changes(), NUMBERS.map(usual).into())
}

/// The cluster as somebody knows it whom all nodes told what they are, where the pods are limited so.
pub(super) fn limited(limits: &Result<PodLimits, InvalidLimit>) -> State {
    let with_limits = |change: Change| match change {
        Change::Pod(key, Some(pod)) => Change::Pod(key, Some(Pod { limits: limits.clone(), ..pod })),
        other => other,
    };
    let changes = changes().into_iter().map(with_limits).collect();
    State::of(changes, NUMBERS.map(|number| (node(number), facts(number))).into())
}

/// What only the node knows.
fn facts(number: u8) -> Facts {
    let mac = Some(Mac([2, 0, 0, 0, 0, number]));
    let link = Link { mac, ..Link::routed(format!("pn-node{number}").into()) };
    let links = BTreeMap::from([(addr(number), link)]);
    Facts { links, ..Facts::new("ens3".into(), 9000, Mode::Nftables) }
}

/// The cluster as somebody knows it whom all nodes told what they are.
fn informed() -> State {
    State::of(changes(), NUMBERS.map(|number| (node(number), facts(number))).into())
}

/// What is told of a node whose kernel has all as it is planned, but for tables, of which it has that of pods alone.
pub(super) fn told(number: u8) -> Told {
    let informed = informed();
    let planned = informed.cluster.planned(&node(number)).unwrap();
    let overlay::State { vxlans, routes, neighbours, fdb, .. } = planned.overlay.desired().clone();
    let up = |name, mtu| Device { name, mtu, is_up: true };
    let facts = facts(number);
    let link = facts.links[&addr(number)].device.clone();
    let own = [up(facts.device.clone(), facts.mtu), up(link.clone(), planned.overlay.pod_mtu())];
    let devices = vxlans.values().map(|vxlan| up(vxlan.name.clone(), vxlan.mtu)).chain(own).collect();
    let mac = facts.links[&addr(number)].mac;
    let pod = mac.map(|mac| Neighbour { device: link.clone(), addr: addr(number), mac });
    let to_pod = Route { dst: addr(number).into(), target: RouteTarget::Device(link) };
    let routes = routes.into_iter().map(|(dst, target)| Route { dst, target });
    let neighbours = neighbours.into_iter().map(|((device, addr), mac)| Neighbour { device, addr, mac });
    let fdb = fdb.into_iter().map(|((device, mac), remote)| FdbEntry { device, mac, remote });
    let kernel = Snapshot {
        devices,
        vxlans: vxlans.into_values().collect(),
        routes: routes.chain([to_pod]).collect(),
        neighbours: neighbours.chain(pod).collect(),
        fdb: fdb.collect(),
        settings: [(FORWARDING4.to_owned(), "1".to_owned())].into(),
        rules: Some(Rules::of([(attachments::TABLE, &planned.attached(Family::V4))])),
        ..Snapshot::default()
    };
    Told { facts, is_configured_alone: false, kernel, pods: Vec::new() }
}

/// What is inside of the pod of a node where all is as it is planned.
pub(super) fn inside(number: u8) -> (PodKey, Snapshot) {
    let informed = informed();
    let (end, gateway) = (LinkName::from("eth0"), IpAddr::from([169, 254, 1, 1]));
    let mtu = informed.cluster.planned(&node(number)).unwrap().overlay.pod_mtu();
    let target = RouteTarget::OnLink { device: end.clone(), via: gateway, source: None };
    let kernel = Snapshot {
        devices: vec![Device { name: end.clone(), mtu, is_up: true }],
        routes: vec![Route { dst: "0.0.0.0/0".parse().unwrap(), target }],
        neighbours: vec![Neighbour { device: end, addr: gateway, mac: HOST_MAC }],
        ..Snapshot::default()
    };
    (PodKey::new("default", &format!("p{number}")), kernel)
}

/// The way from the one pod to the other.
pub(super) fn follow(state: &State) -> Result<Trace, Failure> {
    let target = Target { addr: addr(2), protocol: Protocol::Tcp, port: 80 };
    let trace = state.cluster.trace(&Source::Pod(PodKey::new("default", "p1")), target);
    trace.map_err(|unknown| Failure::new(unknown.to_string()))
}
