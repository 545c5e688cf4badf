//! SCTP without sockets of SCTP, which few kernels have at hand: the first packets of an association (RFC 9260), through raw sockets.
//!
//! A client sends INIT, and what hears it answers with INIT ACK, which holds in a parameter what it saw. Connection tracking sees the
//! beginning of an association, with check sums that are right.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Instant,
};

use rustix::net::RawProtocol;

use crate::{listeners::Sight, probes::send_unless_dropped_here, raw};

/// `IPPROTO_SCTP`.
const SCTP: RawProtocol = RawProtocol::new(132).expect("not zero");
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Common header, chunk header, and the fixed part of INIT and INIT ACK.
const FIXED: usize = 12 + 4 + 16;
/// A parameter that whoever does not know it skips (RFC 9260, section 3.2.1).
const SIGHT: u16 = 0xbfff;

/// Hears the packets of SCTP that come to an address.
pub(crate) fn listener(addr: IpAddr) -> io::Result<UdpSocket> {
    let socket = raw::socket(addr, SCTP)?;
    rustix::net::bind(&socket, &SocketAddr::new(addr, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Answers an INIT; anything else is nothing to a listener.
pub(crate) fn answer(socket: &UdpSocket, addr: IpAddr, source: IpAddr, packet: &[u8]) -> io::Result<()> {
    let Some((source_port, port, tag, _)) = parse(raw::payload(addr, packet), INIT) else { return Ok(()) };
    let sight = Sight { at: SocketAddr::new(addr, port), source: SocketAddr::new(source, source_port) };
    let answer = packet_of(INIT_ACK, [port, source_port], [tag, 7], sight.to_text().as_bytes());
    socket.send_to(&answer, (source, 0)).map(drop)
}

/// Sends INIT from a port and waits until `deadline` for who answers. A refusal is heard by all who wait for the same address, whatever
/// port it is of: no row that arrives can have the addresses of one that is refused.
///
/// # Errors
/// Of the kind [`ErrorKind::ConnectionRefused`] where ICMP says so, [`ErrorKind::TimedOut`] where nobody says anything.
pub(crate) fn open(from_port: u16, to: SocketAddr, deadline: Instant) -> io::Result<Sight> {
    let socket = raw::socket(to.ip(), SCTP)?;
    socket.connect((to.ip(), 0))?;
    let init = packet_of(INIT, [from_port, to.port()], [0, from_port.into()], &[]);
    send_unless_dropped_here(|| socket.send(&init))?;
    // The socket gets all that comes from there, for whatever port.
    let answer = raw::await_packet(&socket, to.ip(), deadline, |packet| {
        let (port, own_port, _, rest) = parse(packet, INIT_ACK)?;
        ((port, own_port) == (to.port(), from_port)).then(|| sight(rest))
    })?;
    answer.ok_or_else(|| io::Error::other("an INIT ACK that says nothing"))
}

/// Source port, destination port, initiate tag and parameters of a packet whose chunk is of that type.
fn parse(packet: &[u8], kind: u8) -> Option<(u16, u16, u32, &[u8])> {
    let number = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let tag = u32::from_be_bytes(packet.get(16..20)?.try_into().ok()?);
    let parameters = packet.get(FIXED..)?;
    (packet.get(12)? == &kind).then_some((number(0)?, number(2)?, tag, parameters))
}

fn sight(parameters: &[u8]) -> Option<Sight> {
    let (kind, length) = (parameters.get(..2)?, parameters.get(2..4)?);
    let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
    (kind == SIGHT.to_be_bytes()).then(|| Sight::parse(parameters.get(4..length)?))?
}

/// `peer_tag` is what the receiver knows the association by: none in an INIT. `own_tag` is what the sender does: that of an INIT is its port.
fn packet_of(kind: u8, [source_port, port]: [u16; 2], [peer_tag, own_tag]: [u32; 2], text: &[u8]) -> Vec<u8> {
    /// Receive window, streams out and in, first sequence number.
    const FIXED_PART: [u8; 12] = [0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1];
    let parameter = if text.is_empty() { 0 } else { 4 + text.len() };
    let length = |value: usize| u16::try_from(value).expect("a short packet").to_be_bytes();
    let mut packet = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    packet.extend(peer_tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([kind, 0]);
    packet.extend(length(8 + FIXED_PART.len() + parameter));
    packet.extend(own_tag.to_be_bytes());
    packet.extend(FIXED_PART);
    if !text.is_empty() {
        packet.extend(SIGHT.to_be_bytes());
        packet.extend(length(parameter));
        packet.extend(text);
    }
    packet.resize(packet.len().next_multiple_of(4), 0);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// CRC32c (RFC 9260, appendix A), bit by bit: packets are few and short.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), shift))
}

#[test]
fn the_check_sum_is_the_one_of_the_rfc() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
