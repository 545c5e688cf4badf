//! How large a table of the legacy variant is: a question that costs microseconds (`linux/netfilter_ipv4/ip_tables.h`).

use std::{collections::BTreeMap, fs, io, os::fd::AsRawFd};

use podnet_model::Family;
use podnet_planner::iptables::Table;
use rustix::net::{AddressFamily, SocketType, ipproto};

/// `IPT_SO_GET_INFO`, and the same number for IPv6.
const GET_INFO: i32 = 64;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`.
const INFO: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4 + 4;

/// What the tables look like from afar: where each begins, how many rules it has and how long they are. Rules that somebody exchanges for
/// others just as long do not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<Table, Vec<u8>>);

impl Fingerprint {
    /// That of the calling thread's namespace; none where the kernel has no such tables. Asking makes no table.
    pub(super) fn take(family: Family) -> io::Result<Option<Self>> {
        let (names, domain, protocol, level) = match family {
            Family::V4 => ("ip_tables_names", AddressFamily::INET, ipproto::RAW, libc::IPPROTO_IP),
            Family::V6 => ("ip6_tables_names", AddressFamily::INET6, ipproto::RAW, libc::IPPROTO_IPV6),
        };
        let names = match fs::read_to_string(format!("/proc/thread-self/net/{names}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            names => names?,
        };
        let socket = rustix::net::socket(domain, SocketType::RAW, Some(protocol))?;
        let mut tables = BTreeMap::new();
        for table in Table::ALL.into_iter().filter(|table| names.lines().any(|name| name == table.name())) {
            let mut info = vec![0; INFO];
            info[..table.name().len()].copy_from_slice(table.name().as_bytes());
            ask(&socket, level, &mut info)?;
            tables.insert(table, info);
        }
        Ok(Some(Self(tables)))
    }
}

fn ask(socket: &impl AsRawFd, level: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which are there and initialised.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, bytes.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
