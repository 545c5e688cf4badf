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

/// Questions that are taken together, at most: enough that several of them are one asker's where some ten ask at once.
pub(super) const SIZE: usize = 192;
/// So many at once mean that more come than are answered one by one.
const MANY: usize = 32;
/// The longest question that is taken: one name with an OPT record and its options fits many times. What is longer is cut.
const QUESTION: usize = 4096;
/// From one question's place to the next one's: questions that begin at the same place of different pages would push each other out of
/// the processor's nearest cache.
const STRIDE: usize = QUESTION + 64;
/// What an answer's buffer holds before it grows.
const ANSWER: usize = 1280;

/// Questions that came, and their answers. There is about 1 MB of buffers in it, of which the kernel provides what is used: one for each
/// socket is enough.
pub struct Questions {
    /// [`STRIDE`] bytes for each.
    questions: Vec<u8>,
    lengths: Vec<usize>,
    backs: Vec<Back>,
    answers: Vec<Vec<u8>>,
    /// Each header leads to a vector, a question's place and a way back, all at the same number.
    receiving: Calls,
    sending: Calls,
    groups: Groups,
    /// Whether the kernel cuts messages (Linux 4.18 and later, but not on every way); none before it was asked.
    cuts: Option<bool>,
}

/// What a system call for many datagrams is told of each. It is kept, since only little of it changes from call to call.
#[derive(Default)]
struct Calls {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

impl Calls {
    fn new() -> Self {
        // SAFETY: all-zero bytes are a valid `mmsghdr`, which is made of numbers and pointers that may be null.
        let header: libc::mmsghdr = unsafe { mem::zeroed() };
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self { headers: vec![header; SIZE], vectors: vec![vector; SIZE] }
    }
}

impl Default for Questions {
    fn default() -> Self {
        let (mut questions, mut backs) = (vec![0_u8; SIZE * STRIDE], vec![Back::default(); SIZE]);
        let mut receiving = Calls::new();
        let places = questions.chunks_exact_mut(STRIDE).zip(&mut backs);
        for ((place, back), (vector, header)) in places.zip(receiving.vectors.iter_mut().zip(&mut receiving.headers)) {
            *vector = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: QUESTION };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            back.be_told(&mut header.msg_hdr);
        }
        Self {
            questions,
            lengths: Vec::with_capacity(SIZE),
            backs,
            answers: (0..SIZE).map(|_| Vec::with_capacity(ANSWER)).collect(),
            receiving,
            sending: Calls::new(),
            groups: Groups::new(),
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
        // The kernel has written over what the headers of the last time said.
        for (back, header) in self.backs.iter_mut().zip(&mut self.receiving.headers).take(self.lengths.len()) {
            back.be_told(&mut header.msg_hdr);
        }
        self.lengths.clear();
        let headers = &mut self.receiving.headers;
        // SAFETY: `headers` holds as many headers as are told. What they lead to is in vectors of `self` that are never made longer or
        // shorter, so that it is where it was when they were made; nothing else looks at it until the call returns. The kernel writes
        // into the ways back and the questions' places, within the lengths that the headers tell.
        let done = unsafe {
            let count = headers.len() as libc::c_uint;
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        for (back, header) in self.backs.iter_mut().zip(headers).take(done) {
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
        let question = self.questions.get(number * STRIDE..)?.get(..length)?;
        Some((question, self.answers.get_mut(number)?))
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
        self.group(socket);
        let (groups, mut sending) = (mem::take(&mut self.groups), mem::take(&mut self.sending));
        let Calls { headers, vectors } = &mut sending;
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
            // the call returns. Sending only reads, but for the headers' own lengths.
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
        self.answers.iter_mut().take(self.lengths.len()).for_each(Vec::clear);
        (self.groups, self.sending) = (groups, sending);
        sent
    }

    /// Says which answers go in which message.
    fn group(&mut self, socket: BorrowedFd<'_>) {
        let count = self.lengths.len();
        let are_many = count >= MANY && *self.cuts.get_or_insert_with(|| cuts(socket));
        let (groups, backs) = (&mut self.groups, &self.backs);
        groups.clear();
        let is_same = |one: usize, other: usize| backs[one].is_same(&backs[other]);
        for (number, (answer, back)) in self.answers.iter().zip(backs).enumerate().take(count) {
            if answer.is_empty() {
            } else if are_many && back.has_room() {
                groups.with_others(number, answer.len(), back.hash(), is_same);
            } else {
                groups.alone(number, answer.len());
            }
        }
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
mod tests;
