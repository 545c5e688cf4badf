use std::net::Ipv4Addr;

use podnet_model::{
    Change, Endpoint, EndpointSlice, PodAddr, PortName, Service, ServiceKey, ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};

use super::*;
use crate::ruleset::walk::{Direction, Host, Packet, Routing, Verdict, Way, walk};

const AT: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);

/// A node whose resolver listens, or does not.
struct Node(Host, bool);

impl Routing for Node {
    fn route(&self, destination: IpAddr) -> Way {
        self.0.route(destination)
    }

    fn has_socket(&self, addr: IpAddr, _: Protocol, port: u16) -> bool {
        self.1 && addr == AT && port == PORT
    }
}

fn resolver() -> Resolver {
    let at = |last| BackendAddress { addr: IpAddr::from([10, 244, 1, last]), port: 5353 };
    let endpoints =
        BTreeMap::from([(Protocol::Udp, BTreeSet::from([at(2), at(3)])), (Protocol::Tcp, BTreeSet::from([at(2)]))]);
    Resolver { addrs: BTreeSet::from([AT.into()]), endpoints, ..Resolver::default() }
}

/// Where a packet comes to: `(from, to, protocol, port) ⇒ destinations`.
fn comes_to(resolver: &Resolver, listens: bool, protocol: Protocol, port: u16, direction: Direction) -> Vec<String> {
    let rules = resolver.table(Family::V4).unwrap();
    rules.validate().unwrap();
    let node = Node(Host::new([AT]), listens);
    let outcomes = walk(&rules, &Packet::opening(POD, AT, protocol, port), direction, &node).outcomes;
    let told = outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Dropped);
    told.map(|outcome| outcome.destination.to_string()).collect()
}

#[test]
fn questions_come_to_the_node_s_resolver_and_to_cluster_dns_while_it_is_away() {
    let here = ["169.254.20.10:53"];
    let pod = Direction::FromPod;
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        assert_eq!(comes_to(&resolver(), true, protocol, 53, pod), here);
        assert_eq!(comes_to(&resolver(), true, protocol, 80, pod), ["169.254.20.10:80"], "another port");
        // The node itself is told at once that nobody is there.
        assert_eq!(comes_to(&resolver(), false, protocol, 53, Direction::FromHost), here);
    }
    assert_eq!(comes_to(&resolver(), false, Protocol::Udp, 53, pod), ["10.244.1.2:5353", "10.244.1.3:5353"]);
    assert_eq!(comes_to(&resolver(), false, Protocol::Tcp, 53, pod), ["10.244.1.2:5353"]);
    assert_eq!(comes_to(&resolver(), false, Protocol::Tcp, 80, pod), ["169.254.20.10:80"]);
}

#[test]
fn who_is_neither_this_node_nor_its_pod_gets_no_answer() {
    let gone: [&str; 0] = [];
    for listens in [true, false] {
        for (protocol, port) in [(Protocol::Udp, 53), (Protocol::Tcp, 53), (Protocol::Tcp, 80)] {
            assert_eq!(
                comes_to(&resolver(), listens, protocol, port, Direction::FromOutside),
                gone,
                "{protocol} {port}"
            );
        }
    }
    assert_eq!(comes_to(&resolver(), true, Protocol::Udp, 53, Direction::FromHost), ["169.254.20.10:53"]);
    // A bridge of another name joins pods, too.
    let names = BTreeSet::from(["br-pods".into(), BRIDGE.into()]);
    let rules = Resolver { bridges: names, ..resolver() }.table(Family::V4).unwrap();
    let devices = |rule: &Rule| -> Vec<String> {
        let device = |one: &Match| match one {
            Match::OtherInputDevice { prefix } => Some(prefix.to_string()),
            _ => None,
        };
        rule.matches.iter().filter_map(device).collect()
    };
    assert_eq!(devices(&rules.chains["comes-in"].rules[0]), ["pn", "cni0", "br-pods"]);
    // To other addresses of the node, others come as ever.
    let node = Node(Host::new([Ipv4Addr::new(192, 0, 2, 1)]), true);
    let packet = Packet::opening(POD, Ipv4Addr::new(192, 0, 2, 1), Protocol::Udp, 53);
    assert_eq!(
        walk(&rules, &packet, Direction::FromOutside, &node).outcomes[0].destination.to_string(),
        "192.0.2.1:53"
    );
}

#[test]
fn a_resolver_that_gives_way_gets_no_datagrams_and_keeps_its_connections() {
    let resolver = Resolver { gives_way: true, ..resolver() };
    let to = |protocol| comes_to(&resolver, true, protocol, 53, Direction::FromPod);
    assert_eq!(to(Protocol::Udp), ["10.244.1.2:5353", "10.244.1.3:5353"]);
    assert_eq!(to(Protocol::Tcp), ["169.254.20.10:53"]);
}

#[test]
fn a_kernel_that_sees_no_sockets_leads_nothing_on() {
    let resolver = Resolver { blind: true, ..resolver() };
    for listens in [true, false] {
        assert_eq!(comes_to(&resolver, listens, Protocol::Udp, 53, Direction::FromPod), ["169.254.20.10:53"]);
    }
    assert_eq!(resolver.table(Family::V6), None, "it has no address there");
}

#[test]
fn endpoints_are_those_of_the_port_for_questions_and_the_last_ones_that_answer() {
    let key = ServiceKey::new("kube-system", "kube-dns");
    let mut endpoints = Endpoints::new(key.clone());
    let port = |name: &str, number| Port {
        name: PortName::from(name),
        protocol: Protocol::Udp,
        port: ServicePort(number),
        node_port: None,
    };
    let kind = ServiceKind::Virtual { cluster_ips: Vec::new() };
    let service = Service::new(key.clone(), kind, vec![port("dns", 53), port("metrics", 9153)]);
    let slice = |name: &str, last, ready, ending: bool| {
        let port = |name: &str, number| EndpointPort {
            name: PortName::from(name),
            protocol: Protocol::Udp,
            port: TargetPort(number),
        };
        let endpoint = Endpoint {
            ready,
            serving: ready || ending,
            terminating: ending,
            ..Endpoint::new(PodAddr(IpAddr::from([10, 244, 1, last])))
        };
        let slice = EndpointSlice {
            key: SliceKey::new("kube-system", name),
            service: key.clone(),
            ports: vec![port("dns", 5353), port("metrics", 9153)],
            endpoints: vec![endpoint],
            triggered: None,
            unproxied: false,
        };
        Change::Slice(slice.key.clone(), Some(slice))
    };
    let told = |endpoints: &Endpoints| -> Vec<String> {
        endpoints.all().values().flatten().map(ToString::to_string).collect()
    };
    // In whatever order.
    assert!(endpoints.learn(&slice("a", 2, true, false)));
    assert_eq!(told(&endpoints), Vec::<String>::new());
    assert!(endpoints.learn(&Change::Service(key.clone(), Some(service))));
    assert!(endpoints.learn(&slice("b", 3, false, true)));
    assert_eq!(told(&endpoints), ["10.244.1.2:5353"]);
    assert!(endpoints.learn(&slice("a", 2, false, false)));
    assert_eq!(told(&endpoints), ["10.244.1.3:5353"], "it ends, and answers still");
    assert!(endpoints.learn(&Change::Slice(SliceKey::new("kube-system", "b"), None)));
    assert_eq!(told(&endpoints), Vec::<String>::new());
    assert!(!endpoints.learn(&Change::Slice(SliceKey::new("default", "b"), None)));
}
