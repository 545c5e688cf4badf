//! Many datagrams with one system call (`recvmmsg(2)`, `sendmmsg(2)`), to and from addresses of either family.

mod back;
mod grouped;
mod packets;
mod questions;

use std::{
    fmt, io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

pub use back::Back;
pub use packets::Packets;
pub use questions::{Questions, tell_destinations};

/// Datagrams that are taken together.
const SIZE: usize = 32;
/// As long as a datagram can be.
const BUFFER: usize = 1 << 16;

/// Datagrams that came, and who sent them. There are 2 MB of buffers in it: one for each thread is enough.
pub struct Datagrams {
    buffers: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    senders: Vec<libc::sockaddr_storage>,
}

impl Default for Datagrams {
    fn default() -> Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_storage`: one of no family.
        let nobody: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self { buffers: vec![vec![0; BUFFER]; SIZE], lengths: Vec::with_capacity(SIZE), senders: vec![nobody; SIZE] }
    }
}

impl Datagrams {
    /// Receives what waits at a socket, at most 32 at once, and tells how many there are. What was there before is forgotten.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where nothing waits; what the socket was told by ICMP.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.lengths.clear();
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(SIZE);
        for buffer in &mut self.buffers {
            vectors.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        }
        let mut headers: Vec<libc::mmsghdr> = vectors.iter_mut().map(header).collect();
        for (header, sender) in headers.iter_mut().zip(&mut self.senders) {
            header.msg_hdr.msg_name = ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_storage>();
        }
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        // SAFETY: `headers` holds `count` headers whose vectors and addresses live in `vectors` and `self.senders` until the call
        // returns; the kernel writes into those and into the buffers that the vectors name, within their lengths.
        let done = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        let lengths = headers.iter().take(done).map(|header| usize::try_from(header.msg_len).unwrap_or(0));
        self.lengths.extend(lengths);
        Ok(done)
    }

    /// Who sent a datagram; none where there is no such, or of no family that is known.
    #[must_use]
    pub fn sender(&self, number: usize) -> Option<SocketAddr> {
        self.senders.get(number).filter(|_| number < self.lengths.len()).and_then(parse)
    }

    /// Sends some of the datagrams on, to an address or, where there is none, to the socket's peer. Answers how many were sent: one that
    /// cannot be sent is passed over, as on any way.
    pub fn pass_on(&mut self, numbers: Range<usize>, socket: BorrowedFd<'_>, to: Option<SocketAddr>) -> usize {
        let mut to = to.map(encode);
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(numbers.len());
        for (buffer, length) in self.buffers.iter_mut().zip(&self.lengths).take(numbers.end).skip(numbers.start) {
            vectors.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: (*length).min(buffer.len()) });
        }
        let mut headers: Vec<libc::mmsghdr> = vectors.iter_mut().map(header).collect();
        if let Some((addr, length)) = &mut to {
            for header in &mut headers {
                header.msg_hdr.msg_name = ptr::from_mut(addr).cast();
                header.msg_hdr.msg_namelen = *length;
            }
        }
        let (mut at, mut sent) = (0, 0);
        while at < headers.len() {
            let rest = &mut headers[at..];
            let count = libc::c_uint::try_from(rest.len()).unwrap_or(0);
            // SAFETY: `rest` holds `count` headers whose vectors and address live in `vectors` and `to`, untouched until the call
            // returns; each vector names a buffer and a length within it.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
            match usize::try_from(done) {
                Ok(done) => (at, sent) = (at + done, sent + done),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => at += 1,
            }
        }
        sent
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("lengths", &self.lengths).finish_non_exhaustive()
    }
}

fn header(vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid `mmsghdr`, which is made of numbers and pointers that may be null.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

fn parse(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: of this family the storage, which is larger and as strictly aligned, holds a `sockaddr_in`.
            let addr = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(addr.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a `sockaddr_in6`.
            let addr = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::from((Ipv6Addr::from(addr.sin6_addr.s6_addr), u16::from_be(addr.sin6_port))))
        }
        _ => None,
    }
}

fn encode(addr: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let family = |family: i32| libc::sa_family_t::try_from(family).unwrap_or_default();
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    match addr {
        SocketAddr::V4(addr) => {
            // SAFETY: the storage is larger than a `sockaddr_in`, as strictly aligned, and all its bytes are initialized.
            let of_v4 = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>() };
            of_v4.sin_family = family(libc::AF_INET);
            of_v4.sin_port = addr.port().to_be();
            of_v4.sin_addr.s_addr = addr.ip().to_bits().to_be();
            (storage, length_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(addr) => {
            // SAFETY: as above, for a `sockaddr_in6`.
            let of_v6 = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>() };
            of_v6.sin6_family = family(libc::AF_INET6);
            of_v6.sin6_port = addr.port().to_be();
            of_v6.sin6_addr.s6_addr = addr.ip().octets();
            (storage, length_of::<libc::sockaddr_in6>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    #[test]
    fn datagrams_of_either_family_are_passed_on_whole_and_in_order() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let bound = || UdpSocket::bind(local).unwrap();
            let (client, front, back) = (bound(), bound(), bound());
            let mut datagrams = Datagrams::default();
            let nothing = datagrams.receive(front.as_fd()).unwrap_err();
            assert_eq!((nothing.kind(), datagrams.sender(0)), (io::ErrorKind::WouldBlock, None));
            let sent: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; usize::from(number) * 100]).collect();
            for datagram in &sent {
                client.send_to(datagram, front.local_addr().unwrap()).unwrap();
            }
            let mut received = Vec::new();
            while let Ok(count) = datagrams.receive(front.as_fd()) {
                assert!((0..count).all(|number| datagrams.sender(number) == client.local_addr().ok()));
                assert_eq!(datagrams.pass_on(0..count, front.as_fd(), back.local_addr().ok()), count);
                let mut buffer = vec![0; BUFFER];
                for _ in 0..count {
                    let (length, from) = back.recv_from(&mut buffer).unwrap();
                    assert_eq!(from, front.local_addr().unwrap());
                    received.push(buffer[..length].to_vec());
                }
            }
            assert_eq!(received, sent);
            // To the peer of a connected socket.
            front.connect(back.local_addr().unwrap()).unwrap();
            client.connect(front.local_addr().unwrap()).unwrap();
            back.send_to(b"again", front.local_addr().unwrap()).unwrap();
            assert_eq!(datagrams.receive(front.as_fd()).unwrap(), 1);
            assert_eq!(datagrams.pass_on(0..1, front.as_fd(), None), 1);
            assert_eq!(back.recv(&mut [0; 9]).unwrap(), 5);
        }
    }
}
