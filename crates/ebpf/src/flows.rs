//! Counting flows at pods' interfaces; see `bpf/flows.h`. What stands in the maps, byte for byte.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The compiled programs that count: an ELF object.
pub const OBJECT: &[u8] = {
    // Where an ELF object is read in place, its parts have to be aligned.
    #[repr(C, align(8))]
    struct Aligned<T: ?Sized>(T);
    const ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/flows.o")));
    &ALIGNED.0
};

/// The fast path's programs ([`crate::fastpath`]), which count what they lead to pods.
pub const FASTPATH_OBJECT: &[u8] = {
    #[repr(C, align(8))]
    struct Aligned<T: ?Sized>(T);
    const ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/fastpath-flows.o")));
    &ALIGNED.0
};

/// At the ingress of the node's end of a pod's link: counts what the pod sends.
pub const OUT: &str = "podnet_seen_out";
/// At its egress: counts what comes to the pod.
pub const IN: &str = "podnet_seen_in";

/// The map of entries, from [`Key`] to [`Counted`].
pub const ENTRIES: &str = "flow_entries";
/// The ring of bells ([`Bell`]).
pub const BELLS: &str = "flow_bells";
/// The map of what found no room, from a device's index ([`u32`]) to [`Missed`].
pub const MISSED: &str = "flow_missed";
/// The map of marks of flows that found no room and that no protocol opens, from a device's index ([`u32`]) to 65,536 bits ([`marked`]).
pub const MARKS: &str = "flow_marks";
/// The map of what these begin as.
pub const BLANK: &str = "flow_blank";
/// The map of ranges ([`range`]) that may be pods'.
pub const RANGES: &str = "flow_ranges";
/// The map of two numbers ([`u64`]): whether only flows to [`RANGES`] count; how many bells found no room.
pub const SETTINGS: &str = "flow_settings";
/// What sockets speak with through Services: maps of the programs at sockets ([`crate::sockets`]), where there are such programs.
pub const ASKED: [&str; 2] = [crate::sockets::CONNECTED, crate::sockets::SPOKEN];
/// The map of entries in the making.
pub const FRESH: &str = "flow_fresh";
/// The map of what first fragments of datagrams showed of later ones.
pub const FRAGMENTS: &str = "flow_fragments";

/// The bytes of a number that is in there.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// `struct flow_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The index of the node's end of the pod's link.
    pub device: u32,
    /// The pod's address.
    pub local: IpAddr,
    /// Its peer's.
    pub remote: IpAddr,
    /// The pod's port; of ICMP an echo's identifier.
    pub local_port: u16,
    /// Its peer's; of ICMP the type.
    pub remote_port: u16,
    /// The protocol's number (IANA).
    pub protocol: u8,
}

impl Key {
    /// Its length in a map.
    pub const SIZE: usize = 44;

    /// As it stands in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.device.to_le_bytes());
        bytes[4..20].copy_from_slice(&octets(self.local));
        bytes[20..36].copy_from_slice(&octets(self.remote));
        bytes[36..38].copy_from_slice(&self.local_port.to_be_bytes());
        bytes[38..40].copy_from_slice(&self.remote_port.to_be_bytes());
        bytes[40] = self.protocol;
        bytes
    }

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            device: u32::from_le_bytes(number(bytes, 0)),
            local: Ipv6Addr::from(number::<16>(bytes, 4)).to_canonical(),
            remote: Ipv6Addr::from(number::<16>(bytes, 20)).to_canonical(),
            local_port: u16::from_be_bytes(number(bytes, 36)),
            remote_port: u16::from_be_bytes(number(bytes, 38)),
            protocol: bytes[40],
        }
    }
}

/// `struct way`: one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
    /// Segments that were sent again.
    pub retransmissions: u32,
    /// Segments with RST.
    pub resets: u32,
    /// All flags of TCP that were seen.
    pub flags: u8,
}

impl Way {
    const SIZE: usize = 32;

    fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            packets: u64::from_le_bytes(number(bytes, 0)),
            bytes: u64::from_le_bytes(number(bytes, 8)),
            retransmissions: u32::from_le_bytes(number(bytes, 20)),
            resets: u32::from_le_bytes(number(bytes, 24)),
            flags: bytes[28],
        }
    }
}

/// An error of ICMP about a packet of who began a flow, since which none was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its type (RFC 792; RFC 4443, section 3).
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Whom the packet was for sent it, and nobody on the way.
    pub by_destination: bool,
}

impl Error {
    /// `ERROR_BY_DESTINATION` in `bpf/flows.h`.
    const BY_DESTINATION: u8 = 1;

    /// Who sent it is 0 where there is none.
    fn from_bytes([by, kind, code]: [u8; 3]) -> Option<Self> {
        (by != 0).then_some(Self { kind, code, by_destination: by & Self::BY_DESTINATION != 0 })
    }
}

/// `struct counted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The first packet, in ns of `CLOCK_MONOTONIC`.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// From the pod.
    pub out: Way,
    /// To the pod.
    pub into: Way,
    /// How long TCP's handshake took, in µs; 0: not seen.
    pub handshake: u32,
    /// The pod's peer began it.
    pub remote_began: bool,
    /// The protocol said that it is over.
    pub ended: bool,
    /// The frontend of a Service that the pod's socket asked for, where the backend was chosen there.
    pub asked: Option<SocketAddr>,
    /// The last error about it, unless it was answered since.
    pub error: Option<Error>,
}

impl Counted {
    /// Its length in a map.
    pub const SIZE: usize = 120;

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            first: u64::from_le_bytes(number(bytes, 0)),
            last: u64::from_le_bytes(number(bytes, 8)),
            out: Way::from_bytes(&number(bytes, 24)),
            into: Way::from_bytes(&number(bytes, 56)),
            handshake: u32::from_le_bytes(number(bytes, 88)),
            remote_began: bytes[92] != 0,
            ended: bytes[93] != 0,
            asked: Some(SocketAddr::new(
                Ipv6Addr::from(number::<16>(bytes, 96)).to_canonical(),
                u16::from_be_bytes(number(bytes, 112)),
            ))
            .filter(|asked| asked.port() != 0),
            error: Error::from_bytes(number(bytes, 114)),
        }
    }
}

/// What a bell tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// The protocol said that it is over.
    Ended,
    /// It is out of the map: another of its key took its place.
    Replaced,
}

/// `struct bell`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bell {
    /// What it tells of.
    pub rung: Rung,
    /// The entry.
    pub key: Key,
    /// Its counters as it rang.
    pub counted: Counted,
}

impl Bell {
    /// Its length in the ring.
    pub const SIZE: usize = 168;

    /// From what stands in the ring; none where it is no bell.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let rung = match u32::from_le_bytes(number(bytes, 0)) {
            1 => Rung::Ended,
            2 => Rung::Replaced,
            _ => return None,
        };
        Some(Self { rung, key: Key::from_bytes(&number(bytes, 4)), counted: Counted::from_bytes(&number(bytes, 48)) })
    }
}

/// `struct missed`: what is in no entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections of TCP that were opened; also those that were counted, as one with the one before from the same port.
    pub connections: u64,
}

impl Missed {
    /// Its length in a map.
    pub const SIZE: usize = 24;

    /// As it stands in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        for (at, number) in [(0, self.packets), (8, self.bytes), (16, self.connections)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [packets, bytes, connections] = [0, 8, 16].map(|at| u64::from_le_bytes(number(bytes, at)));
        Self { packets, bytes, connections }
    }
}

/// Length of the marks of a device.
pub const MARKS_SIZE: usize = 8192;

/// About how many flows have made these marks: each sets one of all bits, by chance, that may be set already. It is right within some hundredths up
/// to 400,000; where fewer bits are left than these leave (150) it tells fewer than there were, and never more than 726,817.
#[must_use]
pub fn marked(marks: &[u8; MARKS_SIZE]) -> u64 {
    const BITS: u32 = 8 * MARKS_SIZE as u32;
    let set: u32 = marks.iter().map(|byte| byte.count_ones()).sum();
    // What is left of as many as there are, where each goes by chance: clear = bits · e^(-flows / bits).
    let clear = BITS.saturating_sub(set).max(1);
    let bits = f64::from(BITS);
    (bits * (bits / f64::from(clear)).ln()).round() as u64
}

/// `struct range`, by its address and the length of its prefix in that family.
#[must_use]
pub fn range(addr: IpAddr, length: u8) -> [u8; 20] {
    let length = if addr.is_ipv4() { u32::from(length) + 96 } else { length.into() };
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..].copy_from_slice(&octets(addr));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for (local, remote) in [("10.0.0.1", "192.0.2.1"), ("2001:db8::1", "::1")] {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            let key = Key { device: 70_000, local, remote, local_port: 40_000, remote_port: 443, protocol: 6 };
            assert_eq!(Key::from_bytes(&key.to_bytes()), key);
        }
        let missed = Missed { packets: 1 << 40, bytes: 2, connections: 3 };
        assert_eq!(Missed::from_bytes(&missed.to_bytes()), missed);
    }

    #[test]
    fn an_error_stands_behind_the_frontend_and_older_programs_left_none() {
        let mut bytes = [0; Counted::SIZE];
        bytes[113] = 80;
        let asked = Some("[::]:80".parse().unwrap());
        let read = |bytes: &[u8; Counted::SIZE]| (Counted::from_bytes(bytes).asked, Counted::from_bytes(bytes).error);
        assert_eq!(read(&bytes), (asked, None));
        for (by, by_destination) in [(1, true), (2, false), (6, false)] {
            bytes[114..117].copy_from_slice(&[by, 3, 4]);
            assert_eq!(read(&bytes), (asked, Some(Error { kind: 3, code: 4, by_destination })));
        }
    }

    #[test]
    fn marks_tell_how_many_made_them_within_some_hundredths() {
        let mut marks = [0; MARKS_SIZE];
        assert_eq!(marked(&marks), 0);
        // As chance would have it, and the same each time (splitmix64).
        let mut state = 0_u64;
        let mut bit = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ mixed >> 31) % (8 * MARKS_SIZE as u64)).unwrap()
        };
        let mut made = 0;
        for count in [1, 100, 5000, 40_000, 400_000_u64] {
            while made < count {
                let at = bit();
                marks[at / 8] |= 1 << (at % 8);
                made += 1;
            }
            let told = marked(&marks);
            assert!(told.abs_diff(count) * 50 <= count, "{told} of {count}");
        }
        assert_eq!(marked(&[0xff; MARKS_SIZE]), 726_817);
    }

    #[test]
    fn the_kernel_keeps_the_names_whole() {
        let names = [OUT, IN, ENTRIES, BELLS, MISSED, MARKS, BLANK, RANGES, SETTINGS, FRESH, FRAGMENTS];
        assert!(names.iter().all(|name| name.len() <= 15));
    }
}
