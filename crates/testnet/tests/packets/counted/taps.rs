//! First packets, counted at every device of nodes and pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use podnet_kernel::{
    capture::{self, Tap, TapError},
    link,
    netlink::RtSocket,
};
use podnet_model::Protocol;
use podnet_planner::services::packet_table::NODES;

use crate::{
    lab::{Lab, Place},
    probes::GREETING,
};

/// Bytes of a packet that are looked at: the headers of Ethernet, of IPv6 and of a transport, and the first bytes behind them.
const SNAP: u32 = 128;
/// Bytes of packets that wait at a device until they are looked at: those of many hundreds of connections.
const ROOM: usize = 8 << 20;
/// So long it is waited for packets at once.
const TURN: Duration = Duration::from_millis(20);

/// A device that a packet passed: the place, the device's name, and whether it left by it.
pub(super) type Point = (String, String, bool);

/// Source and destination of a packet.
type Ends = (Protocol, SocketAddr, SocketAddr);
/// A packet, whatever addresses and ports it has: no translation changes the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    /// The first one of a connection.
    Opening(Protocol, u32),
    /// One that asks for an echo.
    Ping(u32),
}

/// What sees all packets of a lab's nodes and pods.
pub(super) struct Taps {
    taps: Vec<Tapped>,
    seen: Seen,
}

struct Tapped {
    place: String,
    device: String,
    tap: Tap,
}

/// The first packets of connections, and the requests for echoes, that were counted.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By what they were between two translations.
    by_ends: BTreeMap<Ends, BTreeSet<Identity>>,
    points: BTreeMap<Identity, BTreeSet<Point>>,
}

impl Taps {
    /// From now on, at the devices that there are and are up.
    pub(super) fn open(lab: &Lab) -> Self {
        let of_cluster = |(name, place): &(&String, &Place)| place.node.is_some() || NODES.contains(&name.as_str());
        let taps = lab.places.iter().filter(of_cluster).flat_map(|(name, place)| at(name, place)).collect();
        Self { taps, seen: Seen::default() }
    }

    /// Counts for a while at most.
    pub(super) fn count(&mut self) {
        capture::wait(self.taps.iter().map(|tapped| &tapped.tap), TURN).unwrap();
        for Tapped { place, device, tap } in &mut self.taps {
            // Until nothing waits any more.
            while tap.receive().is_ok() {
                for packet in tap.seen() {
                    let first = first(packet.bytes);
                    let ping = || ping(packet.bytes).map(Identity::Ping);
                    let Some(identity) = first.map(|(_, identity)| identity).or_else(ping) else { continue };
                    if let Some((ends, _)) = first {
                        self.seen.by_ends.entry(ends).or_default().insert(identity);
                    }
                    let point = (place.clone(), device.clone(), packet.outbound);
                    self.seen.points.entry(identity).or_default().insert(point);
                }
            }
        }
    }

    /// All that was counted; panics where not everything was.
    pub(super) fn end(mut self) -> Seen {
        self.count();
        for Tapped { place, device, tap } in &mut self.taps {
            assert_eq!(tap.counts().unwrap().dropped, 0, "{device} of {place}: packets were not looked at");
        }
        self.seen
    }
}

impl Seen {
    /// Where the packets were counted that anywhere had one of these ends.
    pub(super) fn points(&self, ends: impl IntoIterator<Item = Ends>) -> BTreeSet<Point> {
        let identities = ends.into_iter().filter_map(|ends| self.by_ends.get(&ends)).flatten();
        identities.filter_map(|identity| self.points.get(identity)).flatten().cloned().collect()
    }

    /// Where the request for an echo with this number was counted.
    pub(super) fn points_of_ping(&self, number: u16) -> BTreeSet<Point> {
        self.points.get(&Identity::Ping(number.into())).cloned().unwrap_or_default()
    }
}

fn at(name: &str, place: &Place) -> Vec<Tapped> {
    let netns = &place.namespace.netns;
    let links = link::list(&mut RtSocket::open_in(netns).unwrap()).unwrap();
    let up: Vec<String> = links.iter().filter(|link| link.is_up).map(|link| link.name.to_string()).collect();
    let tap = |device: String| match Tap::open(&device, &[], SNAP, ROOM) {
        Ok(tap) => Some(Tapped { place: name.to_owned(), device, tap }),
        // What the kernel makes in each namespace, for tunnels that nobody has.
        Err(TapError::NotEthernet { .. }) => None,
        Err(error) => panic!("{device} of {name}: {error}"),
    };
    netns.run(|| up.into_iter().filter_map(tap).collect()).unwrap()
}

/// What a packet is, where it is the first one of a connection that [`probes`](crate::probes) begins.
fn first(frame: &[u8]) -> Option<(Ends, Identity)> {
    const SYN: u8 = 2;
    const SYN_OR_ACK: u8 = 0x12;
    const INIT: u8 = 1;
    let (source, destination, protocol, segment) = addressed(frame)?;
    let (protocol, number) = match protocol {
        6 if segment.get(13)? & SYN_OR_ACK == SYN => (Protocol::Tcp, word(segment, 4)?),
        17 if segment.get(8..)?.starts_with(GREETING) => (Protocol::Udp, word(segment, 8 + GREETING.len())?),
        132 if *segment.get(12)? == INIT => (Protocol::Sctp, word(segment, 16)?),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
    let (source, destination) = (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?));
    Some(((protocol, source, destination), Identity::Opening(protocol, number)))
}

/// The number of a packet, where it is the request for an echo that [`probes`](crate::probes) sends.
fn ping(frame: &[u8]) -> Option<u32> {
    // ICMP (RFC 792) and ICMPv6 (RFC 4443): protocol and type. The data is behind identifier and sequence number.
    const REQUESTS: [(u8, u8); 2] = [(1, 8), (58, 128)];
    const DATA: usize = 8;
    let (_, _, protocol, message) = addressed(frame)?;
    let is_ours = REQUESTS.contains(&(protocol, *message.first()?)) && message.get(DATA..)?.starts_with(GREETING);
    if is_ours { word(message, DATA + GREETING.len()) } else { None }
}

/// Source and destination of a packet behind its Ethernet header, its protocol, and what is in it.
fn addressed(frame: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let packet = frame.get(14..)?;
    let v4 = |at: usize| Some(IpAddr::V4(Ipv4Addr::from_bits(word(packet, at)?)));
    let v6 = |at: usize| {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            Some((v4(12)?, v4(16)?, *packet.get(9)?, packet.get(header..)?))
        }
        [0x86, 0xdd] => Some((v6(8)?, v6(24)?, *packet.get(6)?, packet.get(40..)?)),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[test]
fn a_first_packet_is_known_by_what_no_translation_changes() {
    let ends = |from: &str, to: &str| (from.parse::<SocketAddr>().unwrap(), to.parse::<SocketAddr>().unwrap());
    let v4 = |protocol: u8, segment: &[u8]| {
        let mut frame = [&[0; 12][..], &[8, 0], &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]].concat();
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(segment);
        frame
    };
    let ports = [0x82, 0x35, 0, 80];
    let tcp = |flags: u8| [&ports[..], &[0, 0, 0, 9], &[0; 4], &[0x50, flags], &[0; 6]].concat();
    let (source, destination) = ends("10.0.0.1:33333", "10.0.0.2:80");
    let found = first(&v4(6, &tcp(2)));
    assert_eq!(found, Some(((Protocol::Tcp, source, destination), Identity::Opening(Protocol::Tcp, 9))));
    assert_eq!(first(&v4(6, &tcp(0x12))), None, "the answer");
    let udp = |payload: &[u8]| [&ports[..], &[0; 4], payload, &[0, 0, 0, 9]].concat();
    let found = first(&v4(17, &udp(GREETING)));
    assert_eq!(found, Some(((Protocol::Udp, source, destination), Identity::Opening(Protocol::Udp, 9))));
    assert_eq!(first(&v4(17, &udp(b"other"))), None);
    let sctp = |kind: u8| [&ports[..], &[0; 8], &[kind, 0, 0, 20], &[0, 0, 0, 9]].concat();
    let mut six = [&[0; 12][..], &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 0, 132, 64]].concat();
    six.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
    six.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
    let (source, destination) = ends("[fd00::1]:33333", "[fd00::2]:80");
    let found = first(&[six.clone(), sctp(1)].concat());
    assert_eq!(found, Some(((Protocol::Sctp, source, destination), Identity::Opening(Protocol::Sctp, 9))));
    assert_eq!(first(&[six.clone(), sctp(2)].concat()), None, "the answer");
    let echo = |kind: u8, data: &[u8]| [&[kind, 0, 0, 0, 0x82, 0x35, 0, 1][..], data, &[0, 0, 0, 9]].concat();
    let request = v4(1, &echo(8, GREETING));
    assert_eq!((ping(&request), first(&request)), (Some(9), None));
    assert_eq!(ping(&v4(1, &echo(0, GREETING))), None, "the answer");
    assert_eq!(ping(&v4(1, &echo(8, b"other"))), None);
    six[20] = 58;
    let [request, reply] = [128, 129].map(|kind| [six.clone(), echo(kind, GREETING)].concat());
    assert_eq!([request, reply].map(|frame| ping(&frame)), [Some(9), None]);
}
