//! The rules of nf_tables in a namespace have a number, which each transaction raises by one. It tells one's own changes from others' where
//! the kernel's numbers of processes are not one's own: in a pod that has a process namespace of its own.

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::transaction::{Message, head};
use crate::netlink::{Connection, NetlinkError, Operation, attribute::attribute};

/// `NFTA_GEN_ID`.
const ID: u16 = 1;

/// The number in the calling thread's namespace; none where the kernel does not tell it.
///
/// # Errors
/// Where the kernel has no nf_tables.
pub(crate) fn generation() -> Result<Option<u32>, NetlinkError> {
    of(&mut Connection::open(NETLINK_NETFILTER)?)
}

/// The number in a socket's namespace.
///
/// # Errors
/// As [`generation`].
pub(super) fn of(connection: &mut Connection) -> Result<Option<u32>, NetlinkError> {
    let operation = Operation::new("ask for the generation of", "nf_tables");
    let kind = Message::GetGeneration.kind();
    let frames = connection.ask(&operation, kind, NLM_F_ACK, |writer| writer.raw(&head(0, 0)))?;
    let id = |attributes: &[u8]| attribute(attributes, ID).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
    Ok(frames.iter().find_map(|frame| id(frame.payload.get(head(0, 0).len()..)?)))
}
