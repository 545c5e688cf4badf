//! Connection tracking: translations that connections keep although the rules say otherwise by now (`nfnetlink_conntrack.h`).
//!
//! A TCP client notices that its peer is gone and connects anew. One of UDP goes on from the same port, and as long as it does, its
//! packets go where the first one went: so the entries of a port that leads elsewhere now have to be forgotten.

mod backend;

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use podnet_model::{Family, Protocol};
use podnet_planner::ruleset::{BackendAddress, FrontendKey};
use rustix::io::Errno;

pub use backend::Backends;

use crate::{
    netlink::{
        Connection, NetlinkError, Operation,
        attribute::{Writer, attribute},
    },
    sysctl,
};

/// `NFNL_SUBSYS_CTNETLINK`, and its messages.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// The length of `struct nfgenmsg`.
const HEAD: usize = 4;
// enum ctattr_type, ctattr_tuple, ctattr_l4proto, ctattr_filter
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const FILTER: u16 = 25;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const FILTER_ORIGINAL: u16 = 1;
/// `CTA_FILTER_F_CTA_PROTO_NUM`, and the same with `…_DST_PORT` (`nf_internals.h`).
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = BY_PROTOCOL | 1 << 5;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const SOURCE_PORT: u16 = 2;

/// Forgets the connections of a family that were opened to a port of any address; how many these were.
///
/// # Errors
/// Where the kernel refuses.
pub fn forget(family: Family, protocol: Protocol, port: u16) -> Result<usize, NetlinkError> {
    if !is_there() {
        return Ok(0);
    }
    let mut connection = Connection::open(NETLINK_NETFILTER)?;
    let found = list(&mut connection, family, protocol, Some(port), |_| true)?;
    delete(&mut connection, family, &found, &format_args!("port {port}/{protocol}"))
}

/// Whether the calling thread's namespace has connection tracking: without it nothing is remembered that could lead astray.
fn is_there() -> bool {
    sysctl::read_here("net/netfilter/nf_conntrack_count").is_ok()
}

/// Forgets the UDP connections of a family that lead astray: `astray` is asked of each with what it was opened to, and who answers it.
/// The kernel is asked for all of UDP once; how many were forgotten.
///
/// # Errors
/// Where the kernel refuses.
pub fn forget_astray(
    family: Family,
    mut astray: impl FnMut(FrontendKey, BackendAddress) -> bool,
) -> Result<usize, NetlinkError> {
    if !is_there() {
        return Ok(0);
    }
    let mut connection = Connection::open(NETLINK_NETFILTER)?;
    let is_astray = |entry: &Entry| entry.opened_to().zip(entry.answered_by()).is_some_and(|(to, by)| astray(to, by));
    let found = list(&mut connection, family, Protocol::Udp, None, is_astray)?;
    delete(&mut connection, family, &found, &"a backend that is gone")
}

/// One that the kernel does not let go does not keep the others: the first refusal is told.
fn delete(
    connection: &mut Connection,
    family: Family,
    found: &[Entry],
    what: &dyn std::fmt::Display,
) -> Result<usize, NetlinkError> {
    let operation = Operation::new("forget a connection to", what);
    let (mut forgotten, mut refusal) = (0, None);
    for entry in found {
        let sequence = connection.reserve(1);
        let mut writer = Writer::default();
        writer.message(DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, |writer| {
            writer.raw(&head(family));
            writer.nested(TUPLE_ORIGINAL, |writer| writer.raw(&entry.tuple));
            writer.bytes(ID, &entry.id);
        });
        connection.send(&writer.into_bytes())?;
        match connection.acknowledged(sequence)? {
            Ok(()) => forgotten += 1,
            // It ended by itself meanwhile.
            Err((Errno::NOENT, _)) => {}
            Err(refused) => refusal = refusal.or(Some(refused)),
        }
    }
    match refusal {
        Some((errno, hint)) => Err(NetlinkError::Refused { operation, hint, errno }),
        None => Ok(forgotten),
    }
}

/// Makes sure that there is connection tracking: where it is a module, the first question loads it.
///
/// # Errors
/// Where the kernel has none, or refuses.
pub fn load() -> Result<(), NetlinkError> {
    list(&mut Connection::open(NETLINK_NETFILTER)?, Family::V4, Protocol::Udp, Some(0), |_| false).map(drop)
}

/// `struct nfgenmsg`, which names the family (`AF_INET`, `AF_INET6`).
const fn head(family: Family) -> [u8; HEAD] {
    let number = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    [number, 0, 0, 0]
}

/// An entry: the attributes of its first packet's direction and its number, which name it, and those of the direction back.
struct Entry {
    tuple: Vec<u8>,
    id: Vec<u8>,
    back: Vec<u8>,
}

impl Entry {
    /// What the first packet was addressed to.
    fn opened_to(&self) -> Option<FrontendKey> {
        const DESTINATIONS: [u16; 2] = [2, 4];
        let addr = address(attribute(&self.tuple, TUPLE_ADDRESSES)?, DESTINATIONS)?;
        let port = port(attribute(&self.tuple, TUPLE_PROTOCOL)?, DESTINATION_PORT)?;
        Some(FrontendKey { addr, protocol: Protocol::Udp, port })
    }

    /// Who answers.
    fn answered_by(&self) -> Option<BackendAddress> {
        const SOURCES: [u16; 2] = [1, 3];
        let addr = address(attribute(&self.back, TUPLE_ADDRESSES)?, SOURCES)?;
        Some(BackendAddress { addr, port: port(attribute(&self.back, TUPLE_PROTOCOL)?, SOURCE_PORT)? })
    }
}

/// The address in one of these attributes: that of IPv4, or that of IPv6.
fn address(attributes: &[u8], [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    let of_v4 = attribute(attributes, v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(IpAddr::from);
    of_v4.or_else(|| Some(<[u8; 16]>::try_from(attribute(attributes, v6)?).ok()?.into()))
}

fn port(attributes: &[u8], kind: u16) -> Option<u16> {
    attribute(attributes, kind)?.try_into().ok().map(u16::from_be_bytes)
}

/// The kernel picks the entries out (since Linux 5.8); an older one lists all, and they are picked out here as well. A node may have
/// hundreds of thousands: only those that are `wanted` are kept.
fn list(
    connection: &mut Connection,
    family: Family,
    protocol: Protocol,
    port: Option<u16>,
    mut wanted: impl FnMut(&Entry) -> bool,
) -> Result<Vec<Entry>, NetlinkError> {
    let sequence = connection.reserve(1);
    let mut writer = Writer::default();
    writer.message(GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, |writer| {
        writer.raw(&head(family));
        writer.nested(TUPLE_ORIGINAL, |writer| {
            writer.nested(TUPLE_PROTOCOL, |writer| {
                writer.bytes(PROTOCOL_NUMBER, &[protocol.number()]);
                port.iter().for_each(|port| writer.bytes(DESTINATION_PORT, &port.to_be_bytes()));
            });
        });
        let filter = if port.is_some() { BY_PORT } else { BY_PROTOCOL };
        writer.nested(FILTER, |writer| writer.bytes(FILTER_ORIGINAL, &filter.to_ne_bytes()));
    });
    connection.send(&writer.into_bytes())?;
    let mut found = Vec::new();
    loop {
        for frame in connection.receive()?.into_iter().filter(|frame| frame.sequence == sequence) {
            match frame.acknowledgement() {
                // A dump that others' connections came into is as good: what matters is there since before.
                Some(Ok(())) => return Ok(found),
                Some(Err((errno, hint))) => {
                    let port = port.map(|port| format!("port {port}/")).unwrap_or_default();
                    let operation = Operation::new("list connections to", format_args!("{port}{protocol}"));
                    return Err(NetlinkError::Refused { operation, hint, errno });
                }
                None => {
                    let entry = entry(frame.payload.get(HEAD..).unwrap_or_default(), protocol, port);
                    found.extend(entry.filter(&mut wanted));
                }
            }
        }
    }
}

fn entry(attributes: &[u8], protocol: Protocol, port: Option<u16>) -> Option<Entry> {
    let tuple = attribute(attributes, TUPLE_ORIGINAL)?;
    let upper = attribute(tuple, TUPLE_PROTOCOL)?;
    let fits = attribute(upper, PROTOCOL_NUMBER)? == [protocol.number()]
        && port.is_none_or(|port| self::port(upper, DESTINATION_PORT) == Some(port));
    let back = attribute(attributes, TUPLE_REPLY).unwrap_or_default().to_vec();
    fits.then(|| Some(Entry { tuple: tuple.to_vec(), id: attribute(attributes, ID)?.to_vec(), back }))?
}
