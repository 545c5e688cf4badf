use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use podnet_model::Protocol;
use podnet_planner::{ruleset::FrontendKey, services::userspace::DEVICE_PREFIX};

use super::*;
use crate::testing::TestNs;

/// A node with an address of each family that all but its own is led out of, to nobody.
fn node(tag: &str) -> TestNs {
    let node = TestNs::new(tag);
    let mut socket = RtSocket::open_in(&node).unwrap();
    link::create_bridge(&mut socket, "eth0").unwrap();
    link::set_up(&mut socket, "eth0").unwrap();
    let eth0 = link::index_of(&mut socket, "eth0").unwrap();
    for own in ["192.0.2.1/24", "2001:db8::1/64"] {
        addr::add(&mut socket, eth0, own.parse().unwrap()).unwrap();
    }
    node
}

/// What leads aside, as others see it.
fn seen(node: &TestNs) -> Vec<String> {
    let of = |line: &str, part: &str| {
        let text = node.command(line);
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect::<Vec<_>>()
    };
    let rules = ["ip rule", "ip -6 rule"].map(|line| of(line, "28782"));
    let routes = ["ip -4", "ip -6"].map(|ip| of(&format!("{ip} route show table all proto 87"), ""));
    rules.into_iter().chain(routes).flatten().chain(of("ip -o link", DEVICE_PREFIX)).collect()
}

#[test]
fn addresses_and_ports_are_served_apart_and_nothing_stays() {
    let node = node("apart");
    for (key, value) in [("net.ipv4.conf.default.rp_filter", "1"), ("net.ipv4.ip_forward", "1")] {
        sysctl::set(&node, key, value).unwrap();
    }
    for (family, service, shared, own) in
        [(Family::V4, "10.96.0.1", "203.0.113.1", "192.0.2.1"), (Family::V6, "fd96::1", "2001:db8:1::1", "2001:db8::1")]
    {
        let [service, shared, own]: [IpAddr; 3] = [service, shared, own].map(|addr| addr.parse().unwrap());
        // It is not there where all addresses of the node are listened at.
        let everywhere = node.run(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
        let mut apart = Apart::new(&node, family).unwrap();
        apart.set_source(Some(own)).unwrap();
        let port = Led::Port { addr: shared, protocol: Protocol::Udp, port: 53 };
        // Clients may have addresses that are served as well.
        let clients = Led::Port { addr: own, protocol: Protocol::Tcp, port: 8088 };
        apart.lead(&[Led::Address(service), port, clients]).unwrap();
        if family == Family::V4 {
            let filter = sysctl::read(&node, &format!("net.ipv4.conf.{}.rp_filter", device(family))).unwrap();
            let forwards = sysctl::read(apart.netns(), "net.ipv4.ip_forward").unwrap();
            assert_eq!((filter.as_str(), forwards.as_str()), ("0", "0"));
        }
        let connect = || TcpStream::connect_timeout(&(service, 80).into(), Duration::from_secs(5));
        let refused = node.run(connect).unwrap().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        node.command(&format!("ping -c 1 -W 5 {service}"));
        let server = apart.netns().run(|| TcpListener::bind((service, 80))).unwrap().unwrap();
        let client = node.run(connect).unwrap().unwrap();
        let (_, from) = server.accept().unwrap();
        assert_eq!((from, from.ip()), (client.local_addr().unwrap(), own));

        let server = apart.netns().run(|| UdpSocket::bind((shared, 53))).unwrap().unwrap();
        let ask = |port: u16| {
            node.run(|| {
                let client = UdpSocket::bind(SocketAddr::new(own, 0)).unwrap();
                client.send_to(b"?", (shared, port)).map(|_| client)
            })
        };
        let client = ask(53).unwrap().unwrap();
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        server.send_to(b"!", from).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, SocketAddr::new(shared, 53));
        // Another port of the address is led where it was before: nowhere.
        assert!(ask(54).unwrap().is_err());
        drop(everywhere);

        // Led twice, left once.
        apart.lead(&[port]).unwrap();
        apart.leave(&[Led::Address(service), port, clients]).unwrap();
        assert!(ask(53).unwrap().is_err());
        assert_eq!(seen(&node).len(), 1, "{:?}", seen(&node));
        apart.lead(&[Led::Address(service), port]).unwrap();
        assert_eq!(seen(&node).len(), 6, "{:?}", seen(&node));
        drop(apart);
        assert_eq!(seen(&node), Vec::<String>::new());
    }
}

#[test]
fn what_leads_there_and_who_listens_is_seen_by_who_did_not_make_it() {
    let node = node("apartseen");
    for (family, service, shared, own) in
        [(Family::V4, "10.96.0.1", "203.0.113.1", "192.0.2.1"), (Family::V6, "fd96::1", "2001:db8:1::1", "2001:db8::1")]
    {
        let [service, shared, own]: [IpAddr; 3] = [service, shared, own].map(|addr| addr.parse().unwrap());
        let key = |addr, protocol, port| FrontendKey { addr, protocol, port };
        assert_eq!(look(&node, family).unwrap(), Seen::default());
        let mut apart = Apart::new(&node, family).unwrap();
        let port = Led::Port { addr: shared, protocol: Protocol::Udp, port: 53 };
        apart.lead(&[Led::Address(service), port]).unwrap();
        let _streams = apart.netns().run(|| TcpListener::bind((service, 80))).unwrap().unwrap();
        let datagrams = apart.netns().run(|| UdpSocket::bind((shared, 53))).unwrap().unwrap();
        let _at_node = node.run(|| TcpListener::bind((own, 30080))).unwrap().unwrap();
        let whole = Seen {
            led: [Led::Address(service), port].into(),
            at_node: [key(own, Protocol::Tcp, 30080)].into(),
            inside: Some([key(service, Protocol::Tcp, 80), key(shared, Protocol::Udp, 53)].into()),
        };
        assert_eq!(look(&node, family).unwrap(), whole);
        drop(datagrams);
        apart.leave(&[port]).unwrap();
        let less = Seen {
            led: [Led::Address(service)].into(),
            inside: Some([key(service, Protocol::Tcp, 80)].into()),
            ..whole
        };
        assert_eq!(look(&node, family).unwrap(), less);
        drop(apart);
        assert_eq!(look(&node, family).unwrap(), Seen::default());
    }
}

#[test]
fn a_port_of_many_addresses_is_one_rule_and_what_somebody_changes_is_found() {
    let node = node("apartports");
    let mut apart = Apart::new(&node, Family::V4).unwrap();
    let of = |number: u8, port| Led::Port { addr: [203, 0, 113, number].into(), protocol: Protocol::Tcp, port };
    let all: Vec<Led> = (1..=100).flat_map(|number| [of(number, 80), of(number, 443)]).collect();
    apart.lead(&all).unwrap();
    let rules = || node.command("ip rule").lines().filter(|line| line.starts_with("28782")).count();
    assert_eq!(rules(), 2);
    assert_eq!(apart.missing().unwrap(), []);
    for (line, missing) in [
        ("ip route replace 203.0.113.7 dev eth0 table 2878200080", vec![of(7, 80)]),
        ("ip route del unreachable 203.0.113.9 table 2878200443 metric 4000000000", vec![of(9, 443)]),
        (
            "ip rule del ipproto tcp dport 443 pref 28782",
            all.iter().copied().filter(|led| matches!(led, Led::Port { port: 443, .. })).collect(),
        ),
    ] {
        node.command(line);
        let found = apart.missing().unwrap();
        assert!(missing.contains(&found[0]) && found.len() <= missing.len(), "{line}: {found:?}");
        apart.lead(&found).unwrap();
        assert_eq!(apart.missing().unwrap(), [], "{line}");
    }
    apart.leave(&all[..all.len() - 1]).unwrap();
    assert_eq!(rules(), 1);
    // Another mode serves beside it.
    apart.refuse(false).unwrap();
    assert_eq!((seen(&node).len(), apart.missing().unwrap()), (3, vec![]));
}

/// As `kill -9` does, and the kernel when the last of the process's namespaces goes.
fn kill(node: &TestNs, apart: Apart, family: Family) {
    std::mem::forget(apart);
    node.command(&format!("ip link del {}", device(family)));
}

#[test]
fn what_a_process_served_that_is_gone_is_refused_and_does_not_leave_the_node() {
    let node = node("apartleft");
    node.command("ip route add default via 192.0.2.254 dev eth0");
    node.command("ip -6 route add default via 2001:db8::ff dev eth0");
    for (family, service, shared) in
        [(Family::V4, "10.96.0.1", "203.0.113.1"), (Family::V6, "fd96::1", "2001:db8:1::1")]
    {
        let [service, shared]: [IpAddr; 2] = [service, shared].map(|addr| addr.parse().unwrap());
        let port = Led::Port { addr: shared, protocol: Protocol::Tcp, port: 80 };
        let other = Led::Port { addr: shared, protocol: Protocol::Tcp, port: 81 };
        let address = Led::Address(service);
        let mut before = Apart::new(&node, family).unwrap();
        before.lead(&[port, other, address]).unwrap();
        kill(&node, before, family);
        let refused = || {
            for addr in [service, shared] {
                let connect = || TcpStream::connect_timeout(&(addr, 80).into(), Duration::from_secs(5));
                let error = node.run(connect).unwrap().unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{addr}: {error}");
            }
        };
        refused();
        let mut after = Apart::new(&node, family).unwrap();
        refused();
        after.lead(&[port]).unwrap();
        after.sweep().unwrap();
        assert_eq!((seen(&node).len(), after.missing().unwrap()), (4, vec![]), "{:?}", seen(&node));
        kill(&node, after, family);
        remove(&node, family).unwrap();
        assert_eq!(seen(&node), Vec::<String>::new());
    }
}

#[test]
fn who_ends_takes_nothing_with_it_that_is_anothers() {
    let node = node("apartboth");
    let port = Led::Port { addr: "203.0.113.1".parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
    let mut before = Apart::new(&node, Family::V4).unwrap();
    before.lead(&[port]).unwrap();
    let mut after = Apart::new(&node, Family::V4).unwrap();
    assert!(!before.is_there() && after.is_there());
    after.lead(&[port]).unwrap();
    drop(before);
    assert_eq!((seen(&node).len(), after.missing().unwrap()), (4, vec![]), "{:?}", seen(&node));
    drop(after);
    assert_eq!(seen(&node), Vec::<String>::new());
}
