//! The packet of a probe: its headers in full (RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 9260, RFC 792, RFC 4443).

use std::net::{IpAddr, SocketAddr};

use super::{Probe, ProbeProtocol};

/// Routers that it passes at most.
const HOPS: u8 = 64;
/// `SYN` alone.
const SYN: u8 = 2;
/// What the sender of a SYN says it has room for.
const WINDOW: u16 = 64_240;
/// What the sender of an INIT says it has room for, in bytes.
const ROOM: u32 = 65_536;
/// An INIT chunk (RFC 9260, section 3.3.2), and its length in bytes.
const INIT: u8 = 1;
const INIT_LENGTH: u16 = 20;
/// A parameter that fills an INIT up and means nothing (RFC 4820, section 3), and its own header in bytes.
const PAD: u16 = 0x8005;
const PAD_HEADER: u16 = 4;
/// A request for an echo, of ICMP and of ICMPv6.
const ECHO: [u8; 2] = [8, 128];
/// Behind the mark of a datagram and of an echo: whoever finds it in a log knows what it was.
const TEXT: &[u8] = b" podnet trace --live";

impl Probe {
    /// Acknowledges the probe of TCP.
    pub(super) const fn acknowledged(self) -> u32 {
        self.sequence().wrapping_add(1)
    }

    /// The sequence number of the probe of TCP.
    pub(super) const fn sequence(self) -> u32 {
        self.mark as u32
    }

    /// The tag of the probe of SCTP, which is never 0.
    pub(super) const fn tag(self) -> u32 {
        match self.mark as u32 {
            0 => 1,
            tag => tag,
        }
    }

    /// The whole packet, its IP header first; none where the addresses are of two families.
    #[must_use]
    pub fn packet(self, source: SocketAddr, destination: SocketAddr) -> Option<Vec<u8>> {
        self.packet_of(source, destination, 0)
    }

    /// The same, filled up with zeros to `size` bytes where it is shorter, and never to be taken apart on its way: so it comes through where
    /// packets of this size do. One of SCTP may be up to 3 bytes shorter. Data with a SYN is nothing to a kernel that did not ask for it (RFC
    /// 9293, section 3.4).
    #[must_use]
    pub fn packet_of(self, source: SocketAddr, destination: SocketAddr, size: u16) -> Option<Vec<u8>> {
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let header = if source.is_ipv4() { 20 } else { 40 };
        let room = size.saturating_sub(header);
        let (mut segment, checksum_at) = match self.protocol {
            ProbeProtocol::Tcp => (self.syn(ports, room), Some(16)),
            ProbeProtocol::Udp => (self.datagram(ports, room), Some(6)),
            // Of the addresses it knows nothing.
            ProbeProtocol::Sctp => (self.init(ports, room), None),
            ProbeProtocol::Icmp => (self.echo(source.is_ipv6(), room), Some(2)),
        };
        let protocol = self.protocol.number(source.is_ipv6());
        let length = u16::try_from(segment.len()).ok()?;
        let (mut packet, addrs) = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let addrs = [from.octets(), to.octets()].concat();
                (v4(protocol, length, &addrs), addrs)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let addrs = [from.octets(), to.octets()].concat();
                (v6(protocol, length, &addrs), addrs)
            }
            _ => return None,
        };
        if let Some(at) = checksum_at {
            // The pseudo header, whose length and protocol add up to the same in both families; ICMP of IPv4 has none.
            let pseudo = match (self.protocol, source) {
                (ProbeProtocol::Icmp, SocketAddr::V4(_)) => Vec::new(),
                _ => [&addrs[..], &length.to_be_bytes(), &[0, protocol]].concat(),
            };
            let sum = match checksum(&[&pseudo, &segment]) {
                // Of a datagram that would mean that there is none; to others both are the same.
                0 => u16::MAX,
                sum => sum,
            };
            segment.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
        }
        packet.extend(segment);
        Some(packet)
    }

    fn syn(self, mut segment: Vec<u8>, room: u16) -> Vec<u8> {
        segment.extend(self.sequence().to_be_bytes());
        segment.extend([0; 4]);
        // Five words of header.
        segment.extend([5 << 4, SYN]);
        segment.extend(WINDOW.to_be_bytes());
        segment.extend([0; 4]);
        fill(&mut segment, room);
        segment
    }

    /// With its checksum.
    fn init(self, mut packet: Vec<u8>, room: u16) -> Vec<u8> {
        // The common header and the chunk; what is left is filled in words.
        let left = room.saturating_sub(12 + INIT_LENGTH) / 4 * 4;
        // There is no tag of the other side yet.
        packet.extend([0; 8]);
        packet.extend([INIT, 0]);
        packet.extend((INIT_LENGTH + left).to_be_bytes());
        packet.extend(self.tag().to_be_bytes());
        packet.extend(ROOM.to_be_bytes());
        // One stream each way.
        packet.extend([0, 1, 0, 1]);
        packet.extend(self.tag().to_be_bytes());
        if left >= PAD_HEADER {
            packet.extend(PAD.to_be_bytes());
            packet.extend(left.to_be_bytes());
            fill(&mut packet, 12 + INIT_LENGTH + left);
        }
        let sum = crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&sum);
        packet
    }

    fn datagram(self, mut datagram: Vec<u8>, room: u16) -> Vec<u8> {
        let mut payload = [&self.mark.to_be_bytes()[..], TEXT].concat();
        fill(&mut payload, room.saturating_sub(8));
        let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
        datagram.extend(length.to_be_bytes());
        datagram.extend([0; 2]);
        datagram.extend(payload);
        datagram
    }

    /// Translation gives it another identifier, and leaves its data alone.
    fn echo(self, is_v6: bool, room: u16) -> Vec<u8> {
        let mut message = vec![ECHO[usize::from(is_v6)], 0, 0, 0];
        message.extend((self.mark as u16).to_be_bytes());
        // The first of its kind.
        message.extend([0, 1]);
        message.extend(self.mark.to_be_bytes());
        message.extend(TEXT);
        fill(&mut message, room);
        message
    }
}

/// With zeros, to so many bytes.
fn fill(bytes: &mut Vec<u8>, size: u16) {
    bytes.resize(bytes.len().max(usize::from(size)), 0);
}

fn v4(protocol: u8, length: u16, addrs: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + length).to_be_bytes());
    // Not to be taken apart.
    header.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    header.extend(addrs);
    let sum = checksum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

fn v6(protocol: u8, length: u16, addrs: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([protocol, HOPS]);
    header.extend(addrs);
    header
}

/// RFC 9260, appendix A, bit by bit: a probe has 32 bytes, or those of one packet.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    /// The polynomial of Castagnoli, its bits the other way round.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// RFC 1071, of parts of which all but the last one have an even number of bytes.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| (u32::from(word[0]) << 8) + word.get(1).copied().map_or(0, u32::from)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
