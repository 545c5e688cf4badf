//! Questions that come in datagrams, many with one system call, and their answers, which go back the way the questions came.
//!
//! An answer has to come from the address that was asked. A socket that is bound to all of a machine's addresses would leave the
//! choice to the routing table; so each question is received with the address that it went to (`IP_PKTINFO`, ip(7), and
//! `IPV6_PKTINFO`, RFC 3542 §6.1), and its answer is sent from there.
//!
//! Where many wait, answers to one asker go in one message that the kernel cuts (see [`super::grouped`]). Where few do, each goes by
//! itself: who captures packets sees them as they are.

use std::{
    fmt, io, mem,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{back::Back, grouped::Groups, length_of};

/// Questions that are taken together.
pub(super) const SIZE: usize = 64;
/// So many at once mean that more come than are answered one by one.
const MANY: usize = 32;
/// The longest question that is taken: one name with an OPT record and its options fits many times. What is longer is cut.
const QUESTION: usize = 4096;
/// What an answer's buffer holds before it grows.
const ANSWER: usize = 1280;

/// Questions that came, and their answers. There are about 350 KB of buffers in it: one for each socket is enough.
pub struct Questions {
    questions: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    backs: Vec<Back>,
    answers: Vec<Vec<u8>>,
    /// Whether the kernel cuts messages (Linux 4.18 and later, but not on every way); none before it was asked.
    cuts: Option<bool>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            questions: vec![vec![0; QUESTION]; SIZE],
            lengths: Vec::with_capacity(SIZE),
            backs: vec![Back::default(); SIZE],
            answers: (0..SIZE).map(|_| Vec::with_capacity(ANSWER)).collect(),
            cuts: None,
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
            back.be_told(header);
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
            back.told(&header.msg_hdr);
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
        self.backs.get(number).filter(|_| number < self.lengths.len()).and_then(Back::sender)
    }

    /// The address that a question came to; none where the kernel did not tell.
    #[must_use]
    pub fn destination(&self, number: usize) -> Option<IpAddr> {
        let back = self.backs.get(number).filter(|_| number < self.lengths.len())?;
        back.destination()
    }

    /// The way back for an answer that comes later.
    #[must_use]
    pub fn back(&self, number: usize) -> Option<Back> {
        self.backs.get(number).filter(|_| number < self.lengths.len()).copied()
    }

    /// Sends the answers, as many at once as the kernel takes, and says how many went. Those that cannot be sent are passed over:
    /// who asked asks again.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let groups = self.groups(socket);
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SIZE];
        // SAFETY: as in `receive`.
        let mut headers: [libc::mmsghdr; SIZE] = unsafe { mem::zeroed() };
        let mut rest = vectors.as_mut_slice();
        for (at, header) in headers.iter_mut().enumerate().take(groups.len()) {
            let (piece, numbers) = groups.message(at);
            let (mut first, mut count) = (None, 0);
            for number in numbers {
                let answer = &mut self.answers[number];
                rest[count] = libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() };
                first.get_or_insert(number);
                count += 1;
            }
            let (own, others) = rest.split_at_mut(count);
            rest = others;
            if let Some(back) = first.and_then(|number| self.backs.get_mut(number)) {
                header.msg_hdr = back.header(own, piece);
            }
        }
        let (mut at, mut sent) = (0, 0);
        while at < groups.len() {
            let rest = &mut headers[at..groups.len()];
            // SAFETY: `rest` holds as many headers as are told; what they point to lives in `vectors` and `self`, untouched until
            // the call returns.
            let done = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, libc::MSG_DONTWAIT)
            };
            if let Ok(done) = usize::try_from(done) {
                sent += rest.iter().take(done).map(|header| header.msg_hdr.msg_iovlen).sum::<usize>();
                at += done;
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if rest.first().is_some_and(|header| header.msg_hdr.msg_iovlen > 1) {
                sent += self.send_apart(socket, groups.message(at).1, &error);
            }
            at += 1;
        }
        self.answers.iter_mut().for_each(Vec::clear);
        sent
    }

    /// Which answers go in which message.
    fn groups(&mut self, socket: BorrowedFd<'_>) -> Groups {
        let mut groups = Groups::new();
        let count = self.lengths.len();
        let are_many = count >= MANY && *self.cuts.get_or_insert_with(|| cuts(socket));
        let is_same = |one: usize, other: usize| self.backs[one].is_same(&self.backs[other]);
        for (number, (answer, back)) in self.answers.iter().zip(&self.backs).enumerate().take(count) {
            if answer.is_empty() {
            } else if are_many && back.has_room() {
                groups.with_others(number, answer.len(), back.hash(), is_same);
            } else {
                groups.alone(number, answer.len());
            }
        }
        groups
    }

    /// Sends answers one by one that the kernel did not take together.
    fn send_apart(&mut self, socket: BorrowedFd<'_>, numbers: impl Iterator<Item = usize>, error: &io::Error) -> usize {
        // On other ways too it would be in vain, which costs a call each time. A way that is too narrow is none of them, nor is an
        // address that has gone since it was asked: `EINVAL` may be either (the former before Linux 6.14).
        if matches!(error.raw_os_error(), Some(libc::EIO | libc::EOPNOTSUPP)) {
            self.cuts = Some(false);
        }
        let mut send = |number: usize| self.backs[number].send(socket, &self.answers[number]).is_ok();
        numbers.map(&mut send).filter(|sent| *sent).count()
    }
}

/// Whether the kernel knows `UDP_SEGMENT`; one that does not would send what is to be cut as one datagram.
fn cuts(socket: BorrowedFd<'_>) -> bool {
    let (mut value, mut length): (libc::c_int, _) = (0, length_of::<libc::c_int>());
    // SAFETY: the value and its length live until the call returns, and the length is the value's.
    let done = unsafe {
        let value = ptr::from_mut(&mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, &raw mut length)
    };
    done == 0
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

    /// Has the kernel put datagrams together that came as one (`UDP_GRO`, udp(7)), so that it is seen which did.
    fn sees_messages(socket: &UdpSocket) {
        let on: libc::c_int = 1;
        let length = length_of::<libc::c_int>();
        // SAFETY: the value lives until the call returns, and its length is told.
        let done = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, ptr::from_ref(&on).cast(), length)
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn where_many_wait_answers_to_one_asker_go_together_and_come_apart() {
        for (local, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.3"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(local).unwrap();
            tell_destinations(server.as_fd(), local.starts_with('[')).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let to = SocketAddr::new(asked, server.local_addr().unwrap().port());
            let any = if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let (client, watcher) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            sees_messages(&watcher);
            let mut questions = Questions::default();
            for few in [true, false] {
                let numbers = if few { 0..4_u8 } else { 0..20_u8 };
                for number in numbers.clone() {
                    for socket in [&client, &watcher] {
                        // Two of three are of one length.
                        socket.send_to(&vec![number; if number % 3 == 2 { 60 } else { 80 }], to).unwrap();
                    }
                }
                let count = serve(&server, &mut questions);
                assert_eq!((count, questions.send(server.as_fd())), (2 * numbers.len(), 2 * numbers.len()));
                let mut came: Vec<Vec<u8>> = Vec::new();
                for _ in numbers.clone() {
                    let mut answer = [0; 999];
                    let (length, from) = client.recv_from(&mut answer).unwrap();
                    assert_eq!(from, to);
                    came.push(answer[..length].to_vec());
                }
                came.sort_unstable();
                let whole = |number: u8| vec![number; if number % 3 == 2 { 60 } else { 80 }];
                assert_eq!(came, numbers.map(whole).collect::<Vec<_>>());
                let mut first = [0; 999];
                assert_eq!(watcher.recv(&mut first).unwrap(), if few { 80 } else { 80 + 80 + 60 });
                watcher.set_nonblocking(true).unwrap();
                while watcher.recv(&mut first).is_ok() {}
                watcher.set_nonblocking(false).unwrap();
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

    #[test]
    fn one_way_that_is_too_narrow_or_gone_does_not_end_that_answers_go_together() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut questions = Questions { cuts: Some(true), ..Questions::default() };
        for (code, cuts) in [(libc::EMSGSIZE, true), (libc::EINVAL, true), (libc::EIO, false)] {
            let error = io::Error::from_raw_os_error(code);
            questions.send_apart(server.as_fd(), std::iter::empty(), &error);
            assert_eq!(questions.cuts, Some(cuts), "{error}");
        }
    }
}
