//! Families of generic netlink: each has a number that the kernel tells when it is asked by the family's name (`linux/genetlink.h`).

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::{
    Connection, Frame, NetlinkError, Operation,
    attribute::{Writer, attribute},
    batch::{self, Refused},
};

/// `GENL_ID_CTRL`: the family that tells the others' numbers, its request for one, and the attributes of both.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Of all families that podnet speaks to.
const VERSION: u8 = 1;

/// A socket for one family, in one namespace.
#[derive(Debug)]
pub(crate) struct GenericSocket {
    connection: Connection,
    family: u16,
}

impl GenericSocket {
    /// Opens a socket in the calling thread's namespace. Where the family is a module the question loads it.
    ///
    /// # Errors
    /// Where the process may not, or the kernel has no such family ([`NetlinkError::is_missing`]).
    pub(crate) fn open(family: &'static str) -> Result<Self, NetlinkError> {
        let mut socket = Self { connection: Connection::open(NETLINK_GENERIC)?, family: CONTROL };
        let operation = Operation::new("find netlink family", family);
        let replies = socket.ask(&operation, NLM_F_ACK, GET_FAMILY, |writer| writer.text(FAMILY_NAME, family))?;
        let number = replies.iter().find_map(|frame| attribute(body(frame), FAMILY_ID));
        let number = number.and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        socket.family = number.ok_or(NetlinkError::Refused { operation, hint: None, errno: Errno::NOENT })?;
        Ok(socket)
    }

    /// Sends one request and collects the answers until its acknowledgement (`NLM_F_ACK`), or the dump's end (`NLM_F_DUMP`).
    ///
    /// # Errors
    /// Why the kernel refused.
    pub(crate) fn ask(
        &mut self,
        operation: &Operation,
        flags: u16,
        command: u8,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Vec<Frame>, NetlinkError> {
        self.connection.ask(operation, self.family, flags, |writer| {
            writer.raw(&[command, VERSION, 0, 0]);
            body(writer);
        })
    }

    /// Sends `count` requests, each written by `write` into the writer; its answer is the command. All are tried; those that were
    /// refused are returned.
    ///
    /// # Errors
    /// Where the socket fails.
    pub(crate) fn send_all(
        &mut self,
        count: usize,
        command: impl Fn(usize) -> u8,
        write: impl Fn(usize, &mut Writer),
    ) -> Result<Vec<Refused>, NetlinkError> {
        let family = self.family;
        batch::send_all(&mut self.connection, count, |index, message| {
            message.write(family, 0, |writer| {
                writer.raw(&[command(index), VERSION, 0, 0]);
                write(index, writer);
            });
        })
    }
}

/// What follows the family's own header of four bytes.
pub(crate) fn body(frame: &Frame) -> &[u8] {
    frame.payload.get(4..).unwrap_or_default()
}
