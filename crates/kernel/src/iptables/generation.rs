//! The rules of nf_tables in a namespace have a number, which each transaction raises by one. It tells one's own changes from others' where
//! the kernel's numbers of processes are not one's own: in a pod that has a process namespace of its own.

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::{Connection, NetlinkError, Operation, attribute::attribute};

/// `NFT_MSG_GETGEN` of `NFNL_SUBSYS_NFTABLES`.
const GET: u16 = 10 << 8 | 16;
/// `NFTA_GEN_ID`.
const ID: u16 = 1;
/// The length of `struct nfgenmsg`.
const HEAD: usize = 4;

/// The number in the calling thread's namespace; none where the kernel does not tell it.
///
/// # Errors
/// Where the kernel has no nf_tables.
pub(super) fn generation() -> Result<Option<u32>, NetlinkError> {
    let operation = Operation::new("ask for the generation of", "nf_tables");
    let frames =
        Connection::open(NETLINK_NETFILTER)?.ask(&operation, GET, NLM_F_ACK, |writer| writer.raw(&[0; HEAD]))?;
    let id = |attributes: &[u8]| attribute(attributes, ID).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
    Ok(frames.iter().find_map(|frame| id(frame.payload.get(HEAD..)?)))
}
