//! Errors of ICMP, in the flows that they are about.

use std::process::Command;

use podnet_flow::IcmpError;

use super::{
    forms::{say_options_first, stay_on_this_processor},
    *,
};

/// Where nobody listens.
const CLOSED: u16 = 81;

/// A node that has addresses, so that what it says has a source.
fn lab(tag: &str) -> Lab {
    let lab = Lab::new(tag);
    for addr in ["192.0.2.1/32", "fd01::1/128"] {
        lab.netns.command(&format!("ip addr add {addr} dev lo"));
    }
    // It says each of them, however many there are.
    lab.netns.command("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
    lab
}

/// Somebody in the second pod who listens there.
fn listening(lab: &Lab, at: IpAddr) -> UdpSocket {
    let listener = lab.pods[1].run(|| UdpSocket::bind((at, CLOSED)).unwrap()).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    listener
}

/// The entry of what the first pod sent from a port.
fn sent(flows: &Flows, port: u16) -> Option<Entry> {
    flows.entries().unwrap().into_iter().find(|entry| entry.key.local_port == port && entry.pod_began)
}

fn error(kind: u8, code: u8, by_destination: bool) -> Option<IcmpError> {
    Some(IcmpError { kind, code, by_destination })
}

/// Port unreachable, of each family.
fn port_unreachable(to: IpAddr) -> Option<IcmpError> {
    if to.is_ipv4() { error(3, 3, true) } else { error(1, 4, true) }
}

#[test]
fn a_closed_port_is_noted_at_both_ends_until_somebody_answers() {
    let lab = lab("closed");
    let flows = lab.counting(SMALL);
    for (to, has_options) in [(v4(2), false), (v6(2), false), (v6(2), true)] {
        let socket = lab.udp(to);
        if has_options {
            say_options_first(&socket);
        }
        socket.connect((to, CLOSED)).unwrap();
        socket.send(&[7; 100]).unwrap();
        assert_eq!(socket.recv(&mut [0; 200]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        let port = socket.local_addr().unwrap().port();
        let (source, destination) = both(&flows, port).unwrap();
        assert_eq!((source.error, destination.error), (port_unreachable(to), port_unreachable(to)), "{to}");
        assert_eq!((source.out.packets, source.into.packets, source.is_stopped()), (1, 0, true));
        // Somebody listens there now.
        let listener = listening(&lab, to);
        socket.send(&[7; 100]).unwrap();
        let (_, from) = listener.recv_from(&mut [0; 200]).unwrap();
        listener.send_to(&[7; 100], from).unwrap();
        socket.recv(&mut [0; 200]).unwrap();
        let (source, destination) = both(&flows, port).unwrap();
        assert_eq!((source.error, destination.error, source.into.packets), (None, None, 1), "{to}");
    }
}

#[test]
fn what_has_no_way_is_noted_with_what_the_node_says() {
    let lab = lab("no-way");
    let flows = lab.counting(SMALL);
    for route in ["unreachable 203.0.113.1", "prohibit 203.0.113.2", "unreachable 2001:db8::1", "prohibit 2001:db8::2"]
    {
        lab.netns.command(&format!("ip route add {route}"));
    }
    // RFC 1812, section 5.2.7.1; RFC 4443, section 3.1.
    let rows = [
        ("203.0.113.1", error(3, 1, false)),
        ("203.0.113.2", error(3, 13, false)),
        // No route leads there.
        ("203.0.113.3", error(3, 0, false)),
        ("2001:db8::1", error(1, 0, false)),
        ("2001:db8::2", error(1, 1, false)),
        ("2001:db8::3", error(1, 0, false)),
    ];
    for (to, expected) in rows {
        let to: IpAddr = to.parse().unwrap();
        let socket = lab.udp(to);
        socket.send(&[7; 100]).unwrap();
        let port = socket.local_addr().unwrap().port();
        eventually("the node says so", || sent(&flows, port).is_some_and(|entry| entry.error == expected));
    }
    // Of TCP and of echoes it is known as well, whose first eight bytes are quoted.
    let refused = lab.tcp("203.0.113.1".parse().unwrap(), 80).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::HostUnreachable);
    for (to, transport, expected) in [
        ("203.0.113.1", Transport::TCP, error(3, 1, false)),
        ("203.0.113.2", Transport::ICMP, error(3, 13, false)),
        ("2001:db8::2", Transport::ICMP6, error(1, 1, false)),
    ] {
        if transport != Transport::TCP {
            let ping = lab.pods[0].run(|| Command::new("ping").args(["-c", "1", "-W", "2", to]).output().unwrap());
            assert!(!ping.unwrap().status.success());
        }
        let to: IpAddr = to.parse().unwrap();
        let entries = flows.entries().unwrap();
        let found = entries.iter().find(|entry| entry.key.remote == to && entry.key.transport == transport).unwrap();
        assert_eq!(found.error, expected, "{found:?}");
    }
}

#[test]
fn what_passes_too_many_routers_is_noted() {
    let lab = lab("hops");
    let flows = lab.counting(SMALL);
    for (to, expected) in [(v4(2), error(11, 0, false)), (v6(2), error(3, 0, false))] {
        let socket = lab.udp(to);
        if to.is_ipv4() {
            sockopt::set_ip_ttl(&socket, 1).unwrap();
        } else {
            sockopt::set_ipv6_unicast_hops(&socket, Some(1)).unwrap();
        }
        socket.send(&[7; 100]).unwrap();
        let port = socket.local_addr().unwrap().port();
        eventually("the node says so", || sent(&flows, port).is_some_and(|entry| entry.error == expected));
    }
}

#[test]
fn what_is_too_large_for_a_link_is_noted_until_a_smaller_one_goes() {
    let lab = lab("size");
    let flows = lab.counting(SMALL);
    lab.netns.command("ip link set pn000000000002 mtu 1300");
    for (to, expected) in [(v4(2), error(3, 4, false)), (v6(2), error(2, 0, false))] {
        let socket = lab.udp(to);
        let port = socket.local_addr().unwrap().port();
        socket.send(&[7; 1400]).unwrap();
        eventually("the node says so", || sent(&flows, port).is_some_and(|entry| entry.error == expected));
        eventually("the pod hears of it", || socket.take_error().unwrap().is_some());
        datagrams(&socket, 1, 100);
        let after = sent(&flows, port).unwrap();
        assert_eq!((after.error, after.out.packets, after.into.packets), (None, 2, 1), "{to}");
    }
}

#[test]
fn that_the_first_fragment_is_too_large_for_a_link_holds_for_the_later_ones() {
    stay_on_this_processor();
    let lab = lab("cut");
    let flows = lab.counting(SMALL);
    lab.netns.command("ip link set pn000000000002 mtu 1300");
    let socket = lab.udp(v6(2));
    let port = socket.local_addr().unwrap().port();
    // Three fragments, of which the first two are too large. What is said of the second one does not show the ports.
    socket.send(&[7; 4000]).unwrap();
    eventually("the node says so", || {
        sent(&flows, port).is_some_and(|entry| entry.out.packets == 3 && entry.error == error(2, 0, false))
    });
}

#[test]
fn an_answer_that_comes_too_late_says_nothing_of_the_flow() {
    let lab = lab("late");
    let flows = lab.counting(SMALL);
    for (to, transport) in [(v4(2), Transport::ICMP), (v6(2), Transport::ICMP6)] {
        let listener = listening(&lab, to);
        let socket = lab.udp(to);
        socket.connect((to, CLOSED)).unwrap();
        socket.send(&[7; 100]).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (_, from) = listener.recv_from(&mut [0; 200]).unwrap();
        drop(socket);
        listener.send_to(&[7; 100], from).unwrap();
        eventually("who does not listen any more says so to both", || {
            let entries = flows.entries().unwrap();
            entries.iter().filter(|entry| entry.key.transport == transport).count() == 2
        });
        let (source, destination) = both(&flows, port).unwrap();
        assert_eq!((source.error, destination.error), (None, None), "{to}");
    }
}
