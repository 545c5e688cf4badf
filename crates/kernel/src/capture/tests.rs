use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use podnet_flow::pcapng::{Block, Interface, Statistics, write_packet};

use super::{
    expression::{ExpressionError, compile},
    *,
};
use crate::testing::{TestNs, eventually};

const WHOLE: u32 = 65_535;
const ROOMY: usize = 4 << 20;

/// Two namespaces with a link between them: `eth0` in each, with 192.0.2.1 and .2.
fn lab(tag: &str) -> [TestNs; 2] {
    let [near, far] = ["near", "far"].map(|end| TestNs::new(&format!("capture-{tag}-{end}")));
    let name = far.path.file_name().unwrap().to_str().unwrap();
    near.command(&format!("ip link add eth0 type veth peer name eth0 netns {name}"));
    for (number, end) in [(1, &near), (2, &far)] {
        // Nothing but what the test sends, but for neighbour discovery.
        end.command(&format!("ip addr add 192.0.2.{number}/24 dev eth0"));
        end.command("ip link set eth0 up");
    }
    [near, far]
}

fn bound(namespace: &TestNs, addr: &str) -> UdpSocket {
    namespace.run(|| UdpSocket::bind(addr.parse::<SocketAddr>().unwrap()).unwrap()).unwrap()
}

/// What is kept of packets: whether they left, how long they were, and their bytes.
fn taken(tap: &mut Tap, count: usize) -> Vec<(bool, u32, Vec<u8>)> {
    let mut taken = Vec::new();
    eventually("packets are seen", || {
        if tap.receive().is_ok() {
            taken.extend(tap.seen().map(|seen| (seen.outbound, seen.length, seen.bytes.to_vec())));
        }
        taken.len() >= count
    });
    taken
}

#[test]
fn what_an_expression_chooses_is_seen_in_both_directions_with_its_length_and_time() {
    let [near, far] = lab("both");
    let snap = 60;
    let program = compile("udp port 5000", snap).unwrap();
    let mut tap = near.run(|| Tap::open("eth0", &program, snap, ROOMY)).unwrap().unwrap();
    let (here, there) = (bound(&near, "192.0.2.1:5000"), bound(&far, "192.0.2.2:40000"));
    let other = bound(&near, "192.0.2.1:5001");
    let before = now();
    for (from, to) in [(&other, &there), (&here, &there), (&there, &here), (&there, &other)] {
        from.send_to(&[7; 100], to.local_addr().unwrap()).unwrap();
        to.recv(&mut [0; 100]).unwrap();
    }
    let mut times = Vec::new();
    let mut seen = Vec::new();
    eventually("both are seen", || {
        if tap.receive().is_ok() {
            times.extend(tap.seen().map(|seen| seen.at));
            seen.extend(tap.seen().map(|seen| (seen.outbound, seen.length, seen.bytes.to_vec())));
        }
        seen.len() >= 2
    });
    // Ethernet, IPv4, UDP and what was sent; of that what is to be kept.
    let length = 14 + 20 + 8 + 100;
    assert_eq!(
        seen.iter().map(|(out, length, bytes)| (*out, *length, bytes.len())).collect::<Vec<_>>(),
        [(true, length, 60), (false, length, 60)]
    );
    assert!(seen.iter().all(|(.., bytes)| bytes[12..14] == [8, 0] && bytes[42..] == [7; 18]));
    assert!(before <= times[0] && times[0] <= times[1] && times[1] <= now(), "{before} {times:?}");
    assert_eq!(tap.counts().unwrap(), Counts { received: 2, dropped: 0 });
    assert_eq!(tap.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

#[test]
fn what_finds_no_room_is_counted_and_the_rest_is_there() {
    let [near, far] = lab("drops");
    let program = compile("udp port 5000", WHOLE).unwrap();
    let mut tap = near.run(|| Tap::open("eth0", &program, WHOLE, 64 << 10)).unwrap().unwrap();
    let (here, there) = (bound(&near, "192.0.2.1:5000"), bound(&far, "192.0.2.2:40000"));
    for _ in 0..500 {
        here.send_to(&[7; 1000], there.local_addr().unwrap()).unwrap();
    }
    let mut taken = 0;
    while tap.receive().is_ok() {
        taken += tap.seen().count() as u64;
    }
    let counts = tap.counts().unwrap();
    assert_eq!((counts.received, counts.dropped + taken), (500, 500));
    assert!(counts.dropped > 0 && taken > 0, "{counts:?}");
    // They go on being counted from there.
    here.send_to(&[7; 1000], there.local_addr().unwrap()).unwrap();
    assert_eq!(tap.counts().unwrap(), Counts { received: 501, dropped: counts.dropped });
}

#[test]
fn a_packets_tag_is_where_it_was() {
    let [near, far] = lab("vlan");
    let mut tap = far.run(|| Tap::open("eth0", &[], 20, ROOMY)).unwrap().unwrap();
    // Tag 5 of 802.1Q before a protocol for experiments, which nobody listens to.
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x81, 0, 0, 5], &[0x88, 0xb5], &[7; 46]].concat();
    let sender = near.run(|| (socket().unwrap(), find("eth0").unwrap().0)).unwrap();
    near.run(|| bind(sender.0.as_fd(), sender.1, EVERYTHING).unwrap()).unwrap();
    rustix::net::send(&sender.0, &frame, rustix::net::SendFlags::empty()).unwrap();
    let mut found = Vec::new();
    eventually("the frame is seen", || {
        if tap.receive().is_ok() {
            let is_it = |seen: &Seen<'_>| seen.bytes[6..12] == frame[6..12];
            found.extend(tap.seen().filter(is_it).map(|seen| (seen.length, seen.bytes.to_vec())));
        }
        !found.is_empty()
    });
    assert_eq!(found, [(64, frame[..20].to_vec())]);
}

#[test]
fn what_passes_a_loopback_device_is_seen_and_counted_once() {
    let [near, _far] = lab("lo");
    let program = compile("udp port 5000", WHOLE).unwrap();
    let mut tap = near.run(|| Tap::open("lo", &program, WHOLE, ROOMY)).unwrap().unwrap();
    let socket = bound(&near, "127.0.0.1:5000");
    socket.send_to(b"one", socket.local_addr().unwrap()).unwrap();
    socket.send_to(b"three", socket.local_addr().unwrap()).unwrap();
    let seen: Vec<_> = taken(&mut tap, 2).into_iter().map(|(outbound, length, _)| (outbound, length)).collect();
    assert_eq!(seen, [(false, 45), (false, 47)]);
    assert_eq!(tap.counts().unwrap(), Counts { received: 2, dropped: 0 });
}

#[test]
fn an_interface_that_is_not_there_one_without_ethernet_and_a_filter_that_jumps_out_are_refused() {
    let [near, _far] = lab("refused");
    near.command("ip tuntap add tun0 mode tun");
    let open = |interface: &str, program: &[Instruction]| {
        near.run(|| Tap::open(interface, program, WHOLE, ROOMY)).unwrap().unwrap_err()
    };
    let error = open("eth1", &[]);
    assert_eq!(error.to_string(), "there is no interface eth1; there are lo, eth0, tun0");
    assert!(matches!(open("tun0", &[]), TapError::NotEthernet { kind: 65_534, .. }));
    // A jump that leads nowhere, and a program that never ends with an answer.
    for program in [[Instruction(5, 0, 0, 9)], [Instruction(0x28, 0, 0, 12)]] {
        assert!(matches!(open("eth0", &program), TapError::Filter { instructions: 1, .. }));
    }
}

#[test]
fn an_interface_that_goes_is_told_once() {
    let [near, _far] = lab("gone");
    let mut tap = near.run(|| Tap::open("eth0", &[Instruction(6, 0, 0, 0)], WHOLE, ROOMY)).unwrap().unwrap();
    assert_eq!(tap.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    near.command("ip link delete eth0");
    assert_eq!(tap.receive().unwrap_err().kind(), io::ErrorKind::NetworkDown);
    assert_eq!(tap.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn libpcap_compiles_expressions_and_says_what_is_wrong_with_one() {
    let program = compile("tcp port 80", 96).unwrap();
    assert!(program.len() > 5 && program.contains(&Instruction(6, 0, 0, 96)), "{program:?}");
    assert_eq!(compile("", 96).unwrap(), [Instruction(6, 0, 0, 96)]);
    for wrong in ["tcp prot 80", "host", "tcp\0"] {
        let error = compile(wrong, 96).unwrap_err();
        assert!(matches!(&error, ExpressionError::Wrong { why, .. } if !why.is_empty()), "{error}");
    }
}

/// Both what tcpdump prints of it and what it says of the interfaces.
#[test]
fn tcpdump_reads_a_capture_of_two_interfaces() {
    let [near, far] = lab("tcpdump");
    let program = compile("udp port 5000", WHOLE).unwrap();
    let mut taps = [&near, &far].map(|end| end.run(|| Tap::open("eth0", &program, WHOLE, ROOMY)).unwrap().unwrap());
    let (here, there) = (bound(&near, "192.0.2.1:5000"), bound(&far, "192.0.2.2:40000"));
    here.send_to(&[7; 1001], there.local_addr().unwrap()).unwrap();
    let mut capture = Vec::new();
    Block::Section { program: "podnet".into(), comment: "a test".into() }.write(&mut capture);
    for (number, tap) in [1, 2].into_iter().zip(&taps) {
        let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, number));
        let interface = Interface {
            name: format!("shop/web-{number} eth0"),
            description: "a pod".into(),
            addrs: vec![addr],
            mac: tap.mac(),
            snap: WHOLE,
            filter: Some("udp port 5000".into()),
        };
        Block::Interface(interface).write(&mut capture);
        Block::Names(vec![(addr, format!("web-{number}.shop"))]).write(&mut capture);
    }
    for (number, tap) in (0..).zip(&mut taps) {
        eventually("the datagram is seen", || tap.receive().is_ok());
        for seen in tap.seen() {
            write_packet(&mut capture, (number, seen.at), seen.length, seen.outbound, seen.bytes);
        }
        Block::Statistics(Statistics { interface: number, at: now(), received: 1, dropped: 0 }).write(&mut capture);
    }
    let path = format!("/tmp/podnet-test-capture-{}.pcapng", std::process::id());
    fs::write(&path, &capture).unwrap();
    let output = Command::new("tcpdump").args(["-nn", "-r", &path]).output().unwrap();
    fs::remove_file(&path).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.ends_with("192.0.2.1.5000 > 192.0.2.2.40000: UDP, length 1001")), "{text}");
}
