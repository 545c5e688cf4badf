//! The way back to who sent a datagram, from the address that it was sent to.

use std::{
    fmt, io, mem,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{length_of, parse};

/// Room for one `IP_PKTINFO` or `IPV6_PKTINFO` message and one of `UDP_SEGMENT`.
const CONTROL: usize = 64;
/// The latter, as long as the kernel wants it to be with what aligns the next.
const SEGMENT: usize = mem::size_of::<libc::cmsghdr>() + 8;

/// The control message that says where a datagram went to, aligned as the kernel has it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// The way back to who sent a datagram.
#[derive(Clone, Copy)]
pub struct Back {
    to: libc::sockaddr_storage,
    to_length: libc::socklen_t,
    control: Control,
    control_length: usize,
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").field("to", &parse(&self.to)).finish_non_exhaustive()
    }
}

impl Default for Back {
    /// To nobody.
    fn default() -> Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_storage`: one of no family.
        let to: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self { to, to_length: 0, control: Control([0; CONTROL]), control_length: 0 }
    }
}

impl Back {
    /// Has the kernel write down here whence a datagram comes.
    pub(super) fn be_told(&mut self, header: &mut libc::msghdr) {
        header.msg_name = ptr::from_mut(&mut self.to).cast();
        header.msg_namelen = length_of::<libc::sockaddr_storage>();
        header.msg_control = self.control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
    }

    /// Takes up what the kernel has written.
    pub(super) fn told(&mut self, header: &libc::msghdr) {
        self.to_length = header.msg_namelen;
        self.control_length = header.msg_controllen;
        self.control.answer_from_here(self.control_length);
    }

    /// Where it leads; none where that is of no family that is known.
    pub(super) fn sender(&self) -> Option<SocketAddr> {
        parse(&self.to)
    }

    /// The address that was asked; none where the kernel did not tell.
    pub(super) fn destination(&self) -> Option<IpAddr> {
        self.control.asked(self.control_length)
    }

    /// Sends one answer.
    ///
    /// # Errors
    /// When the kernel does not take it: [`io::ErrorKind::WouldBlock`] where the socket's queue is full.
    pub fn send(&mut self, socket: BorrowedFd<'_>, answer: &[u8]) -> io::Result<()> {
        let mut vector = [libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() }];
        let header = self.header(&mut vector, answer.len());
        // SAFETY: the header, and what it points to, live until the call returns; sending only reads.
        let done = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// For what these hold: one datagram, or several that the kernel cuts to pieces of this length.
    pub(super) fn header(&mut self, vectors: &mut [libc::iovec], piece: usize) -> libc::msghdr {
        // SAFETY: all-zero bytes are a valid `msghdr`.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = ptr::from_mut(&mut self.to).cast();
        header.msg_namelen = self.to_length;
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len();
        let mut length = self.control_length;
        if vectors.len() > 1 {
            length += self.control.cut(length, piece);
        }
        if length > 0 {
            header.msg_control = self.control.0.as_mut_ptr().cast();
            header.msg_controllen = length;
        }
        header
    }

    /// Whether a message that goes this way can be one that is to be cut.
    pub(super) const fn has_room(&self) -> bool {
        self.control_length <= CONTROL - SEGMENT
    }

    /// Equal for those that are the same way.
    pub(super) fn hash(&self) -> usize {
        match self.sender() {
            Some(SocketAddr::V4(addr)) => usize::from(addr.port()) ^ addr.ip().to_bits() as usize,
            Some(SocketAddr::V6(addr)) => usize::from(addr.port()) ^ addr.ip().to_bits() as usize,
            None => 0,
        }
    }

    /// Whether it leads to the same asker, and from the same address.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.sender() == other.sender() && self.wishes() == other.wishes()
    }

    fn wishes(&self) -> &[u8] {
        &self.control.0[..self.control_length.min(CONTROL)]
    }
}

impl Control {
    /// The address that an answer comes from: the one that was asked.
    fn asked(&self, length: usize) -> Option<IpAddr> {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        let number = |at: usize| self.0.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        match (number(HEADER - 8)?, number(HEADER - 4)?) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if length >= HEADER + 12 => {
                let octets: [u8; 4] = self.0.get(HEADER + 4..HEADER + 8)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if length >= HEADER + 20 => {
                let octets: [u8; 16] = self.0.get(HEADER..HEADER + 16)?.try_into().ok()?;
                Some(IpAddr::from(octets).to_canonical())
            }
            _ => None,
        }
    }

    /// Adds that a message is cut to pieces of this length, and says how much that is; nothing where there is no room for it.
    fn cut(&mut self, at: usize, piece: usize) -> usize {
        const LENGTH: usize = mem::size_of::<libc::cmsghdr>() + 2;
        let (Some(space), Ok(piece)) = (self.0.get_mut(at..at + SEGMENT), u16::try_from(piece)) else { return 0 };
        space.fill(0);
        space[..LENGTH - 10].copy_from_slice(&LENGTH.to_ne_bytes());
        space[LENGTH - 10..LENGTH - 6].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        space[LENGTH - 6..LENGTH - 2].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        space[LENGTH - 2..LENGTH].copy_from_slice(&piece.to_ne_bytes());
        SEGMENT
    }

    /// Turns what the kernel said of a datagram's destination into the wish that the answer comes from there.
    ///
    /// A device is not asked for, except where the address means something on that device only (link-local ones): the way back
    /// may be another than the way here.
    fn answer_from_here(&mut self, length: usize) {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        let number = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes)
        };
        let (level, kind) = (number(&self.0, HEADER - 8), number(&self.0, HEADER - 4));
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if length >= HEADER + 12 => {
                // ip(7): device, the local address that the answer comes from, the address in the header.
                self.0[HEADER..HEADER + 4].fill(0);
                let told = Ipv4Addr::from(number(&self.0, HEADER + 8).to_ne_bytes());
                // The answer to a broadcast or multicast comes from an address of the node: the kernel has put it there.
                if !told.is_multicast() && !told.is_broadcast() {
                    let octets = told.octets();
                    self.0[HEADER + 4..HEADER + 8].copy_from_slice(&octets);
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if length >= HEADER + 20 => {
                let link_local = self.0[HEADER] == 0xfe && self.0[HEADER + 1] & 0xc0 == 0x80;
                if !link_local {
                    self.0[HEADER + 16..HEADER + 20].fill(0);
                }
            }
            _ => {}
        }
    }
}
