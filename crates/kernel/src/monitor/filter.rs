//! A filter in the kernel for what a socket hears.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Where `nlmsg_pid`, the port of the socket that asked, lies in a message (`struct nlmsghdr`).
const PORT: u32 = 12;

/// Makes a listening socket deaf to what the sockets with these ports did: a few, 200 at most.
///
/// A classic packet filter loads words in network byte order, while netlink's are of the host's: so the port is turned round.
/// Messages that the kernel packs into one datagram are of one transaction, and so of one port; the first tells.
pub(super) fn drop_messages_of(socket: BorrowedFd<'_>, ports: &[u32]) -> io::Result<()> {
    let code = |code: u32| u16::try_from(code).unwrap_or_default();
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let compare = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let answer = code(libc::BPF_RET | libc::BPF_K);
    let too_many = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut program = vec![libc::sock_filter { code: load, jt: 0, jf: 0, k: PORT }];
    for (place, port) in ports.iter().enumerate() {
        // Past the comparisons that follow, and past the answer for what none of them fits.
        let past = u8::try_from(ports.len() - place).map_err(too_many)?;
        program.push(libc::sock_filter { code: compare, jt: past, jf: 0, k: port.to_be() });
    }
    program.push(libc::sock_filter { code: answer, jt: 0, jf: 0, k: u32::MAX });
    program.push(libc::sock_filter { code: answer, jt: 0, jf: 0, k: 0 });
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
