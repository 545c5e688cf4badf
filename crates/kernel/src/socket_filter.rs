//! Classic packet filters at sockets (`SO_ATTACH_FILTER`, `socket(7)`): what they do not let through never comes to the socket, and nobody is
//! told. Every kernel has them.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use podnet_model::Family;

/// From here on offsets count from the network header (`SKF_NET_OFF`, `linux/filter.h`): −0x10_0000.
const NETWORK_HEADER: u32 = 0xfff0_0000;

/// Lets in only what comes from an address that is within one of the ranges of each list: none where a list is empty, and all where there
/// is no list. It takes the place of the filter that was there. For sockets of TCP and UDP, of one family.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where there are more ranges than a filter can hold: about a thousand of IPv4, some hundreds of IPv6.
pub fn let_in(socket: BorrowedFd<'_>, family: Family, lists: &[Vec<IpNet>]) -> io::Result<()> {
    if lists.is_empty() {
        return detach(socket);
    }
    let mut program = Vec::new();
    for list in lists {
        let mut matched = Vec::new();
        for range in list.iter().filter(|range| Family::of(&range.addr()) == family) {
            compare(range, &mut program);
            matched.push(program.len());
            program.push(instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, 0));
        }
        program.push(answer(0));
        let next = program.len();
        for place in matched {
            program[place].k = u32::try_from(next - place - 1).unwrap_or(u32::MAX);
        }
    }
    program.push(answer(u32::MAX));
    attach(socket, &mut program)
}

/// Goes on behind the next instruction where the packet's source is not in the range.
fn compare(range: &IpNet, program: &mut Vec<libc::sock_filter>) {
    /// Where the source address lies in the header.
    const SOURCE_V4: u32 = 12;
    const SOURCE_V6: u32 = 8;
    let (first, net, mask) = match range {
        IpNet::V4(range) => (SOURCE_V4, words(range.network().into()), words(range.netmask().into())),
        IpNet::V6(range) => (SOURCE_V6, words(range.network().into()), words(range.netmask().into())),
    };
    let significant: Vec<_> = (0_u32..).zip(net.iter().zip(&mask)).filter(|(_, (_, mask))| **mask != 0).collect();
    let length = |mask: u32| if mask == u32::MAX { 2 } else { 3 };
    let mut left: u8 = significant.iter().map(|(_, (_, mask))| length(**mask)).sum();
    for (place, (word, mask)) in significant {
        left -= length(*mask);
        program.push(instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NETWORK_HEADER + first + 4 * place));
        if *mask != u32::MAX {
            program.push(instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, *mask));
        }
        // Past the other words, and past the jump of what fits.
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, left + 1, *word));
    }
}

fn words(addr: IpAddr) -> Vec<u32> {
    match addr {
        IpAddr::V4(addr) => vec![addr.to_bits()],
        IpAddr::V6(addr) => (0..4).rev().map(|place| (addr.to_bits() >> (32 * place)) as u32).collect(),
    }
}

pub(crate) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

/// So many bytes of the packet are let through: none, or all.
pub(crate) fn answer(bytes: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

/// Puts a filter at a socket, in the place of the one that is there.
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let too_many = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let length = u16::try_from(program.len()).map_err(too_many)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default();
    // SAFETY: the option's value is a `struct sock_fprog` of that length, whose pointer leads to `len` instructions; the kernel copies
    // both before the call returns, and both live until then.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the filter away from a socket. Done also where there is none.
fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (nothing, length) = (0_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or_default());
    // SAFETY: the option takes a number of that length and does not look at it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const nothing).cast(),
            length,
        )
    };
    match io::Error::last_os_error() {
        error if result != 0 && error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, UdpSocket},
        os::fd::AsFd,
        time::Duration,
    };

    use super::*;
    use crate::{addr, link, netlink::RtSocket, testing::TestNs};

    #[test]
    fn only_who_is_in_a_range_of_each_list_is_let_in() {
        let namespace = TestNs::new("letin");
        let mut socket = RtSocket::open_in(&namespace).unwrap();
        let lo = link::index_of(&mut socket, "lo").unwrap();
        for own in ["10.1.2.3/32", "10.1.200.3/32", "2001:db8::1/128", "2001:db8:0:1::1/128"] {
            addr::add(&mut socket, lo, own.parse().unwrap()).unwrap();
        }
        let lists = |lists: &[&[&str]]| -> Vec<Vec<IpNet>> {
            lists.iter().map(|list| list.iter().map(|range| range.parse().unwrap()).collect()).collect()
        };
        let arrives = |from: &str, lists: &[Vec<IpNet>]| {
            namespace
                .run(|| {
                    let from: IpAddr = from.parse().unwrap();
                    let server = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
                    let_in(server.as_fd(), Family::of(&from), lists).unwrap();
                    server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                    // What the loopback carries is there when it was sent.
                    let client = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
                    client.send_to(b"whole", server.local_addr().unwrap()).unwrap();
                    server.recv(&mut [0; 8]).is_ok_and(|length| length == 5)
                })
                .unwrap()
        };
        let (near, far) = ("10.1.2.3", "10.1.200.3");
        for (ranges, near_may, far_may) in [
            (lists(&[]), true, true),
            (lists(&[&[]]), false, false),
            (lists(&[&["10.1.2.3/32"]]), true, false),
            (lists(&[&["10.9.0.0/16", "10.1.128.0/17"]]), false, true),
            (lists(&[&["0.0.0.0/0"]]), true, true),
            (lists(&[&["10.0.0.0/8"], &["10.1.0.0/17"]]), true, false),
            (lists(&[&["10.1.0.0/17"], &["10.1.128.0/17"]]), false, false),
            (lists(&[&["::/0"]]), false, false),
        ] {
            assert_eq!((arrives(near, &ranges), arrives(far, &ranges)), (near_may, far_may), "{ranges:?}");
        }
        let (near, far) = ("2001:db8::1", "2001:db8:0:1::1");
        for (ranges, near_may, far_may) in [
            (lists(&[&["2001:db8::1/128"]]), true, false),
            (lists(&[&["2001:db8:1::/48", "2001:db8::/48"]]), true, true),
            (lists(&[&["2001:db8::/64"], &["::/0"]]), true, false),
            (lists(&[&["2001:db8:0:1::/63"]]), true, true),
            (lists(&[&["0.0.0.0/0"]]), false, false),
        ] {
            assert_eq!((arrives(near, &ranges), arrives(far, &ranges)), (near_may, far_may), "{ranges:?}");
        }
    }

    #[test]
    fn as_many_pods_as_a_node_has_fit_in() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let pods =
            |count: u128| (0..count).map(|n| IpNet::from(IpAddr::from(std::net::Ipv6Addr::from_bits(n)))).collect();
        let_in(socket.as_fd(), Family::V6, &[pods(400)]).unwrap();
        let error = let_in(socket.as_fd(), Family::V6, &[pods(4000)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
