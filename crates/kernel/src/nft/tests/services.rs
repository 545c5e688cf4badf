//! Services as the planner has them, on a node that has its backends at addresses of its own.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, NodeAddr, PodAddr, Service, ServiceKey, ServicePort, SliceKey,
    TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::services::{
    MASQUERADE_MARK, Services, ServicesConfig, Vanished,
    nftables::{Nftables, TABLE},
};

use super::{super::*, *};
use crate::{
    conntrack,
    testing::{TestNs, eventually},
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const TARGET: u16 = 8080;

struct Node {
    namespace: TestNs,
    socket: NftSocket,
    services: Services,
    nftables: Nftables,
    family: Family,
    protocol: Protocol,
}

impl Node {
    /// With a Service of all backends.
    fn new(tag: &str, family: Family, protocol: Protocol, affinity: Option<u32>) -> Self {
        let namespace = TestNs::new(&format!("{tag}-{}", family.bits()));
        namespace.command("ip link set lo up");
        // The address that the node sends from, and by which the Service is on its way.
        namespace.command("ip addr add 192.0.2.1/32 dev lo");
        namespace.command("ip -6 addr add 2001:db8::1/128 dev lo nodad");
        BACKENDS.iter().for_each(|number| {
            let addr = pod_addr(family, *number);
            namespace.command(&format!("ip addr add {addr}/{} dev lo", family.bits()));
        });
        let source = match family {
            Family::V4 => "192.0.2.1",
            Family::V6 => "2001:db8::1",
        };
        for addr in [vip(family), external(family)] {
            namespace.command(&format!("ip route add {addr} dev lo src {source}"));
        }
        let services = Services::new(ServicesConfig {
            family,
            node: "node1".into(),
            node_addrs: vec![NodeAddr(source.parse().unwrap())],
            node_port_addresses: Default::default(),
            loopback: Vec::new(),
            pod_cidrs: Vec::new(),
            masquerade_mark: MASQUERADE_MARK,
            masquerade_all: false,
            drops_invalid: true,
        });
        let socket = NftSocket::open_in(&namespace).unwrap();
        let nftables = Nftables::new(&services);
        let mut node = Self { namespace, socket, services, nftables, family, protocol };
        node.replace();
        let key = ServiceKey::new("default", "web");
        let port = Port { name: "".into(), protocol, port: ServicePort(80), node_port: None };
        let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(vip(family))] };
        let external_ips = affinity.map(|_| external(family)).into_iter().collect();
        let service = Service { affinity, external_ips, ..Service::new(key.clone(), kind, vec![port]) };
        node.apply(&Change::Service(key, Some(service)));
        node.with(&BACKENDS);
        node
    }

    /// The Service has these backends from now on.
    fn with(&mut self, backends: &[u8]) -> Vec<Vanished> {
        self.with_ending(backends, &[])
    }

    /// The same, and these endpoints end.
    fn with_ending(&mut self, backends: &[u8], ending: &[u8]) -> Vec<Vanished> {
        let endpoint = |number: &u8| Endpoint {
            node: Some("node2".into()),
            ..Endpoint::new(PodAddr(pod_addr(self.family, *number)))
        };
        let ends = |number| Endpoint { ready: false, terminating: true, ..endpoint(number) };
        let key = SliceKey::new("default", "web-1");
        let slice = EndpointSlice {
            key: key.clone(),
            service: ServiceKey::new("default", "web"),
            ports: vec![EndpointPort { name: "".into(), protocol: self.protocol, port: TargetPort(TARGET) }],
            endpoints: backends.iter().map(endpoint).chain(ending.iter().map(ends)).collect(),
            unproxied: false,
            triggered: None,
        };
        self.apply(&Change::Slice(key, Some(slice)))
    }

    fn apply(&mut self, change: &Change) -> Vec<Vanished> {
        let plan = self.services.apply(change);
        let edits = self.nftables.edits(&self.services, &plan);
        self.socket.apply(self.family, TABLE, &edits).unwrap();
        plan.vanished
    }

    fn replace(&mut self) {
        let rules = self.nftables.desired(&self.services);
        self.socket.replace(TABLE, &rules).unwrap();
        // What the kernel tells of them is what was written, of every kind of rule.
        let mut room = usize::MAX;
        let listed = self.socket.listed(self.family, TABLE, &mut room).unwrap().unwrap();
        assert_eq!(listed.differences(TABLE, &rules), [""; 0]);
    }

    /// The number of the backend that a new connection comes to.
    fn connect(&self) -> u8 {
        self.connect_by(vip(self.family))
    }

    /// The same by another address of the Service.
    fn connect_by(&self, addr: IpAddr) -> u8 {
        let to = SocketAddr::new(addr, 80);
        self.namespace
            .run(|| {
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
                let mut number = [0];
                stream.read_exact(&mut number).unwrap();
                number[0]
            })
            .unwrap()
    }

    /// The kernel takes some time until an address of IPv6 is one to bind to.
    fn bind(&self, at: SocketAddr) -> UdpSocket {
        let mut bound = None;
        eventually("the address is there", || {
            bound = self.namespace.run(|| UdpSocket::bind(at)).unwrap().ok();
            bound.is_some()
        });
        bound.unwrap()
    }

    /// Answers every connection with the backend's number.
    fn serve(&self) {
        for number in BACKENDS {
            let at = SocketAddr::new(pod_addr(self.family, number), TARGET);
            drop(self.bind(at));
            let listener = self.namespace.run(|| TcpListener::bind(at)).unwrap().unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = std::io::Write::write_all(&mut stream.unwrap(), &[number]);
                }
            });
        }
    }

    fn always(&self) -> u8 {
        let first = self.connect();
        let next: Vec<u8> = (0..15).map(|_| self.connect()).collect();
        assert_eq!(
            next,
            [first; 15],
            "{}",
            self.namespace.command(&format!("nft list table {} {TABLE}", name(self.family)))
        );
        first
    }
}

#[test]
fn a_client_stays_with_its_backend_until_that_goes() {
    for family in Family::ALL {
        let mut node = Node::new("nft-affinity", family, Protocol::Tcp, Some(600));
        node.serve();
        let first = node.always();
        let others: Vec<u8> = BACKENDS.into_iter().filter(|number| *number != first).collect();
        node.with(&others);
        let second = node.always();
        assert_ne!(second, first);
        // The first one is back, and the client is another's by now: also after all was put in place anew.
        node.with(&BACKENDS);
        assert_eq!(node.always(), second);
        node.replace();
        assert_eq!(node.always(), second);
        assert_eq!(node.socket.element_count(family, TABLE, "affinity").unwrap(), 1);
        let listing = node.namespace.command("nft list ruleset");
        assert!(listing.contains("@affinity") && listing.contains("timeout 10m"), "{listing}");
        // A table that somebody put something into is replaced as well, and so is one that is gone.
        node.namespace.command(&format!("nft add chain {} {TABLE} strange", name(family)));
        node.replace();
        assert!(!node.namespace.command("nft list ruleset").contains("strange"));
        assert_eq!(node.always(), second);
        node.namespace.command("nft flush ruleset");
        node.replace();
        node.always();
    }
}

#[test]
fn a_client_has_one_backend_at_all_addresses_of_a_services_port() {
    for family in Family::ALL {
        let mut node = Node::new("nft-group", family, Protocol::Tcp, Some(600));
        node.serve();
        // By chance it would be right once in 59,049 times.
        for _ in 0..5 {
            let first = node.connect();
            assert_eq!([node.connect_by(external(family)), node.connect()], [first; 2]);
            let others: Vec<u8> = BACKENDS.into_iter().filter(|number| *number != first).collect();
            node.with(&others);
            let second = node.connect_by(external(family));
            assert_ne!(second, first);
            node.with(&BACKENDS);
            assert_eq!([node.connect(), node.connect_by(external(family))], [second; 2]);
        }
        assert_eq!(node.socket.element_count(family, TABLE, "affinity").unwrap(), 1);
    }
}

#[test]
fn a_client_is_forgotten_some_time_after_its_last_connection() {
    let mut node = Node::new("nft-forgets", Family::V4, Protocol::Tcp, Some(1));
    node.serve();
    node.connect();
    let mut is_empty = || node.socket.element_count(Family::V4, TABLE, "affinity").unwrap() == 0;
    assert!(!is_empty());
    eventually("the client is forgotten", is_empty);
}

#[test]
fn udp_goes_to_another_backend_once_its_own_is_gone_and_forgotten() {
    for family in Family::ALL {
        let mut node = Node::new("nft-udp", family, Protocol::Udp, None);
        let backends = BACKENDS.map(|number| {
            let at = SocketAddr::new(pod_addr(family, number), TARGET);
            let socket = node.bind(at);
            socket.set_nonblocking(true).unwrap();
            (number, socket)
        });
        let source = if family == Family::V4 { "192.0.2.1:0" } else { "[2001:db8::1]:0" };
        let client = node.bind(source.parse().unwrap());
        client.connect((vip(family), 80)).unwrap();
        let send = || {
            client.send(b"x").unwrap();
            let mut arrived = None;
            eventually("a datagram arrives", || {
                let heard = |(number, socket): &(u8, UdpSocket)| socket.recv_from(&mut [0]).ok().map(|_| *number);
                arrived = backends.iter().find_map(heard);
                arrived.is_some()
            });
            arrived.unwrap()
        };
        let first = send();
        assert_eq!(send(), first);
        let others: Vec<u8> = BACKENDS.into_iter().filter(|number| *number != first).collect();
        let vanished = node.with(&others);
        assert_eq!(vanished.len(), 1);
        // Connection tracking goes on with it, as nobody told it.
        assert_eq!(send(), first);
        let forget = |astray: &(dyn Fn(Vanished) -> bool + Sync)| {
            node.namespace.run(|| conntrack::forget_astray(family, |to, by| astray((to, by)))).unwrap().unwrap()
        };
        assert_eq!(forget(&|one| vanished.contains(&one)), 1);
        let second = send();
        assert_ne!(second, first);
        assert_eq!(forget(&|one| node.services.leads_astray(&one)), 0, "what is right stays");
        assert_eq!(send(), second);
        let vanished = node.with(&[]);
        assert_eq!(vanished.len(), 2);
        let astray = |one| node.services.leads_astray(&one);
        let forgotten = node.namespace.run(|| conntrack::forget_astray(family, |to, by| astray((to, by))));
        assert_eq!(forgotten.unwrap().unwrap(), 1, "the last one too");
    }
}

#[test]
fn a_question_that_is_under_way_is_answered_by_a_backend_that_ends() {
    for family in Family::ALL {
        let mut node = Node::new("nft-ends", family, Protocol::Udp, None);
        let servers = BACKENDS.map(|number| {
            let server = node.bind(SocketAddr::new(pod_addr(family, number), TARGET));
            server.set_nonblocking(true).unwrap();
            (number, server)
        });
        let source = if family == Family::V4 { "192.0.2.1:0" } else { "[2001:db8::1]:0" };
        let client = node.bind(source.parse().unwrap());
        client.connect((vip(family), 80)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ask = || {
            client.send(b"?").unwrap();
            let mut heard = None;
            eventually("a question arrives", || {
                heard = servers.iter().find_map(|one| Some((one, one.1.recv_from(&mut [0]).ok()?.1)));
                heard.is_some()
            });
            let ((number, server), asker) = heard.unwrap();
            (*number, server, asker)
        };
        let forget = |node: &Node| {
            let astray = |to, by| node.services.leads_astray(&(to, by));
            node.namespace.run(|| conntrack::forget_astray(family, astray)).unwrap().unwrap()
        };
        let (first, server, asker) = ask();
        let others: Vec<u8> = BACKENDS.into_iter().filter(|number| *number != first).collect();
        assert_eq!(node.with_ending(&others, &[first]), []);
        assert_eq!(forget(&node), 0, "nor by an agent that begins anew");
        server.send_to(b"!", asker).unwrap();
        let mut answer = [0];
        assert_eq!((client.recv(&mut answer).unwrap(), answer), (1, *b"!"));
        assert_eq!(ask().0, first, "its client goes on there");
        assert_eq!(node.with(&others).len(), 1);
        assert_eq!(forget(&node), 1);
        assert_ne!(ask().0, first);
    }
}

/// Another address of the Service, where it has affinity.
fn external(family: Family) -> IpAddr {
    match family {
        Family::V4 => "198.51.100.9".parse().unwrap(),
        Family::V6 => "2001:db8:9::9".parse().unwrap(),
    }
}

const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
