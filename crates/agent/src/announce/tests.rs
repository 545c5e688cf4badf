//! With a thread that speaks in a namespace of its own, whose devices have their other ends beside them.

use std::{
    net::{IpAddr, Ipv6Addr},
    process::Command,
    time::{Duration, Instant},
};

use podnet_kernel::{
    announce::{AnnounceSocket, Heard},
    netns::NetNs,
};
use podnet_model::{
    Family, Mac, Node, NodeAddr, Service, ServiceKey,
    balancer::AddressPool,
    labels::Labels,
    service::{Ingress, ServiceKind},
};

use super::*;

const VIPS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200)),
];

fn ip(command: &str) {
    let done = Command::new("ip").args(command.split_whitespace()).status().unwrap();
    assert!(done.success(), "ip {command}");
}

/// Who alone announces the addresses.
fn announcements() -> Arc<Announcements> {
    let announcements = Arc::new(Announcements::new("node1".into()));
    let node = Node::new("node1".into(), NodeAddr([192, 0, 2, 1].into()));
    announcements.learn(&Change::Node("node1".into(), Some(node)));
    let pool = AddressPool {
        name: "default".into(),
        labels: Labels::default(),
        spans: ["192.0.2.0/24", "2001:db8::/64"].map(|span| span.parse().unwrap()).into(),
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
    announcements.learn(&Change::AddressPool(ServiceKey::new("metallb-system", "default"), Some(Arc::new(pool))));
    announcements.set_advertisements(vec![everywhere]);
    let key = ServiceKey::new("default", "web");
    let ingress = VIPS.map(|addr| Ingress { addr, is_proxy: false }).into();
    let service = Service { ingress, ..Service::new(key.clone(), ServiceKind::Headless, Vec::new()) };
    announcements.learn(&Change::Service(key, Some(service)));
    announcements
}

/// The far end of a device: a socket for each address.
struct Beside([AnnounceSocket; 2]);

impl Beside {
    fn open(device: &str) -> Self {
        Self(VIPS.map(|vip| AnnounceSocket::open(device, Family::of(&vip)).unwrap()))
    }

    /// Waits until that Ethernet address is told to have both addresses, and answers for them.
    fn await_told(&self, mac: Mac) {
        for (socket, vip) in self.0.iter().zip(VIPS) {
            await_told(socket, vip, mac);
            while socket.hear().unwrap().is_some() {}
            socket.ask(vip).unwrap();
            await_told(socket, vip, mac);
        }
    }
}

fn await_told(socket: &AnnounceSocket, vip: IpAddr, mac: Mac) {
    let began = Instant::now();
    loop {
        match socket.hear().unwrap() {
            Some(Heard::Claims { addr, by }) if addr == vip && by == mac => return,
            Some(_) => {}
            None => thread::sleep(Duration::from_millis(10)),
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{mac} is not told to have {vip}");
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
        let [first, second] = ["eth0-peer", "eth1-peer"].map(Beside::open);
        // It ends with the process.
        let speaking = announcements.clone();
        thread::spawn(move || speaker::Speaker::new(speaking).run());
        announcements.set_underlay(&"eth0".into());
        first.await_told(Mac([2, 0, 0, 0, 0, 1]));
        assert!(is_in_group("eth0"), "switches have to know where questions go");
        announcements.set_underlay(&"eth1".into());
        second.await_told(Mac([2, 0, 0, 0, 0, 2]));
        assert!(is_in_group("eth1") && !is_in_group("eth0"));
        ip("link set eth1 address 02:00:00:00:00:03");
        second.await_told(Mac([2, 0, 0, 0, 0, 3]));
    });
    NetNs::remove(&path).unwrap();
    told.unwrap();
}

/// Whether the device hears what is sent to the group that is asked for the address of IPv6.
fn is_in_group(device: &str) -> bool {
    let shown = Command::new("ip").args(["-6", "maddress", "show", "dev", device]).output().unwrap();
    String::from_utf8_lossy(&shown.stdout).split_whitespace().any(|word| word == "ff02::1:ff00:200")
}
