//! Packets as they pass an interface (`packet(7)`).
//!
//! - [`Tap`]: takes them in, those that a classic filter chooses, and counts those that found no room
//! - [`expression`]: makes such a filter of tcpdump's language

pub mod expression;
mod received;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use podnet_flow::{capture::Instruction, probe::Framing};
use podnet_model::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    link,
    netlink::{NetlinkError, RtSocket},
    socket_filter,
};
pub use received::Seen;
use received::{Head, VLAN};

/// What is taken in at once, in bytes and in packets.
const ROOM: usize = 256 << 10;
const PACKETS: usize = 32;
/// What a socket is bound to: no protocol, by which it only learns of what kind the interface is, or all of them.
const NOTHING: u16 = 0;
const EVERYTHING: u16 = libc::ETH_P_ALL as u16;

/// Why an interface's packets cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such interface.
    #[error("there is no interface {interface}; there are {}", there.join(", "))]
    NoInterface {
        /// Its name.
        interface: String,
        /// Names of those that there are.
        there: Vec<String>,
    },
    /// It is of a kind that is not captured at.
    #[error("packets of {interface} have no Ethernet header (ARPHRD {kind}); only those that have one are captured")]
    NotEthernet {
        /// Its name.
        interface: String,
        /// Its kind (`linux/if_arp.h`).
        kind: u16,
    },
    /// The kernel does not take the filter.
    #[error("the kernel does not take the filter of {instructions} instructions")]
    Filter {
        /// How many it has.
        instructions: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses something else.
    #[error("cannot {action} to capture packets of {interface}")]
    Refused {
        /// What.
        action: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The interface is not found.
    #[error("cannot look for the interface whose packets are captured")]
    Interfaces(#[from] NetlinkError),
}

/// How many packets there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that the filter chose.
    pub received: u64,
    /// Of these, those that found no room, as they were not taken in fast enough.
    pub dropped: u64,
}

/// A socket that sees an interface's packets, in both directions; those of a loopback device, which leave by it and come in by it, only as
/// they come in. It stays with its interface, in whatever namespace that is, and keeps the
/// namespace there.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    framing: Framing,
    /// Bytes of a packet that are kept.
    snap: usize,
    mac: Option<Mac>,
    counts: Counts,
    /// Slots, each with room for what is kept of a packet and a tag of VLAN.
    slots: Vec<u8>,
    heads: Vec<Head>,
}

impl Tap {
    /// Captures at an interface of the calling thread's namespace whose packets have an Ethernet header what the filter chooses (all, where it
    /// is empty), `snap` bytes of each packet. Packets that are not taken in yet have `room` bytes in the kernel.
    ///
    /// # Errors
    /// What is wrong with the interface or the filter, or what the kernel refused.
    pub fn open(interface: &str, program: &[Instruction], snap: u32, room: usize) -> Result<Self, TapError> {
        Self::choosing(interface, snap, room, |framing| (framing == Framing::Ethernet).then(|| program.to_vec()))
    }

    /// The same with the filter that there is for packets that begin so; with none it is not captured at the interface.
    ///
    /// # Errors
    /// What is wrong with the interface or the filter, or what the kernel refused.
    pub fn choosing(
        interface: &str,
        snap: u32,
        room: usize,
        program: impl FnOnce(Framing) -> Option<Vec<Instruction>>,
    ) -> Result<Self, TapError> {
        let (index, mac) = find(interface)?;
        let refused = |action| move |source| TapError::Refused { action, interface: interface.to_owned(), source };
        let socket = socket().map_err(refused("open a socket"))?;
        let at = socket.as_fd();
        let bytes = i32::try_from(room).unwrap_or(i32::MAX);
        set(at, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).map_err(refused("give a socket room"))?;
        set(at, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).map_err(refused("ask for packets' times"))?;
        set(at, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1).map_err(refused("ask for packets' lengths"))?;
        let kind = bind(at, index, NOTHING).map_err(refused("bind a socket"))?;
        if kind == libc::ARPHRD_LOOPBACK {
            let once = set(at, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
            once.map_err(refused("leave out what leaves by the device"))?;
        }
        let framing = framing(kind);
        let Some((framing, program)) = framing.and_then(|framing| Some((framing, program(framing)?))) else {
            return Err(TapError::NotEthernet { interface: interface.to_owned(), kind });
        };
        // Before it sees the first packet.
        attach(at, &program, snap)?;
        bind(at, index, EVERYTHING).map_err(refused("bind a socket"))?;
        let snap = snap as usize;
        let slots = (ROOM / (snap + VLAN)).clamp(1, PACKETS);
        let slots = vec![0; slots * (snap + VLAN)];
        Ok(Self { socket, framing, snap, mac, counts: Counts::default(), slots, heads: Vec::new() })
    }

    /// Ethernet address of the interface.
    #[must_use]
    pub const fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// How its packets begin.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Takes in what waits, without waiting, and forgets what was taken in before. There may be more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where nothing waits; [`io::ErrorKind::NetworkDown`], once, where the interface went down or away.
    pub fn receive(&mut self) -> io::Result<()> {
        self.heads.clear();
        received::take_in(self.socket.as_fd(), &mut self.slots, self.snap + VLAN, &mut self.heads)
    }

    /// What was taken in.
    pub fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        let slots = self.slots.chunks(self.snap + VLAN);
        self.heads.iter().zip(slots).map(|(head, slot)| head.seen(slot, self.snap))
    }

    /// How many packets there were since it was opened.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn counts(&mut self) -> io::Result<Counts> {
        let mut since = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = length_of::<libc::tpacket_stats>();
        // SAFETY: the option is a `struct tpacket_stats`, for which there is room.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut since).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // The kernel begins anew with each answer.
        self.counts.received += u64::from(since.tp_packets);
        self.counts.dropped += u64::from(since.tp_drops);
        Ok(self.counts)
    }
}

/// Waits until something waits at one of these, for that time at most.
///
/// # Errors
/// What the kernel refused; not that a signal came.
pub fn wait<'a>(taps: impl IntoIterator<Item = &'a Tap>, time: Duration) -> io::Result<()> {
    let mut watched: Vec<PollFd<'_>> = taps.into_iter().map(|tap| PollFd::new(&tap.socket, PollFlags::IN)).collect();
    // A time that is too long for the kernel is without end.
    match poll(&mut watched, Timespec::try_from(time).ok().as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn find(interface: &str) -> Result<(u32, Option<Mac>), TapError> {
    let mut socket = RtSocket::open()?;
    let found = match link::find(&mut socket, interface) {
        Err(error) if !error.is_missing() => return Err(error.into()),
        found => found.ok().flatten(),
    };
    if let Some(link) = found {
        return Ok((link.index, link.mac));
    }
    let there = link::list(&mut socket)?.into_iter().map(|link| link.name.to_string()).collect();
    Err(TapError::NoInterface { interface: interface.to_owned(), there })
}

/// How packets of an interface of that kind begin, as a socket sees them; none where they begin with something else.
const fn framing(kind: u16) -> Option<Framing> {
    match kind {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(Framing::Ethernet),
        // WireGuard, tun; IPIP.
        libc::ARPHRD_NONE | libc::ARPHRD_TUNNEL | libc::ARPHRD_TUNNEL6 => Some(Framing::Bare),
        _ => None,
    }
}

/// Of no protocol yet: it sees nothing.
fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: it takes no pointers.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was opened just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attach(socket: BorrowedFd<'_>, program: &[Instruction], snap: u32) -> Result<(), TapError> {
    let mut program: Vec<libc::sock_filter> = program
        .iter()
        .map(|&Instruction(code, jt, jf, k)| socket_filter::instruction(u32::from(code), jt, jf, k))
        .collect();
    if program.is_empty() {
        program.push(socket_filter::answer(snap));
    }
    let instructions = program.len();
    socket_filter::attach(socket, &mut program).map_err(|source| TapError::Filter { instructions, source })
}

/// Lets it see what passes the interface by a protocol, and answers of what kind that is.
fn bind(socket: BorrowedFd<'_>, index: u32, protocol: u16) -> io::Result<u16> {
    let mut address = received::nowhere();
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut length = length_of::<libc::sockaddr_ll>();
    // SAFETY: the address is a `sockaddr_ll` of that length; the second call writes one of at most that length.
    let result = unsafe {
        match libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) {
            0 => libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length),
            failed => failed,
        }
    };
    if result == 0 { Ok(address.sll_hatype) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: these options take a number of that length.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length_of::<i32>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
