//! A blocking netlink socket: sends bytes, receives frames.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr};
use rustix::{
    io::Errno,
    net::{
        RecvFlags, recv,
        sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force},
    },
};

use super::{
    NetlinkError, Operation,
    attribute::{Writer, attribute, text},
};

/// Dumps come in datagrams of at most 32 KiB on every kernel so far (`NLMSG_GOODSIZE`, `max_recvmsg_len`); twice that is room to spare.
const DATAGRAM: usize = 64 << 10;
/// Room for the acknowledgements of a full batch, each of which costs the kernel about 1 KiB of accounting.
const RECEIVE_BUFFER: usize = 4 << 20;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const ATTR_MSG: u16 = 1;

/// A socket of one netlink family, opened in the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    send_buffer: usize,
}

/// One message from the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u16,
    pub(crate) payload: Vec<u8>,
}

/// What a socket that joined groups heard.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing more for now.
    None,
    /// These messages.
    Frames(Vec<Frame>),
    /// More than the buffer had room for: some are lost.
    Lost,
}

/// That the kernel did not do a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Which error: a number as others, below 4096, or one of the family's own.
    pub(crate) code: i32,
    /// The kernel's own words, where it has some.
    pub(crate) hint: Option<String>,
}

impl Refusal {
    /// The error of that operation.
    pub(crate) fn of(self, operation: &Operation) -> NetlinkError {
        let (errno, hint) = self.number();
        NetlinkError::Refused { operation: operation.clone(), hint, errno }
    }

    /// The error number and the words about it. A number of the family's own is none that anybody else knows: it is told in words.
    pub(crate) fn number(self) -> (Errno, Option<String>) {
        const LAST: i32 = 4095;
        if self.code <= LAST {
            return (Errno::from_raw_os_error(self.code), self.hint);
        }
        (Errno::PROTO, self.hint.or(Some(format!("error {} of its own", self.code))))
    }
}

/// What an acknowledgement says.
pub(crate) type Acknowledgement = Result<(), (Errno, Option<String>)>;

impl Connection {
    /// The socket's descriptor.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        // Acknowledgements need not repeat the request, and shall say in words what was wrong.
        socket.set_cap_ack(true).map_err(failed("configure"))?;
        socket.set_ext_ack(true).map_err(failed("configure"))?;
        let connection = Self { socket, sequence: 0, buffer: vec![0; DATAGRAM], send_buffer: 0 };
        connection.make_room_to_hear(RECEIVE_BUFFER);
        Ok(connection)
    }

    /// So many bytes may wait until they are read. They take room only while they do.
    pub(crate) fn make_room_to_hear(&self, bytes: usize) {
        if set_socket_recv_buffer_size_force(&self.socket, bytes).is_err() {
            // Without CAP_NET_ADMIN over the machine the kernel's own limit holds; batches are then small enough for it.
            let _ = set_socket_recv_buffer_size(&self.socket, bytes);
        }
    }

    /// Makes dumps look at the filters in their requests (`NETLINK_GET_STRICT_CHK`, Linux 4.20); older kernels send everything, and
    /// callers filter again anyway.
    pub(crate) fn filter_dumps_in_kernel(&self) {
        let _ = self.socket.set_netlink_get_strict_chk(true);
    }

    /// Reserves `count` sequence numbers and returns the first.
    pub(crate) fn reserve(&mut self, count: usize) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }

    /// Sends messages as one datagram: the kernel reads it as a whole.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), NetlinkError> {
        self.make_room(bytes.len())?;
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(NetlinkError::Socket { action: "send to", source }),
            }
        }
    }

    /// A datagram must fit the send buffer as a whole; the default holds about 200 KiB, a large transaction has megabytes.
    fn make_room(&mut self, length: usize) -> Result<(), NetlinkError> {
        const DEFAULT: usize = 128 << 10;
        if length < DEFAULT || length <= self.send_buffer {
            return Ok(());
        }
        let wanted = length.next_power_of_two();
        set_socket_send_buffer_size_force(&self.socket, wanted)
            .map_err(|errno| NetlinkError::Socket { action: "enlarge the send buffer of", source: errno.into() })?;
        self.send_buffer = wanted;
        Ok(())
    }

    /// Waits for a datagram and splits it.
    pub(crate) fn receive(&mut self) -> Result<Vec<Frame>, NetlinkError> {
        self.receive_with(RecvFlags::TRUNC).map_err(|source| NetlinkError::Socket { action: "receive from", source })
    }

    /// Waits for the kernel's answer to the request of this sequence number; what else comes meanwhile is nobody's.
    pub(crate) fn acknowledged(&mut self, sequence: u32) -> Result<Acknowledgement, NetlinkError> {
        loop {
            let frames = self.receive()?;
            let answers = frames.iter().filter(|frame| frame.sequence == sequence);
            if let Some(answer) = { answers }.find_map(Frame::acknowledgement) {
                return Ok(answer);
            }
        }
    }

    /// Sends one request and collects what the kernel answers until its acknowledgement, or the dump's end. `flags` beyond
    /// `NLM_F_REQUEST` have to ask for one of both.
    pub(crate) fn ask(
        &mut self,
        operation: &Operation,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Vec<Frame>, NetlinkError> {
        let sequence = self.reserve(1);
        let mut writer = Writer::default();
        writer.message(kind, NLM_F_REQUEST | flags, sequence, body);
        self.send(&writer.into_bytes())?;
        let mut found = Vec::new();
        loop {
            for frame in self.receive()?.into_iter().filter(|frame| frame.sequence == sequence) {
                match frame.said() {
                    None => found.push(frame),
                    Some(Ok(())) => return Ok(found),
                    Some(Err(refusal)) => return Err(refusal.of(operation)),
                }
            }
        }
    }

    /// A datagram that is there already; none where all were read. Where the kernel had to drop some for want of room (`ENOBUFS`),
    /// those that it kept are still read: they are the older ones.
    pub(crate) fn receive_pending(&mut self) -> Result<Option<Vec<Frame>>, NetlinkError> {
        loop {
            match self.receive_with(RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
                Ok(frames) => return Ok(Some(frames)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {}
                Err(source) => return Err(NetlinkError::Socket { action: "receive from", source }),
            }
        }
    }

    /// Hears what is sent to a multicast group from now on.
    pub(crate) fn join(&self, group: u32) -> Result<(), NetlinkError> {
        self.socket.add_membership(group).map_err(failed("join a group with"))
    }

    /// A second handle to the socket.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd, NetlinkError> {
        self.socket.as_fd().try_clone_to_owned().map_err(failed("duplicate"))
    }

    /// The number by which the kernel tells this socket from others of its namespace and family.
    pub(crate) fn port(&self) -> Result<u32, NetlinkError> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address).map_err(failed("ask for the address of"))?;
        Ok(address.port_number())
    }

    /// What was told since the last call, without waiting.
    pub(crate) fn news(&mut self) -> Result<News, NetlinkError> {
        match self.receive_with(RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
            Ok(frames) => Ok(News::Frames(frames)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(News::None),
            // A datagram that was cut off is lost as well.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(News::Lost),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(News::Lost),
            Err(source) => Err(NetlinkError::Socket { action: "receive from", source }),
        }
    }

    /// `MSG_TRUNC` makes the kernel tell a datagram's length also where the buffer was too short for it.
    fn receive_with(&mut self, flags: RecvFlags) -> io::Result<Vec<Frame>> {
        loop {
            match recv(&self.socket, self.buffer.as_mut_slice(), flags) {
                Ok((_, length)) => {
                    let datagram = self.buffer.get(..length).ok_or_else(cut_off)?;
                    return frames(datagram).ok_or_else(cut_off);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's message is cut off")
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| NetlinkError::Socket { action, source }
}

fn frames(mut datagram: &[u8]) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    while !datagram.is_empty() {
        let (frame, length) = frame(datagram)?;
        frames.push(frame);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(frames)
}

fn frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = usize::try_from(word(0)?).ok()?;
    let payload = bytes.get(16..length)?.to_vec();
    Some((Frame { kind: half(4)?, flags: half(6)?, sequence: word(8)?, payload }, length))
}

impl Frame {
    /// The acknowledgement that this is, of a request or of a whole dump.
    pub(crate) fn acknowledgement(&self) -> Option<Acknowledgement> {
        Some(self.said()?.map_err(Refusal::number))
    }

    /// As [`Frame::acknowledgement`], with refusals as the kernel numbers them.
    pub(crate) fn said(&self) -> Option<Result<(), Refusal>> {
        let is_error = self.kind == NLMSG_ERROR;
        if !is_error && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.payload.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
        if code >= 0 {
            return Some(Ok(()));
        }
        Some(Err(Refusal { code: code.saturating_neg(), hint: self.hint(is_error) }))
    }

    /// What the kernel dumped changed meanwhile: something may be missing or be there twice.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// The words of an extended acknowledgement. They stand after the code and the request's header, or after the whole request
    /// where that was not cut off.
    fn hint(&self, is_error: bool) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let request = match self.payload.get(4..8).and_then(|length| length.try_into().ok()) {
            _ if !is_error => 0,
            Some(length) if self.flags & NLM_F_CAPPED == 0 => usize::try_from(u32::from_ne_bytes(length)).ok()?,
            _ => 16,
        };
        let attributes = self.payload.get((4 + request).next_multiple_of(4)..)?;
        attribute(attributes, ATTR_MSG).map(text).filter(|hint| !hint.is_empty())
    }
}
