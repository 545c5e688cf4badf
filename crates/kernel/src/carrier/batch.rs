//! Many datagrams with one system call.

use std::{
    io, mem,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    ptr,
};

use rustix::io::Errno;

/// Packets that are carried together.
const SIZE: usize = 32;
/// As long as an IPv4 packet can be.
const BUFFER: usize = 1 << 16;

/// Buffers for packets, and whom they go to or come from.
pub(super) struct Batch {
    buffers: Vec<Vec<u8>>,
    entries: Vec<(usize, libc::sockaddr_in)>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { buffers: vec![vec![0; BUFFER]; SIZE], entries: Vec::with_capacity(SIZE) }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The next free buffer; none where all are taken.
    pub(super) fn next(&mut self) -> Option<&mut [u8]> {
        self.buffers.get_mut(self.entries.len()).map(Vec::as_mut_slice)
    }

    /// Takes the buffer that [`Self::next`] gave, with so many bytes for a node.
    pub(super) fn push(&mut self, length: usize, node: Ipv4Addr, port: u16) {
        self.entries.push((length, address(node, port)));
    }

    /// Sends all that was pushed; how many were. One that cannot be sent is passed over.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(SIZE);
        let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(SIZE);
        for (buffer, (length, _)) in self.buffers.iter_mut().zip(&self.entries) {
            vectors.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: *length });
        }
        for (vector, (_, address)) in vectors.iter_mut().zip(&mut self.entries) {
            headers.push(header(vector, address));
        }
        let (mut at, mut sent) = (0, 0);
        while at < headers.len() {
            let rest = &mut headers[at..];
            let count = libc::c_uint::try_from(rest.len()).unwrap_or(0);
            // SAFETY: `rest` holds `count` headers whose vectors and addresses live in `vectors` and `self.entries`, untouched
            // until the call returns; each vector names a buffer of `self.buffers` and a length within it.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, 0) };
            match usize::try_from(done) {
                Ok(done) => (at, sent) = (at + done, sent + done),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => at += 1,
            }
        }
        sent
    }

    /// What there is to receive, without waiting: packets and the nodes that sent them.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<impl Iterator<Item = (&[u8], Ipv4Addr)>> {
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(SIZE);
        let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(SIZE);
        self.entries.clear();
        self.entries.resize(SIZE, (0, address(Ipv4Addr::UNSPECIFIED, 0)));
        for buffer in &mut self.buffers {
            vectors.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        }
        for (vector, (_, address)) in vectors.iter_mut().zip(&mut self.entries) {
            headers.push(header(vector, address));
        }
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: as in `send`; the kernel writes into the buffers and addresses that the headers name, within their lengths.
        let done = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags, ptr::null_mut()) };
        let done = match usize::try_from(done) {
            Ok(done) => done,
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => 0,
                // An answer to something that was sent earlier (ICMP): nobody waits for it.
                error if error.kind() == io::ErrorKind::ConnectionRefused => 0,
                error if error.kind() == io::ErrorKind::Interrupted => 0,
                error => return Err(error),
            },
        };
        for (header, entry) in headers.iter().zip(&mut self.entries) {
            entry.0 = usize::try_from(header.msg_len).unwrap_or(0);
        }
        self.entries.truncate(done);
        Ok(self.buffers.iter().zip(&self.entries).map(|(buffer, (length, address))| {
            let node = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            (buffer.get(..*length).unwrap_or_default(), node)
        }))
    }
}

fn address(node: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(node).to_be() },
        sin_zero: [0; 8],
    }
}

fn header(vector: &mut libc::iovec, address: &mut libc::sockaddr_in) -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid `mmsghdr`, which is made of numbers and pointers that may be null.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = ptr::from_mut(address).cast();
    header.msg_hdr.msg_namelen = libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_in>()).unwrap_or(0);
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}
