//! TUN devices: IP packets that a program reads and writes (`Documentation/networking/tuntap.rst`).

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
};

use podnet_model::LinkName;
use rustix::io::Errno;

use crate::{
    netlink::{NetlinkError, Operation},
    netns::NetNs,
};

const CLONE: &str = "/dev/net/tun";

/// Whether the kernel has TUN devices, and lets us have them.
pub(crate) fn is_there() -> bool {
    open().is_ok()
}

/// Makes a device that stays when nobody holds it. Done also where it is there.
pub(crate) fn create(netns: &NetNs, name: &LinkName) -> Result<(), NetlinkError> {
    let file = attach(netns, name)?;
    // SAFETY: the request takes a number and no pointer; the descriptor is open.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    if done == 0 { Ok(()) } else { Err(failed("keep TUN device", name)(io::Error::last_os_error())) }
}

/// Opens the device in a namespace; it is made where it is not there. What is read and written are whole packets without a header.
pub(crate) fn attach(netns: &NetNs, name: &LinkName) -> Result<File, NetlinkError> {
    netns.run(|| attach_here(name))?.map_err(failed("open TUN device", name))
}

/// Whether the device that was attached to is still there.
pub(crate) fn is_attached(file: &File) -> bool {
    // SAFETY: all-zero bytes are a valid `ifreq`, which is made of numbers and arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request fills an `ifreq`, which lives until it is done; the descriptor is open.
    unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) == 0 }
}

fn attach_here(name: &LinkName) -> io::Result<File> {
    let file = open()?;
    // SAFETY: all-zero bytes are a valid `ifreq`, which is made of numbers and arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.as_str().len() >= request.ifr_name.len() {
        return Err(Errno::NAMETOOLONG.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or_default();
    // SAFETY: the request takes an `ifreq`, which lives until it is done; the descriptor is open.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CLONE)
}

fn failed(action: &'static str, name: &LinkName) -> impl FnOnce(io::Error) -> NetlinkError {
    let operation = Operation::new(action, name);
    move |error| {
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        NetlinkError::Refused { operation, hint: None, errno }
    }
}
