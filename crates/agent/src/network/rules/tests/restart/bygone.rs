//! Connections of Services that went while no agent ran. They are forgotten, and no others: neither what is right, nor what somebody else
//! translates.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Command,
};

use podnet_kernel::{conntrack, datapath::KernelDatapath, netns::NetNs};
use podnet_model::{Endpoint, EndpointSlice, PodAddr, SliceKey, TargetPort, endpoints::EndpointPort};

use super::super::*;

/// Where endpoints are, of each family.
const SERVERS: Dual<&str> = Dual { v4: "192.0.2.1:8080", v6: "[2001:db8::1]:8080" };
/// What Services are at, but for the one that somebody else translates, and the endpoint itself.
const STAYS: &str = "10.96.0.1:53";
const GOES: &str = "10.96.0.2:53";
const OTHERS: &str = "10.96.0.9:53";
const DIRECT: &str = "192.0.2.1:8080";
const GOES_TOO: &str = "[fd96::2]:53";

/// A node in a namespace of its own: the one whose agents come and go.
struct Node<'a> {
    datapath: KernelDatapath,
    servers: Dual<UdpSocket>,
    /// What its agents write down.
    note: &'a Path,
}

fn on_a_node(tag: &str, work: impl FnOnce(Node<'_>) + Send) {
    let path = format!("/run/netns/podnet-test-{tag}-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("udp-frontends");
    let done = netns.run(|| {
        for line in [
            "ip link set lo up",
            "ip address add 192.0.2.1/32 dev lo",
            "ip address add 2001:db8::1/128 dev lo",
            "ip route add 10.96.0.0/16 dev lo src 192.0.2.1",
            "ip -6 route add fd96::/64 dev lo",
            "nft add table ip others",
            "nft -- add chain ip others out { type nat hook output priority -90 ; }",
            "nft add rule ip others out ip daddr 10.96.0.9 udp dport 53 dnat to 192.0.2.1:8080",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
        }
        let servers = Dual::from_fn(|family| {
            let server = UdpSocket::bind(SERVERS[family]).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            server
        });
        work(Node { datapath: KernelDatapath::open().unwrap(), servers, note: &note });
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}

impl Node<'_> {
    /// An agent that begins in this mode, where these Services are; its rules are in force.
    fn start(&mut self, mode: Mode, services: &[&str]) -> ClusterRules {
        let mut rules = rules().noting_in(self.note);
        services.iter().flat_map(|at| datagrams(at)).for_each(|change| rules.learn(&change));
        rules.begin_in(mode);
        rules.put(&mut self.datapath).unwrap();
        rules
    }

    /// Has a client say something there, which comes to the server of its family.
    fn ask(&self, at: &str) {
        let family = Family::of(&at.parse::<SocketAddr>().unwrap().ip());
        let server = &self.servers[family];
        let client = UdpSocket::bind(SocketAddr::new(server.local_addr().unwrap().ip(), 0)).unwrap();
        client.send_to(b"there", at).unwrap();
        assert_eq!(server.recv(&mut [0; 9]).unwrap(), 5, "{at}");
    }
}

/// A Service of UDP at an address and port, and its endpoint.
fn datagrams(at: &str) -> [Change; 2] {
    let at: SocketAddr = at.parse().unwrap();
    let server: SocketAddr = SERVERS[Family::of(&at.ip())].parse().unwrap();
    let key = key_of(&at.to_string());
    let port = Port { name: "".into(), protocol: Protocol::Udp, port: ServicePort(at.port()), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(at.ip())] };
    let slice = EndpointSlice {
        key: SliceKey::new("default", &key.name),
        service: key.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Udp, port: TargetPort(server.port()) }],
        endpoints: vec![Endpoint::new(PodAddr(server.ip()))],
        triggered: None,
        unproxied: false,
    };
    let service = Service::new(key.clone(), kind, vec![port]);
    [Change::Service(key, Some(service)), Change::Slice(slice.key.clone(), Some(slice))]
}

fn key_of(at: &str) -> ServiceKey {
    ServiceKey::new("default", at)
}

/// What the namespace remembers connections of UDP to, all of which the server of the family answers.
fn remembered(family: Family) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let tell = |to: FrontendKey, by: BackendAddress| {
        assert_eq!(SocketAddr::new(by.addr, by.port).to_string(), SERVERS[family]);
        all.insert(SocketAddr::new(to.addr, to.port).to_string());
        false
    };
    assert_eq!(conntrack::forget_astray(family, tell).unwrap(), 0);
    all
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|at| (*at).to_owned()).collect()
}

#[test]
fn connections_of_services_that_went_while_no_agent_ran_are_forgotten_whatever_the_mode_is() {
    on_a_node("bygone", |mut node| {
        for (before, now) in [
            (Mode::Nftables, Mode::Nftables),
            (Mode::Iptables, Mode::Iptables),
            (Mode::Nftables, Mode::Iptables),
            (Mode::Iptables, Mode::Nftables),
        ] {
            let told = format!("{before}, then {now}");
            node.start(before, &[STAYS, GOES]).forget_vanished().unwrap();
            [STAYS, GOES, OTHERS, DIRECT].into_iter().for_each(|at| node.ask(at));
            assert_eq!(remembered(Family::V4), set(&[STAYS, GOES, OTHERS, DIRECT]), "{told}");
            assert_eq!(node.start(before, &[STAYS, GOES]).forget_vanished().unwrap(), 0, "{told}: all is right");
            let mut rules = node.start(now, &[STAYS]);
            assert_eq!(rules.forget_vanished().unwrap(), 1, "{told}");
            assert!(!rules.forgets(Family::V4), "{told}: they were all looked at");
            assert_eq!(node.start(now, &[STAYS]).forget_vanished().unwrap(), 0, "{told}");
            assert_eq!(remembered(Family::V4), set(&[STAYS, OTHERS, DIRECT]), "{told}");
        }
    });
}

/// Then there are no rules of that family to look at any more.
#[test]
fn connections_of_the_last_service_of_ipv6_are_forgotten_though_it_went_while_no_agent_ran() {
    on_a_node("bygone-six", |mut node| {
        node.start(Mode::Nftables, &[STAYS, GOES_TOO]).forget_vanished().unwrap();
        [STAYS, GOES_TOO, "[2001:db8::1]:8080"].into_iter().for_each(|at| node.ask(at));
        assert_eq!(remembered(Family::V6), set(&[GOES_TOO, "[2001:db8::1]:8080"]));
        assert_eq!(node.start(Mode::Nftables, &[STAYS]).forget_vanished().unwrap(), 1);
        assert_eq!(remembered(Family::V6), set(&["[2001:db8::1]:8080"]));
        assert_eq!(remembered(Family::V4), set(&[STAYS]));
    });
}

/// A killed agent leaves rules that tell of nothing, and the connections.
#[test]
fn connections_are_forgotten_though_each_agent_was_killed_between_rules_and_connections() {
    on_a_node("bygone-killed", |mut node| {
        for (mode, then) in [(Mode::Nftables, Mode::Nftables), (Mode::Iptables, Mode::Nftables)] {
            let mut rules = node.start(mode, &[STAYS, GOES]);
            rules.forget_vanished().unwrap();
            [STAYS, GOES, OTHERS, DIRECT].into_iter().for_each(|at| node.ask(at));
            rules.learn(&Change::Service(key_of(GOES), None));
            rules.edit(Tries::All, &mut node.datapath).unwrap();
            drop(rules);
            drop(node.start(then, &[STAYS]));
            assert_eq!(remembered(Family::V4), set(&[STAYS, GOES, OTHERS, DIRECT]), "{mode}, then {then}");
            assert_eq!(node.start(then, &[STAYS]).forget_vanished().unwrap(), 1, "{mode}, then {then}");
            assert_eq!(remembered(Family::V4), set(&[STAYS, OTHERS, DIRECT]), "{mode}, then {then}");
        }
    });
}
