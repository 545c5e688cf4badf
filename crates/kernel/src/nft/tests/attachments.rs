//! The rules about what is attached: ports of the node, and senders that claim to be others.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use podnet_model::{LinkName, cni::PortMapping};
use podnet_planner::{
    attachments::{Attached, Attachments},
    ipam::Handle,
};

use super::super::*;
use crate::{
    netlink::RtSocket,
    pod_interface::PodInterface,
    sysctl,
    testing::{TestNs, mac},
};

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const TABLE: &str = "podnet-pods";

struct Node {
    netns: TestNs,
    pods: Vec<TestNs>,
    attachments: Attachments,
    socket: NftSocket,
}

/// A node with two pods, of which the first has ports. Both answer TCP and UDP at port 80 with the address that they see.
fn node(tag: &str) -> Node {
    let netns = TestNs::new(&format!("{tag}-node"));
    sysctl::set(&netns, "net.ipv4.ip_forward", "1").unwrap();
    netns.command("ip addr add 192.0.2.1/32 dev lo");
    // Of whatever comes in by no pod.
    netns.command("ip route add default dev lo");
    let mut host = RtSocket::open_in(&netns).unwrap();
    let mut attachments = Attachments::default();
    let port = |protocol, host_port| PortMapping {
        host_ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
        protocol,
        host_port,
        container_port: 80,
    };
    let ports = vec![port(podnet_model::Protocol::Tcp, 8080), port(podnet_model::Protocol::Udp, 5353)];
    let pods: Vec<TestNs> = (1..=2_u8)
        .map(|number| {
            let pod = TestNs::new(&format!("{tag}-pod{number}"));
            let interface = PodInterface {
                netns: pod.clone(),
                container_ifname: "eth0".into(),
                host_ifname: LinkName::from(format!("pn{number:012}")),
                addr: vec![std::net::Ipv4Addr::new(10, 0, 0, number).into()],
                routes: Vec::new(),
                mtu: 1500,
                pod_mac: mac(1, number),
                host_mac: mac(2, number),
            };
            interface.create(&mut host).unwrap();
            sysctl::set(&netns, &format!("net.ipv4.conf.{}.route_localnet", interface.host_ifname), "1").unwrap();
            let attached = Attached {
                device: interface.host_ifname,
                mac: interface.pod_mac,
                addrs: interface.addr.clone(),
                ports: if number == 1 { ports.clone() } else { Vec::new() },
            };
            attachments.add(Handle::new(&number.to_string(), "eth0"), attached).unwrap();
            answer(&pod);
            pod
        })
        .collect();
    let mut socket = NftSocket::open_in(&netns).unwrap();
    socket.replace(TABLE, &attachments.desired()).unwrap();
    Node { netns, pods, attachments, socket }
}

/// The threads end with the test's process.
fn answer(pod: &TestNs) {
    let sockets = pod.run(|| (TcpListener::bind("0.0.0.0:80").unwrap(), UdpSocket::bind("0.0.0.0:80").unwrap()));
    let (tcp, udp) = sockets.unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let _ = stream.and_then(|mut stream| {
                let peer = stream.peer_addr()?.ip().to_string();
                stream.write_all(peer.as_bytes())
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// The address that the pod saw, by TCP.
fn tcp(from: &NetNs, to: IpAddr, port: u16) -> std::io::Result<String> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), Duration::from_millis(800))?;
        let mut answer = String::new();
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

/// The address that the pod saw, by UDP.
fn udp(from: &NetNs, to: IpAddr, port: u16) -> std::io::Result<String> {
    from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(800)))?;
        socket.connect((to, port))?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
    .unwrap()
}

#[test]
fn ports_of_the_node_lead_to_the_pod_from_everywhere() {
    let node = node("ports");
    let [first, second] = &node.pods[..] else { unreachable!() };
    type Ask = fn(&NetNs, IpAddr, u16) -> std::io::Result<String>;
    for (ask, port) in [(tcp as Ask, 8080), (udp, 5353)] {
        assert_eq!(ask(second, NODE, port).unwrap(), "10.0.0.2", "another pod keeps its address");
        assert_eq!(ask(&node.netns, NODE, port).unwrap(), "192.0.2.1", "so does the node");
        assert_eq!(ask(first, NODE, port).unwrap(), "192.0.2.1", "the pod itself comes back by the node");
        assert_eq!(ask(&node.netns, LOOPBACK, port).unwrap(), "192.0.2.1", "the node's loopback");
    }
    assert!(tcp(second, NODE, 5353).is_err(), "the port is of UDP alone");
    assert!(tcp(second, NODE, 80).is_err(), "the node has no such port");
}

/// A client of UDP that goes on from the same port is led to the pod that has the node's port now.
#[test]
fn a_port_that_moves_takes_its_clients_with_it() {
    let mut node = node("move");
    let client = node.pods[1].run(|| UdpSocket::bind("10.0.0.2:4000").unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let ask = || {
        client.send_to(b"?", (NODE, 5353)).unwrap();
        let mut buffer = [0; 64];
        client.recv(&mut buffer).is_ok()
    };
    assert!(ask());
    let handle = Handle::new("1", "eth0");
    let attached = Attached { ports: Vec::new(), ..node.attachments.of(&handle).unwrap().clone() };
    let edits = node.attachments.add(handle, attached).unwrap();
    node.socket.apply(TABLE, &edits).unwrap();
    assert!(ask(), "the connection keeps its translation");
    let forget =
        |port| node.netns.run(|| crate::conntrack::forget(podnet_model::Protocol::Udp, port)).unwrap().unwrap();
    assert_eq!(forget(5354), 0);
    assert_eq!(forget(5353), 1);
    assert!(!ask());
}

#[test]
fn who_sends_with_others_addresses_is_not_heard() {
    let mut node = node("spoof");
    let [_, second] = &node.pods[..] else { unreachable!() };
    let first = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(udp(second, first, 80).unwrap(), "10.0.0.2");

    // Another source address: of nobody, and of a pod. Answers would go elsewhere, so the first pod's counter of datagrams
    // to ports that nobody listens on is what tells.
    let heard = |node: &Node| -> u64 {
        let counters = node.pods[0].command("cat /proc/net/snmp");
        let line = counters.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let say = |source: [u8; 4]| {
        second.command(&format!("ip addr add {}/32 dev eth0", IpAddr::from(source)));
        second
            .run(|| {
                let socket = UdpSocket::bind((IpAddr::from(source), 0)).unwrap();
                for _ in 0..5 {
                    socket.send_to(b"!", (first, 9)).unwrap();
                }
            })
            .unwrap();
    };
    let before = heard(&node);
    say([10, 0, 0, 77]);
    say([192, 0, 2, 99]);
    assert_eq!(udp(second, first, 80).unwrap(), "10.0.0.2", "what is honest still passes");
    assert_eq!(heard(&node), before);
    // The same without the rules, so that the test is known to see it.
    node.socket.delete_table(TABLE).unwrap();
    say([10, 0, 0, 78]);
    assert_eq!(udp(second, first, 80).unwrap(), "10.0.0.2");
    assert_eq!(heard(&node), before + 5);
}

#[test]
fn who_sends_with_anothers_ethernet_address_is_not_heard() {
    let node = node("mac");
    let [_, second] = &node.pods[..] else { unreachable!() };
    let first = IpAddr::from([10, 0, 0, 1]);
    second.command("ip link set eth0 address 02:00:00:00:01:01");
    second.command("ip neigh replace 169.254.1.1 lladdr 02:00:00:00:02:02 nud permanent dev eth0");
    node.netns.command("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:01:01 nud permanent dev pn000000000002");
    assert!(udp(second, first, 80).is_err());
    second.command("ip link set eth0 address 02:00:00:00:01:02");
    second.command("ip neigh replace 169.254.1.1 lladdr 02:00:00:00:02:02 nud permanent dev eth0");
    node.netns.command("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:01:02 nud permanent dev pn000000000002");
    assert_eq!(udp(second, first, 80).unwrap(), "10.0.0.2");
}

#[test]
fn a_pod_does_not_reach_the_nodes_loopback() {
    let mut node = node("loop");
    let [_, second] = &node.pods[..] else { unreachable!() };
    answer(&node.netns);
    second.command("ip route del local 127.0.0.0/8 dev lo table local");
    second.command("ip route del local 127.0.0.1 dev lo table local");
    second.command("ip rule add to 127.0.0.0/8 lookup main pref 0");
    sysctl::set(second, "net.ipv4.conf.eth0.route_localnet", "1").unwrap();
    second.command("ip route add 127.0.0.1 via 169.254.1.1 dev eth0 onlink src 10.0.0.2");
    assert!(tcp(second, LOOPBACK, 80).is_err());
    // It is the rules that keep it away.
    node.socket.delete_table(TABLE).unwrap();
    assert_eq!(tcp(second, LOOPBACK, 80).unwrap(), "10.0.0.2");
}
