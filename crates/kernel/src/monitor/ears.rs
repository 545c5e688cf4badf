//! Not to hear of a group for a while.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::netlink::NetlinkError;

/// A handle to a listening socket: leaves its group, and joins it again. What it heard before stays to be read.
#[derive(Debug)]
pub(crate) struct Ears {
    socket: OwnedFd,
    group: u32,
}

impl Ears {
    pub(super) const fn of(socket: OwnedFd, group: u32) -> Self {
        Self { socket, group }
    }

    pub(crate) fn leave(&self) -> Result<(), NetlinkError> {
        self.set(libc::NETLINK_DROP_MEMBERSHIP, "leave a group with")
    }

    pub(crate) fn join(&self) -> Result<(), NetlinkError> {
        self.set(libc::NETLINK_ADD_MEMBERSHIP, "join a group with")
    }

    fn set(&self, option: libc::c_int, action: &'static str) -> Result<(), NetlinkError> {
        let group = self.group;
        let length = libc::socklen_t::try_from(size_of_val(&group)).unwrap_or(4);
        // SAFETY: the descriptor is open for as long as `self`, and the kernel reads a number of that length.
        let done = unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const group).cast(), length)
        };
        if done == 0 { Ok(()) } else { Err(NetlinkError::Socket { action, source: io::Error::last_os_error() }) }
    }
}
