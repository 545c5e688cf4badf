//! A table as the kernel tells it: how large it is, and all that is in it.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use podnet_model::Family;
use rustix::net::{AddressFamily, SocketType, ipproto};

use super::{NAME, word};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`, and the same numbers for IPv6.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `struct ipt_getinfo`: name, valid hooks, where each hook begins, where its policy is, number and size of the entries.
const INFO: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4 + 4;
/// `struct ipt_get_entries` before the entries, which are aligned to eight bytes.
const ENTRIES: usize = NAME + 8;
/// What is longer is nobody's table.
const LONGEST: usize = 64 << 20;

/// A table that is there, in the namespace in which it was opened.
pub(super) struct Table {
    name: &'static str,
    socket: OwnedFd,
    level: i32,
}

impl Table {
    /// That of the calling thread's namespace; none where there is none, as asking the kernel for it would make it.
    pub(super) fn open(family: Family, name: &'static str) -> io::Result<Option<Self>> {
        let (names, domain, level) = match family {
            Family::V4 => ("ip_tables_names", AddressFamily::INET, libc::IPPROTO_IP),
            Family::V6 => ("ip6_tables_names", AddressFamily::INET6, libc::IPPROTO_IPV6),
        };
        let tables = match fs::read_to_string(format!("/proc/thread-self/net/{names}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            tables => tables?,
        };
        if !tables.lines().any(|table| table == name) {
            return Ok(None);
        }
        let socket = rustix::net::socket(domain, SocketType::RAW, Some(ipproto::RAW))?;
        Ok(Some(Self { name, socket, level }))
    }

    /// How large it is and where what begins: a question that costs microseconds.
    pub(super) fn info(&self) -> io::Result<Vec<u8>> {
        let mut info = self.named(INFO);
        self.ask(GET_INFO, &mut info)?;
        Ok(info)
    }

    /// The same, and all of its entries.
    pub(super) fn read(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        // Somebody may change the table between the two questions; the kernel then refuses the second (EAGAIN).
        for _ in 0..8 {
            let info = self.info()?;
            let size = word(&info, INFO - 4).unwrap_or_default();
            let length = usize::try_from(size).unwrap_or(usize::MAX).min(LONGEST);
            let mut entries = self.named(ENTRIES + length);
            entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
            match self.ask(GET_ENTRIES, &mut entries) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok((info, entries.split_off(ENTRIES))),
            }
        }
        let all_the_time = format!("the table {} of iptables-legacy changes all the time", self.name);
        Err(io::Error::new(io::ErrorKind::WouldBlock, all_the_time))
    }

    /// A question about it; `length` is more than a name has.
    fn named(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..self.name.len()].copy_from_slice(self.name.as_bytes());
        bytes
    }

    fn ask(&self, what: i32, bytes: &mut [u8]) -> io::Result<()> {
        let mut length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes, which are there and initialised.
        let result = unsafe {
            libc::getsockopt(self.socket.as_raw_fd(), self.level, what, bytes.as_mut_ptr().cast(), &raw mut length)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
