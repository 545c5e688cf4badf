use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use podnet_model::Protocol;
use podnet_planner::services::userspace::DEVICE_PREFIX;

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
    let rules = ["ip rule", "ip -6 rule"].map(|line| node.command(line));
    let rules = rules.iter().flat_map(|text| text.lines()).filter(|line| line.contains("28782")).map(str::to_owned);
    let routes = ["ip route show proto 87", "ip -6 route show proto 87"].map(|line| node.command(line));
    let routes = routes.iter().flat_map(|text| text.lines()).map(str::to_owned).collect::<Vec<_>>();
    let links = node
        .command("ip -o link")
        .lines()
        .filter(|line| line.contains(DEVICE_PREFIX))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    rules.chain(routes).chain(links).collect()
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

        // Led twice, left twice.
        apart.lead(&[port]).unwrap();
        apart.leave(&[port]).unwrap();
        apart.leave(&[Led::Address(service), port, clients]).unwrap();
        assert!(ask(53).unwrap().is_err());
        assert_eq!(seen(&node).len(), 1, "{:?}", seen(&node));
        apart.lead(&[Led::Address(service), port]).unwrap();
        assert_eq!(seen(&node).len(), 3, "{:?}", seen(&node));
        drop(apart);
        assert_eq!(seen(&node), Vec::<String>::new());
    }
}

#[test]
fn what_a_process_left_that_is_gone_makes_room_for_what_comes() {
    let node = node("apartleft");
    let port = Led::Port { addr: "203.0.113.1".parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
    let address = Led::Address("10.96.0.1".parse().unwrap());
    let mut before = Apart::new(&node, Family::V4).unwrap();
    before.lead(&[port, address]).unwrap();
    let mut after = Apart::new(&node, Family::V4).unwrap();
    assert!(!before.is_there() && after.is_there());
    assert_eq!(seen(&node).len(), 1, "{:?}", seen(&node));
    after.lead(&[port]).unwrap();
    // It takes nothing with it that is another's.
    drop(before);
    assert_eq!(seen(&node).len(), 2, "{:?}", seen(&node));
    drop(after);
    remove(&node, Family::V4).unwrap();
    assert_eq!(seen(&node), Vec::<String>::new());
}

#[test]
fn its_routing_table_is_no_other_modes() {
    assert_ne!(TABLE, podnet_planner::ipvs::ROUTES);
}
