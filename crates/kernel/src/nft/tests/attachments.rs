//! The rules about what is attached: ports of the node, and senders that claim to be others.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use podnet_model::{Family, LinkName, Protocol, cni::PortMapping};
use podnet_planner::{
    attachments::{Attached, Attachments},
    ipam::Handle,
    ruleset::unspecified,
};

use super::{super::*, pod_addr};
use crate::{
    netlink::RtSocket,
    pod_interface::{HostEnd, PodInterface, host_end::damaged, loopback},
    sysctl,
    testing::{TestNs, eventually, mac},
};

const TABLE: &str = "podnet-pods";

struct Node {
    netns: TestNs,
    pods: Vec<TestNs>,
    attachments: Attachments,
    socket: NftSocket,
}

const fn node_addr(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

const fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// A node with two pods, of which the first has ports. Both answer TCP and UDP at port 80 with the address that they see.
fn node(tag: &str) -> Node {
    let netns = TestNs::new(&format!("{tag}-node"));
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        sysctl::set(&netns, setting, "1").unwrap();
    }
    for family in Family::ALL {
        netns.command(&format!("ip addr add {} dev lo", node_addr(family)));
    }
    // Of whatever comes in by no pod.
    netns.command("ip route add default dev lo");
    let mut host = RtSocket::open_in(&netns).unwrap();
    let mut attachments = Attachments::default();
    let port = |family, protocol, host_port| PortMapping {
        host_ip: unspecified(family),
        protocol,
        host_port,
        container_port: 80,
    };
    let of = |family| [port(family, Protocol::Tcp, 8080), port(family, Protocol::Udp, 5353)];
    let ports: Vec<PortMapping> = Family::ALL.into_iter().flat_map(of).collect();
    let pods: Vec<TestNs> = (1..=2_u8)
        .map(|number| {
            let pod = TestNs::new(&format!("{tag}-pod{number}"));
            let interface = PodInterface {
                netns: pod.clone(),
                container_ifname: "eth0".into(),
                host_ifname: LinkName::from(format!("pn{number:012}")),
                addr: Family::ALL.map(|family| pod_addr(family, number)).into(),
                routes: Vec::new(),
                mtu: 1500,
                pod_mac: mac(1, number),
                host_mac: mac(2, number),
                bridge: None,
            };
            interface.create(&mut host).unwrap();
            for family in Family::ALL {
                loopback::answer(&mut host, &interface.host_ifname, family).unwrap();
            }
            let attached = Attached {
                device: interface.host_ifname,
                mac: interface.pod_mac,
                addrs: interface.addr.clone(),
                ports: if number == 1 { ports.clone() } else { Vec::new() },
                segment: None,
            };
            attachments.add(Handle::new(&number.to_string(), "eth0"), attached).unwrap();
            answer(&pod);
            pod
        })
        .collect();
    let mut socket = NftSocket::open_in(&netns).unwrap();
    for family in Family::ALL {
        socket.replace(TABLE, &attachments.desired(family)).unwrap();
    }
    Node { netns, pods, attachments, socket }
}

/// The threads end with the test's process.
fn answer(pod: &TestNs) {
    let sockets = pod.run(|| (TcpListener::bind("[::]:80").unwrap(), UdpSocket::bind("[::]:80").unwrap()));
    let (tcp, udp) = sockets.unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let _ = stream.and_then(|mut stream| {
                let peer = stream.peer_addr()?.ip().to_canonical().to_string();
                stream.write_all(peer.as_bytes())
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
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
        let socket = UdpSocket::bind((unspecified(Family::of(&to)), 0))?;
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
    for family in Family::ALL {
        let at = node_addr(family);
        for (ask, port) in [(tcp as Ask, 8080), (udp, 5353)] {
            let other = pod_addr(family, 2).to_string();
            assert_eq!(ask(second, at, port).unwrap(), other, "another pod keeps its address");
            assert_eq!(ask(&node.netns, at, port).unwrap(), at.to_string(), "so does the node");
            assert_eq!(ask(first, at, port).unwrap(), at.to_string(), "the pod itself comes back by the node");
            assert_eq!(ask(&node.netns, localhost(family), port).unwrap(), at.to_string(), "the node's loopback");
        }
        assert!(tcp(second, at, 5353).is_err(), "the port is of UDP alone");
        assert!(tcp(second, at, 80).is_err(), "the node has no such port");
    }
}

/// With its device set down a pod loses what leads to it by IPv6. Mending brings that back, answers to ::1 among it.
#[test]
fn a_mended_pod_answers_to_the_nodes_loopback_again() {
    let node = node("mended");
    let mut socket = RtSocket::open_in(&node.netns).unwrap();
    let end = HostEnd {
        ifname: "pn000000000001".into(),
        addrs: Family::ALL.map(|family| pod_addr(family, 1)).into(),
        pod_mac: mac(1, 1),
        mtu: 1500,
        answers_loopback6: true,
        bridge: None,
    };
    node.netns.command("ip link set pn000000000001 down");
    node.netns.command("ip link set pn000000000001 up");
    assert!(tcp(&node.netns, localhost(Family::V6), 8080).is_err());
    for damaged in damaged(&mut socket, &[end]).unwrap() {
        damaged.mend(&mut socket).unwrap();
    }
    eventually("the pod answers", || Family::ALL.iter().all(|of| tcp(&node.netns, localhost(*of), 8080).is_ok()));
}

/// A client of UDP that goes on from the same port is led to the pod that has the node's port now.
#[test]
fn a_port_that_moves_takes_its_clients_with_it() {
    for family in Family::ALL {
        let mut node = node(&format!("move{}", family.bits()));
        let client = node.pods[1].run(|| UdpSocket::bind((pod_addr(family, 2), 4000)).unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let ask = || {
            client.send_to(b"?", (node_addr(family), 5353)).unwrap();
            let mut buffer = [0; 64];
            client.recv(&mut buffer).is_ok()
        };
        assert!(ask());
        let handle = Handle::new("1", "eth0");
        let attached = Attached { ports: Vec::new(), ..node.attachments.of(&handle).unwrap().clone() };
        let edits = node.attachments.add(handle, attached).unwrap();
        node.socket.apply_dual(TABLE, &edits).unwrap();
        assert!(ask(), "the connection keeps its translation");
        let forget = |family, port| {
            let forgotten = node.netns.run(|| crate::conntrack::forget(family, Protocol::Udp, port));
            forgotten.unwrap().unwrap()
        };
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        assert_eq!((forget(family, 5354), forget(other, 5353)), (0, 0));
        assert_eq!(forget(family, 5353), 1);
        assert!(!ask());
    }
}

/// How many datagrams came to ports that nobody listens on.
fn heard(pod: &TestNs, family: Family) -> u64 {
    match family {
        Family::V4 => {
            let counters = pod.command("cat /proc/net/snmp");
            let line = counters.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        }
        Family::V6 => {
            let counters = pod.command("cat /proc/net/snmp6");
            let line = counters.lines().find(|line| line.starts_with("Udp6NoPorts")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        }
    }
}

#[test]
fn who_sends_with_others_addresses_is_not_heard() {
    for (family, sources) in
        [(Family::V4, ["10.0.0.77", "192.0.2.99", "10.0.0.78"]), (Family::V6, ["fd00::77", "2001:db8::99", "fd00::78"])]
    {
        let mut node = node(&format!("spoof{}", family.bits()));
        let [heard_by, second] = &node.pods[..] else { unreachable!() };
        let (first, honest) = (pod_addr(family, 1), pod_addr(family, 2).to_string());
        assert_eq!(udp(second, first, 80).unwrap(), honest);
        // Another source address: of nobody, and of a pod. Answers would go elsewhere, so what the first pod counts is what tells.
        let say = |source: &str| {
            let length = family.bits();
            let without_check = if family == Family::V6 { "nodad" } else { "" };
            second.command(&format!("ip addr add {source}/{length} dev eth0 {without_check}"));
            second
                .run(|| {
                    let socket = UdpSocket::bind((source.parse::<IpAddr>().unwrap(), 0)).unwrap();
                    for _ in 0..5 {
                        socket.send_to(b"!", (first, 9)).unwrap();
                    }
                })
                .unwrap();
        };
        let before = heard(heard_by, family);
        say(sources[0]);
        say(sources[1]);
        assert_eq!(udp(second, first, 80).unwrap(), honest, "what is honest still passes");
        assert_eq!(heard(heard_by, family), before);
        // The same without the rules, so that the test is known to see it.
        node.socket.delete_table(family, TABLE).unwrap();
        say(sources[2]);
        assert_eq!(udp(second, first, 80).unwrap(), honest);
        assert_eq!(heard(heard_by, family), before + 5);
    }
}

#[test]
fn who_sends_with_anothers_ethernet_address_is_not_heard() {
    let node = node("mac");
    let [_, second] = &node.pods[..] else { unreachable!() };
    let be = |own: &str| {
        second.command(&format!("ip link set eth0 address {own}"));
        for (gateway, family) in [("169.254.1.1", Family::V4), ("fe80::1", Family::V6)] {
            second.command(&format!("ip neigh replace {gateway} lladdr 02:00:00:00:02:02 nud permanent dev eth0"));
            let addr = pod_addr(family, 2);
            let neighbour = format!("ip neigh replace {addr} lladdr {own} nud permanent dev pn000000000002");
            node.netns.command(&neighbour);
        }
    };
    be("02:00:00:00:01:01");
    assert!(Family::ALL.into_iter().all(|family| udp(second, pod_addr(family, 1), 80).is_err()));
    be("02:00:00:00:01:02");
    for family in Family::ALL {
        assert_eq!(udp(second, pod_addr(family, 1), 80).unwrap(), pod_addr(family, 2).to_string());
    }
}

/// What a pod's link needs when somebody took its neighbours away works by the rules; router advertisements do not.
#[test]
fn a_pod_answers_for_its_address_and_is_no_router() {
    let mut node = node("nd");
    let [_, second] = &node.pods[..] else { unreachable!() };
    let addr = pod_addr(Family::V6, 2);
    node.netns.command(&format!("ip neigh del {addr} dev pn000000000002"));
    eventually("the node finds the pod by its answer", || tcp(&node.netns, addr, 80).is_ok());

    // The pod makes itself a link-local address, and the node would take routes from anybody there.
    second.command("ip addr add fe80::ff:fe00:102/64 dev eth0 nodad");
    sysctl::set(&node.netns, "net.ipv6.conf.pn000000000002.accept_ra", "2").unwrap();
    let routes = |node: &Node| node.netns.command("ip -6 route show proto ra");
    let listed = second.command("ip -o link show eth0");
    let index: u32 = listed.split(':').next().unwrap().parse().unwrap();
    let advertise = || {
        second
            .run(|| {
                use rustix::net::{AddressFamily, SocketType, sockopt};
                let raw =
                    rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(rustix::net::ipproto::ICMPV6))
                        .unwrap();
                sockopt::set_ipv6_multicast_hops(&raw, 255).unwrap();
                // A router advertisement (RFC 4861, section 4.2) with a lifetime of an hour.
                let advertisement = [134, 0, 0, 0, 64, 0, 0x0e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
                let nodes = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
                rustix::net::sendto(&raw, &advertisement, rustix::net::SendFlags::empty(), &nodes).unwrap();
            })
            .unwrap();
    };
    for _ in 0..5 {
        advertise();
    }
    // What was sent before this answer came was looked at before it.
    assert_eq!(udp(second, pod_addr(Family::V6, 1), 80).unwrap(), addr.to_string());
    assert_eq!(routes(&node), "");
    node.socket.delete_table(Family::V6, TABLE).unwrap();
    eventually("without the rules the pod is the node's router", || {
        advertise();
        routes(&node).contains("default")
    });
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
    assert!(tcp(second, localhost(Family::V4), 80).is_err());
    // It is the rules that keep it away.
    node.socket.delete_table(Family::V4, TABLE).unwrap();
    assert_eq!(tcp(second, localhost(Family::V4), 80).unwrap(), "10.0.0.2");
}
