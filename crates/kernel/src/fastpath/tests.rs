//! Real connections between namespaces, with the programs' own counts of what passed by them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use podnet_model::{Family, Protocol, cni::PortMapping};
use podnet_planner::{
    attachments::{Attached, Attachments},
    ipam::Handle,
};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use super::*;
use crate::{
    netlink::RtSocket,
    netns::NetNs,
    nft::NftSocket,
    pod_interface::{self, PodInterface},
    sysctl,
    testing::{TestNs, eventually, mac},
};

mod across;
mod places;
mod stack;

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Of the node; it leads to port 80 of the first pod.
const PORT: u16 = 8080;
const MINUTE: Duration = Duration::from_secs(60);
const ROUND_TRIPS: u64 = 50;

/// A node with pods, each of which echoes what comes to port 80.
struct Lab {
    netns: TestNs,
    pods: Vec<TestNs>,
    interfaces: Vec<PodInterface>,
    fast_path: FastPath,
}

impl Lab {
    /// With the programs at all pods.
    fn new(tag: &str, count: u8) -> Self {
        let netns = TestNs::new(&format!("fp-{tag}-node"));
        prepare(&netns);
        netns.command("ip addr add 192.0.2.1/32 dev lo");
        netns.command("ip addr add 2001:db8::1/128 dev lo");
        let mut host = RtSocket::open_in(&netns).unwrap();
        let pods: Vec<TestNs> = (1..=count).map(|number| TestNs::new(&format!("fp-{tag}-pod{number}"))).collect();
        let interfaces: Vec<PodInterface> =
            (1..=count).zip(&pods).map(|(number, pod)| interface(pod, number)).collect();
        let mut attachments = Attachments::default();
        for (number, (interface, pod)) in interfaces.iter().zip(&pods).enumerate() {
            interface.create(&mut host).unwrap();
            echo(pod);
            let port = |host_ip, protocol| PortMapping { host_ip, protocol, host_port: PORT, container_port: 80 };
            let ports = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
                .into_iter()
                .flat_map(|any| [port(any, Protocol::Tcp), port(any, Protocol::Udp)]);
            let attached = Attached {
                device: interface.host_ifname.clone(),
                mac: interface.pod_mac,
                addrs: interface.addr.clone(),
                ports: if number == 0 { ports.collect() } else { Vec::new() },
                segment: None,
            };
            attachments.add(Handle::new(&number.to_string(), "eth0"), attached).unwrap();
        }
        let mut rules = NftSocket::open_in(&netns).unwrap();
        for family in [Family::V4, Family::V6] {
            rules.replace("podnet-pods", &attachments.desired(family)).unwrap();
        }
        let lab = Self { netns, pods, interfaces, fast_path: FastPath::load().unwrap() };
        lab.fast_path.live_for(MINUTE).unwrap();
        for interface in &lab.interfaces {
            assert!(lab.attach(&lab.fast_path, interface), "it is there already");
        }
        lab
    }

    fn attach(&self, fast_path: &FastPath, interface: &PodInterface) -> bool {
        fast_path.attach(&mut self.socket(), &interface.host_ifname, Behind::Pod).unwrap()
    }

    fn socket(&self) -> RtSocket {
        RtSocket::open_in(&self.netns).unwrap()
    }

    /// How many packets of these passed by the stack.
    fn forwarded(&self, of: impl FnOnce()) -> u64 {
        let before = self.fast_path.passed().unwrap().forwarded;
        of();
        self.fast_path.passed().unwrap().forwarded - before
    }

    /// What connection tracking says of the connections that were opened to a port, as `/proc/net/nf_conntrack` has it.
    fn tracked(&self, port: u16) -> String {
        let all = self.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack")).unwrap().unwrap();
        let port = format!("dport={port} ");
        all.lines().filter(|line| line.contains(&port)).collect::<Vec<_>>().join("\n")
    }
}

fn prepare(node: &TestNs) {
    for (key, value) in [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")] {
        sysctl::set(node, key, value).unwrap();
    }
    node.run(|| {
        for setting in settings_to_change().unwrap() {
            sysctl::set_here(setting.key, &setting.wanted).unwrap();
        }
        assert_eq!(settings_to_change().unwrap(), []);
    })
    .unwrap();
}

fn interface(pod: &NetNs, number: u8) -> PodInterface {
    PodInterface {
        netns: pod.clone(),
        container_ifname: "eth0".into(),
        host_ifname: LinkName::from(format!("pn{number:012}")),
        addr: vec![v4(number), v6(number)],
        routes: Vec::new(),
        mtu: 1450,
        pod_mac: mac(1, number),
        host_mac: mac(2, number),
        bridge: None,
    }
}

fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into()
}

/// The threads end with the test's process.
fn echo(pod: &NetNs) {
    let sockets = pod.run(|| (TcpListener::bind("[::]:80").unwrap(), UdpSocket::bind("[::]:80").unwrap()));
    let (tcp, udp) = sockets.unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], peer);
        }
    });
}

fn tcp(from: &NetNs, to: impl Into<IpAddr>, port: u16) -> TcpStream {
    let to = SocketAddr::from((to.into(), port));
    let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap().unwrap();
    ready(stream)
}

/// From a port that other connections may have too.
fn tcp_from(from: &NetNs, port: u16, to: impl Into<IpAddr>, to_port: u16) -> TcpStream {
    let to = SocketAddr::from((to.into(), to_port));
    let stream = from.run(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap();
        connect(&socket, &to).unwrap();
        TcpStream::from(socket)
    });
    ready(stream.unwrap())
}

fn ready(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn udp(from: &NetNs, to: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let to = SocketAddr::from((to.into(), port));
    let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.run(|| UdpSocket::bind(own)).unwrap().unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Packets that come back as they are.
fn round_trips(stream: &mut TcpStream) {
    for number in 0..ROUND_TRIPS {
        let sent = [number as u8; 16];
        stream.write_all(&sent).unwrap();
        let mut came = [0; 16];
        stream.read_exact(&mut came).unwrap();
        assert_eq!(came, sent);
    }
}

fn datagrams(socket: &UdpSocket, size: usize) {
    for number in 0..ROUND_TRIPS {
        let (sent, mut came) = (vec![number as u8; size], vec![0; size + 1]);
        socket.send(&sent).unwrap();
        let length = socket.recv(&mut came).unwrap();
        assert_eq!(came[..length], sent);
    }
}

/// Nothing comes within a while in which it would have come.
fn silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = socket.recv(&mut [0; 64]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
}

/// 8 MiB that come back as they are, in large packets.
fn bulk(stream: &mut TcpStream) {
    let sent: Vec<u8> = (0..8 << 20_u32).map(|place: u32| (place % 251) as u8).collect();
    let mut sender = stream.try_clone().unwrap();
    let mut came = vec![0; sent.len()];
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&sent).unwrap());
        stream.read_exact(&mut came).unwrap();
    });
    assert!(came == sent, "8 MiB came back changed");
}

/// Both directions, but for the few packets that begin and prove the flow.
const NEARLY_ALL: u64 = 2 * ROUND_TRIPS - 10;

/// Nearly all passes by. A proof counts for 4 s: on a machine that stands still for as long ways are proven anew, so another run may be asked.
fn passes(lab: &Lab, what: &str, mut run: impl FnMut()) {
    eventually(what, || lab.forwarded(&mut run) >= NEARLY_ALL);
}

#[test]
fn an_established_connection_passes_by_the_stack_unharmed() {
    let lab = Lab::new("pass", 2);
    for to in [v4(2), v6(2)] {
        let mut stream = tcp(&lab.pods[0], to, 80);
        passes(&lab, &format!("TCP to {to}"), || round_trips(&mut stream));
        let passed = lab.forwarded(|| bulk(&mut stream));
        assert!(passed > 100, "only {passed} packets of a transfer to {to}");
        let socket = udp(&lab.pods[0], to, 80);
        passes(&lab, &format!("UDP to {to}"), || datagrams(&socket, 16));
        passes(&lab, &format!("larger datagrams of UDP to {to}"), || datagrams(&socket, 1400));
    }
}

#[test]
fn programs_are_taken_away_put_back_and_replaced_under_a_connection() {
    let lab = Lab::new("swap", 2);
    let mut stream = tcp(&lab.pods[0], v4(2), 80);
    passes(&lab, "TCP", || round_trips(&mut stream));
    let away = |interface: &PodInterface| detach(&mut lab.socket(), &interface.host_ifname).unwrap();
    let is_there = |interface: &PodInterface| is_attached(&mut lab.socket(), &interface.host_ifname).unwrap();
    assert!(away(&lab.interfaces[0]) && !away(&lab.interfaces[0]) && !is_there(&lab.interfaces[0]));
    // The other direction came to know its way before.
    lab.fast_path.relearn().unwrap();
    assert_eq!(lab.forwarded(|| round_trips(&mut stream)), 0, "one end without them");
    assert!(lab.attach(&lab.fast_path, &lab.interfaces[0]) && !lab.attach(&lab.fast_path, &lab.interfaces[0]));
    assert!(is_there(&lab.interfaces[0]));
    let is_at =
        |programs: &FastPath| programs.is_at(&mut lab.socket(), &lab.interfaces[0].host_ifname, Behind::Pod).unwrap();
    assert!(is_at(&lab.fast_path));
    // An outstanding probe of before is waited for, but not for ever.
    passes(&lab, "put back", || round_trips(&mut stream));
    let newer = FastPath::load().unwrap();
    newer.live_for(MINUTE).unwrap();
    assert!(!is_at(&newer));
    for interface in &lab.interfaces {
        assert!(lab.attach(&newer, interface), "another process's are replaced");
        for hook in ["ingress", "egress"] {
            let filters = lab.netns.command(&format!("tc filter show dev {} {hook}", interface.host_ifname));
            assert_eq!(filters.matches(" handle 0x1 podnet_").count(), 1, "one program at each hook: {filters}");
        }
    }
    assert_eq!(lab.forwarded(|| round_trips(&mut stream)), 0, "those of before have no part in it");
    eventually("those of now lead past", || {
        let before = newer.passed().unwrap().forwarded;
        round_trips(&mut stream);
        newer.passed().unwrap().forwarded - before >= NEARLY_ALL
    });
    drop(newer);
    round_trips(&mut stream);
    assert!(is_there(&lab.interfaces[0]), "they go on without who attached them");
}
