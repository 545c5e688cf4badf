//! The filter is run in memory as the kernel runs it.

use super::{
    packet::{checksum, crc32c},
    *,
};
use crate::capture::Instruction;

const TCP: Probe = Probe { protocol: ProbeProtocol::Tcp, mark: 0x1122_3344_9e37_79b9 };
const UDP: Probe = Probe { protocol: ProbeProtocol::Udp, ..TCP };
const SCTP: Probe = Probe { protocol: ProbeProtocol::Sctp, ..TCP };
const ECHO: Probe = Probe { protocol: ProbeProtocol::Icmp, ..TCP };
const ENDS: [[&str; 2]; 2] = [["10.1.0.5:40000", "10.96.0.1:80"], ["[fd00::5]:40000", "[fd00:1::1]:80"]];

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Of all protocols and both families.
fn packets() -> Vec<(Probe, SocketAddr, SocketAddr, Vec<u8>)> {
    let end = |probe: Probe, text: &str| match (probe.protocol, addr(text)) {
        (ProbeProtocol::Icmp, end) => SocketAddr::new(end.ip(), 0),
        (_, end) => end,
    };
    let ends = |probe| ENDS.map(|[from, to]| (probe, end(probe, from), end(probe, to)));
    let all = [TCP, UDP, SCTP, ECHO].into_iter().flat_map(ends);
    all.map(|(probe, from, to)| (probe, from, to, probe.packet(from, to).unwrap())).collect()
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[2; 12][..], &kind, packet].concat()
}

/// In a datagram or another packet of IPv4 or IPv6, whose checksums nobody looks at.
fn outer(is_six: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = if is_six { vec![0; 40] } else { vec![0; 20] };
    (header[0], header[if is_six { 6 } else { 9 }]) = (if is_six { 0x60 } else { 0x45 }, protocol);
    [header, payload.to_vec()].concat()
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    [&[0xd0, 1, 0x12, 0xb5, 0, 0, 0, 0][..], payload].concat()
}

fn vxlan(is_six: bool, packet: &[u8]) -> Vec<u8> {
    let inner = [&[8, 0, 0, 0, 0, 0, 9, 0][..], &framed(packet)].concat();
    outer(is_six, 17, &datagram(&inner))
}

/// What the kernel makes of it (`struct sock_filter`): how many bytes are let through.
fn let_through(program: &[Instruction], packet: &[u8]) -> u32 {
    let (mut at, mut loaded) = (0, 0);
    loop {
        match program[at] {
            Instruction(0x20, 0, 0, offset) => {
                let offset = offset as usize;
                let Some(word) = packet.get(offset..offset + 4) else { return 0 };
                loaded = u32::from_be_bytes(word.try_into().unwrap());
            }
            Instruction(0x15, yes, no, word) => at += usize::from(if loaded == word { yes } else { no }),
            Instruction(0x06, 0, 0, bytes) => return bytes,
            other => panic!("{other:?}"),
        }
        at += 1;
    }
}

/// What is let through and recognised.
fn found(probe: Probe, packet: &[u8]) -> Option<Found> {
    let bare = probe.recognise(Framing::Bare, packet);
    let frame = framed(packet);
    assert_eq!(probe.recognise(Framing::Ethernet, &frame), bare);
    for (framing, bytes) in [(Framing::Bare, packet), (Framing::Ethernet, &frame)] {
        let program = probe.filter(framing);
        assert!(program.len() < crate::capture::MOST_INSTRUCTIONS);
        let expected = if bare.is_some() { SNAP } else { 0 };
        assert_eq!(let_through(&program, bytes), expected, "{probe:?} {framing:?} {packet:02x?}");
    }
    bare
}

#[test]
fn a_probe_is_known_again_as_it_is_and_in_each_tunnel_with_its_addresses() {
    for (probe, source, destination, packet) in packets() {
        let expected = |within| Some(Found { kind: Kind::Probe, source, destination, within });
        assert_eq!(found(probe, &packet), expected(None));
        for is_six in [false, true] {
            assert_eq!(found(probe, &vxlan(is_six, &packet)), expected(Some(Tunnel::Vxlan)));
        }
        if source.is_ipv4() {
            assert_eq!(found(probe, &outer(false, 4, &packet)), expected(Some(Tunnel::Ipip)));
            assert_eq!(found(probe, &outer(false, 17, &datagram(&packet))), expected(Some(Tunnel::Udp)));
        }
        // In a VLAN, whose tag is put back behind the filter.
        let mut tagged = framed(&packet);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(probe.recognise(Framing::Ethernet, &tagged), expected(None));
    }
}

#[test]
fn one_that_is_filled_up_is_as_long_as_is_asked_for_and_known_again() {
    for (probe, source, destination, short) in packets() {
        for size in [1280, 1449] {
            let packet = probe.packet_of(source, destination, size).unwrap();
            // What fills an INIT comes in words.
            let fits = usize::from(size) - packet.len();
            let most = if probe.protocol == ProbeProtocol::Sctp { 3 } else { 0 };
            assert!(fits <= most, "{probe:?} {size} {fits}");
            let seen = &packet[..packet.len().min(SNAP as usize)];
            assert_eq!(found(probe, seen).map(|found| found.kind), Some(Kind::Probe));
        }
        assert_eq!(probe.packet_of(source, destination, 20), Some(short));
    }
    // RFC 4820, section 3: a parameter that fills the chunk, whose length counts it.
    let packet = SCTP.packet_of(addr(ENDS[0][0]), addr(ENDS[0][1]), 100).unwrap();
    let chunk = &packet[32..];
    assert_eq!((chunk.len(), &chunk[..4], &chunk[20..24]), (68, &[1, 0, 0, 68][..], &[0x80, 5, 0, 48][..]));
    assert!(chunk[24..].iter().all(|byte| *byte == 0));
}

#[test]
fn its_checksums_are_right() {
    let long = packets().into_iter().map(|(probe, from, to, _)| (probe, from, to, probe.packet_of(from, to, 1449)));
    let long = long.map(|(probe, from, to, packet)| (probe, from, to, packet.unwrap()));
    for (probe, source, _, packet) in packets().into_iter().chain(long) {
        let (header, addrs) = if source.is_ipv4() { (20, 12..20) } else { (40, 8..40) };
        if source.is_ipv4() {
            assert_eq!(checksum(&[&packet[..20]]), 0);
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        } else {
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
        }
        let segment = &packet[header..];
        if probe.protocol == ProbeProtocol::Sctp {
            let sum = u32::from_le_bytes(segment[8..12].try_into().unwrap());
            assert_eq!(crc32c(&[&segment[..8], &[0; 4], &segment[12..]].concat()), sum);
            continue;
        }
        let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
        let number = probe.protocol.number(source.is_ipv6());
        // What is summed up with its own checksum is nothing.
        let sum = match (probe, source.is_ipv4()) {
            (ECHO, true) => checksum(&[segment]),
            _ => checksum(&[&packet[addrs], &length, &[0, number], segment]),
        };
        assert_eq!(sum, 0, "{probe:?}");
    }
    assert_eq!(TCP.packet(addr(ENDS[0][0]), addr(ENDS[1][1])), None);
    // Of RFC 3720, appendix B.4.
    assert_eq!((crc32c(&[0; 32]), crc32c(&[0xff; 32])), (0x8a91_36aa, 0x62a8_ab43));
}

/// A packet of SCTP with a tag and a chunk that says no more than what it is.
fn chunk(tag: u32, kind: u8) -> Vec<u8> {
    let packet = [&[0, 80, 0x9c, 0x40][..], &tag.to_be_bytes(), &[0, 0, 0, 0, kind, 0, 0, 4]];
    outer(false, 132, &packet.concat())
}

#[test]
fn answers_of_sctp_are_known_by_their_tag_however_short_they_are() {
    let tag = SCTP.mark as u32;
    for (kind, expected) in [(2, Some(Kind::Accepted)), (6, Some(Kind::Refused)), (1, None), (0, None)] {
        let packet = chunk(tag, kind);
        // The filter knows no chunks.
        if expected.is_some() {
            let found = found(SCTP, &vxlan(false, &packet)).unwrap();
            assert_eq!((Some(found.kind), found.source.port(), found.within), (expected, 80, Some(Tunnel::Vxlan)));
            assert_eq!(self::found(SCTP, &packet).map(|found| found.kind), expected);
        }
        assert_eq!(SCTP.recognise(Framing::Bare, &packet).map(|found| found.kind), expected, "{kind}");
        assert_eq!(found(SCTP, &chunk(tag + 1, kind)), None);
    }
    // What the sender's own kernel says of an answer that it did not ask for is no refusal: its tag is the answer's.
    let mut aborted = chunk(tag, 6);
    aborted[20 + 13] = 1;
    assert_eq!(SCTP.recognise(Framing::Bare, &aborted).map(|found| found.kind), None);
    let none = Probe { mark: 1 << 32, ..SCTP };
    assert_eq!(found(none, &chunk(1, 2)).map(|found| found.kind), Some(Kind::Accepted), "a tag is never 0");
}

/// A header of TCP with these flags, and what it acknowledges.
fn answer(flags: u8, acknowledged: u32) -> Vec<u8> {
    let header = [&[0, 80, 0x9c, 0x40, 7, 7, 7, 7][..], &acknowledged.to_be_bytes(), &[0x50, flags, 0, 0, 0, 0, 0, 0]];
    outer(false, 6, &header.concat())
}

#[test]
fn answers_are_told_from_the_probe_and_from_those_to_others() {
    let acknowledged = (TCP.mark as u32) + 1;
    for (flags, kind) in [(0x12, Some(Kind::Accepted)), (0x14, Some(Kind::Refused))] {
        let packet = answer(flags, acknowledged);
        assert_eq!(found(TCP, &packet).map(|found| found.kind), kind);
        let found = found(TCP, &vxlan(false, &packet)).unwrap();
        assert_eq!((Some(found.kind), found.source.port(), found.within), (kind, 80, Some(Tunnel::Vxlan)));
        assert_eq!(self::found(TCP, &answer(flags, acknowledged + 1)), None);
    }
    // An acknowledgement that is no answer, and a header that is cut off.
    assert_eq!(TCP.recognise(Framing::Bare, &answer(0x10, acknowledged)), None);
    assert_eq!(TCP.recognise(Framing::Bare, &answer(0x12, acknowledged)[..33]), None);
}

#[test]
fn the_reply_to_an_echo_is_known_by_its_data_whatever_its_identifier() {
    for (is_six, number, [request, reply]) in [(false, 1, [8, 0]), (true, 58, [128, 129])] {
        let message = |kind: u8, mark: u64| {
            let header = [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
            outer(is_six, number, &[&header[..], &mark.to_be_bytes(), b"more"].concat())
        };
        for (kind, expected) in [(request, Kind::Probe), (reply, Kind::Accepted)] {
            let packet = message(kind, ECHO.mark);
            assert_eq!(found(ECHO, &packet).map(|found| (found.kind, found.source.port())), Some((expected, 0)));
            assert_eq!(found(ECHO, &vxlan(false, &packet)).and_then(|found| found.within), Some(Tunnel::Vxlan));
            assert_eq!(found(ECHO, &message(kind, ECHO.mark + 1)), None);
            // A datagram's mark stands at the same place.
            assert_eq!(UDP.recognise(Framing::Bare, &packet), None);
        }
        // A request for a timestamp, or to find neighbours.
        assert_eq!(ECHO.recognise(Framing::Bare, &message(if is_six { 135 } else { 13 }, ECHO.mark)), None);
        assert_eq!(ECHO.recognise(Framing::Bare, &message(reply, ECHO.mark)[..if is_six { 55 } else { 35 }]), None);
    }
}

#[test]
fn an_error_that_quotes_the_probe_is_told_with_who_says_so() {
    for (probe, source, _, packet) in packets() {
        let (number, kind) = if source.is_ipv4() { (1, 3) } else { (58, 1) };
        let error = outer(source.is_ipv6(), number, &[&[kind, 1, 0, 0, 0, 0, 0, 0][..], &packet].concat());
        let told = found(probe, &error).unwrap();
        assert_eq!((told.kind, told.source.port(), told.source.ip().is_unspecified()), (Kind::Error, 0, true));
        assert_eq!(found(probe, &vxlan(false, &error)).unwrap().within, Some(Tunnel::Vxlan));
    }
    // An echo with the same bytes is no error.
    let packet = TCP.packet(addr(ENDS[0][0]), addr(ENDS[0][1])).unwrap();
    let echo = outer(false, 1, &[&[8, 0, 0, 0, 0, 0, 0, 0][..], &packet].concat());
    assert_eq!(TCP.recognise(Framing::Bare, &echo), None);
}

#[test]
fn other_probes_other_protocols_and_what_is_cut_off_are_nothing() {
    for (probe, _, _, packet) in packets() {
        let other = Probe { mark: probe.mark + 1, ..probe };
        assert_eq!(found(other, &packet), None);
        assert_eq!(found(other, &vxlan(true, &packet)), None);
        for frame in [framed(&packet), framed(&vxlan(false, &packet)), framed(&outer(false, 4, &packet))] {
            for length in 0..frame.len() {
                // Nothing panics; a datagram's text behind its mark need not be there.
                let found = probe.recognise(Framing::Ethernet, &frame[..length]);
                assert!(found.is_none() || length > 14 + 20 + 13, "{length}");
            }
        }
    }
    assert_eq!(UDP.recognise(Framing::Bare, &TCP.packet(addr(ENDS[0][0]), addr(ENDS[0][1])).unwrap()), None);
}

#[test]
fn what_is_too_much_or_cannot_be_is_refused_and_what_is_said_is_read_again() {
    let watch = |count: usize, probe| Request::Watch(Watch { probe, points: vec![Point::Underlay; count] });
    let named = |name: &str| Request::Watch(Watch { probe: TCP, points: vec![Point::Device(name.to_owned())] });
    let sent = |probe, to: &str| Request::Send(Dispatch { probe, from: None, to: addr(to), size: None });
    let send = |to: &str| sent(TCP, to);
    for (request, unfit) in [
        (watch(64, UDP), Ok(())),
        (watch(0, TCP), Err(Unfit::Points(0))),
        (watch(65, TCP), Err(Unfit::Points(65))),
        (named("podnet.vxlan"), Ok(())),
        (named("of.sixteen.bytes"), Err(Unfit::Interface("of.sixteen.bytes".to_owned()))),
        (named("a/b"), Err(Unfit::Interface("a/b".to_owned()))),
        (watch(1, SCTP), Ok(())),
        (send("10.0.0.1:80"), Ok(())),
        (send("10.0.0.1:0"), Err(Unfit::Destination(addr("10.0.0.1:0")))),
        (sent(ECHO, "10.0.0.1:0"), Ok(())),
        (sent(ECHO, "224.0.0.1:0"), Err(Unfit::Destination(addr("224.0.0.1:0")))),
        (send("224.0.0.1:80"), Err(Unfit::Destination(addr("224.0.0.1:80")))),
        (send("255.255.255.255:80"), Err(Unfit::Destination(addr("255.255.255.255:80")))),
        (send("[::]:80"), Err(Unfit::Destination(addr("[::]:80")))),
    ] {
        assert_eq!(request.check(), unfit);
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
    }
    let pod = Captured { namespace: "shop".into(), name: "web".into(), uid: "u".into() };
    let points = vec![Point::Inside(pod.clone(), "eth0".into()), Point::Outside(pod), Point::Device("cni0".into())];
    let request = Request::Watch(Watch { probe: UDP, points });
    assert_eq!(serde_json::from_str::<Request>(&serde_json::to_string(&request).unwrap()).unwrap(), request);
}
