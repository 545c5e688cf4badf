//! What a packet is to a probe: roughly in the kernel, exactly here.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use podnet_model::Protocol;

use super::{Found, Framing, ICMP_V4, ICMP_V6, Kind, Probe, ProbeProtocol, SNAP, Tunnel};
use crate::capture::Instruction;

/// Of a classic filter (`linux/filter.h`): load a word, compare the word that was loaded, answer.
const LOAD: u16 = 0x20;
const COMPARE: u16 = 0x15;
const ANSWER: u16 = 0x06;

const ETHERNET: u32 = 14;
/// Headers of IP, of both families. Neither probes nor tunnels have options.
const IP: [u32; 2] = [20, 40];
const ICMP: u32 = 8;
/// What may be between the link's header and the packet's own: nothing, IPIP, flannel's datagrams, VXLAN over both families (IP, UDP, VXLAN,
/// Ethernet).
const CARRIED: [u32; 5] = [0, 20, 28, 50, 70];

const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;
const VLAN: [u8; 2] = [0x81, 0];
const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// RFC 7348, section 5: the identifier is valid.
const VXLAN_FLAGS: u8 = 8;

/// The headers of a packet that were read, and what is behind them.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &'a [u8],
}

impl Probe {
    /// Lets packets through that have the mark where it can be, in [`SNAP`] bytes, and none else but by chance. Packets of VLANs are seen by
    /// filters without their tag.
    #[must_use]
    pub fn filter(self, framing: Framing) -> Vec<Instruction> {
        let link = if framing == Framing::Ethernet { ETHERNET } else { 0 };
        let mut program = Vec::new();
        let mut places: Vec<_> = headers()
            .into_iter()
            .flat_map(|header| self.words().into_iter().map(move |words| (header, words)))
            .collect();
        // A load beyond a packet's end ends the filter: what is further behind comes later.
        places.sort_by_key(|(header, words)| words.last().map(|(at, _)| header + at));
        for (header, words) in places {
            let mut left = words.len();
            for (at, word) in words {
                left -= 1;
                program.push(Instruction(LOAD, 0, 0, link + header + at));
                // Past the words behind this one, and past the answer.
                program.push(Instruction(COMPARE, 0, 2 * left as u8 + 1, word));
            }
            program.push(Instruction(ANSWER, 0, 0, SNAP));
        }
        program.push(Instruction(ANSWER, 0, 0, 0));
        program
    }

    /// Where behind the beginning of a transport header which words stand, in each of the ways that a packet can be meant.
    fn words(self) -> Vec<Vec<(u32, u32)>> {
        match self.protocol {
            ProbeProtocol::Tcp => vec![vec![(4, self.sequence())], vec![(8, self.acknowledged())]],
            // Headers of eight bytes, and the mark behind.
            ProbeProtocol::Udp | ProbeProtocol::Icmp => {
                vec![vec![(8, (self.mark >> 32) as u32), (12, self.mark as u32)]]
            }
            ProbeProtocol::Sctp => vec![vec![(16, self.tag())], vec![(4, self.tag())]],
        }
    }

    /// What a packet is; none where it has nothing to do with the probe. It may be cut off.
    #[must_use]
    pub fn recognise(self, framing: Framing, frame: &[u8]) -> Option<Found> {
        let packet = match framing {
            Framing::Ethernet => ethernet(frame)?,
            Framing::Bare => frame,
        };
        self.look(&ip(packet)?, None)
    }

    fn look(self, packet: &Packet<'_>, within: Option<Tunnel>) -> Option<Found> {
        if let Some((kind, source, destination)) = self.judge(packet) {
            let [source, destination] =
                [(packet.source, source), (packet.destination, destination)].map(SocketAddr::from);
            return Some(Found { kind, source, destination, within });
        }
        // No tunnel is in a tunnel.
        if within.is_some() {
            return None;
        }
        let (tunnel, carried) = match packet.protocol {
            IPIP | IPV6_IN => (Tunnel::Ipip, packet.payload),
            number if number == Protocol::Udp.number() => match packet.payload.get(8..)? {
                [VXLAN_FLAGS, ..] => (Tunnel::Vxlan, ethernet(packet.payload.get(16..)?)?),
                carried => (Tunnel::Udp, carried),
            },
            _ => return None,
        };
        self.look(&ip(carried)?, Some(tunnel))
    }

    /// What it is to the probe, with its ports.
    fn judge(self, packet: &Packet<'_>) -> Option<(Kind, u16, u16)> {
        match packet.protocol {
            ICMP_V4 if matches!(packet.payload.first()?, 3 | 11 | 12) => self.quoted(packet),
            ICMP_V6 if matches!(packet.payload.first()?, 1..=4) => self.quoted(packet),
            number if number == self.protocol.number(packet.source.is_ipv6()) => {
                if self.protocol == ProbeProtocol::Icmp {
                    return Some((self.own_echo(packet.payload)?, 0, 0));
                }
                let [source, destination] = [0, 2].map(|at| half(packet.payload, at));
                Some((self.own(packet.payload)?, source?, destination?))
            }
            _ => None,
        }
    }

    fn own(self, header: &[u8]) -> Option<Kind> {
        match self.protocol {
            ProbeProtocol::Tcp => self.own_tcp(header),
            ProbeProtocol::Udp => self.is_marked(header).then_some(Kind::Probe),
            ProbeProtocol::Sctp => self.own_sctp(header),
            ProbeProtocol::Icmp => self.own_echo(header),
        }
    }

    /// Behind a header of eight bytes.
    fn is_marked(self, header: &[u8]) -> bool {
        header.get(8..16).is_some_and(|mark| mark == self.mark.to_be_bytes())
    }

    /// The types of both families are different ones.
    fn own_echo(self, message: &[u8]) -> Option<Kind> {
        match message.first()? {
            8 | 128 if self.is_marked(message) => Some(Kind::Probe),
            0 | 129 if self.is_marked(message) => Some(Kind::Accepted),
            _ => None,
        }
    }

    /// By its first chunk: none of these shares a packet with another one.
    fn own_sctp(self, header: &[u8]) -> Option<Kind> {
        /// Types of chunks (RFC 9260, section 3.2).
        const INIT: u8 = 1;
        const INIT_ACK: u8 = 2;
        const ABORT: u8 = 6;
        /// A flag of ABORT: its tag is that of the packet that it is about. So the sender's own kernel aborts what an answer of INIT ACK begins, as
        /// nobody waits for that there (section 8.4); an INIT is never refused by it.
        const REFLECTED: u8 = 1;
        let (tag, chunk, flags) = (word(header, 4)?, *header.get(12)?, *header.get(13)?);
        if tag == 0 && chunk == INIT && word(header, 16)? == self.tag() {
            return Some(Kind::Probe);
        }
        match chunk {
            INIT_ACK if tag == self.tag() => Some(Kind::Accepted),
            ABORT if tag == self.tag() && flags & REFLECTED == 0 => Some(Kind::Refused),
            _ => None,
        }
    }

    fn own_tcp(self, header: &[u8]) -> Option<Kind> {
        /// Flags of RFC 9293, section 3.1.
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        let flags = *header.get(13)?;
        let has = |flag: u8| flags & flag != 0;
        if has(SYN) && !has(ACK) && word(header, 4)? == self.sequence() {
            return Some(Kind::Probe);
        }
        if !has(ACK) || word(header, 8)? != self.acknowledged() {
            return None;
        }
        if has(RST) {
            return Some(Kind::Refused);
        }
        has(SYN).then_some(Kind::Accepted)
    }

    /// An error quotes what it is about; eight bytes behind the IP header are all that it has to.
    fn quoted(self, error: &Packet<'_>) -> Option<(Kind, u16, u16)> {
        let about = ip(error.payload.get(ICMP as usize..)?)?;
        let is_it = match self.protocol {
            _ if about.protocol != self.protocol.number(about.source.is_ipv6()) => false,
            ProbeProtocol::Tcp => word(about.payload, 4)? == self.sequence(),
            // Of SCTP, and of datagrams' and echoes' data, the kernel quotes more than it has to.
            ProbeProtocol::Udp | ProbeProtocol::Sctp | ProbeProtocol::Icmp => {
                self.own(about.payload) == Some(Kind::Probe)
            }
        };
        is_it.then_some((Kind::Error, 0, 0))
    }
}

/// Where transport headers can begin behind the link's, the first one first.
fn headers() -> BTreeSet<u32> {
    let carried = CARRIED.into_iter().flat_map(|carried| IP.map(|ip| (carried, ip)));
    carried.flat_map(|(carried, ip)| [carried + ip, carried + ip + ICMP + ip]).collect()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What is in a frame of IP, behind tags of VLANs.
fn ethernet(frame: &[u8]) -> Option<&[u8]> {
    let (mut kind, mut rest) = frame.get(12..)?.split_first_chunk::<2>()?;
    while *kind == VLAN {
        (kind, rest) = rest.get(2..)?.split_first_chunk::<2>()?;
    }
    matches!(*kind, IPV4 | IPV6).then_some(rest)
}

fn ip(bytes: &[u8]) -> Option<Packet<'_>> {
    let first = *bytes.first()?;
    match first >> 4 {
        4 => {
            let addr = |at: usize| Some(IpAddr::V4(Ipv4Addr::from_bits(word(bytes, at)?)));
            let header = usize::from(first & 15) * 4;
            Some(Packet {
                source: addr(12)?,
                destination: addr(16)?,
                protocol: *bytes.get(9)?,
                payload: bytes.get(header.max(20)..)?,
            })
        }
        6 => {
            let addr = |at: usize| {
                let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            };
            Some(Packet {
                source: addr(8)?,
                destination: addr(24)?,
                protocol: *bytes.get(6)?,
                payload: bytes.get(40..)?,
            })
        }
        _ => None,
    }
}
