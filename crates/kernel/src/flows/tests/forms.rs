//! Packets of other forms than one datagram in one packet.

use super::*;

#[test]
fn a_datagram_in_fragments_and_one_behind_extension_headers_count_to_the_last_byte_as_one_flow() {
    stay_on_this_processor();
    let lab = Lab::new("parts");
    let flows = lab.counting(SMALL);
    // Three fragments at an MTU of 1450, the first of which alone shows the ports.
    for (to, headers) in [(v4(2), 3 * 20 + 8), (v6(2), 3 * 48 + 8)] {
        let socket = lab.udp(to);
        datagrams(&socket, 2, 4000);
        let (source, destination) = both(&flows, socket.local_addr().unwrap().port()).unwrap();
        for way in [source.out, source.into, destination.out, destination.into] {
            assert_eq!(passed(way), (6, 2 * (4000 + headers)), "{to}");
        }
    }
    // Echoes have a number in the place of a port.
    lab.pods[0].command("ping -c 1 -s 4000 10.0.0.2");
    let entries = flows.entries().unwrap();
    let echoes: Vec<_> = entries.iter().filter(|entry| entry.key.transport == Transport::ICMP).collect();
    assert_eq!(echoes.len(), 2, "{echoes:?}");
    assert!(echoes.iter().all(|echo| (echo.out.packets, echo.into.packets) == (3, 3)), "{echoes:?}");
    // Destination options (RFC 8200, section 4.6) before the datagram: eight bytes that say nothing.
    let socket = lab.udp(v6(2));
    say_options_first(&socket);
    datagrams(&socket, 3, 100);
    // Each of its fragments has the options.
    datagrams(&socket, 1, 4000);
    let (source, destination) = both(&flows, socket.local_addr().unwrap().port()).unwrap();
    let whole_and_cut = (6, 3 * 156 + 4000 + 8 + 3 * 56);
    assert_eq!((passed(source.out), passed(destination.into)), (whole_and_cut, whole_and_cut));
    assert_eq!(source.key.transport, Transport::UDP);
    // Options (RFC 791, section 3.1): four bytes that say nothing.
    let socket = lab.udp(v4(2));
    let options = [1_u8; 4];
    // SAFETY: the kernel reads the four bytes at `options`, which outlive the call.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, options.as_ptr().cast(), 4) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    datagrams(&socket, 3, 100);
    let (source, destination) = both(&flows, socket.local_addr().unwrap().port()).unwrap();
    assert_eq!((passed(source.out), passed(destination.into)), ((3, 3 * 132), (3, 3 * 132)));
    let entries = flows.entries().unwrap();
    let is_datagram = |entry: &&Entry| entry.key.transport == Transport::UDP;
    assert_eq!(entries.iter().filter(is_datagram).count(), 2 * 4, "four sockets, seen at both ends: {entries:?}");
}

/// For this thread and those that it begins from here on: what one processor sends cannot overtake what another one has not sent on yet, so that
/// fragments come in order.
pub(super) fn stay_on_this_processor() {
    let mut processors = rustix::thread::CpuSet::new();
    processors.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &processors).unwrap();
}

/// Destination options before each datagram: eight bytes that say nothing (PadN).
pub(super) fn say_options_first(socket: &UdpSocket) {
    let options: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    // SAFETY: the kernel reads the eight bytes at `options`, which outlive the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, options.as_ptr().cast(), 8)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn what_the_kernel_holds_together_counts_as_what_it_is_cut_into() {
    let lab = Lab::new("large");
    let flows = lab.counting(SMALL);
    for (to, header) in [(v4(2), 20 + 32), (v6(2), 40 + 32)] {
        let mut stream = lab.tcp(to, 80).unwrap();
        let port = stream.local_addr().unwrap().port();
        for _ in 0..4 {
            stream.write_all(&[7; 50_000]).unwrap();
            stream.read_exact(&mut [0; 50_000]).unwrap();
        }
        eventually("all has come", || {
            both(&flows, port).is_some_and(|(source, destination)| {
                passed(source.out) == passed(destination.into) && passed(source.into) == passed(destination.out)
            })
        });
        let (source, _) = both(&flows, port).unwrap();
        // 200,000 bytes in segments that fit a link of 1450; the SYN's options are 8 bytes longer.
        assert!(source.out.packets > 200_000 / 1450, "{source:?}");
        let once = 200_000 + header * source.out.packets + 8;
        // What a busy machine made be sent again counts again.
        let is_exact = source.out.bytes == once && source.out.retransmissions == 0;
        assert!(is_exact || source.out.retransmissions > 0 && source.out.bytes > once, "{source:?}");
    }
}

#[test]
fn an_association_of_sctp_ends_with_its_abort() {
    let lab = Lab::new("sctp");
    let flows = lab.counting(SMALL);
    let socket = lab.pods[0].run(|| {
        let protocol = Some(rustix::net::ipproto::SCTP);
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::RAW, protocol).unwrap();
        rustix::net::connect(&socket, &SocketAddr::from((v4(2), 0))).unwrap();
        socket
    });
    let socket = socket.unwrap();
    // Ports 4000 and 36412, a tag, no checksum; then a chunk of that type (RFC 9260, section 3.2).
    let say = |chunk: u8| {
        let packet = [0x0f, 0xa0, 0x8e, 0x3c, 0, 0, 0, 1, 0, 0, 0, 0, chunk, 0, 0, 4];
        // Nobody there speaks it, which the kernel tells.
        let _ = rustix::net::send(&socket, &packet, rustix::net::SendFlags::empty());
    };
    let seen = || {
        let entries = flows.entries().unwrap();
        entries.into_iter().find(|entry| entry.key.transport == Transport::SCTP && entry.pod_began)
    };
    say(1);
    eventually("it is seen", || seen().is_some_and(|begun| begun.out.packets > 0));
    let begun = seen().unwrap();
    assert_eq!((begun.key.local_port, begun.key.remote_port, begun.ended), (4000, 36412, false));
    eventually("it is aborted", || {
        say(6);
        seen().is_some_and(|association| association.ended)
    });
    // Each but the first packet is one, also those behind the end.
    say(6);
    eventually("each abort is a reset of its way", || {
        seen().is_some_and(|one| {
            one.out.resets > 0 && u64::from(one.out.resets) == one.out.packets - 1 && one.into.resets == 0
        })
    });
    let is_aborted = |entry: Entry| {
        entry.key.transport == Transport::SCTP && !entry.pod_began && entry.into.resets > 0 && entry.out.resets == 0
    };
    eventually("so it is at the other end", || flows.entries().unwrap().into_iter().any(is_aborted));
    let aborted = seen().unwrap();
    assert_eq!(aborted.out.bytes % 36, 0);
    assert_eq!((aborted.out.flags, aborted.into.flags), (Way::SYN, 0), "what opened it was seen");
    // Another one from the same port, before anybody read that the first one is over.
    say(1);
    eventually("another one begins", || seen().is_some_and(|next| next.born != aborted.born));
    let is_first = |told: Told| matches!(told, Told::Replaced(entry) if entry.born == aborted.born && entry.ended);
    assert!(flows.bells().into_iter().any(is_first));
}
