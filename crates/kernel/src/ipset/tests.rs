use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podnet_model::Protocol;
use podnet_planner::ipvs::{Element, SetKind, State, difference};

use super::*;
use crate::testing::TestNs;

const TYPES: [SetType; 6] =
    [SetType::Address, SetType::Range, SetType::Port, SetType::PortFrom, SetType::PortFromRange, SetType::PortAlone];

fn addr(family: Family, last: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(0x0a60_0000 + u32::from(last)).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, last).into(),
    }
}

/// One set of each type, with each protocol.
fn sets(family: Family) -> BTreeMap<SetName, Set> {
    let range = match family {
        Family::V4 => "10.0.0.0/9",
        Family::V6 => "fd00::/33",
    };
    let range = range.parse().unwrap();
    let (one, other) = (addr(family, 1), addr(family, 2));
    let elements = |of| match of {
        SetType::Address => vec![Element::Address(one), Element::Address(other)],
        SetType::Range => vec![Element::Range(range), Element::Range(one.into())],
        SetType::Port => [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|it| Element::Port(one, it, 80)).to_vec(),
        SetType::PortFrom => vec![Element::PortFrom(one, Protocol::Sctp, 65535, one)],
        SetType::PortFromRange => vec![
            Element::PortFromRange(one, Protocol::Tcp, 80, range),
            Element::PortFromRange(one, Protocol::Tcp, 80, other.into()),
        ],
        SetType::PortAlone => vec![Element::PortAlone(0), Element::PortAlone(65535)],
    };
    let mut sets = BTreeMap::new();
    for of in TYPES {
        let elements = || elements(of).into_iter();
        let plain = Set { kind: SetKind::plain(of), elements: elements().map(|element| (element, None)).collect() };
        let marks = elements().zip(0x8000_0001..).map(|(element, mark)| (element, Some(mark)));
        let marked = Set { kind: SetKind { of, marks: true }, elements: marks.collect() };
        sets.insert(SetName::from(format!("PN-{}", of.name())), plain);
        sets.insert(SetName::from(format!("PN-{}-M", of.name())), marked);
    }
    sets
}

fn state(sets: BTreeMap<SetName, Set>) -> State {
    State { sets, ..State::default() }
}

#[test]
fn sets_of_every_type_are_read_as_they_were_written_and_change_and_go() {
    for family in Family::ALL {
        let namespace = TestNs::new("ipset");
        let mut socket = IpsetSocket::open_in(&namespace, family).unwrap();
        let wanted = sets(family);
        let names: Vec<SetName> = wanted.keys().cloned().chain(["PN-NONE".into()]).collect();
        assert_eq!(socket.read(&names).unwrap(), BTreeMap::new());
        let edits = difference(&state(wanted.clone()), &State::default());
        // What is done is no error to do again.
        for _ in 0..2 {
            socket.apply(&edits).unwrap();
            assert_eq!(socket.read(&names).unwrap(), wanted, "{family:?}");
        }
        let seems = |socket: &mut IpsetSocket, sets: &BTreeMap<SetName, Set>| {
            let is = |(name, set): (&SetName, &Set)| socket.seems_to_be(name, set).unwrap();
            sets.iter().map(is).collect::<Vec<_>>()
        };
        assert!(seems(&mut socket, &wanted).into_iter().all(|is_so| is_so), "{family:?}");
        let mut fewer = wanted.clone();
        fewer.pop_first();
        let mut other = fewer.clone();
        for set in other.values_mut() {
            set.elements.pop_first();
        }
        other.insert("PN-NONE".into(), Set::new(SetKind::plain(SetType::Port)));
        assert!(seems(&mut socket, &other).into_iter().all(|is_so| !is_so), "{family:?}");
        for set in fewer.values_mut() {
            set.elements.pop_first();
            set.elements.values_mut().flatten().for_each(|mark| *mark ^= 0xff);
        }
        let edits = difference(&state(fewer.clone()), &state(wanted));
        for _ in 0..2 {
            socket.apply(&edits).unwrap();
            assert_eq!(socket.read(&names).unwrap(), fewer, "{family:?}");
        }
        socket.apply(&difference(&State::default(), &state(fewer))).unwrap();
        assert_eq!(namespace.command("ipset list -n"), "");
    }
}

#[test]
fn ipset_lists_them_as_people_expect() {
    let namespace = TestNs::new("ipset-list");
    for family in Family::ALL {
        let mut socket = IpsetSocket::open_in(&namespace, family).unwrap();
        let prefix = if family == Family::V4 { "KUBE" } else { "KUBE-6" };
        let sets = sets(family).into_iter().map(|(name, set)| (name.replace("PN", prefix).into(), set)).collect();
        socket.apply(&difference(&state(sets), &State::default())).unwrap();
    }
    let told = namespace.command("ipset save");
    for line in [
        "create KUBE-bitmap:port bitmap:port range 0-65535",
        "add KUBE-hash:ip,port 10.96.0.1,sctp:80",
        "add KUBE-hash:ip,port-M 10.96.0.1,tcp:80 skbmark 0x80000001",
        "add KUBE-hash:ip,port,ip 10.96.0.1,sctp:65535,10.96.0.1",
        "add KUBE-6-hash:ip,port,net fd00:96::1,tcp:80,fd00::/33",
        "add KUBE-6-hash:net fd00:96::1",
    ] {
        assert!(told.lines().any(|found| found.trim_end() == line), "{line} is not in:\n{told}");
    }
    let header = told.lines().find(|line| line.starts_with("create KUBE-6-hash:ip,port ")).unwrap();
    assert!(header.contains("family inet6") && header.contains("maxelem 1048576"), "{header}");
}

#[test]
fn a_refused_edit_is_named_and_the_others_are_done() {
    let namespace = TestNs::new("ipset-refused");
    let mut socket = IpsetSocket::open_in(&namespace, Family::V4).unwrap();
    let name = SetName::from("PN-RANGES");
    let all = Element::Range("0.0.0.0/0".parse().unwrap());
    let one = Element::Range("192.0.2.0/24".parse().unwrap());
    let edits = [
        Edit::MakeSet(name.clone(), SetKind::plain(SetType::Range)),
        Edit::AddElement(name.clone(), all, None),
        Edit::AddElement("PN-NONE".into(), one, None),
        Edit::AddElement(name.clone(), one, None),
    ];
    let error = socket.apply(&edits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add 0.0.0.0/0 to set PN-RANGES (the kernel says: a range of everything (/0) cannot be an element)"
    );
    assert_eq!(socket.read(std::slice::from_ref(&name)).unwrap()[&name].elements, [(one, None)].into());
    let error = socket.apply(&edits[2..]).unwrap_err();
    assert_eq!(error.to_string(), "cannot add 192.0.2.0/24 to set PN-NONE");
}

#[test]
fn a_set_of_another_kind_is_in_the_way_and_named() {
    let namespace = TestNs::new("ipset-unlike");
    let mut socket = IpsetSocket::open_in(&namespace, Family::V4).unwrap();
    namespace.command("ipset create PN-A hash:net,port");
    namespace.command("ipset create PN-B hash:ip,port timeout 60");
    namespace.command("ipset create PN-C hash:ip,port family inet6");
    namespace.command("ipset create PN-D hash:ip");
    for (name, found) in [
        ("PN-A", "hash:net,port of IPv4"),
        ("PN-B", "hash:ip,port of IPv4 whose elements expire"),
        ("PN-C", "hash:ip,port of IPv6"),
        ("PN-D", "hash:ip"),
    ] {
        let edits = [Edit::MakeSet(name.into(), SetKind::plain(SetType::Port))];
        let error = socket.apply(&edits).unwrap_err();
        assert!(error.to_string().starts_with(&format!("set {name} is there as {found}, which")), "{error}");
        let read = socket.read(&[name.into()]);
        assert_eq!(read.is_err(), name != "PN-D", "what podnet makes as well is not in the way of reading: {name}");
    }
}

#[test]
fn a_set_that_a_rule_asks_cannot_go() {
    let namespace = TestNs::new("ipset-used");
    let mut socket = IpsetSocket::open_in(&namespace, Family::V4).unwrap();
    let name = SetName::from("PN-USED");
    socket.apply(&[Edit::MakeSet(name.clone(), SetKind::plain(SetType::PortAlone))]).unwrap();
    namespace.command("iptables-legacy -w -A INPUT -m set --match-set PN-USED dst -j DROP");
    let error = socket.apply(&[Edit::DestroySet(name.clone())]).unwrap_err();
    assert!(matches!(&error, IpsetError::InUse { set } if *set == *name), "{error}");
    namespace.command("iptables-legacy -w -F INPUT");
    socket.apply(&[Edit::DestroySet(name)]).unwrap();
}

/// More than go out in one send, and more than the kernel has room for at first.
#[test]
fn a_set_grows_to_a_hundred_thousand_elements() {
    let namespace = TestNs::new("ipset-large");
    let mut socket = IpsetSocket::open_in(&namespace, Family::V6).unwrap();
    let name = SetName::from("PN-LARGE");
    let element = |number: u32| {
        let host = u16::try_from(number / 10).unwrap();
        let (addr, port) = (addr(Family::V6, host), u16::try_from(number % 10).unwrap());
        Element::PortFrom(addr, Protocol::Tcp, port, addr)
    };
    let elements: BTreeMap<_, _> = (0..100_000).map(|number| (element(number), None)).collect();
    let set = Set { kind: SetKind::plain(SetType::PortFrom), elements };
    let wanted: BTreeMap<_, _> = [(name.clone(), set)].into();
    socket.apply(&difference(&state(wanted.clone()), &State::default())).unwrap();
    assert!(socket.read(&[name]).unwrap() == wanted, "what is read is not what was written");
}
