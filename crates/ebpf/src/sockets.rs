//! Services at the socket; see `bpf/sockets.c`. What stands in the maps, byte for byte.

use std::net::{IpAddr, Ipv6Addr};

use crate::flows::number;

/// The compiled programs: an ELF object.
pub const OBJECT: &[u8] = {
    // Where an ELF object is read in place, its parts have to be aligned.
    #[repr(C, align(8))]
    struct Aligned<T: ?Sized>(T);
    const ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sockets.o")));
    &ALIGNED.0
};

/// A program, and where it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name of its function; the kernel keeps 15 characters of a name.
    pub name: &'static str,
    /// `enum bpf_attach_type`.
    pub hook: u32,
    /// It chooses backends, and does not only tell which frontend a backend was chosen for.
    pub chooses: bool,
}

/// All programs. Those that tell come first, so that nothing is chosen that cannot be told.
pub const PROGRAMS: [Program; 9] = [
    Program { name: "podnet_release", hook: 34, chooses: false },
    Program { name: "podnet_recvmsg4", hook: 19, chooses: false },
    Program { name: "podnet_recvmsg6", hook: 20, chooses: false },
    Program { name: "podnet_peer4", hook: 29, chooses: false },
    Program { name: "podnet_peer6", hook: 30, chooses: false },
    Program { name: "podnet_sendmsg4", hook: 14, chooses: true },
    Program { name: "podnet_sendmsg6", hook: 15, chooses: true },
    Program { name: "podnet_connect4", hook: 10, chooses: true },
    Program { name: "podnet_connect6", hook: 11, chooses: true },
];

/// The map from frontends ([`Place`]) to their backends ([`Frontend`]).
pub const FRONTENDS: &str = "frontends";
/// The map from [`Slot`] to a backend's [`Place`].
pub const BACKENDS: &str = "backends";
/// The map of which backend a client stays with.
pub const STAYS: &str = "stays";
/// What a socket is connected to: kept at the socket; the value begins with the frontend's [`Place`], then the backend's.
pub const CONNECTED: &str = "connected";
/// What a socket of UDP speaks with otherwise: kept at the socket.
pub const SPOKEN: &str = "spoken";
/// The map of sockets of UDP that are connected through frontends, by their cookies ([`u64`]); the value is that of [`CONNECTED`].
pub const CONNECTED_UDP: &str = "connected_udp";
/// The map of one number ([`u64`]): how many sockets were connected that are not known when their backend goes, as there was no room for them.
pub const UNFOLLOWED: &str = "unfollowed";
/// The map of one number ([`u64`]): the cookie of the node's own namespace.
pub const SETTINGS: &str = "settings";

/// The map of what pods were refused ([`Asker`]), and how often ([`Refusal`]), while that is wanted.
pub const REFUSED: &str = "refused";
/// The map of two numbers ([`u64`]): [`IS_WANTED`] and [`WITHOUT_ROOM`].
pub const RECORDING: &str = "recording";
/// The number in [`RECORDING`] that is not 0 while refusals are counted.
pub const IS_WANTED: u32 = 0;
/// The number in [`RECORDING`] of refusals that found no room in [`REFUSED`] and were not told yet.
pub const WITHOUT_ROOM: u32 = 1;

/// From this number on a list's slots have backends that end, up to the first that is not there: with these sockets of UDP go on to speak that
/// do already.
pub const ENDING: u32 = 1 << 30;

/// An address, port and protocol: `struct place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol's number (IANA).
    pub protocol: u8,
}

impl Place {
    /// Its length in a map.
    pub const SIZE: usize = 20;

    /// As it stands in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let addr = match self.addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        let mut bytes = [0; Self::SIZE];
        bytes[..16].copy_from_slice(&addr.octets());
        bytes[16..18].copy_from_slice(&self.port.to_be_bytes());
        bytes[18..].copy_from_slice(&u16::from(self.protocol).to_le_bytes());
        bytes
    }

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [addr @ .., high, low, protocol, _] = bytes;
        let addr = Ipv6Addr::from(addr).to_canonical();
        Self { addr, port: u16::from_be_bytes([high, low]), protocol }
    }
}

/// Where a frontend's backends are: `struct frontend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    /// The list that its backends are slots of.
    pub list: u32,
    /// How many: slots 0 to `count` of the list.
    pub count: u32,
    /// Where there are none: what connecting gives (`errno`).
    pub refusal: u32,
    /// For how many seconds a client stays with its backend; 0: it does not.
    pub affinity: u32,
    /// Frontends of one group have their clients stay with the same backend.
    pub group: u32,
}

impl Frontend {
    /// Its length in a map.
    pub const SIZE: usize = 20;

    /// As it stands in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let numbers = [self.list, self.count, self.refusal, self.affinity, self.group];
        for (part, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let number = |place: usize| {
            u32::from_le_bytes([bytes[4 * place], bytes[4 * place + 1], bytes[4 * place + 2], bytes[4 * place + 3]])
        };
        Self { list: number(0), count: number(1), refusal: number(2), affinity: number(3), group: number(4) }
    }
}

/// A place in a list of backends: `struct slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The list.
    pub list: u32,
    /// The number in the list; from [`ENDING`] on those of backends that end.
    pub number: u32,
}

impl Slot {
    /// Its length in a map.
    pub const SIZE: usize = 8;

    /// As it stands in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.list.to_le_bytes());
        bytes[4..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { list: u32::from_le_bytes([a, b, c, d]), number: u32::from_le_bytes([e, f, g, h]) }
    }
}

/// Who was refused what: `struct asker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The cookie of the socket's network namespace.
    pub netns: u64,
    /// The frontend that it asked for.
    pub to: Place,
    /// The socket's own port; 0 where it had none yet.
    pub port: u16,
}

impl Asker {
    /// Its length in a map.
    pub const SIZE: usize = 32;

    /// As it stands in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.netns.to_le_bytes());
        bytes[8..28].copy_from_slice(&self.to.to_bytes());
        bytes[28..30].copy_from_slice(&self.port.to_le_bytes());
        bytes
    }

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            netns: u64::from_le_bytes(number(bytes, 0)),
            to: Place::from_bytes(number(bytes, 8)),
            port: u16::from_le_bytes(number(bytes, 28)),
        }
    }
}

/// How often somebody was refused: `struct refusal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first time, in ns of `CLOCK_MONOTONIC`.
    pub first: u64,
    /// The last time.
    pub last: u64,
    /// How often.
    pub count: u64,
    /// With which error (`errno`), the last time.
    pub error: u32,
}

impl Refusal {
    /// Its length in a map.
    pub const SIZE: usize = 32;

    /// From what stands in a map.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            first: u64::from_le_bytes(number(bytes, 0)),
            last: u64::from_le_bytes(number(bytes, 8)),
            count: u64::from_le_bytes(number(bytes, 16)),
            error: u32::from_le_bytes(number(bytes, 24)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for addr in ["192.0.2.1", "2001:db8::1", "::1", "127.0.0.1"] {
            let place = Place { addr: addr.parse().unwrap(), port: 8443, protocol: 17 };
            assert_eq!(Place::from_bytes(place.to_bytes()), place);
        }
        let frontend = Frontend { list: 1, count: 2, refusal: 111, affinity: 10800, group: 70_000 };
        assert_eq!(Frontend::from_bytes(frontend.to_bytes()), frontend);
        let slot = Slot { list: 70_000, number: 3 };
        assert_eq!(Slot::from_bytes(slot.to_bytes()), slot);
        let to = Place { addr: "2001:db8::1".parse().unwrap(), port: 53, protocol: 17 };
        let asker = Asker { netns: 1 << 40 | 7, to, port: 40_000 };
        assert_eq!(Asker::from_bytes(&asker.to_bytes()), asker);
        let mut bytes = [0; Refusal::SIZE];
        for (place, number) in [(0, 5_u64), (8, 1 << 40), (16, 3), (24, 113)] {
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        let refusal = Refusal { first: 5, last: 1 << 40, count: 3, error: 113 };
        assert_eq!(Refusal::from_bytes(&bytes), refusal);
    }

    #[test]
    fn the_kernel_keeps_the_names_whole() {
        assert!(PROGRAMS.iter().all(|program| program.name.len() <= 15));
        assert!(
            [FRONTENDS, BACKENDS, STAYS, CONNECTED, SPOKEN, CONNECTED_UDP, UNFOLLOWED, SETTINGS, REFUSED, RECORDING]
                .iter()
                .all(|name| name.len() <= 15)
        );
    }
}
