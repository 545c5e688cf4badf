//! Whole Ethernet frames of one protocol on one device (`packet(7)`).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use podnet_model::Mac;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::socket_filter;

/// Length of an Ethernet header.
pub(super) const HEADER: usize = 14;
/// As long as what is understood can be: longer ones come cut off.
pub(super) const LONGEST: usize = 1514;

/// What is said to somebody.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) to: Mac,
    pub(super) content: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct FrameSocket {
    socket: OwnedFd,
    ethertype: u16,
}

impl FrameSocket {
    /// A socket for what the filter lets through; for everything of the protocol where the filter is empty.
    pub(super) fn open(index: u32, ethertype: u16, filter: &mut [libc::sock_filter]) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Of no protocol yet: nothing comes before the filter is there.
        // SAFETY: the call takes numbers; what it returns is checked before it is used.
        let number = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        if !filter.is_empty() {
            socket_filter::attach(socket.as_fd(), filter)?;
        }
        // SAFETY: all-zero bytes are a valid `sockaddr_ll`, which is made of numbers and arrays.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = i32::try_from(index).unwrap_or_default();
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
        // SAFETY: the address is a `sockaddr_ll` of that length and lives until the call is done; the descriptor is open.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if bound == 0 { Ok(Self { socket, ethertype }) } else { Err(io::Error::last_os_error()) }
    }

    /// The length of the next frame; none where there is none for now.
    pub(super) fn receive(&self, frame: &mut [u8; LONGEST]) -> io::Result<Option<usize>> {
        loop {
            match recv(&self.socket, frame.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn send(&self, from: Mac, message: &Message) -> io::Result<()> {
        let mut frame = Vec::with_capacity(HEADER + message.content.len());
        frame.extend(message.to.0);
        frame.extend(from.0);
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(&message.content);
        send(&self.socket, &frame, SendFlags::DONTWAIT).map(drop).map_err(io::Error::from)
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
