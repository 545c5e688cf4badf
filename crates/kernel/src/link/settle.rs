//! Making the kernel finish what it put off for a link.

use std::{ffi::c_char, io, os::fd::AsRawFd};

use podnet_model::LinkName;

use crate::netlink::{NetlinkError, Operation, RtSocket};

/// `ETHTOOL_GLINK` of `linux/ethtool.h`.
const GET_LINK: u32 = 0x0a;
/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ifreq`, with the one member of its union that is used here. The padding makes it as long as the kernel copies.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    data: *mut EthtoolValue,
    padding: [u8; 16],
}

/// Makes a link that is up and has its carrier pass packets *now*.
///
/// The first end of a veth pair that is set up has no carrier yet, so the kernel leaves its queue closed and opens it later, from a
/// work queue, when the other end comes up (`linkwatch`). Until then what is sent there is dropped. Whoever asks for the state of the
/// link (`ETHTOOL_GLINK`) makes the kernel do that work at once.
///
/// # Errors
/// Where there is no such link.
pub(crate) fn settle(socket: &RtSocket, name: &LinkName) -> Result<(), NetlinkError> {
    let mut value = EthtoolValue { command: GET_LINK, data: 0 };
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut value, padding: [0; 16] };
    for (to, from) in request.name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request is laid out as `struct ifreq` and at least as long; its pointer leads to a value that outlives the call and
    // is as long as `ETHTOOL_GLINK` reads and writes.
    let result = unsafe { libc::ioctl(socket.descriptor().as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        return Ok(());
    }
    let errno = rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO);
    Err(NetlinkError::Refused { operation: Operation::new("settle device", name), hint: None, errno })
}
