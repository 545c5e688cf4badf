use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    sysctl,
    testing::{TestNs, mac},
};

mod advertisements;
mod bridged;
mod off;

struct Pods {
    node: TestNs,
    host: RtSocket,
    namespaces: Vec<TestNs>,
    interfaces: Vec<PodInterface>,
}

/// A node with pods that have addresses and namespaces, but no interfaces yet.
fn pods(tag: &str, count: u8) -> Pods {
    let node = TestNs::new(&format!("{tag}-node"));
    sysctl::set(&node, "net.ipv4.ip_forward", "1").unwrap();
    sysctl::set(&node, "net.ipv6.conf.all.forwarding", "1").unwrap();
    node.command("ip addr add 192.0.2.1/32 dev lo");
    let host = RtSocket::open_in(&node).unwrap();
    let namespaces: Vec<TestNs> = (1..=count).map(|number| TestNs::new(&format!("{tag}-pod{number}"))).collect();
    let interfaces = (1..=count).zip(&namespaces).map(|(number, namespace)| interface(namespace, number)).collect();
    Pods { node, host, namespaces, interfaces }
}

fn interface(namespace: &NetNs, number: u8) -> PodInterface {
    PodInterface {
        netns: namespace.clone(),
        container_ifname: "eth0".into(),
        host_ifname: format!("pod{number}").into(),
        addr: vec![v4(number).into(), format!("fd00::{number}").parse().unwrap()],
        routes: Vec::new(),
        mtu: 1450,
        pod_mac: mac(1, number),
        host_mac: mac(2, number),
        bridge: None,
    }
}

fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 233, 64, number)
}

#[test]
fn two_pods_reach_each_other_through_the_node_with_ping_and_tcp() {
    let mut pods = pods("pair", 2);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
        assert_eq!(interface.check(&mut pods.host).unwrap(), []);
    }
    pods.namespaces[0].command("ping -c 1 -W 2 10.233.64.2");
    pods.namespaces[0].command("ping -c 1 -W 2 fd00::2");
    pods.node.command("ping -c 1 -W 2 10.233.64.1");
    let server = SocketAddrV4::new(v4(2), 8080);
    let listener = pods.namespaces[1].run(|| TcpListener::bind(server)).unwrap().unwrap();
    let mut client = pods.namespaces[0].run(|| TcpStream::connect(server)).unwrap().unwrap();
    let (mut served, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), v4(1), "nothing translates the source");
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut text = String::new();
    served.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn nobody_asks_for_an_address_and_the_node_filters_no_reverse_path() {
    let mut pods = pods("quiet", 1);
    sysctl::set(&pods.node, "net.ipv4.conf.default.rp_filter", "1").unwrap();
    pods.interfaces[0].create(&mut pods.host).unwrap();
    assert_eq!(sysctl::read(&pods.node, "net.ipv4.conf.pod1.rp_filter").unwrap(), "0");
    assert_eq!(sysctl::read(&pods.node, "net.ipv6.conf.pod1.addr_gen_mode").unwrap(), "1");
    pods.node.command("ping -c 1 -W 2 10.233.64.1");
    let neighbours = pods.namespaces[0].command("ip neigh show");
    assert!(neighbours.lines().all(|line| line.trim_end().ends_with("PERMANENT")), "{neighbours}");
}

/// Whatever of its making the kernel left for later.
#[test]
fn the_first_packet_to_a_pod_arrives_by_ipv6_too() {
    let mut pods = pods("first6", 12);
    pods.node.command("ip -6 addr add fd00::ff/128 dev lo nodad");
    let node = pods.node.run(|| UdpSocket::bind("[fd00::ff]:0")).unwrap().unwrap();
    for (number, interface) in (1..).zip(&pods.interfaces) {
        interface.create(&mut pods.host).unwrap();
        let own = SocketAddr::new(format!("fd00::{number}").parse().unwrap(), 9);
        let pod = interface.netns.run(|| UdpSocket::bind(own)).unwrap().unwrap();
        node.send_to(b"first", own).unwrap();
        pod.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let received = pod.recv(&mut [0; 16]);
        assert_eq!(received.ok(), Some(5), "the first packet to pod {number}");
    }
}

#[test]
fn a_failure_in_the_middle_leaves_nothing() {
    let mut pods = pods("undo", 1);
    // The first address is given, and the second refused: below 1280 bytes there is no IPv6.
    pods.interfaces[0].mtu = 1279;
    let error = pods.interfaces[0].create(&mut pods.host).unwrap_err();
    assert_eq!(error.to_string(), "cannot make pod interface pod1");
    assert_eq!(link::find(&mut pods.host, "pod1").unwrap(), None);
    assert_eq!(route::list(&mut pods.host, ROUTE_PROTOCOL).unwrap(), []);
    let mut pod = RtSocket::open_in(&pods.namespaces[0]).unwrap();
    assert_eq!(link::find(&mut pod, "eth0").unwrap(), None);
}

#[test]
fn an_interface_that_is_there_is_not_touched_by_making_it_again() {
    let mut pods = pods("again", 1);
    pods.interfaces[0].create(&mut pods.host).unwrap();
    let PodInterfaceError::Create { source, .. } = pods.interfaces[0].create(&mut pods.host).unwrap_err() else {
        panic!("another error");
    };
    assert!(source.is_exists());
    assert_eq!(pods.interfaces[0].check(&mut pods.host).unwrap(), []);
}

#[test]
fn removing_from_either_side_takes_everything_along_and_can_be_done_twice() {
    let mut pods = pods("remove", 2);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    for _ in 0..2 {
        remove(&mut pods.host, &"pod1".into()).unwrap();
        remove_from_pod(&pods.namespaces[1], &"eth0".into()).unwrap();
    }
    let names: Vec<String> = link::list(&mut pods.host).unwrap().iter().map(|link| link.name.to_string()).collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(route::list(&mut pods.host, ROUTE_PROTOCOL).unwrap(), []);
}

#[test]
fn a_check_names_each_thing_that_somebody_changed() {
    let mut pods = pods("check", 1);
    let interface = &pods.interfaces[0];
    assert_eq!(
        interface.check(&mut pods.host).unwrap(),
        [Difference::NoDevice("eth0".into()), Difference::NoDevice("pod1".into())]
    );
    interface.create(&mut pods.host).unwrap();
    pods.node.command("ip route del 10.233.64.1");
    pods.node.command("ip neigh del 10.233.64.1 dev pod1");
    pods.node.command("ip link set pod1 mtu 1300");
    // With its last address a device loses its routes and neighbours.
    pods.namespaces[0].command("ip addr del 10.233.64.1/32 dev eth0");
    let found: Vec<String> = interface.check(&mut pods.host).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "device pod1 has MTU 1300",
            "the pod has not address 10.233.64.1",
            "no route to 169.254.1.1/32 goes through eth0",
            "no route to 0.0.0.0/0 goes through eth0",
            "169.254.1.1 is no permanent neighbour on eth0",
            "no route to 10.233.64.1/32 goes through pod1",
            "10.233.64.1 is no permanent neighbour on pod1",
        ]
    );
}

/// Prints how long an interface takes: `cargo test -p podnet-kernel --release -- --ignored --nocapture time_to_make`.
#[test]
#[ignore = "a measurement, not a test"]
fn time_to_make_a_pod_interface() {
    const COUNT: u8 = 50;
    let mut pods = pods("bench", COUNT);
    let mut made: Vec<Duration> = Vec::new();
    let mut removed: Vec<Duration> = Vec::new();
    for interface in &pods.interfaces {
        let start = Instant::now();
        interface.create(&mut pods.host).unwrap();
        made.push(start.elapsed());
    }
    for interface in &pods.interfaces {
        let start = Instant::now();
        remove(&mut pods.host, &interface.host_ifname).unwrap();
        removed.push(start.elapsed());
    }
    for (what, times) in [("create", &mut made), ("remove", &mut removed)] {
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("pod interface {what}: median {median:?}, slowest {worst:?} of {COUNT}");
    }
}

#[test]
fn what_a_pod_sends_at_once_is_not_dropped() {
    let mut pods = pods("settle", 1);
    // The kernel opens the link from a work queue that needs the lock which others' links come and go under.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy: Vec<_> = (0..6)
        .map(|number| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let namespace = TestNs::new(&format!("settle-busy{number}"));
                    let mut socket = RtSocket::open_in(&namespace).unwrap();
                    let peer = VethPeer { name: "b", mac: None, netns: None };
                    link::create_veth(&mut socket, &Veth { name: "a", mac: None, peer, mtu: 1500 }).unwrap();
                    link::set_up(&mut socket, "a").unwrap();
                    link::set_up(&mut socket, "b").unwrap();
                }
            })
        })
        .collect();
    let server = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9000);
    let receiver = pods.node.run(|| std::net::UdpSocket::bind(server)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut lost = 0;
    for _ in 0..60 {
        pods.interfaces[0].create(&mut pods.host).unwrap();
        let sent = pods.namespaces[0].run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"first", server));
        sent.unwrap().unwrap();
        lost += u32::from(receiver.recv(&mut [0; 8]).is_err());
        remove(&mut pods.host, &pods.interfaces[0].host_ifname).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(lost, 0, "of 60 first packets");
}

#[test]
fn what_others_do_to_the_nodes_end_is_found_and_mended() {
    let mut pods = pods("mend", 2);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    let ends: Vec<HostEnd> = pods.interfaces.iter().map(PodInterface::host_end).collect();
    assert!(host_end::damaged(&mut pods.host, &ends).unwrap().is_empty());
    for damage in [
        "ip route del 10.233.64.1/32",
        "ip neigh del 10.233.64.1 dev pod1",
        "ip link set pod1 mtu 1280",
        // Less than IPv6 can do with, so that it is gone.
        "ip link set pod1 mtu 1200",
        "ip link set pod1 down",
        "ip -6 route flush dev pod1",
        "ip neigh flush all nud permanent",
    ] {
        pods.node.command(damage);
        let damaged = host_end::damaged(&mut pods.host, &ends).unwrap();
        assert!(!damaged.is_empty(), "{damage}");
        damaged.iter().for_each(|damaged| damaged.mend(&mut pods.host).unwrap());
        assert!(host_end::damaged(&mut pods.host, &ends).unwrap().is_empty(), "{damage}");
        assert_eq!(pods.interfaces[0].check(&mut pods.host).unwrap(), [], "{damage}");
    }
    pods.node.command("ip link del pod2");
    let damaged = host_end::damaged(&mut pods.host, &ends).unwrap();
    assert_eq!(damaged[0].differences, [Difference::NoDevice("pod2".into())]);
    assert!(!damaged[0].is_there());
    damaged[0].mend(&mut pods.host).unwrap();
}

#[test]
fn many_are_removed_at_once_and_what_is_not_there_does_not_matter() {
    let mut pods = pods("many", 3);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    let kept = pods.interfaces.pop().unwrap();
    let names = ["pod1", "unknown", "pod2"].map(LinkName::from);
    remove_all(&mut pods.host, &names).unwrap();
    remove_all(&mut pods.host, &names).unwrap();
    let left = pods.node.command("ip -o link show type veth");
    assert_eq!(left.lines().count(), 1, "{left}");
    assert_eq!(kept.check(&mut pods.host).unwrap(), []);
}

#[test]
fn what_is_cut_off_is_not_reached_though_its_interface_is_there() {
    let mut pods = pods("cut", 2);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    cut_off(&mut pods.host, v4(2).into(), None).unwrap();
    cut_off(&mut pods.host, v4(2).into(), None).unwrap();
    let server = SocketAddrV4::new(v4(2), 8080);
    let _listener = pods.namespaces[1].run(|| TcpListener::bind(server)).unwrap().unwrap();
    let refused = pods.namespaces[0].run(|| TcpStream::connect(server)).unwrap().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::NETUNREACH.raw_os_error()), "{refused}");
    let differences = pods.interfaces[1].check(&mut pods.host).unwrap();
    assert_eq!(differences.len(), 1, "{differences:?}");
}

#[test]
fn both_ends_of_interfaces_in_use_change_their_mtu() {
    let mut pods = pods("mtu", 3);
    // Pods are looked for in all namespaces with a name, other tests' among them, and theirs have the same indices.
    pods.interfaces.iter_mut().for_each(|interface| interface.pod_mac.0[4] = 0x6d);
    for interface in &pods.interfaces {
        interface.create(&mut pods.host).unwrap();
    }
    let interfaces = |pods: &Pods| {
        let interface = |(interface, namespace): (&PodInterface, &TestNs)| mtu::Interface {
            host_ifname: interface.host_ifname.clone(),
            pod_mac: interface.pod_mac,
            has_ipv6: true,
            // One is told, the others are found.
            netns: (interface.host_ifname.as_str() == "pod1").then(|| namespace.path.clone()),
        };
        pods.interfaces.iter().zip(&pods.namespaces).map(interface).collect::<Vec<_>>()
    };
    for mtu in [1300, 1500] {
        let wanted = interfaces(&pods);
        assert!(mtu::change(&mut pods.host, &wanted, mtu).unwrap().is_empty());
        pods.interfaces.iter_mut().for_each(|interface| interface.mtu = mtu);
        for interface in &pods.interfaces {
            assert_eq!(interface.check(&mut pods.host).unwrap(), []);
        }
        pods.namespaces[0].command("ping -c 1 -W 2 10.233.64.3");
    }
    // The kernel takes IPv6 away from a device below 1280 bytes, and makes it anew above, open to all.
    pods.interfaces.truncate(1);
    pods.interfaces[0].addr.truncate(1);
    remove(&mut pods.host, &"pod1".into()).unwrap();
    pods.interfaces[0].create(&mut pods.host).unwrap();
    for mtu in [1200, 1500] {
        let wanted: Vec<_> =
            interfaces(&pods).into_iter().map(|pod| mtu::Interface { has_ipv6: false, ..pod }).collect();
        assert!(mtu::change(&mut pods.host, &wanted, mtu).unwrap().is_empty());
    }
    let settings = ["disable_ipv6", "accept_ra"].map(|name| format!("net.ipv6.conf.pod1.{name}"));
    assert_eq!(settings.map(|key| sysctl::read(&pods.node, &key).unwrap()), ["1", "0"], "the pod has no IPv6 address");
    assert_eq!(pods.node.command("ip -6 addr show dev pod1"), "");
}

#[test]
fn a_pod_that_is_in_no_named_namespace_is_not_found() {
    let mut pods = pods("mtu-lost", 1);
    pods.interfaces[0].pod_mac.0[4] = 0x6e;
    pods.interfaces[0].create(&mut pods.host).unwrap();
    let wanted = [mtu::Interface {
        host_ifname: "pod1".into(),
        pod_mac: pods.interfaces[0].pod_mac,
        has_ipv6: true,
        netns: None,
    }];
    NetNs::remove(&pods.namespaces[0].path).unwrap();
    assert_eq!(mtu::change(&mut pods.host, &wanted, 1400).unwrap().lost, [LinkName::from("pod1")]);
}
