use proptest::prelude::*;

use super::*;
use crate::ruleset::walk::{Direction, Host, Packet, Verdict, walk};
use podnet_model::Protocol::{Sctp, Tcp, Udp};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

fn port(host_ip: Ipv4Addr, protocol: Protocol, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { host_ip: host_ip.into(), protocol, host_port, container_port }
}

fn attached(number: u8, ports: &[PortMapping]) -> Attached {
    Attached {
        device: format!("pn{number:012x}").into(),
        mac: Mac([2, 0, 0, 0, 0, number]),
        addrs: vec![Ipv4Addr::new(10, 0, 0, number).into()],
        ports: ports.to_vec(),
    }
}

fn handle(number: u8) -> Handle {
    Handle::new(&format!("c{number}"), "eth0")
}

#[test]
fn packets_to_ports_of_the_node_reach_the_pod() {
    let any = Ipv4Addr::UNSPECIFIED;
    let ports = [
        port(any, Tcp, 8080, 80),
        port(any, Udp, 53, 5353),
        port(any, Sctp, 36412, 36412),
        port(NODE, Tcp, 81, 81),
        port(Ipv4Addr::LOCALHOST, Tcp, 82, 82),
        port(OUTSIDE, Tcp, 83, 83),
    ];
    let mut attachments = Attachments::default();
    attachments.add(handle(1), attached(1, &ports)).unwrap();
    let rules = attachments.desired();
    rules.validate().unwrap();
    let host = Host::new([NODE, Ipv4Addr::new(203, 0, 113, 1)]);
    let second = Ipv4Addr::new(203, 0, 113, 1);
    use Direction::{FromHost, FromOutside, FromPod};
    // from, direction, to, protocol, port ⇒ the pod's port, masqueraded
    for (src, direction, dst, protocol, dport, to) in [
        (OUTSIDE, FromOutside, NODE, Tcp, 8080, Some((80, false))),
        (OUTSIDE, FromOutside, second, Tcp, 8080, Some((80, false))),
        (OUTSIDE, FromOutside, NODE, Udp, 53, Some((5353, false))),
        (OUTSIDE, FromOutside, NODE, Sctp, 36412, Some((36412, false))),
        (OUTSIDE, FromOutside, NODE, Udp, 8080, None),
        (OUTSIDE, FromOutside, NODE, Tcp, 81, Some((81, false))),
        (OUTSIDE, FromOutside, second, Tcp, 81, None),
        (OTHER, FromPod, NODE, Tcp, 8080, Some((80, false))),
        (POD, FromPod, NODE, Tcp, 8080, Some((80, true))),
        (OTHER, FromPod, OUTSIDE, Tcp, 8080, None),
        // Nobody takes the traffic to an address that is not the node's by naming it.
        (OTHER, FromPod, OUTSIDE, Tcp, 83, None),
        (NODE, FromHost, OUTSIDE, Tcp, 83, None),
        (NODE, FromHost, NODE, Tcp, 8080, Some((80, false))),
        (Ipv4Addr::LOCALHOST, FromHost, Ipv4Addr::LOCALHOST, Tcp, 8080, Some((80, true))),
        (Ipv4Addr::LOCALHOST, FromHost, Ipv4Addr::LOCALHOST, Tcp, 82, Some((82, true))),
        (OUTSIDE, FromOutside, NODE, Tcp, 82, None),
        (OTHER, FromPod, POD, Tcp, 80, None),
    ] {
        let packet = Packet::opening(src, dst, protocol, dport);
        let journey = walk(&rules, &packet, direction, &host);
        assert_eq!(journey.verdict(), Some(Verdict::Accepted), "{packet:?}");
        let end = &journey.outcomes[0];
        let found = end.translated.then_some((end.destination.port, end.masqueraded));
        assert_eq!(found, to, "{packet:?}");
        assert!(!end.translated || end.destination.addr == POD);
    }
    let to_loopback = Packet::opening(POD, Ipv4Addr::LOCALHOST, Tcp, 22);
    assert_eq!(walk(&rules, &to_loopback, FromPod, &host).verdict(), Some(Verdict::Dropped));
}

#[test]
fn a_port_that_is_taken_is_refused_with_its_holder_and_nothing_changes() {
    let any = Ipv4Addr::UNSPECIFIED;
    for (first, second, clash) in [
        (port(any, Tcp, 80, 1), port(any, Tcp, 80, 2), true),
        (port(any, Tcp, 80, 1), port(NODE, Tcp, 80, 2), true),
        (port(NODE, Tcp, 80, 1), port(any, Tcp, 80, 2), true),
        (port(NODE, Tcp, 80, 1), port(OTHER, Tcp, 80, 2), false),
        (port(any, Tcp, 80, 1), port(any, Udp, 80, 2), false),
        (port(any, Tcp, 80, 1), port(any, Tcp, 81, 2), false),
    ] {
        let mut attachments = Attachments::default();
        attachments.add(handle(1), attached(1, &[first])).unwrap();
        let before = attachments.desired();
        let added = attachments.add(handle(2), attached(2, &[port(any, Tcp, 9, 9), second]));
        assert_eq!(added.is_err(), clash, "{first} {second}");
        if let Err(error) = added {
            assert_eq!(error, PortTaken { port: second, holder: handle(1) });
            assert_eq!(attachments.desired(), before);
        }
        // It may take its own again.
        attachments.add(handle(1), attached(1, &[first])).unwrap();
    }
}

#[test]
fn mappings_of_another_family_have_no_effect() {
    let v6 = PortMapping { host_ip: std::net::Ipv6Addr::LOCALHOST.into(), ..port(NODE, Tcp, 80, 80) };
    let mut attachments = Attachments::default();
    attachments.add(handle(1), attached(1, &[v6])).unwrap();
    let mut six = attached(2, &[port(NODE, Tcp, 80, 80)]);
    six.addrs = vec![std::net::Ipv6Addr::LOCALHOST.into()];
    attachments.add(handle(2), six).unwrap();
    assert!(attachments.desired().backend_maps[chains::HOST_PORTS].elements.is_empty());
    assert!(attachments.desired().sets[chains::PORT_PAIRS].is_empty());
}

proptest! {
    /// Whatever comes and goes: the edits lead to the table that would be made at once.
    #[test]
    fn edits_lead_to_what_is_desired(steps in prop::collection::vec((0..6_u8, any::<bool>(), 0..5_u16, any::<bool>()), 1..40)) {
        let mut attachments = Attachments::default();
        let mut table = attachments.desired();
        for (number, add, host_port, with_port) in steps {
            let ports = if with_port { vec![port(Ipv4Addr::UNSPECIFIED, Tcp, 80 + host_port, 80)] } else { vec![] };
            let edits = match add {
                true => attachments.add(handle(number), attached(number, &ports)).unwrap_or_default(),
                false => attachments.remove(&handle(number)),
            };
            table.apply(&edits).unwrap();
            prop_assert_eq!(&table, &attachments.desired());
        }
    }
}

#[test]
fn who_asks_a_neighbour_on_a_segment_by_a_port_of_the_node_is_answered_by_the_node() {
    let mut attachments = Attachments::default();
    attachments.add(handle(1), attached(1, &[port(Ipv4Addr::UNSPECIFIED, Tcp, 8080, 80)])).unwrap();
    for (is_segment, masqueraded) in [(false, false), (true, true)] {
        if is_segment {
            attachments.on_segments(["10.0.0.0/24".parse().unwrap()].into());
        }
        let rules = attachments.desired();
        rules.validate().unwrap();
        for (src, dst, dport, found) in
            [(OTHER, NODE, 8080, masqueraded), (OUTSIDE, NODE, 8080, false), (OTHER, POD, 80, false)]
        {
            let journey =
                walk(&rules, &Packet::opening(src, dst, Tcp, dport), Direction::FromOutside, &Host::new([NODE]));
            assert_eq!(journey.outcomes[0].masqueraded, found, "{src} to {dst}, a segment: {is_segment}");
        }
    }
}
