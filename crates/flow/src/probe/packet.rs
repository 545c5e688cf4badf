//! The packet of a probe: its headers in full (RFC 791, RFC 8200, RFC 9293, RFC 768).

use std::net::{IpAddr, SocketAddr};

use podnet_model::Protocol;

use super::Probe;

/// Routers that it passes at most.
const HOPS: u8 = 64;
/// `SYN` alone.
const SYN: u8 = 2;
/// What the sender of a SYN says it has room for.
const WINDOW: u16 = 64_240;
/// Behind the mark of a datagram: whoever finds it in a log knows what it was.
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

    /// The whole packet, its IP header first; none where the addresses are of two families.
    #[must_use]
    pub fn packet(self, source: SocketAddr, destination: SocketAddr) -> Option<Vec<u8>> {
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let (mut segment, checksum_at) = match self.protocol {
            Protocol::Tcp => (self.syn(ports), 16),
            Protocol::Udp | Protocol::Sctp => (self.datagram(ports), 6),
        };
        let protocol = self.protocol.number();
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
        // The pseudo header, whose length and protocol add up to the same in both families.
        let pseudo = [&addrs[..], &length.to_be_bytes(), &[0, protocol]].concat();
        let sum = match checksum(&[&pseudo, &segment]) {
            // Of a datagram that would mean that there is none.
            0 => u16::MAX,
            sum => sum,
        };
        segment.get_mut(checksum_at..checksum_at + 2)?.copy_from_slice(&sum.to_be_bytes());
        packet.extend(segment);
        Some(packet)
    }

    fn syn(self, mut segment: Vec<u8>) -> Vec<u8> {
        segment.extend(self.sequence().to_be_bytes());
        segment.extend([0; 4]);
        // Five words of header.
        segment.extend([5 << 4, SYN]);
        segment.extend(WINDOW.to_be_bytes());
        segment.extend([0; 4]);
        segment
    }

    fn datagram(self, mut datagram: Vec<u8>) -> Vec<u8> {
        let payload = [&self.mark.to_be_bytes()[..], TEXT].concat();
        let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
        datagram.extend(length.to_be_bytes());
        datagram.extend([0; 2]);
        datagram.extend(payload);
        datagram
    }
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

/// RFC 1071, of parts of which all but the last one have an even number of bytes.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| (u32::from(word[0]) << 8) + word.get(1).copied().map_or(0, u32::from)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
