//! Addresses of devices (`RTM_*ADDR`).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
};
use podnet_planner::ipvs::DEVICE;
use rustix::io::Errno;

use crate::{
    link,
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// Gives a device an address, in force at once (no duplicate address detection). Done also where it has it.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn add(socket: &mut RtSocket, link: u32, addr: IpNet) -> Result<(), NetlinkError> {
    socket.perform(set(link, addr))
}

/// Takes an address from a device. Done also where it has it not.
///
/// # Errors
/// Why the kernel refused.
pub fn delete(socket: &mut RtSocket, link: u32, addr: IpNet) -> Result<(), NetlinkError> {
    socket.perform(removal(link, addr))
}

/// The addresses of a device, link-local ones of IPv6 too.
///
/// # Errors
/// Why the kernel refused.
pub fn list(socket: &mut RtSocket, link: u32) -> Result<Vec<IpNet>, NetlinkError> {
    Ok(list_of(socket, link)?.into_iter().map(|(addr, _)| addr).collect())
}

/// The addresses of a device, and whether each is such as [`set_as_no_source`] makes it.
pub(crate) fn list_of(socket: &mut RtSocket, link: u32) -> Result<Vec<(IpNet, bool)>, NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.index = link;
    let request = Request::new(Operation::new("list", "addresses"), RouteNetlinkMessage::GetAddress(message), 0);
    let found = socket.dump(&request)?;
    let of = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(ref inner) = message else { return None };
        let is_no_source = match inner.header.family {
            AddressFamily::Inet6 => flags(inner).contains(AddressFlags::Deprecated),
            _ => inner.header.scope == AddressScope::Host,
        };
        address(message, link).map(|addr| (addr, is_no_source))
    };
    Ok(found.into_iter().filter_map(of).collect())
}

/// All addresses, each with the index of its device.
///
/// # Errors
/// Why the kernel refused.
pub fn list_all(socket: &mut RtSocket) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    list_those(socket, |_| true)
}

/// As [`list_all`], without those of IPv6 that do not last: made to be changed often (RFC 8981), deprecated, or not yet, or never to
/// be, in force; and without those that a node has for the sake of virtual servers, podnet's or kube-proxy's: nobody reaches the node there.
///
/// # Errors
/// Why the kernel refused.
pub fn list_lasting(socket: &mut RtSocket) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    // What means temporary of IPv6 means secondary of IPv4.
    let passing =
        AddressFlags::Secondary | AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    let of_servers = link::find(socket, DEVICE)?.map(|device| device.index);
    list_those(socket, |message| {
        let is_passing = message.header.family == AddressFamily::Inet6 && flags(message).intersects(passing);
        !is_passing && Some(message.header.index) != of_servers
    })
}

/// Those of [`list_lasting`] at which others on the network can reach the namespace.
///
/// # Errors
/// Why the kernel refused.
pub fn list_reachable(socket: &mut RtSocket) -> Result<Vec<IpAddr>, NetlinkError> {
    let is_reachable = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => !addr.is_loopback() && !addr.is_link_local(),
        IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
    };
    Ok(list_lasting(socket)?.into_iter().map(|(_, net)| net.addr()).filter(is_reachable).collect())
}

/// Those with such flags.
pub(crate) fn list_flagged(
    socket: &mut RtSocket,
    wanted: impl Fn(AddressFlags) -> bool,
) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    list_those(socket, |message| wanted(flags(message)))
}

fn list_those(
    socket: &mut RtSocket,
    wanted: impl Fn(&AddressMessage) -> bool,
) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = socket.dump(&Request::new(Operation::new("list", "addresses"), message, 0))?;
    let entry = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(ref inner) = message else { return None };
        let link = inner.header.index;
        wanted(inner).then(|| address(message, link).map(|addr| (link, addr))).flatten()
    };
    Ok(found.into_iter().filter_map(entry).collect())
}

/// All flags: the header has room for eight of them only.
pub(crate) fn flags(message: &AddressMessage) -> AddressFlags {
    let all = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    all.unwrap_or_else(AddressFlags::empty)
}

pub(crate) fn set(link: u32, addr: IpNet) -> Request {
    set_as(link, addr, AddressScope::Universe, AddressFlags::Nodad)
}

/// As [`set`], of an address by itself that is no packet's source unless it is asked for: to masquerade what leaves by a device without an
/// address the kernel takes one of another device, of whatever scope but that of the host (IPv4), or any that is not deprecated (IPv6).
pub(crate) fn set_as_no_source(link: u32, addr: IpAddr) -> Request {
    let mut request = naming(link, IpNet::from(addr));
    request.header.scope = AddressScope::Host;
    request.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    if addr.is_ipv6() {
        let mut deprecated = CacheInfo::default();
        deprecated.ifa_valid = u32::MAX;
        request.attributes.push(AddressAttribute::CacheInfo(deprecated));
    }
    adding(link, IpNet::from(addr), request)
}

pub(crate) fn set_as(link: u32, addr: IpNet, scope: AddressScope, flags: AddressFlags) -> Request {
    let mut message = naming(link, addr);
    message.header.scope = scope;
    message.attributes.push(AddressAttribute::Flags(flags));
    adding(link, addr, message)
}

fn adding(link: u32, addr: IpNet, message: AddressMessage) -> Request {
    let operation = Operation::new("add address", format_args!("{addr} to device number {link}"));
    Request::new(operation, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn removal(link: u32, addr: IpNet) -> Request {
    let operation = Operation::new("remove address", format_args!("{addr} from device number {link}"));
    Request::new(operation, RouteNetlinkMessage::DelAddress(naming(link, addr)), 0)
        .done_at(&[Errno::ADDRNOTAVAIL, Errno::NODEV])
}

fn naming(link: u32, addr: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(addr.addr());
    message.header.prefix_len = addr.prefix_len();
    message.header.index = link;
    message.attributes = vec![AddressAttribute::Local(addr.addr()), AddressAttribute::Address(addr.addr())];
    message
}

/// The family that an address belongs to.
pub(crate) fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// `IFA_LOCAL` is the device's own address; IPv6 has it as `IFA_ADDRESS` only.
pub(crate) fn address(message: RouteNetlinkMessage, link: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != link {
        return None;
    }
    let (mut local, mut address) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(addr),
            AddressAttribute::Address(addr) => address = Some(addr),
            _ => {}
        }
    }
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}
