//! Questions that come in datagrams, many with one system call, and their answers, which go back the way the questions came.
//!
//! An answer has to come from the address that was asked. A socket that is bound to all of a machine's addresses would leave the
//! choice to the routing table; so each question is received with the address that it went to (`IP_PKTINFO`, ip(7), and
//! `IPV6_PKTINFO`, RFC 3542 §6.1), and its answer is sent from there.

use std::{
    fmt, io, mem,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{length_of, parse};

/// Questions that are taken together.
const SIZE: usize = 64;
/// The longest question that is taken: one name with an OPT record and its options fits many times. What is longer is cut.
const QUESTION: usize = 4096;
/// What an answer's buffer holds before it grows.
const ANSWER: usize = 1280;
/// Room for one `IP_PKTINFO` or `IPV6_PKTINFO` message.
const CONTROL: usize = 64;

/// The control message that says where a datagram went to, aligned as the kernel has it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// The way back to who sent a datagram.
#[derive(Clone, Copy)]
pub struct Back {
    to: libc::sockaddr_storage,
    to_length: libc::socklen_t,
    control: Control,
    control_length: usize,
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").field("to", &parse(&self.to)).finish_non_exhaustive()
    }
}

/// Questions that came, and their answers. There are about 350 KB of buffers in it: one for each socket is enough.
pub struct Questions {
    questions: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    backs: Vec<Back>,
    answers: Vec<Vec<u8>>,
}

impl Default for Questions {
    fn default() -> Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_storage`: one of no family.
        let to: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let back = Back { to, to_length: 0, control: Control([0; CONTROL]), control_length: 0 };
        Self {
            questions: vec![vec![0; QUESTION]; SIZE],
            lengths: Vec::with_capacity(SIZE),
            backs: vec![back; SIZE],
            answers: (0..SIZE).map(|_| Vec::with_capacity(ANSWER)).collect(),
        }
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("lengths", &self.lengths).finish_non_exhaustive()
    }
}

/// Has a socket tell where its datagrams went to; to be called before the first question is received.
///
/// # Errors
/// When the kernel refuses.
pub fn tell_destinations(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, name) =
        if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the value lives until the call returns, and its length is told.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&on).cast(), length_of::<libc::c_int>())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Questions {
    /// The most that are received at once.
    pub const MOST: usize = SIZE;

    /// Receives what waits at a socket, at most [`Questions::MOST`] at once, and tells how many there are. What was there before, answers
    /// that were not sent included, is forgotten.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where nothing waits; what the socket was told by ICMP.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.lengths.clear();
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SIZE];
        // SAFETY: all-zero bytes are valid `mmsghdr`s, which are made of numbers and pointers that may be null.
        let mut headers: [libc::mmsghdr; SIZE] = unsafe { mem::zeroed() };
        let parts = self.questions.iter_mut().zip(&mut self.backs).zip(&mut vectors).zip(&mut headers);
        for (((question, back), vector), header) in parts {
            *vector = libc::iovec { iov_base: question.as_mut_ptr().cast(), iov_len: question.len() };
            let header = &mut header.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(&mut back.to).cast();
            header.msg_namelen = length_of::<libc::sockaddr_storage>();
            header.msg_control = back.control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: `headers` holds as many headers as are told, whose vectors, addresses and control messages live in `vectors` and
        // `self` until the call returns; the kernel writes into those and into the buffers that the vectors name, within their
        // lengths.
        let done = unsafe {
            let count = SIZE as libc::c_uint;
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        for (back, header) in self.backs.iter_mut().zip(&headers).take(done) {
            self.lengths.push((header.msg_len as usize).min(QUESTION));
            back.to_length = header.msg_hdr.msg_namelen;
            back.control_length = header.msg_hdr.msg_controllen;
            back.control.answer_from_here(back.control_length);
        }
        self.answers.iter_mut().take(done).for_each(Vec::clear);
        Ok(done)
    }

    /// A question, and the buffer for its answer, which is empty at first; an answer that stays empty is not sent. None where there
    /// is no such question.
    pub fn question(&mut self, number: usize) -> Option<(&[u8], &mut Vec<u8>)> {
        let length = *self.lengths.get(number)?;
        Some((self.questions.get(number)?.get(..length)?, self.answers.get_mut(number)?))
    }

    /// Who asked; none where there is no such question, or its sender is of no family that is known.
    #[must_use]
    pub fn sender(&self, number: usize) -> Option<SocketAddr> {
        self.backs.get(number).filter(|_| number < self.lengths.len()).and_then(|back| parse(&back.to))
    }

    /// The address that a question came to; none where the kernel did not tell.
    #[must_use]
    pub fn destination(&self, number: usize) -> Option<IpAddr> {
        let back = self.backs.get(number).filter(|_| number < self.lengths.len())?;
        back.control.told(back.control_length)
    }

    /// The way back for an answer that comes later.
    #[must_use]
    pub fn back(&self, number: usize) -> Option<Back> {
        self.backs.get(number).filter(|_| number < self.lengths.len()).copied()
    }

    /// Sends the answers, as many at once as the kernel takes, and says how many went. Those that cannot be sent are passed over:
    /// who asked asks again.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SIZE];
        // SAFETY: as in `receive`.
        let mut headers: [libc::mmsghdr; SIZE] = unsafe { mem::zeroed() };
        let mut count = 0;
        let answers = self.answers.iter_mut().zip(&mut self.backs).take(self.lengths.len());
        for (answer, back) in answers.filter(|(answer, _)| !answer.is_empty()) {
            vectors[count] = libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() };
            headers[count].msg_hdr = back.header(&mut vectors[count]);
            count += 1;
        }
        let (mut at, mut sent) = (0, 0);
        while at < count {
            let rest = &mut headers[at..count];
            // SAFETY: `rest` holds as many headers as are told; what they point to lives in `vectors` and `self`, untouched until
            // the call returns.
            let done = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, libc::MSG_DONTWAIT)
            };
            match usize::try_from(done) {
                Ok(done) => (at, sent) = (at + done, sent + done),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => at += 1,
            }
        }
        self.answers.iter_mut().for_each(Vec::clear);
        sent
    }
}

impl Back {
    /// Sends one answer.
    ///
    /// # Errors
    /// When the kernel does not take it: [`io::ErrorKind::WouldBlock`] where the socket's queue is full.
    pub fn send(&mut self, socket: BorrowedFd<'_>, answer: &[u8]) -> io::Result<()> {
        let mut vector = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
        let header = self.header(&mut vector);
        // SAFETY: the header, and what it points to, live until the call returns; sending only reads.
        let done = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn header(&mut self, vector: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: all-zero bytes are a valid `msghdr`.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = ptr::from_mut(&mut self.to).cast();
        header.msg_namelen = self.to_length;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if self.control_length > 0 {
            header.msg_control = self.control.0.as_mut_ptr().cast();
            header.msg_controllen = self.control_length;
        }
        header
    }
}

impl Control {
    /// The address that an answer comes from: the one that was asked.
    fn told(&self, length: usize) -> Option<IpAddr> {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        let number = |at: usize| self.0.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        match (number(HEADER - 8)?, number(HEADER - 4)?) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if length >= HEADER + 12 => {
                let octets: [u8; 4] = self.0.get(HEADER + 4..HEADER + 8)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if length >= HEADER + 20 => {
                let octets: [u8; 16] = self.0.get(HEADER..HEADER + 16)?.try_into().ok()?;
                Some(IpAddr::from(octets).to_canonical())
            }
            _ => None,
        }
    }

    /// Turns what the kernel said of a datagram's destination into the wish that the answer comes from there.
    ///
    /// A device is not asked for, except where the address means something on that device only (link-local ones): the way back
    /// may be another than the way here.
    fn answer_from_here(&mut self, length: usize) {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        let number = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes)
        };
        let (level, kind) = (number(&self.0, HEADER - 8), number(&self.0, HEADER - 4));
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if length >= HEADER + 12 => {
                // ip(7): device, the local address that the answer comes from, the address in the header.
                self.0[HEADER..HEADER + 4].fill(0);
                let told = Ipv4Addr::from(number(&self.0, HEADER + 8).to_ne_bytes());
                // The answer to a broadcast or multicast comes from an address of the node: the kernel has put it there.
                if !told.is_multicast() && !told.is_broadcast() {
                    let octets = told.octets();
                    self.0[HEADER + 4..HEADER + 8].copy_from_slice(&octets);
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if length >= HEADER + 20 => {
                let link_local = self.0[HEADER] == 0xfe && self.0[HEADER + 1] & 0xc0 == 0x80;
                if !link_local {
                    self.0[HEADER + 16..HEADER + 20].fill(0);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    fn serve(socket: &UdpSocket, questions: &mut Questions) -> usize {
        let count = questions.receive(socket.as_fd()).unwrap();
        for number in 0..count {
            let (question, answer) = questions.question(number).unwrap();
            answer.extend(question.iter().rev());
        }
        count
    }

    #[test]
    fn answers_go_back_to_who_asked_from_the_address_that_was_asked() {
        for (local, asked) in
            [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.3"), ("[::]:0", "::1"), ("127.0.0.1:0", "127.0.0.1")]
        {
            let server = UdpSocket::bind(local).unwrap();
            tell_destinations(server.as_fd(), local.starts_with('[')).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let to = SocketAddr::new(asked, server.local_addr().unwrap().port());
            let mut questions = Questions::default();
            assert_eq!(questions.receive(server.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let any = if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let clients: Vec<UdpSocket> = (0..100).map(|_| UdpSocket::bind(any).unwrap()).collect();
            for (number, client) in clients.iter().enumerate() {
                client.send_to(&[number as u8, 7], to).unwrap();
            }
            let mut served = 0;
            while served < clients.len() {
                let count = serve(&server, &mut questions);
                assert!((0..count).all(|number| questions.destination(number) == Some(asked)));
                assert_eq!(questions.destination(count), None);
                served += count;
                if served == clients.len() {
                    // One of them goes the slow way.
                    questions.question(count - 1).unwrap().1.clear();
                    questions.back(count - 1).unwrap().send(server.as_fd(), &[7, (served - 1) as u8]).unwrap();
                    assert_eq!(questions.send(server.as_fd()), count - 1);
                } else {
                    assert_eq!(questions.send(server.as_fd()), count);
                }
            }
            for (number, client) in clients.iter().enumerate() {
                let mut answer = [0; 9];
                let (length, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!((&answer[..length], from), (&[7, number as u8][..], to));
            }
        }
    }

    #[test]
    fn who_cannot_be_answered_keeps_nobody_else_from_an_answer() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        tell_destinations(server.as_fd(), false).unwrap();
        let to = server.local_addr().unwrap();
        let (first, second) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        first.send_to(b"a", to).unwrap();
        second.send_to(b"b", to).unwrap();
        let mut questions = Questions::default();
        assert_eq!(questions.receive(server.as_fd()).unwrap(), 2);
        assert_eq!(questions.sender(0), first.local_addr().ok());
        assert!(questions.sender(2).is_none() && questions.back(2).is_none() && questions.question(2).is_none());
        // Larger than any datagram.
        questions.question(0).unwrap().1.resize(70_000, 0);
        questions.question(1).unwrap().1.push(b'c');
        assert_eq!(questions.send(server.as_fd()), 1);
        let mut answer = [0; 9];
        assert_eq!(second.recv(&mut answer).unwrap(), 1);
    }
}
