//! What is the stack's stays the stack's.

use super::*;

#[test]
fn connections_that_are_translated_pass_by_the_stack_as_it_translated_them() {
    let lab = Lab::new("nat", 2);
    for node in [IpAddr::from(NODE), NODE_V6.into()] {
        let mut stream = tcp(&lab.pods[1], node, PORT);
        passes(&lab, &format!("TCP to {node}"), || round_trips(&mut stream));
        assert!(lab.forwarded(|| bulk(&mut stream)) > 100, "a transfer to {node}");
        let socket = udp(&lab.pods[1], node, PORT);
        for size in [1, 16, 1300] {
            passes(&lab, &format!("UDP to {node}"), || datagrams(&socket, size));
        }
    }
    let mut own = tcp(&lab.pods[0], NODE, PORT);
    lab.forwarded(|| round_trips(&mut own));
}

/// The other end is told that the connection is over by the packets that the stack saw alone.
#[test]
fn connection_tracking_sees_how_a_translated_connection_ends() {
    let lab = Lab::new("natends", 2);
    let mut stream = tcp(&lab.pods[1], NODE, PORT);
    passes(&lab, "TCP", || round_trips(&mut stream));
    drop(stream);
    eventually("the entry is of a closed connection", || lab.tracked(PORT).contains(" TIME_WAIT "));
}

/// Both have the same addresses and ports on their way to the pod, so that the stack gives the later one another port.
#[test]
fn a_direct_and_a_translated_connection_of_one_port_do_not_mix() {
    let lab = Lab::new("clash", 2);
    for (port, direct_first) in [(5000, true), (5001, false)] {
        let direct = || tcp_from(&lab.pods[1], port, v4(1), 80);
        let translated = || tcp_from(&lab.pods[1], port, NODE, PORT);
        let (mut direct, mut translated) = if direct_first {
            let first = direct();
            (first, translated())
        } else {
            let first = translated();
            (direct(), first)
        };
        for _ in 0..30 {
            round_trips(&mut direct);
            round_trips(&mut translated);
        }
    }
    // The same by UDP, where a datagram shows less of what it belongs to.
    for (port, direct_first) in [(6000, true), (6001, false)] {
        let socket = lab.pods[1].run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for round in 0..ROUND_TRIPS {
            let peers = [SocketAddr::from((v4(1), 80)), SocketAddr::from((NODE, PORT))];
            let peer = peers[usize::from((round % 2 == 0) != direct_first)];
            socket.send_to(&[round as u8], peer).unwrap();
            let mut came = [0; 8];
            let (length, from) = socket.recv_from(&mut came).unwrap();
            assert_eq!((&came[..length], from), (&[round as u8][..], peer));
        }
    }
}

#[test]
fn connection_tracking_sees_how_a_connection_begins_and_ends() {
    let lab = Lab::new("ends", 2);
    let mut stream = tcp(&lab.pods[0], v4(2), 80);
    passes(&lab, "TCP", || round_trips(&mut stream));
    assert!(lab.tracked(80).contains(" ESTABLISHED "), "{}", lab.tracked(80));
    // It is kept as long as others though no acknowledgement is seen: protocol, its number, the seconds left.
    let seconds: u32 =
        lab.tracked(80).split(" tcp ").nth(1).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(seconds > 100_000, "{}", lab.tracked(80));
    // Much more than a window of data that it does not see.
    let mut buffer = vec![0; 4 << 20];
    thread::scope(|scope| {
        let mut sender = stream.try_clone().unwrap();
        scope.spawn(move || sender.write_all(&vec![0; 4 << 20]).unwrap());
        stream.read_exact(&mut buffer).unwrap();
    });
    drop(stream);
    eventually("the entry is of a closed connection", || lab.tracked(80).contains(" TIME_WAIT "));
}

#[test]
fn who_sends_as_another_is_dropped_as_ever() {
    let lab = Lab::new("spoof", 3);
    let (honest, server) = only_the_honest_arrive(&lab, v4);
    // Its address, but not the Ethernet address that belongs to it.
    lab.pods[0].command("ip link set eth0 address 02:00:00:00:00:99");
    send_many(&honest);
    silent(&server);
}

#[test]
fn who_sends_as_another_by_ipv6_is_dropped_as_ever() {
    only_the_honest_arrive(&Lab::new("spoof6", 3), v6);
}

/// The first pod sends to the second, and passes; then the third one sends as the first. Answers with the first one's socket and the
/// second's.
fn only_the_honest_arrive(lab: &Lab, addr: fn(u8) -> IpAddr) -> (UdpSocket, UdpSocket) {
    let [first, second] = [addr(1), addr(2)];
    let server = lab.pods[1].run(|| UdpSocket::bind((second, 4000))).unwrap().unwrap();
    let sender = |pod: &TestNs| {
        let socket = pod.run(|| UdpSocket::bind((first, 4001))).unwrap().unwrap();
        socket.connect((second, 4000)).unwrap();
        socket
    };
    let honest = sender(&lab.pods[0]);
    let passed = lab.forwarded(|| {
        for _ in 0..20 {
            honest.send(b"?").unwrap();
            server.recv(&mut [0; 8]).unwrap();
        }
    });
    assert!(passed > 10);
    let unchecked = if first.is_ipv6() { "nodad" } else { "" };
    lab.pods[2].command(&format!("ip addr add {first} dev eth0 {unchecked}"));
    send_many(&sender(&lab.pods[2]));
    silent(&server);
    (honest, server)
}

fn send_many(socket: &UdpSocket) {
    for _ in 0..20 {
        socket.send(b"!").unwrap();
    }
}

#[test]
fn a_packet_whose_time_is_over_ends_at_the_node() {
    let lab = Lab::new("hops", 2);
    let socket = udp(&lab.pods[0], v4(2), 80);
    socket.set_ttl(3).unwrap();
    assert!(lab.forwarded(|| datagrams(&socket, 16)) >= NEARLY_ALL);
    socket.set_ttl(1).unwrap();
    let passed = lab.forwarded(|| {
        socket.send(b"?").unwrap();
        silent(&socket);
    });
    assert_eq!(passed, 0);
}

/// What the stack would do otherwise by now is done after `relearn`, and after a lease at the latest.
#[test]
fn a_way_that_is_closed_is_closed_for_established_flows_too() {
    let lab = Lab::new("closed", 2);
    let socket = udp(&lab.pods[0], v4(2), 80);
    datagrams(&socket, 16);
    let mut host = RtSocket::open_in(&lab.netns).unwrap();
    pod_interface::cut_off(&mut host, v4(2), None).unwrap();
    let passed = lab.forwarded(|| socket.send(b"?").map(drop).unwrap());
    assert!(passed >= 1, "the proof holds for a while");
    socket.recv(&mut [0; 8]).unwrap();
    lab.fast_path.relearn().unwrap();
    let passed = lab.forwarded(|| {
        for _ in 0..20 {
            let _ = socket.send(b"?");
        }
    });
    assert_eq!(passed, 0);
    drop(host);
}

#[test]
fn what_the_stack_changes_in_packets_it_changes_in_all() {
    let lab = Lab::new("marks", 2);
    let socket = udp(&lab.pods[0], v4(2), 80);
    let socket6 = udp(&lab.pods[0], v6(2), 80);
    lab.netns.command("nft add table inet marks");
    lab.netns.command("nft add chain inet marks post { type filter hook postrouting priority 0 ; }");
    lab.netns.command("nft add rule inet marks post ip dscp set ef");
    lab.netns.command("nft add rule inet marks post ip6 dscp set ef");
    assert_eq!(lab.forwarded(|| (datagrams(&socket, 16), datagrams(&socket6, 16)).1), 0);
    assert!(lab.fast_path.passed().unwrap().probed > 0);
    lab.netns.command("nft delete table inet marks");
    eventually("unmarked", || lab.forwarded(|| datagrams(&socket, 16)) >= NEARLY_ALL);
}

#[test]
fn without_an_agent_all_pass_the_stack_after_a_while() {
    let lab = Lab::new("orphans", 2);
    let mut stream = tcp(&lab.pods[0], v4(2), 80);
    passes(&lab, "TCP", || round_trips(&mut stream));
    lab.fast_path.live_for(Duration::ZERO).unwrap();
    // The programs' clock is that of the last tick.
    eventually("nothing passes", || lab.forwarded(|| round_trips(&mut stream)) == 0);
    lab.fast_path.live_for(MINUTE).unwrap();
    eventually("it passes again", || lab.forwarded(|| round_trips(&mut stream)) >= NEARLY_ALL);
}
