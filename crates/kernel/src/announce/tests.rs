//! With namespaces joined by a link, whose kernels ask and are told.

use std::{net::UdpSocket, thread};

use super::*;
use crate::{
    sysctl,
    testing::{TestNs, eventually},
};

/// An address of each family that is on no device.
const VIPS: [&str; 2] = ["192.0.2.200", "2001:db8::12:3456"];

fn vip(text: &str) -> (IpAddr, Family) {
    let addr = text.parse().unwrap();
    (addr, Family::of(&addr))
}

/// Two namespaces joined by a link, with the addresses 1 and 2 of each family.
fn pair(tag: &str) -> (TestNs, TestNs) {
    let (one, other) = (TestNs::new(&format!("{tag}a")), TestNs::new(&format!("{tag}b")));
    one.command(&format!("ip link add eth0 type veth peer name eth0 netns {}", other.path.display()));
    for (namespace, last) in [(&one, 1), (&other, 2)] {
        // Without it the kernel may not ask from its link-local address for some seconds.
        sysctl::set(namespace, "net/ipv6/conf/eth0/accept_dad", "0").unwrap();
        namespace.command(&format!("ip address add 192.0.2.{last}/24 dev eth0"));
        namespace.command(&format!("ip address add 2001:db8::{last}/64 dev eth0 nodad"));
        namespace.command("ip link set eth0 up");
    }
    (one, other)
}

fn open(namespace: &TestNs, family: Family) -> AnnounceSocket {
    namespace.run(move || AnnounceSocket::open("eth0", family)).unwrap().unwrap()
}

fn next(socket: &AnnounceSocket, what: &str, wanted: impl Fn(&Heard) -> bool) -> Heard {
    let mut found = None;
    eventually(what, || {
        found = socket.hear().unwrap().filter(&wanted);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_kernel_that_asks_is_answered_and_believes_a_claim() {
    let (node, client) = pair("ann");
    for (vip, family) in VIPS.map(vip) {
        let mut socket = open(&node, family);
        node.run(|| socket.listen_for([vip].into_iter())).unwrap().unwrap();
        let mac = socket.mac.to_string();
        let known = || client.command(&format!("ip neigh show {vip}"));
        thread::scope(|scope| {
            scope.spawn(|| {
                let asked =
                    next(&socket, "a question", |heard| matches!(heard, Heard::Asks { addr, .. } if *addr == vip));
                let Heard::Asks { asker, .. } = asked else { panic!("{asked:?}") };
                assert!(!asker.1.is_unspecified(), "{asked:?}");
                socket.answer(vip, asker).unwrap();
            });
            let any: IpAddr = if vip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let send = move || UdpSocket::bind((any, 0)).unwrap().send_to(b"x", (vip, 9)).unwrap();
            client.run(send).unwrap();
            eventually("a neighbour", || known().contains(&mac));
        });
        assert!(!known().contains("router"), "{}", known());

        client.command(&format!("ip neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
        // A kernel whose device has just come up has no route for groups of IPv6 yet, and drops the first ones: nodes claim several times.
        eventually(&format!("the new neighbour {vip}"), || {
            socket.claim(vip).unwrap();
            known().contains(&mac)
        });
    }
}

#[test]
fn two_nodes_hear_each_other_and_not_themselves() {
    let (one, other) = pair("anq");
    for (vip, family) in VIPS.map(vip) {
        let (first, second) = (open(&one, family), open(&other, family));
        second.ask(vip).unwrap();
        let asked = next(&first, "a question", |heard| matches!(heard, Heard::Asks { addr, .. } if *addr == vip));
        let Heard::Asks { asker, .. } = asked else { panic!("{asked:?}") };
        assert!(asker.0 == second.mac && asker.1.is_unspecified(), "{asked:?}");
        first.answer(vip, asker).unwrap();
        first.claim(vip).unwrap();
        // By ARP a claim is told twice.
        for _ in 0..if vip.is_ipv4() { 3 } else { 2 } {
            let claimed = next(&second, "a claim", |heard| matches!(heard, Heard::Claims { .. }));
            assert_eq!(claimed, Heard::Claims { addr: vip, by: first.mac });
        }
        assert_eq!(first.hear().unwrap().filter(|heard| heard.speaker() == first.mac), None);
        assert!(one.run(move || AnnounceSocket::open("eth9", family)).unwrap().is_err());
    }
}

#[test]
fn a_kernel_that_makes_sure_of_a_neighbour_is_answered() {
    let (node, client) = pair("anp");
    for (vip, family) in VIPS.map(vip) {
        let socket = open(&node, family);
        let mac = socket.mac.to_string();
        // It asks the neighbour alone.
        client.command(&format!("ip neigh replace {vip} lladdr {mac} dev eth0 nud probe"));
        let asked = next(&socket, "a question", |heard| matches!(heard, Heard::Asks { addr, .. } if *addr == vip));
        let Heard::Asks { asker, .. } = asked else { panic!("{asked:?}") };
        socket.answer(vip, asker).unwrap();
        let is_sure = || client.command(&format!("ip neigh show {vip}")).contains("REACHABLE");
        eventually("the kernel to be sure", is_sure);
    }
}

#[test]
fn groups_are_joined_and_left() {
    let (one, _other) = pair("ang");
    let mut socket = open(&one, Family::V6);
    let is_in = |group: &str| one.command("ip -6 maddress show dev eth0").split_whitespace().any(|word| word == group);
    let addr = |last: u32| IpAddr::from(std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(last)));
    let mut listen_for =
        |addresses: Vec<IpAddr>| one.run(|| socket.listen_for(addresses.into_iter())).unwrap().unwrap();
    listen_for((0..300).map(|number| addr(0x77_0000 + number)).collect());
    assert!(is_in("ff02::1:ff77:0") && is_in("ff02::1:ff77:12b"));
    listen_for(vec![addr(0x77_0001), addr(0x78_0000)]);
    assert!(is_in("ff02::1:ff77:1") && is_in("ff02::1:ff78:0") && !is_in("ff02::1:ff77:0"));
    drop(socket);
    assert!(!is_in("ff02::1:ff77:1"));
}

#[test]
fn no_other_packets_of_ipv6_come_to_the_socket() {
    let (one, other) = pair("ano");
    let socket = open(&one, Family::V6);
    let receiver = one.run(|| UdpSocket::bind("[::]:5353")).unwrap().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let sender = other.run(|| UdpSocket::bind("[::]:0")).unwrap().unwrap();
    eventually("a datagram", || {
        sender.send_to(b"x", "[2001:db8::1]:5353").unwrap();
        receiver.recv(&mut [0]).is_ok()
    });
    let mut frame = [0; frames::LONGEST];
    while socket.frames.receive(&mut frame).unwrap().is_some() {
        assert!(ndp::parse(&frame[..]).is_some(), "{:?}", &frame[..64]);
    }
}

#[test]
fn a_device_with_another_address_or_of_another_name_is_another_one() {
    let (one, _other) = pair("anr");
    let socket = open(&one, Family::V4);
    let is_current = || one.run(|| socket.is_current("eth0").unwrap()).unwrap();
    assert!(is_current());
    one.command("ip link set eth0 address 02:00:00:00:00:42");
    assert!(!is_current());
    let socket = open(&one, Family::V4);
    let is_current = || one.run(|| socket.is_current("eth0").unwrap()).unwrap();
    assert!(is_current());
    one.command("ip link set eth0 down");
    one.command("ip link set eth0 name eth1");
    assert!(!is_current());
}
