//! A filter in the kernel for what a socket hears.

use std::{io, os::fd::BorrowedFd};

use crate::socket_filter::{answer, attach, instruction};

/// Where `nlmsg_pid`, the port of the socket that asked, lies in a message (`struct nlmsghdr`).
const PORT: u32 = 12;

/// Makes a listening socket deaf to what the sockets with these ports did: a few, 200 at most.
///
/// A classic packet filter loads words in network byte order, while netlink's are of the host's: so the port is turned round.
/// Messages that the kernel packs into one datagram are of one transaction, and so of one port; the first tells.
pub(super) fn drop_messages_of(socket: BorrowedFd<'_>, ports: &[u32]) -> io::Result<()> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = vec![instruction(load, 0, 0, PORT)];
    for (place, port) in ports.iter().enumerate() {
        // Past the comparisons that follow, and past the answer for what none of them fits.
        let past = u8::try_from(ports.len() - place).map_err(|_| io::ErrorKind::InvalidInput)?;
        program.push(instruction(compare, past, 0, port.to_be()));
    }
    program.extend([answer(u32::MAX), answer(0)]);
    attach(socket, &mut program)
}
