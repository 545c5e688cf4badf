//! With a thread that speaks in a namespace of its own, whose devices have their other ends beside them.

use std::{
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use podnet_kernel::{
    arp::{ArpSocket, Heard},
    netns::NetNs,
};
use podnet_model::{
    Mac, Node, NodeAddr, Service, ServiceKey,
    labels::Labels,
    service::{Ingress, ServiceKind},
};

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

fn ip(command: &str) {
    let done = Command::new("ip").args(command.split_whitespace()).status().unwrap();
    assert!(done.success(), "ip {command}");
}

/// Who alone announces the address.
fn announcements() -> Arc<Announcements> {
    let announcements = Arc::new(Announcements::new("node1".into()));
    let node = Node::new("node1".into(), NodeAddr([192, 0, 2, 1].into()));
    announcements.learn(&Change::Node("node1".into(), Some(node)));
    let pool = AddressPool {
        name: "default".into(),
        labels: Labels::default(),
        spans: vec!["192.0.2.0/24".parse().unwrap()],
        auto_assign: true,
        avoid_buggy: false,
        reserved: None,
    };
    let everywhere = Advertisement {
        pools: Default::default(),
        pool_selectors: Vec::new(),
        node_selectors: Vec::new(),
        interfaces: Default::default(),
    };
    announcements.set_pools(vec![pool], vec![everywhere]);
    let key = ServiceKey::new("default", "web");
    let ingress = vec![Ingress { addr: VIP.into(), is_proxy: false }];
    let service = Service { ingress, ..Service::new(key.clone(), ServiceKind::Headless, Vec::new()) };
    announcements.learn(&Change::Service(key, Some(service)));
    announcements
}

/// Waits until that Ethernet address is told to have the address.
fn until_told(socket: &ArpSocket, by: Mac) {
    let began = Instant::now();
    loop {
        match socket.hear().unwrap() {
            Some(Heard::Claims { addr: VIP, by: told }) if told == by => return,
            Some(_) => {}
            None => thread::sleep(Duration::from_millis(10)),
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{by} is not told");
    }
}

#[test]
fn what_is_announced_follows_the_underlay_to_another_device_and_ethernet_address() {
    let path = format!("/run/netns/podnet-test-announce-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let announcements = announcements();
    let told = netns.run(move || {
        for (device, mac) in [("eth0", "02:00:00:00:00:01"), ("eth1", "02:00:00:00:00:02")] {
            ip(&format!("link add {device} address {mac} type veth peer name {device}-peer"));
            ip(&format!("link set {device} up"));
            ip(&format!("link set {device}-peer up"));
        }
        let [first, second] = ["eth0-peer", "eth1-peer"].map(|device| ArpSocket::open(device).unwrap());
        // It ends with the process.
        let speaking = announcements.clone();
        thread::spawn(move || speaker::Speaker::new(speaking).run());
        announcements.set_underlay(&"eth0".into());
        until_told(&first, Mac([2, 0, 0, 0, 0, 1]));
        announcements.set_underlay(&"eth1".into());
        until_told(&second, Mac([2, 0, 0, 0, 0, 2]));
        ip("link set eth1 address 02:00:00:00:00:03");
        until_told(&second, Mac([2, 0, 0, 0, 0, 3]));
    });
    NetNs::remove(&path).unwrap();
    told.unwrap();
}
