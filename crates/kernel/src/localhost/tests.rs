use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::*;
use crate::testing::{TestNs, eventually};

const PORT: u16 = 8080;

/// A node at whose loopback addresses somebody listens, and a neighbour that sends what is for them to the node.
struct Lab {
    node: TestNs,
    neighbour: TestNs,
    host: RtSocket,
    rules: NftSocket,
    _listeners: [TcpListener; 2],
}

impl Lab {
    fn new(tag: &str) -> Self {
        let node = TestNs::new(&format!("{tag}-node"));
        let neighbour = TestNs::new(&format!("{tag}-next"));
        let peer = neighbour.path.file_name().unwrap().to_str().unwrap();
        node.command(&format!("ip link add eth0 type veth peer name eth0 netns {peer}"));
        for (place, number) in [(&node, 1), (&neighbour, 2)] {
            place.command(&format!("ip addr add 192.0.2.{number}/24 dev eth0"));
            place.command(&format!("ip addr add 2001:db8::{number}/64 dev eth0 nodad"));
            place.command("ip link set eth0 up");
        }
        neighbour.command("ip route del local 127.0.0.0/8 dev lo table local");
        neighbour.command("ip route del local 127.0.0.1 dev lo table local");
        neighbour.command("ip rule add to 127.0.0.0/8 lookup main pref 0");
        sysctl::set(&neighbour, "net.ipv4.conf.eth0.route_localnet", "1").unwrap();
        neighbour.command("ip route add 127.0.0.1 via 192.0.2.1 dev eth0 src 192.0.2.2");
        neighbour.command("ip -6 route del local ::1 dev lo table local");
        neighbour.command("ip -6 route add ::1 via 2001:db8::1 dev eth0 src 2001:db8::2");
        let host = RtSocket::open_in(&node).unwrap();
        let rules = NftSocket::open_in(&node).unwrap();
        let listen = |addr: IpAddr| node.run(|| TcpListener::bind((addr, PORT))).unwrap().unwrap();
        let listeners = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(listen);
        Self { node, neighbour, host, rules, _listeners: listeners }
    }

    fn open(&mut self, localhost: &mut Localhost, family: Family) -> Option<&'static str> {
        localhost.open(family, &mut self.host, &mut self.rules).unwrap()
    }

    fn setting(&self) -> String {
        sysctl::read(&self.node, SETTING).unwrap()
    }

    fn neighbour_reaches(&self, addr: impl Into<IpAddr>) -> bool {
        let to = SocketAddr::new(addr.into(), PORT);
        self.neighbour.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(400)).is_ok()).unwrap()
    }
}

/// CVE-2020-8558.
#[test]
fn neighbours_reach_no_loopback_address_of_a_node_that_takes_answers_there() {
    let mut lab = Lab::new("localhost");
    assert_eq!(lab.setting(), "0");
    let mut localhost = Localhost::default();
    assert_eq!(lab.open(&mut localhost, Family::V4), None);
    assert_eq!((lab.setting().as_str(), lab.neighbour_reaches(Ipv4Addr::LOCALHOST)), ("1", false));

    // It is the guard that keeps them away; it comes back at the next look, whether anybody said that it is gone or not.
    lab.rules.delete_table(Family::V4, TABLE).unwrap();
    eventually("without it they come in", || lab.neighbour_reaches(Ipv4Addr::LOCALHOST));
    assert!(lab.open(&mut localhost, Family::V4).is_some_and(|what| what.contains("rules")));
    assert!(!lab.neighbour_reaches(Ipv4Addr::LOCALHOST));
    localhost.suspect_guard();
    assert_eq!(lab.open(&mut localhost, Family::V4), None);
    lab.node.command(&format!("nft flush chain ip {TABLE} from-elsewhere"));
    localhost.suspect_guard();
    lab.open(&mut localhost, Family::V4);
    assert!(!lab.neighbour_reaches(Ipv4Addr::LOCALHOST));
    sysctl::set(&lab.node, SETTING, "0").unwrap();
    assert!(lab.open(&mut localhost, Family::V4).is_some_and(|what| what.contains("route_localnet")));

    // Another agent closes what this one opened.
    assert!(!Localhost::default().close(&lab.host, &mut lab.rules).unwrap());
    assert_eq!((lab.setting().as_str(), is_there(&mut lab.rules).unwrap()), ("0", false));
}

#[test]
fn what_others_opened_stays_open_and_is_guarded_for_as_long_as_it_is() {
    let mut lab = Lab::new("localhost-others");
    sysctl::set(&lab.node, SETTING, "1").unwrap();
    let mut localhost = Localhost::default();
    assert_eq!(lab.open(&mut localhost, Family::V4), None);
    // Another agent finds it, and cannot take it for podnet's own.
    let mut localhost = Localhost::default();
    assert_eq!(lab.open(&mut localhost, Family::V4), None);
    assert!(localhost.close(&lab.host, &mut lab.rules).unwrap());
    assert_eq!((lab.setting().as_str(), lab.neighbour_reaches(Ipv4Addr::LOCALHOST)), ("1", false));
    lab.rules.delete_table(Family::V4, TABLE).unwrap();
    assert!(localhost.close(&lab.host, &mut lab.rules).unwrap());
    assert!(!lab.neighbour_reaches(Ipv4Addr::LOCALHOST));
    sysctl::set(&lab.node, SETTING, "0").unwrap();
    assert!(!localhost.close(&lab.host, &mut lab.rules).unwrap());
    assert!(!is_there(&mut lab.rules).unwrap());
}

#[test]
fn what_podnet_opened_is_closed_or_guarded_although_the_guard_went() {
    let mut lab = Lab::new("localhost-flushed");
    let mut localhost = Localhost::default();
    lab.open(&mut localhost, Family::V4);
    lab.rules.delete_table(Family::V4, TABLE).unwrap();
    assert!(!localhost.close(&lab.host, &mut lab.rules).unwrap());
    assert_eq!(lab.setting(), "0");

    // Another agent, to which nothing says whose it is.
    lab.open(&mut localhost, Family::V4);
    lab.rules.delete_table(Family::V4, TABLE).unwrap();
    let mut localhost = Localhost::default();
    assert!(localhost.close(&lab.host, &mut lab.rules).unwrap());
    assert_eq!((lab.setting().as_str(), lab.neighbour_reaches(Ipv4Addr::LOCALHOST)), ("1", false));
}

#[test]
fn answers_to_the_loopback_of_ipv6_have_a_route_for_each_device_that_neighbours_cannot_use() {
    let mut lab = Lab::new("localhost-six");
    let routes = |lab: &Lab| lab.node.command("ip -6 route show table local ::1");
    let has = |lab: &Lab, device: &str| routes(lab).contains(&format!("dev {device} "));
    let mut localhost = Localhost::default();
    lab.open(&mut localhost, Family::V6);
    assert!(has(&lab, "eth0"), "{}", routes(&lab));
    let refused = |lab: &Lab| -> u64 {
        let counts = lab.node.command("nstat -asz Ip6InHdrErrors");
        counts
            .lines()
            .find_map(|line| line.strip_prefix("Ip6InHdrErrors")?.split_whitespace().next()?.parse().ok())
            .unwrap()
    };
    let before = refused(&lab);
    assert!(!lab.neighbour_reaches(Ipv6Addr::LOCALHOST));
    assert!(refused(&lab) > before, "nothing came");

    // A new device, and one that was down and has lost its routes.
    lab.node.command("ip link add eth1 type veth peer name eth2");
    lab.node.command("ip link set eth1 up");
    let index = link::find(&mut lab.host, "eth0").unwrap().unwrap().index;
    lab.node.command("ip link set eth0 down");
    eventually("its routes go with it", || !has(&lab, "eth0"));
    lab.node.command("ip link set eth0 up");
    localhost.suspect_device(index);
    lab.open(&mut localhost, Family::V6);
    assert!(has(&lab, "eth0") && has(&lab, "eth1"), "{}", routes(&lab));
}
