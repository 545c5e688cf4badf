//! Permanent neighbours: who is behind an address without asking (`RTM_*NEIGH`, ARP and ND).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};
use podnet_model::Mac;
use rustix::io::Errno;

use crate::{
    addr::family,
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// Makes or replaces a permanent neighbour entry.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn replace(socket: &mut RtSocket, link: u32, addr: IpAddr, mac: Mac) -> Result<(), NetlinkError> {
    socket.perform(set(link, addr, mac))
}

/// Removes a neighbour entry. Done also where there is none.
///
/// # Errors
/// Why the kernel refused.
pub fn delete(socket: &mut RtSocket, link: u32, addr: IpAddr) -> Result<(), NetlinkError> {
    socket.perform(removal(link, addr))
}

/// The permanent neighbours on a device.
///
/// # Errors
/// Why the kernel refused.
pub fn list(socket: &mut RtSocket, link: u32) -> Result<Vec<(IpAddr, Mac)>, NetlinkError> {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(link));
    let request = Request::new(Operation::new("list", "neighbours"), RouteNetlinkMessage::GetNeighbour(message), 0);
    let found = socket.dump(&request)?;
    Ok(found.into_iter().filter_map(|message| neighbour(message, link)).collect())
}

/// All permanent neighbours, each with the index of its device.
///
/// # Errors
/// Why the kernel refused.
pub fn list_all(socket: &mut RtSocket) -> Result<Vec<(u32, IpAddr, Mac)>, NetlinkError> {
    let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let found = socket.dump(&Request::new(Operation::new("list", "neighbours"), message, 0))?;
    let entry = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewNeighbour(ref inner) = message else { return None };
        let link = inner.header.ifindex;
        neighbour(message, link).map(|(addr, mac)| (link, addr, mac))
    };
    Ok(found.into_iter().filter_map(entry).collect())
}

pub(crate) fn set(link: u32, addr: IpAddr, mac: Mac) -> Request {
    let mut message = naming(link, addr);
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let operation = Operation::new("make neighbour", format_args!("{addr} at {mac} on device number {link}"));
    Request::new(operation, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn removal(link: u32, addr: IpAddr) -> Request {
    let operation = Operation::new("remove neighbour", format_args!("{addr} on device number {link}"));
    Request::new(operation, RouteNetlinkMessage::DelNeighbour(naming(link, addr)), 0)
        .done_at(&[Errno::NOENT, Errno::NODEV])
}

fn naming(link: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    }));
    message
}

fn neighbour(message: RouteNetlinkMessage, link: u32) -> Option<(IpAddr, Mac)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != link || !is_lasting(message.header.state) {
        return None;
    }
    let (addr, mac) = parts(message.attributes);
    Some((addr?, mac?))
}

/// Entries that never age. `bridge fdb` marks its own as `NUD_NOARP` besides (`linux/neighbour.h`).
pub(crate) fn is_lasting(state: NeighbourState) -> bool {
    const NUD_PERMANENT: u16 = 0x80;
    u16::from(state) & NUD_PERMANENT != 0
}

/// A neighbour's address and its Ethernet address.
pub(crate) fn parts(attributes: Vec<NeighbourAttribute>) -> (Option<IpAddr>, Option<Mac>) {
    let (mut addr, mut mac) = (None, None);
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => addr = Some(found.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => addr = Some(found.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes).ok().map(Mac),
            _ => {}
        }
    }
    (addr, mac)
}
