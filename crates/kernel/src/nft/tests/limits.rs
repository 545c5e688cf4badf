//! Limits of pods' packets and connections, with real traffic.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use podnet_model::{
    Family, LinkName,
    limits::{Limits, PacketRate, PodLimits},
};
use podnet_planner::{
    limits::rules,
    ruleset::{Action, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleSet, diff, unspecified},
};

use super::{super::*, pod_addr};
use crate::{
    netlink::RtSocket,
    pod_interface::PodInterface,
    sysctl,
    testing::{TestNs, eventually, mac},
};

const TABLE: &str = "podnet-limits";
/// Packets a second, and so many at once.
const RATE: u32 = 200;
const BURST: u32 = 50;

fn limited(family: Family) -> IpAddr {
    pod_addr(family, 1)
}

fn other(family: Family) -> IpAddr {
    pod_addr(family, 2)
}

/// A node with a limited pod and another one.
struct Lab {
    node: TestNs,
    limited: TestNs,
    other: TestNs,
    socket: NftSocket,
}

fn lab(tag: &str) -> Lab {
    let node = TestNs::new(&format!("{tag}-node"));
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        sysctl::set(&node, setting, "1").unwrap();
    }
    node.command("ip addr add 192.0.2.1/32 dev lo");
    node.command("ip addr add 2001:db8::1/128 dev lo");
    let mut route = RtSocket::open_in(&node).unwrap();
    let pods = [1, 2].map(|number| {
        let namespace = TestNs::new(&format!("{tag}-pod{number}"));
        let interface = PodInterface {
            netns: NetNs::clone(&namespace),
            container_ifname: "eth0".into(),
            host_ifname: LinkName::from(format!("pod{number}")),
            addr: Family::ALL.map(|family| pod_addr(family, number)).into(),
            routes: Vec::new(),
            mtu: 1450,
            pod_mac: mac(1, number),
            host_mac: mac(2, number),
            bridge: None,
        };
        interface.create(&mut route).unwrap();
        namespace
    });
    let [limited, other] = pods;
    let socket = NftSocket::open_in(&node).unwrap();
    Lab { node, limited, other, socket }
}

fn limits(packets: Option<u32>, connections: Option<u32>) -> Limits {
    Limits { packets: packets.map(|rate| PacketRate { rate, burst: BURST }), connections, ..Limits::default() }
}

fn ingress(limits: Limits) -> PodLimits {
    PodLimits { ingress: limits, ..PodLimits::default() }
}

fn egress(limits: Limits) -> PodLimits {
    PodLimits { egress: limits, ..PodLimits::default() }
}

/// How many of ten packets a millisecond arrive that are sent for a second, and how long that really took.
fn arriving(from: &NetNs, to: &NetNs, addr: IpAddr) -> (usize, Duration) {
    let receiver = to.run(|| UdpSocket::bind((addr, 9))).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sender = from.run(|| UdpSocket::bind((unspecified(Family::of(&addr)), 0))).unwrap().unwrap();
    let receiving = std::thread::spawn(move || (0..).take_while(|_| receiver.recv(&mut [0; 8]).is_ok()).count());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..10 {
            let _ = sender.send_to(b"x", (addr, 9));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    (receiving.join().unwrap(), took)
}

/// The most that arrive in one of three tries, or in the first in which enough do: where the machine has something else to do less is sent, and less
/// heard. In no try more arrive than the rate allows, where there is one.
fn most(enough: usize, rate: Option<u32>, from: &NetNs, to: &NetNs, addr: IpAddr) -> usize {
    let mut most = 0;
    for _ in 0..3 {
        let (arrived, took) = arriving(from, to, addr);
        if let Some(rate) = rate {
            // What was sent last may have been judged a little later.
            let bound = f64::from(rate) * took.as_secs_f64() + f64::from(2 * BURST);
            assert!(arrived as f64 <= bound, "{arrived} packets in {took:?} at {rate} a second");
        }
        most = most.max(arrived);
        if most >= enough {
            break;
        }
    }
    most
}

#[test]
fn packets_beyond_the_rate_are_lost_in_the_limited_direction_alone() {
    let mut lab = lab("nft-packets");
    let node = "192.0.2.1".parse().unwrap();
    let [v4, v6] = Family::ALL;
    let few = || limits(Some(RATE), None);
    for (limits, from, to, family, back) in [
        (ingress(few()), &lab.other, &lab.limited, v4, other(v4)),
        (egress(few()), &lab.limited, &lab.other, v4, limited(v4)),
        (ingress(few()), &lab.node, &lab.limited, v4, node),
        (ingress(few()), &lab.other, &lab.limited, v6, other(v6)),
    ] {
        let addr = if std::ptr::eq(to, &raw const lab.limited) { limited(family) } else { other(family) };
        lab.socket.replace(TABLE, &rules::rules(family, [(limited(family), &limits)]).unwrap()).unwrap();
        // The burst makes up for a sender that is not served in time.
        let arrived = most(190, Some(RATE), from, to, addr);
        assert!(arrived >= 190, "{arrived} packets of {limits:?}");
        let free = most(501, None, to, from, back);
        assert!(free > 500, "{free} packets in the other direction of {limits:?}");
    }
    for family in Family::ALL {
        lab.socket.delete_table(family, TABLE).unwrap();
    }
    assert!(most(501, None, &lab.other, &lab.limited, limited(v6)) > 500);
}

#[test]
fn what_is_lost_beyond_the_rate_is_counted_to_the_last_packet_by_pod_and_kept_as_the_rate_changes() {
    const SENT: u64 = 200;
    let mut lab = lab("nft-lost");
    let [v4, v6] = Family::ALL;
    for (family, is_ingress) in [(v4, true), (v4, false), (v6, true)] {
        let table = |rate| {
            let few = limits(Some(rate), None);
            let limits = if is_ingress { ingress(few) } else { egress(few) };
            rules::rules(family, [(limited(family), &limits)]).unwrap()
        };
        lab.socket.replace(TABLE, &table(1)).unwrap();
        let (set, from, to, addr) = match is_ingress {
            true => (rules::LOST_TO, &lab.other, &lab.limited, limited(family)),
            false => (rules::LOST_FROM, &lab.limited, &lab.other, other(family)),
        };
        let receiver = to.run(|| UdpSocket::bind((addr, 9))).unwrap().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = from.run(|| UdpSocket::bind((unspecified(family), 0))).unwrap().unwrap();
        for _ in 0..SENT {
            sender.send_to(b"x", (addr, 9)).unwrap();
        }
        let mut arrived = 0;
        eventually("each packet has arrived, or is counted", || {
            while receiver.recv(&mut [0; 8]).is_ok() {
                arrived += 1;
            }
            let lost = lab.socket.counters(family, TABLE, set).unwrap();
            lost.get(&limited(family)).copied().unwrap_or_default() + arrived == SENT
        });
        assert!((u64::from(BURST)..SENT).contains(&arrived), "{arrived} packets of {SENT}");
        let source = if is_ingress { other(family) } else { limited(family) };
        let source = SocketAddr::new(source, sender.local_addr().unwrap().port());
        assert_eq!(noted(&mut lab.socket, family), [(source, SocketAddr::new(addr, 9), 17)].into());
        lab.socket.apply(family, TABLE, &diff(&table(1), &table(2))).unwrap();
        let lost = lab.socket.counters(family, TABLE, set).unwrap();
        assert_eq!(lost.into_iter().collect::<Vec<_>>(), [(limited(family), SENT - arrived)]);
        lab.socket.delete_table(family, TABLE).unwrap();
        assert!(lab.socket.counters(family, TABLE, set).unwrap().is_empty());
        assert!(noted(&mut lab.socket, family).is_empty());
    }
}

/// The flows of which something was lost or refused: from where, to where and by which protocol.
fn noted(socket: &mut NftSocket, family: Family) -> BTreeSet<(SocketAddr, SocketAddr, u8)> {
    let flows = socket.flows(family, TABLE, rules::BEYOND).unwrap();
    let most = Duration::from_secs(rules::NOTED_FOR.into());
    assert!(flows.iter().all(|flow| flow.left <= most), "{flows:?}");
    flows.into_iter().map(|flow| (flow.source, flow.destination, flow.protocol)).collect()
}

#[test]
fn a_connection_that_is_refused_is_noted_as_it_was_asked_for_and_as_it_was_translated() {
    let mut lab = lab("nft-noted");
    let _server = lab.limited.run(|| TcpListener::bind("[::]:80")).unwrap().unwrap();
    for family in Family::ALL {
        let (to, asked) = (limited(family), pod_addr(family, 9));
        let translated = Rule {
            matches: vec![Match::Address(Field::DestinationAddress, asked)],
            action: Action::DnatTo(to),
            comment: "a Service",
        };
        let hook = Hook { kind: ChainKind::Nat, point: HookPoint::Prerouting, priority: -100 };
        let chain = Chain { hook: Some(hook), rules: vec![translated] };
        let service = RuleSet { chains: [("asked".into(), chain)].into(), ..RuleSet::empty(family) };
        lab.socket.replace("podnet-asked", &service).unwrap();
        let one = ingress(limits(None, Some(1)));
        let table = rules::rules(family, [(to, &one)]).unwrap();
        lab.socket.replace(TABLE, &table).unwrap();
        let _open = connect(&lab.other, asked).unwrap();
        assert!(noted(&mut lab.socket, family).is_empty(), "what is within the limit is not noted");
        assert_eq!(connect(&lab.other, asked).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        let there = noted(&mut lab.socket, family);
        let places: BTreeSet<_> = there.iter().map(|(source, to, protocol)| (source.ip(), *to, *protocol)).collect();
        let at = |addr| (other(family), SocketAddr::new(addr, 80), 6);
        assert_eq!(places, [at(to), at(asked)].into());
        let ports: BTreeSet<u16> = there.iter().map(|(source, ..)| source.port()).collect();
        assert_eq!(ports.len(), 1, "{there:?}");
        // The rest of the table is looked at and mended without it.
        lab.socket.replace(TABLE, &table).unwrap();
        assert_eq!(noted(&mut lab.socket, family), there);
        let listed = lab.socket.listed(family, TABLE, &mut 1000).unwrap().unwrap();
        assert_eq!(listed.differences_of(TABLE, &table, &[to].into()), []);
    }
}

/// Connects with little patience: a refusal comes at once.
fn connect(from: &NetNs, to: IpAddr) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(to, 80);
    from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).unwrap()
}

#[test]
fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let mut lab = lab("nft-connections");
    let servers = [&lab.limited, &lab.other];
    let _servers = servers.map(|pod| pod.run(|| TcpListener::bind("[::]:80")).unwrap().unwrap());
    let few = || limits(None, Some(3));
    let each = Family::ALL.into_iter().flat_map(|family| {
        [
            (family, ingress(few()), &lab.other, limited(family)),
            (family, egress(few()), &lab.limited, other(family)),
            (family, ingress(few()), &lab.node, limited(family)),
        ]
    });
    for (family, limits, from, to) in each {
        lab.socket.replace(TABLE, &rules::rules(family, [(limited(family), &limits)]).unwrap()).unwrap();
        let mut open: Vec<TcpStream> = (0..3).map(|_| connect(from, to).unwrap()).collect();
        let refused = connect(from, to).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{limits:?}");
        let set = if limits.ingress.connections.is_some() { rules::REFUSED_TO } else { rules::REFUSED_FROM };
        let counted = lab.socket.counters(family, TABLE, set).unwrap();
        assert!(matches!(counted.get(&limited(family)), Some(1..)), "{limits:?}: {counted:?}");
        // A reset ends a connection on both sides at once.
        rustix::net::sockopt::set_socket_linger(&open[0], Some(Duration::ZERO)).unwrap();
        drop(open.remove(0));
        eventually("a connection in place of the one that ended", || match connect(from, to) {
            Ok(stream) => {
                open.push(stream);
                true
            }
            Err(_) => false,
        });
        assert!(connect(from, to).is_err(), "{limits:?}");
        for stream in &open {
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        }
    }
}

#[test]
fn connections_are_limited_after_a_time_without_any_too() {
    let mut lab = lab("nft-idle");
    let (limits, to) = (ingress(limits(None, Some(1))), limited(Family::V4));
    let _server = lab.limited.run(|| TcpListener::bind((to, 80))).unwrap().unwrap();
    lab.socket.replace(TABLE, &rules::rules(Family::V4, [(to, &limits)]).unwrap()).unwrap();
    // The kernel looks each second which elements of sets count no connection (`nft_set_hash.c`, `gc_interval`).
    std::thread::sleep(Duration::from_millis(2500));
    let _open = connect(&lab.other, to).unwrap();
    let refused = connect(&lab.other, to).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn limits_are_listed_in_words_and_changed_without_touching_those_of_others() {
    let mut lab = lab("nft-limits");
    let (one, other) = (ingress(limits(Some(200), Some(3))), egress(limits(Some(50), None)));
    let [v4, v6] = Family::ALL;
    let of = |family, limits: [&PodLimits; 2]| {
        rules::rules(family, [(limited(family), limits[0]), (pod_addr(family, 2), limits[1])]).unwrap()
    };
    let before = of(v4, [&one, &other]);
    lab.socket.replace(TABLE, &before).unwrap();
    lab.socket.replace(TABLE, &of(v6, [&one, &other])).unwrap();
    let listing = lab.node.command("nft list ruleset");
    for line in [
        "elements = { 10.0.0.1 limit rate over 200/second",
        "elements = { 10.0.0.2 limit rate over 50/second",
        "elements = { fd00::1 limit rate over 200/second",
        "elements = { 10.0.0.1 counter packets 0 bytes 0 }",
        "ip6 saddr @packets-from ip6 saddr @lost-from jump lose comment \"more packets than the pod may have\"",
        "ip saddr @packets-from ip saddr @lost-from jump lose comment \"more packets than the pod may have\"",
        "jump note comment \"whose packet it is\"",
        "update @beyond { ip saddr . meta l4proto",
        "update @beyond { ip6 saddr . meta l4proto",
        "ct state new ip daddr @limited-to jump connections-to comment \"limits of connections\"",
        "ip daddr 10.0.0.1 jump to-10.0.0.1 comment \"its limit\"",
        "ip6 daddr fd00::1 jump to-fd00--1 comment \"its limit\"",
        "ct count over 3 ip daddr @refused-to jump refuse comment \"more connections than the pod may have\"",
    ] {
        assert!(listing.contains(line), "{line} is not in\n{listing}");
    }
    let state = |rules: &RuleSet| rules::state(rules).unwrap().to_string();
    assert_eq!(lab.socket.element_count(v4, TABLE, &state(&before)).unwrap(), 0);

    // The connection is counted on while another pod's limit, and then its own pod's other limit, changes.
    let _server = lab.limited.run(|| TcpListener::bind((limited(v4), 80))).unwrap().unwrap();
    let _open: Vec<TcpStream> = (0..3).map(|_| connect(&lab.other, limited(v4)).unwrap()).collect();
    let changed = (ingress(limits(Some(300), Some(3))), egress(limits(Some(60), Some(9))));
    let after = of(v4, [&changed.0, &changed.1]);
    lab.socket.apply(v4, TABLE, &diff(&before, &after)).unwrap();
    assert!(connect(&lab.other, limited(v4)).is_err());
    assert!(lab.socket.element_count(v4, TABLE, &state(&before)).unwrap_err().is_missing());
    assert_eq!(lab.socket.element_count(v4, TABLE, &state(&after)).unwrap(), 0);
    assert_eq!(lab.socket.element_count(v4, TABLE, "packets-to").unwrap(), 1);
    // Raised, it lets more in.
    let raised = rules::rules(v4, [(limited(v4), &ingress(limits(None, Some(5))))]).unwrap();
    lab.socket.apply(v4, TABLE, &diff(&after, &raised)).unwrap();
    connect(&lab.other, limited(v4)).unwrap();
    assert_eq!(lab.socket.element_count(v4, TABLE, "packets-to").unwrap(), 0);
}
