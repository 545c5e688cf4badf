//! One request of the route family.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use super::Operation;

/// One request of the route family: an operation of [`link`](crate::link), [`addr`](crate::addr), [`route`](crate::route),
/// [`neigh`](crate::neigh) or [`fdb`](crate::fdb) that was not sent yet.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) operation: Operation,
    message: RouteNetlinkMessage,
    flags: u16,
    done_anyway: &'static [Errno],
}

impl Request {
    /// A request; `flags` beyond `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) fn new(operation: Operation, message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { operation, message, flags, done_anyway: &[] }
    }

    /// Takes these errors as success: what was to be removed is not there, what was to be made is.
    pub(crate) fn done_at(mut self, errors: &'static [Errno]) -> Self {
        self.done_anyway = errors;
        self
    }

    /// What is asked, in words.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    pub(super) fn is_done_at(&self, errno: Errno) -> bool {
        self.done_anyway.contains(&errno)
    }

    /// Appends the message. Each one is padded to four bytes as the next must be aligned (`NLMSG_ALIGN`).
    pub(super) fn encode(&self, sequence: u32, extra_flags: u16, buffer: &mut Vec<u8>) {
        const HEADER: usize = 16;
        let start = buffer.len();
        let length = HEADER + self.message.buffer_len();
        buffer.resize(start + length.next_multiple_of(4), 0);
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = self.message.message_type();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | self.flags | extra_flags;
        header.sequence_number = sequence;
        netlink_packet_core::Emitable::emit(&header, &mut buffer[start..start + HEADER]);
        self.message.serialize(&mut buffer[start + HEADER..start + length]);
    }
}
