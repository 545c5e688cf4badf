use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::ruleset::walk::{Direction, Host, Packet, Verdict, walk};
use podnet_model::Protocol::{Sctp, Tcp, Udp};

/// An address by a name that both families have.
fn ip(family: Family, name: &str) -> IpAddr {
    let (v4, v6) = match name {
        "node" => ("192.0.2.1", "2001:db8::1"),
        "second" => ("203.0.113.1", "2001:db8:1::1"),
        "pod" => ("10.0.0.1", "fd00::1"),
        "other" => ("10.0.0.2", "fd00::2"),
        "outside" => ("198.51.100.9", "2001:db8:2::9"),
        "loopback" => ("127.0.0.1", "::1"),
        "any" => ("0.0.0.0", "::"),
        _ => unreachable!("{name}"),
    };
    if family == Family::V4 { v4 } else { v6 }.parse().unwrap()
}

fn port(host_ip: IpAddr, protocol: Protocol, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { host_ip, protocol, host_port, container_port }
}

fn attached(number: u8, ports: &[PortMapping]) -> Attached {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
    Attached {
        device: format!("pn{number:012x}").into(),
        mac: Mac([2, 0, 0, 0, 0, number]),
        addrs: vec![IpAddr::from([10, 0, 0, number]), v6.into()],
        ports: ports.to_vec(),
        segment: None,
    }
}

fn handle(number: u8) -> Handle {
    Handle::new(&format!("c{number}"), "eth0")
}

#[test]
fn packets_to_ports_of_the_node_reach_the_pod_in_both_families() {
    use Direction::{FromHost, FromOutside, FromPod};
    for family in Family::ALL {
        let at = |name: &str| ip(family, name);
        let ports = [
            port(at("any"), Tcp, 8080, 80),
            port(at("any"), Udp, 53, 5353),
            port(at("any"), Sctp, 36412, 36412),
            port(at("node"), Tcp, 81, 81),
            port(at("loopback"), Tcp, 82, 82),
            port(at("outside"), Tcp, 83, 83),
        ];
        let mut attachments = Attachments::default();
        attachments.add(handle(1), attached(1, &ports)).unwrap();
        let rules = attachments.desired(family);
        rules.validate().unwrap();
        let host = Host::new([at("node"), at("second")]);
        // from, direction, to, protocol, port ⇒ the pod's port, masqueraded
        for (src, direction, dst, protocol, dport, to) in [
            ("outside", FromOutside, "node", Tcp, 8080, Some((80, false))),
            ("outside", FromOutside, "second", Tcp, 8080, Some((80, false))),
            ("outside", FromOutside, "node", Udp, 53, Some((5353, false))),
            ("outside", FromOutside, "node", Sctp, 36412, Some((36412, false))),
            ("outside", FromOutside, "node", Udp, 8080, None),
            ("outside", FromOutside, "node", Tcp, 81, Some((81, false))),
            ("outside", FromOutside, "second", Tcp, 81, None),
            ("other", FromPod, "node", Tcp, 8080, Some((80, false))),
            ("pod", FromPod, "node", Tcp, 8080, Some((80, true))),
            ("other", FromPod, "outside", Tcp, 8080, None),
            // Nobody takes the traffic to an address that is not the node's by naming it.
            ("other", FromPod, "outside", Tcp, 83, None),
            ("node", FromHost, "outside", Tcp, 83, None),
            ("node", FromHost, "node", Tcp, 8080, Some((80, false))),
            ("loopback", FromHost, "loopback", Tcp, 8080, Some((80, true))),
            ("loopback", FromHost, "loopback", Tcp, 82, Some((82, true))),
            ("outside", FromOutside, "node", Tcp, 82, None),
            ("other", FromPod, "pod", Tcp, 80, None),
        ] {
            let packet = Packet::opening(at(src), at(dst), protocol, dport);
            let journey = walk(&rules, &packet, direction, &host);
            assert_eq!(journey.verdict(), Some(Verdict::Accepted), "{packet:?}");
            let end = &journey.outcomes[0];
            let found = end.translated.then_some((end.destination.port, end.masqueraded));
            assert_eq!(found, to, "{packet:?}");
            assert!(!end.translated || end.destination.addr == at("pod"));
        }
    }
    let to_loopback = Packet::opening(ip(Family::V4, "pod"), ip(Family::V4, "loopback"), Tcp, 22);
    let rules = Attachments::default().desired(Family::V4);
    let verdict = |direction| walk(&rules, &to_loopback, direction, &Host::new([ip(Family::V4, "node")])).verdict();
    assert_eq!((verdict(FromPod), verdict(FromOutside)), (Some(Verdict::Dropped), Some(Verdict::Accepted)));
}

#[test]
fn a_port_that_is_taken_is_refused_with_its_holder_and_nothing_changes() {
    for family in Family::ALL {
        let at = |name: &str| ip(family, name);
        let elsewhere = ip(if family == Family::V4 { Family::V6 } else { Family::V4 }, "any");
        for (first, second, clash) in [
            (port(at("any"), Tcp, 80, 1), port(at("any"), Tcp, 80, 2), true),
            (port(at("any"), Tcp, 80, 1), port(at("node"), Tcp, 80, 2), true),
            (port(at("node"), Tcp, 80, 1), port(at("any"), Tcp, 80, 2), true),
            (port(at("node"), Tcp, 80, 1), port(at("other"), Tcp, 80, 2), false),
            (port(at("any"), Tcp, 80, 1), port(at("any"), Udp, 80, 2), false),
            (port(at("any"), Tcp, 80, 1), port(at("any"), Tcp, 81, 2), false),
            (port(at("any"), Tcp, 80, 1), port(elsewhere, Tcp, 80, 2), false),
        ] {
            let mut attachments = Attachments::default();
            attachments.add(handle(1), attached(1, &[first])).unwrap();
            let before = Dual::from_fn(|family| attachments.desired(family));
            let added = attachments.add(handle(2), attached(2, &[port(at("any"), Tcp, 9, 9), second]));
            assert_eq!(added.is_err(), clash, "{first} {second}");
            if let Err(error) = added {
                assert_eq!(error, PortTaken { port: second, holder: handle(1) });
                assert_eq!(Dual::from_fn(|family| attachments.desired(family)), before);
            }
            // It may take its own again.
            attachments.add(handle(1), attached(1, &[first])).unwrap();
        }
    }
}

#[test]
fn mappings_of_a_family_that_the_pod_has_no_address_of_have_no_effect_and_take_no_port() {
    let [v4, v6] = Family::ALL.map(|family| port(ip(family, "node"), Tcp, 80, 80));
    let mut attachments = Attachments::default();
    let only = |number: u8, family, port| {
        let mut attached = attached(number, &[port]);
        attached.addrs.retain(|addr| Family::of(addr) == family);
        attached
    };
    attachments.add(handle(1), only(1, Family::V4, v6)).unwrap();
    attachments.add(handle(2), only(2, Family::V6, v4)).unwrap();
    for rules in Family::ALL.map(|family| attachments.desired(family)) {
        assert!(rules.backend_maps[chains::HOST_PORTS].elements.is_empty());
        assert!(rules.sets[chains::PORT_PAIRS].is_empty());
    }
    attachments.add(handle(3), attached(3, &[v4, v6])).unwrap();
}

#[test]
fn a_pod_sends_with_all_its_addresses_and_needs_the_tables_of_their_families() {
    let mut attachments = Attachments::default();
    assert_eq!(Family::ALL.map(|family| attachments.is_needed(family)), [true, false]);
    let mut both = attached(7, &[]);
    both.addrs.push("fd00::77".parse().unwrap());
    attachments.add(handle(7), both.clone()).unwrap();
    assert_eq!(Family::ALL.map(|family| attachments.is_needed(family)), [true, true]);
    let sender = |addr: &str| (both.device.clone(), both.mac, addr.parse().unwrap());
    let [v4, v6] = Family::ALL.map(|family| attachments.desired(family));
    assert_eq!(v4.sets[chains::SENDERS], Set::Senders([sender("10.0.0.7")].into()));
    assert_eq!(v6.sets[chains::SENDERS], Set::Senders([sender("fd00::7"), sender("fd00::77")].into()));
    let mut one = both;
    one.addrs.retain(IpAddr::is_ipv4);
    attachments.add(handle(7), one).unwrap();
    assert!(!attachments.is_needed(Family::V6));
}

#[test]
fn what_leaves_the_ranges_of_a_family_is_masqueraded_but_not_to_them_or_to_groups() {
    let mut attachments = Attachments::default();
    attachments.masquerade(["10.0.0.0/24", "fd00::/64"].map(|range| range.parse().unwrap()).into());
    for (family, group) in [(Family::V4, "224.0.0.5"), (Family::V6, "ff02::5")] {
        let rules = attachments.desired(family);
        rules.validate().unwrap();
        let masqueraded = |dst: IpAddr| {
            let packet = Packet::opening(ip(family, "pod"), dst, Udp, 80);
            walk(&rules, &packet, Direction::FromPod, &Host::new([ip(family, "node")])).masqueraded()
        };
        assert!(masqueraded(ip(family, "outside")));
        assert!(!masqueraded(ip(family, "other")));
        assert!(!masqueraded(group.parse().unwrap()));
    }
}

proptest! {
    /// Whatever comes and goes: the edits lead to the tables that would be made at once.
    #[test]
    fn edits_lead_to_what_is_desired(steps in prop::collection::vec((0..6_u8, any::<bool>(), 0..5_u16, 0..8_u8), 1..40)) {
        let mut attachments = Attachments::default();
        let mut tables = Dual::from_fn(|family| attachments.desired(family));
        for (number, add, host_port, shape) in steps {
            let [with_port, without_v4, without_v6] = [1, 2, 4].map(|bit| shape & bit != 0);
            let ports = Family::ALL.map(|family| port(ip(family, "any"), Tcp, 80 + host_port, 80));
            let mut new = attached(number, if with_port { &ports } else { &[] });
            new.addrs.retain(|addr| !(if addr.is_ipv4() { without_v4 } else { without_v6 }));
            let edits = match add {
                true => attachments.add(handle(number), new).unwrap_or_default(),
                false => attachments.remove(&handle(number)),
            };
            for family in Family::ALL {
                tables[family].apply(&edits[family]).unwrap();
                prop_assert_eq!(&tables[family], &attachments.desired(family));
            }
        }
    }
}

#[test]
fn who_asks_a_neighbour_on_a_segment_by_a_port_of_the_node_is_answered_by_the_node() {
    for (family, segment) in [(Family::V4, "10.0.0.0/24"), (Family::V6, "fd00::/64")] {
        let at = |name: &str| ip(family, name);
        let mut attachments = Attachments::default();
        attachments.add(handle(1), attached(1, &[port(at("any"), Tcp, 8080, 80)])).unwrap();
        for (is_segment, masqueraded) in [(false, false), (true, true)] {
            if is_segment {
                attachments.on_segments([segment.parse().unwrap()].into());
            }
            let rules = attachments.desired(family);
            rules.validate().unwrap();
            for (src, dst, dport, found) in
                [("other", "node", 8080, masqueraded), ("outside", "node", 8080, false), ("other", "pod", 80, false)]
            {
                let packet = Packet::opening(at(src), at(dst), Tcp, dport);
                let journey = walk(&rules, &packet, Direction::FromOutside, &Host::new([at("node")]));
                assert_eq!(journey.outcomes[0].masqueraded, found, "{src} to {dst}, a segment: {is_segment}");
            }
            // Whoever comes by a segment, not by a device of its own, does not reach the node's loopback.
            let to_loopback = Packet::opening(at("other"), at("loopback"), Tcp, 22);
            let reached = |direction| {
                walk(&rules, &to_loopback, direction, &Host::new([at("node")])).verdict() == Some(Verdict::Accepted)
            };
            assert!(reached(Direction::FromHost));
            // Of IPv6 the kernel takes no such packets.
            assert_eq!(reached(Direction::FromOutside), !is_segment || family == Family::V6);
        }
    }
}

#[test]
fn what_is_on_a_bridge_is_checked_there_and_answers_its_neighbours_by_the_node() {
    let mut attachments = Attachments::default();
    let mut on = |number, segments: &[&str]| {
        let segment = Some(segments.iter().map(|net| net.parse().unwrap()).collect());
        attachments.add(handle(number), Attached { segment, ..attached(number, &[]) }).unwrap();
    };
    on(1, &["10.0.0.0/26", "fd00::/64"]);
    on(2, &["10.0.0.0/26"]);
    on(3, &["10.0.0.0/24"]);
    attachments.add(handle(4), attached(4, &[])).unwrap();
    assert_eq!(attachments.on_bridges().count(), 3);
    let segments: Vec<String> = attachments.all_segments().iter().map(ToString::to_string).collect();
    assert_eq!(segments, ["10.0.0.0/24", "fd00::/64"]);
    let v4 = attachments.desired(Family::V4);
    v4.validate().unwrap();
    assert!(matches!(&v4.sets[chains::SENDERS], Set::Senders(senders) if senders.len() == 1));
    let answers = |rules: &RuleSet| rules.chains["ports-answered"].rules.len();
    assert_eq!(answers(&v4), answers(&Attachments::default().desired(Family::V4)) + 1);
}
