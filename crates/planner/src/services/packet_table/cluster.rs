//! The cluster of the table: three nodes on two subnets, two pools, and a Service of every sort.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use podnet_model::{
    Change, ClusterIp, EncapMode, Endpoint, EndpointSlice, Family, Node, NodeAddr, NodeName, NodePort, Pod, PodAddr,
    PodKey, Pool, Protocol, Service, ServiceKey, ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    labels::{Labels, NodeSelector},
    limits::PodLimits,
    pod::AddressRequest,
    service::{Port, ServiceKind},
};

use super::{configured::SECOND, policies};
use crate::{
    border::BorderConfig,
    services::{ServicesConfig, loopback::LOCALHOSTS},
};

/// The nodes.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Hosts outside of the cluster.
pub const OUTSIDE: [&str; 3] = ["control", "partner", "visitor"];

/// The pool that most pods are in; it has `natOutgoing`.
pub const POD_CIDR: &str = "10.233.64.0/18";

/// The pool of `plain1`, without `natOutgoing`.
const PLAIN_CIDR: &str = "10.240.0.0/24";

/// Where ClusterIPs come from.
pub const SERVICE_CIDR: &str = "10.233.0.0/18";

/// All names of the table: nodes, pods (the digit at the end is the node's), Services, and hosts outside of the cluster.
pub const ADDRESSES: [(&str, Ipv4Addr); 85] = [
    ("node1", Ipv4Addr::new(172, 29, 0, 11)),
    ("node2", Ipv4Addr::new(172, 29, 0, 12)),
    ("node3", Ipv4Addr::new(172, 29, 1, 13)),
    ("control", Ipv4Addr::new(172, 29, 0, 254)),
    ("visitor", Ipv4Addr::new(198, 51, 100, 7)),
    ("partner", Ipv4Addr::new(198, 51, 100, 200)),
    ("client1", Ipv4Addr::new(10, 233, 64, 1)),
    ("web1", Ipv4Addr::new(10, 233, 64, 2)),
    ("shop1", Ipv4Addr::new(10, 233, 64, 3)),
    ("dns1", Ipv4Addr::new(10, 233, 64, 4)),
    ("alone1", Ipv4Addr::new(10, 233, 64, 5)),
    ("plain1", Ipv4Addr::new(10, 240, 0, 1)),
    ("client2", Ipv4Addr::new(10, 233, 65, 1)),
    ("web2", Ipv4Addr::new(10, 233, 65, 2)),
    ("shop2", Ipv4Addr::new(10, 233, 65, 3)),
    ("dns2", Ipv4Addr::new(10, 233, 65, 4)),
    ("log2", Ipv4Addr::new(10, 233, 65, 5)),
    ("client3", Ipv4Addr::new(10, 233, 66, 1)),
    ("web3", Ipv4Addr::new(10, 233, 66, 2)),
    ("kubernetes", Ipv4Addr::new(10, 233, 0, 1)),
    ("dns", Ipv4Addr::new(10, 233, 0, 10)),
    ("web", Ipv4Addr::new(10, 233, 0, 20)),
    ("alone", Ipv4Addr::new(10, 233, 0, 21)),
    ("signal", Ipv4Addr::new(10, 233, 0, 22)),
    ("hostnet", Ipv4Addr::new(10, 233, 0, 23)),
    ("shop", Ipv4Addr::new(10, 233, 0, 30)),
    ("log", Ipv4Addr::new(10, 233, 0, 31)),
    ("empty", Ipv4Addr::new(10, 233, 0, 40)),
    ("starting", Ipv4Addr::new(10, 233, 0, 41)),
    ("mixed", Ipv4Addr::new(10, 233, 0, 42)),
    ("draining", Ipv4Addr::new(10, 233, 0, 43)),
    ("replaced", Ipv4Addr::new(10, 233, 0, 44)),
    ("eager", Ipv4Addr::new(10, 233, 0, 45)),
    ("named", Ipv4Addr::new(10, 233, 0, 46)),
    ("twice", Ipv4Addr::new(10, 233, 0, 47)),
    ("shared", Ipv4Addr::new(10, 233, 0, 48)),
    ("ext", Ipv4Addr::new(10, 233, 0, 50)),
    ("ext-ip", Ipv4Addr::new(192, 0, 2, 50)),
    ("ext-ip2", Ipv4Addr::new(192, 0, 2, 51)),
    ("lb", Ipv4Addr::new(10, 233, 0, 51)),
    ("lb-ip", Ipv4Addr::new(203, 0, 113, 51)),
    ("lbproxy", Ipv4Addr::new(10, 233, 0, 52)),
    ("lbproxy-ip", Ipv4Addr::new(203, 0, 113, 52)),
    ("lbranges", Ipv4Addr::new(10, 233, 0, 53)),
    ("lbranges-ip", Ipv4Addr::new(203, 0, 113, 53)),
    ("lbranges-ip2", Ipv4Addr::new(203, 0, 113, 63)),
    ("local", Ipv4Addr::new(10, 233, 0, 54)),
    ("local-ip", Ipv4Addr::new(203, 0, 113, 54)),
    ("inlocal", Ipv4Addr::new(10, 233, 0, 55)),
    ("innone", Ipv4Addr::new(10, 233, 0, 56)),
    ("interm", Ipv4Addr::new(10, 233, 0, 57)),
    ("extnone", Ipv4Addr::new(10, 233, 0, 58)),
    ("extnone-ip", Ipv4Addr::new(203, 0, 113, 58)),
    ("localterm", Ipv4Addr::new(10, 233, 0, 59)),
    ("localterm-ip", Ipv4Addr::new(203, 0, 113, 59)),
    ("zonal", Ipv4Addr::new(10, 233, 0, 60)),
    ("halfzonal", Ipv4Addr::new(10, 233, 0, 61)),
    ("elsezone", Ipv4Addr::new(10, 233, 0, 62)),
    ("samenode", Ipv4Addr::new(10, 233, 0, 63)),
    ("nodezone", Ipv4Addr::new(10, 233, 0, 64)),
    ("sticky", Ipv4Addr::new(10, 233, 0, 70)),
    ("sticky-ip", Ipv4Addr::new(192, 0, 2, 70)),
    ("stickylocal", Ipv4Addr::new(10, 233, 0, 71)),
    ("others", Ipv4Addr::new(10, 233, 0, 72)),
    ("unlisted", Ipv4Addr::new(10, 233, 0, 73)),
    ("thief", Ipv4Addr::new(10, 233, 0, 74)),
    ("resolver", Ipv4Addr::new(10, 233, 0, 75)),
    ("resolver-ip", Ipv4Addr::new(203, 0, 113, 75)),
    ("mobile", Ipv4Addr::new(10, 233, 0, 76)),
    ("mobile-ip", Ipv4Addr::new(203, 0, 113, 76)),
    ("strange", Ipv4Addr::new(10, 233, 0, 77)),
    ("strange-ip", Ipv4Addr::new(192, 0, 2, 77)),
    ("cloud", Ipv4Addr::new(10, 233, 0, 78)),
    ("cloud-ip", Ipv4Addr::new(192, 0, 2, 78)),
    ("vacant", Ipv4Addr::new(10, 233, 0, 79)),
    ("vacant-ip", Ipv4Addr::new(203, 0, 113, 79)),
    ("vacant-ext", Ipv4Addr::new(192, 0, 2, 79)),
    ("talk", Ipv4Addr::new(10, 233, 0, 80)),
    ("talk-ip", Ipv4Addr::new(203, 0, 113, 80)),
    ("closed", Ipv4Addr::new(10, 233, 0, 81)),
    ("closed-ip", Ipv4Addr::new(203, 0, 113, 81)),
    ("both", Ipv4Addr::new(10, 233, 0, 82)),
    ("both-ip", Ipv4Addr::new(203, 0, 113, 82)),
    ("guard", Ipv4Addr::new(10, 233, 0, 83)),
    ("unused", Ipv4Addr::new(10, 233, 63, 250)),
];

/// The address of a name.
#[must_use]
pub fn address(name: &str) -> Option<IpAddr> {
    // A Service whose only ClusterIP is of IPv6 has no frontend here: its name stands for an address that nothing serves.
    let name = if name == "sixonly" { "unused" } else { name };
    match name {
        "localhost" => return Some(Ipv4Addr::LOCALHOST.into()),
        "second1" => return Some(SECOND.into()),
        _ => {}
    }
    ADDRESSES.iter().find(|(known, _)| *known == name).map(|(_, addr)| IpAddr::V4(*addr))
}

/// What the node is told when it starts.
#[must_use]
pub fn config(node: &str) -> (ServicesConfig, BorderConfig) {
    let node_addrs = vec![NodeAddr(known(node))];
    let services = ServicesConfig {
        loopback: LOCALHOSTS.to_vec(),
        ..ServicesConfig::new(Family::V4, NodeName::from(node), node_addrs.clone())
    };
    let no_nat_cidrs = vec![range("198.51.100.128/25"), range(SERVICE_CIDR)];
    (services, BorderConfig { family: Family::V4, node_addrs, pod_cidrs: Vec::new(), no_nat_cidrs })
}

/// The removal of all objects that these changes are of, in the same order.
#[must_use]
pub fn removals(changes: &[Change]) -> Vec<Change> {
    let removal = |change: &Change| match change {
        Change::Node(key, _) => Some(Change::Node(key.clone(), None)),
        Change::Pod(key, _) => Some(Change::Pod(key.clone(), None)),
        Change::Service(key, _) => Some(Change::Service(key.clone(), None)),
        Change::Slice(key, _) => Some(Change::Slice(key.clone(), None)),
        Change::Pool(key, _) => Some(Change::Pool(key.clone(), None)),
        Change::AddressPool(key, _) => Some(Change::AddressPool(key.clone(), None)),
        _ => None,
    };
    changes.iter().filter_map(removal).collect()
}

/// The objects of the cluster.
#[must_use]
pub fn changes() -> Vec<Change> {
    let mut changes = vec![pool("pods", POD_CIDR, true), pool("plain", PLAIN_CIDR, false)];
    changes.extend(NODES.map(node));
    changes.extend(ADDRESSES.iter().filter(|(name, _)| node_of(name).is_some()).map(|(name, _)| pod(name)));
    changes.extend(plain_services());
    changes.extend(node_port_services());
    changes.extend(services_of_doubtful_readiness());
    changes.extend(services_with_named_ports());
    changes.extend(services_without_virtual_address());
    changes.extend(services_in_conflict());
    changes.extend(policies::changes());
    changes
}

fn plain_services() -> Vec<Change> {
    let all = ["web1", "web2", "web3"].map(ready);
    vec![
        service("kubernetes", &[tcp("https", 443)]),
        slice("kubernetes", "1", &[("https", Protocol::Tcp, 6443)], &[ready("control")]),
        service("dns", &[udp("dns", 53), tcp("dns-tcp", 53), tcp("metrics", 9153)]),
        slice(
            "dns",
            "1",
            &[("dns", Protocol::Udp, 5353), ("dns-tcp", Protocol::Tcp, 5353), ("metrics", Protocol::Tcp, 9153)],
            &[ready("dns1"), ready("dns2")],
        ),
        service("web", &[tcp("http", 80), tcp("https", 443)]),
        slice("web", "1", &[("http", Protocol::Tcp, 8080), ("https", Protocol::Tcp, 8443)], &all),
        service("alone", &[tcp("", 80)]),
        slice("alone", "1", &[("", Protocol::Tcp, 80)], &[ready("alone1")]),
        service("signal", &[port("", Protocol::Sctp, 3868)]),
        slice("signal", "1", &[("", Protocol::Sctp, 3868)], &[ready("web2")]),
        service("hostnet", &[at_nodes(tcp("", 9100), 30910)]),
        slice("hostnet", "1", &[("", Protocol::Tcp, 9100)], &[ready("node1"), ready("node2")]),
    ]
}

fn node_port_services() -> Vec<Change> {
    let shops = ["shop1", "shop2"].map(ready);
    vec![
        service("shop", &[at_nodes(tcp("http", 80), 30080), at_nodes(tcp("https", 443), 30443)]),
        slice("shop", "1", &[("http", Protocol::Tcp, 8080), ("https", Protocol::Tcp, 8443)], &shops),
        service("log", &[at_nodes(udp("", 514), 30514)]),
        slice("log", "1", &[("", Protocol::Udp, 514)], &[ready("log2")]),
        service("empty", &[at_nodes(tcp("http", 80), 30040), udp("dns", 53)]),
    ]
}

fn services_of_doubtful_readiness() -> Vec<Change> {
    let http = [("", Protocol::Tcp, 8080)];
    let mut eager = model_service("eager", "eager", &[tcp("", 80)]);
    eager.publish_not_ready = true;
    vec![
        service("starting", &[tcp("", 80)]),
        slice("starting", "1", &http, &[starting("web1"), starting("web2")]),
        service("mixed", &[tcp("", 80)]),
        slice("mixed", "1", &http, &[ready("web1"), starting("web2"), ready("web3")]),
        service("draining", &[tcp("", 80)]),
        slice("draining", "1", &http, &[starting("web1"), ending("web2")]),
        service("replaced", &[tcp("", 80)]),
        slice("replaced", "1", &http, &[ending("web2"), ready("web3")]),
        Change::Service(eager.key.clone(), Some(eager)),
        slice("eager", "1", &http, &[starting("web1"), starting("web2")]),
    ]
}

fn services_with_named_ports() -> Vec<Change> {
    let http = [("", Protocol::Tcp, 8080)];
    vec![
        service("named", &[tcp("front", 80), tcp("back", 81)]),
        slice("named", "1", &[("front", Protocol::Tcp, 8080), ("back", Protocol::Tcp, 8081)], &[ready("web1")]),
        slice("named", "2", &[("front", Protocol::Tcp, 9090), ("other", Protocol::Tcp, 9091)], &[ready("web2")]),
        service("twice", &[tcp("", 80)]),
        slice("twice", "1", &http, &[ready("web1"), ending("web2")]),
        slice("twice", "2", &http, &[ready("web2"), ready("web1")]),
    ]
}

fn services_without_virtual_address() -> Vec<Change> {
    let mut headless = model_service("headless", "web", &[tcp("", 9999)]);
    headless.kind = ServiceKind::Headless;
    headless.external_ips = vec![known("ext-ip")];
    let mut external = model_service("external", "web", &[tcp("", 9998)]);
    external.kind = ServiceKind::External { name: "example.org".into() };
    external.external_ips = vec![known("ext-ip")];
    let mut six = model_service("sixonly", "web", &[tcp("", 80)]);
    six.kind = ServiceKind::Virtual {
        cluster_ips: vec![ClusterIp(IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 6)))],
    };
    let services = [headless, external, six].map(|service| Change::Service(service.key.clone(), Some(service)));
    let endpoints =
        ["headless", "sixonly"].map(|name| slice(name, "1", &[("", Protocol::Tcp, 8080)], &[ready("web1")]));
    services.into_iter().chain(endpoints).collect()
}

fn services_in_conflict() -> Vec<Change> {
    let http = [("", Protocol::Tcp, 8080)];
    let first = model_service("rival-a", "shared", &[at_nodes(tcp("", 80), 30099)]);
    let second = model_service("rival-b", "shared", &[at_nodes(tcp("", 80), 30099), at_nodes(tcp("", 81), 30098)]);
    let services = [second, first].map(|service| Change::Service(service.key.clone(), Some(service)));
    let endpoints = [slice("rival-b", "1", &http, &[ready("web2")]), slice("rival-a", "1", &http, &[ready("web1")])];
    services.into_iter().chain(endpoints).collect()
}

fn pool(name: &str, cidr: &str, nat_outgoing: bool) -> Change {
    let pool = Pool {
        name: name.into(),
        cidr: range(cidr),
        block_size: 26,
        vxlan: EncapMode::Always,
        ipip: EncapMode::Never,
        nat_outgoing,
        disabled: false,
        manual: false,
        node_selector: NodeSelector::all(),
        namespace_selector: Default::default(),
    };
    Change::Pool(name.into(), Some(pool))
}

/// The first one is in zone a, the others in zone b.
fn node(name: &str) -> Change {
    let zone = if name == "node1" { "a" } else { "b" };
    let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into();
    let node = Node { labels: Labels::new(labels), ..Node::new(name.into(), NodeAddr(known(name))) };
    Change::Node(name.into(), Some(node))
}

fn pod(name: &str) -> Change {
    let pod = Pod {
        key: PodKey::new("default", name),
        uid: name.into(),
        static_uid: None,
        searches: None,
        ndots: None,
        node: node_of(name),
        labels: Labels::default(),
        host_network: false,
        addrs: vec![PodAddr(known(name))],
        finished: false,
        request: Ok(AddressRequest::default()),
        limits: Ok(PodLimits::default()),
    };
    Change::Pod(pod.key.clone(), Some(pod))
}

/// Whether the name is that of a node, a pod or a host outside, and not of a Service.
pub(super) fn is_host(name: &str) -> bool {
    NODES.contains(&name) || OUTSIDE.contains(&name) || node_of(name).is_some()
}

/// The node that a pod is on: its name's last digit.
fn node_of(name: &str) -> Option<NodeName> {
    let digit = name.chars().last().filter(|last| last.is_ascii_digit() && !name.starts_with("node"))?;
    Some(NodeName::from(&format!("node{digit}")))
}

fn service(name: &str, ports: &[Port]) -> Change {
    let service = model_service(name, name, ports);
    Change::Service(service.key.clone(), Some(service))
}

pub(super) fn model_service(name: &str, ip_of: &str, ports: &[Port]) -> Service {
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(known(ip_of))] };
    Service::new(ServiceKey::new("default", name), kind, ports.to_vec())
}

pub(super) fn tcp(name: &str, number: u16) -> Port {
    port(name, Protocol::Tcp, number)
}

pub(super) fn udp(name: &str, number: u16) -> Port {
    port(name, Protocol::Udp, number)
}

pub(super) fn port(name: &str, protocol: Protocol, number: u16) -> Port {
    Port { name: name.into(), protocol, port: ServicePort(number), node_port: None }
}

pub(super) fn at_nodes(port: Port, number: u16) -> Port {
    Port { node_port: Some(NodePort(number)), ..port }
}

pub(super) fn slice(service: &str, number: &str, ports: &[(&str, Protocol, u16)], endpoints: &[Endpoint]) -> Change {
    let port = |(name, protocol, port): &(&str, Protocol, u16)| EndpointPort {
        name: (*name).into(),
        protocol: *protocol,
        port: TargetPort(*port),
    };
    let slice = EndpointSlice {
        key: SliceKey::new("default", &format!("{service}-{number}")),
        service: ServiceKey::new("default", service),
        ports: ports.iter().map(port).collect(),
        endpoints: endpoints.to_vec(),
        triggered: None,
        unproxied: false,
    };
    Change::Slice(slice.key.clone(), Some(slice))
}

pub(super) fn ready(name: &str) -> Endpoint {
    Endpoint {
        node: node_of(name),
        pod: node_of(name).map(|_| PodKey::new("default", name)),
        ..Endpoint::new(PodAddr(known(name)))
    }
}

pub(super) fn starting(name: &str) -> Endpoint {
    Endpoint { ready: false, serving: false, ..ready(name) }
}

pub(super) fn ending(name: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..ready(name) }
}

pub(super) fn known(name: &str) -> IpAddr {
    address(name).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

pub(super) fn range(cidr: &str) -> IpNet {
    cidr.parse().expect("a range")
}
