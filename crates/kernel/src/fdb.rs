//! Permanent forwarding entries of a VXLAN device: which VTEP an Ethernet address is behind (`bridge(8)`, `fdb … self permanent`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use podnet_model::Mac;
use rustix::io::Errno;

use crate::{
    neigh,
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// Makes the entry, or changes the VTEP that the address is behind.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn replace(socket: &mut RtSocket, link: u32, mac: Mac, remote: IpAddr) -> Result<(), NetlinkError> {
    socket.perform(set(link, mac, remote))
}

/// Removes the entry. Done also where there is none, or one with another VTEP.
///
/// # Errors
/// Why the kernel refused.
pub fn delete(socket: &mut RtSocket, link: u32, mac: Mac, remote: IpAddr) -> Result<(), NetlinkError> {
    socket.perform(removal(link, mac, remote))
}

/// The permanent entries of a device.
///
/// # Errors
/// Why the kernel refused.
pub fn list(socket: &mut RtSocket, link: u32) -> Result<Vec<(Mac, IpAddr)>, NetlinkError> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link;
    let request = Request::new(Operation::new("list", "FDB entries"), RouteNetlinkMessage::GetNeighbour(message), 0);
    let found = socket.dump(&request)?;
    Ok(found.into_iter().filter_map(|message| entry(message, link)).collect())
}

pub(crate) fn set(link: u32, mac: Mac, remote: IpAddr) -> Request {
    let mut message = naming(link, mac, remote);
    message.header.state = NeighbourState::Permanent;
    let operation = Operation::new("make FDB entry", format_args!("{mac} at {remote} on device number {link}"));
    Request::new(operation, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn removal(link: u32, mac: Mac, remote: IpAddr) -> Request {
    let operation = Operation::new("remove FDB entry", format_args!("{mac} at {remote} on device number {link}"));
    Request::new(operation, RouteNetlinkMessage::DelNeighbour(naming(link, mac, remote)), 0)
        .done_at(&[Errno::NOENT, Errno::NODEV])
}

fn naming(link: u32, mac: Mac, remote: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(match remote {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    }));
    message
}

fn entry(message: RouteNetlinkMessage, link: u32) -> Option<(Mac, IpAddr)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != link || !neigh::is_lasting(message.header.state) {
        return None;
    }
    let (mac, remote) = parts(message.attributes);
    Some((mac?, remote?))
}

/// An entry's Ethernet address and the VTEP behind which it is.
pub(crate) fn parts(attributes: Vec<NeighbourAttribute>) -> (Option<Mac>, Option<IpAddr>) {
    let (mut mac, mut remote) = (None, None);
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes).ok().map(Mac),
            NeighbourAttribute::Destination(addr) => remote = ip(addr),
            _ => {}
        }
    }
    (mac, remote)
}

/// An entry's destination belongs to the family that its length tells: the message's own is `AF_BRIDGE`.
fn ip(addr: NeighbourAddress) -> Option<IpAddr> {
    match addr {
        NeighbourAddress::Inet(addr) => Some(addr.into()),
        NeighbourAddress::Inet6(addr) => Some(addr.into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
            16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
            _ => None,
        },
        _ => None,
    }
}
