//! Routes of the main table (`RTM_*ROUTE`).

pub mod attraction;
mod rule;
pub mod way;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
        RouteVia,
    },
};
use podnet_planner::step::ROUTE_PROTOCOL;
use rustix::io::Errno;

pub(crate) use rule::{local_for_input_only, tables_of_ports, use_table_for, use_table_for_port, use_table_no_more};

use crate::{
    addr::family,
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// `RTPROT_STATIC`: routes that an administrator made.
pub const PROTOCOL_STATIC: u8 = 4;

/// A unicast or blackhole route as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Where it goes.
    pub target: Target,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
    /// Source address of packets that this host sends there; none where the kernel chooses.
    pub source: Option<IpAddr>,
}

/// Where a route goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Straight out of the device of that index (scope link).
    Device(u32),
    /// Through a next hop on the device's link; with `onlink` though no address there says that it is.
    Gateway {
        /// The device's index; none lets the kernel find it.
        device: Option<u32>,
        /// The next hop.
        via: IpAddr,
        /// Whether the kernel shall believe that the next hop is on the link.
        onlink: bool,
    },
    /// Silently dropped.
    Blackhole,
}

/// Makes a route, or replaces the one to the same destination.
///
/// # Errors
/// Why the kernel refused.
pub fn replace(socket: &mut RtSocket, route: &Route) -> Result<(), NetlinkError> {
    socket.perform(set(route))
}

/// Removes the route to a destination that `protocol` made, wherever it goes. Done also where there is none.
///
/// # Errors
/// Why the kernel refused.
pub fn delete(socket: &mut RtSocket, dst: IpNet, protocol: u8) -> Result<(), NetlinkError> {
    socket.perform(removal(dst, protocol))
}

/// The routes of the main table that `protocol` made, of both families.
///
/// # Errors
/// Why the kernel refused.
pub fn list(socket: &mut RtSocket, protocol: u8) -> Result<Vec<Route>, NetlinkError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::from(protocol);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let request = Request::new(Operation::new("list", "routes"), RouteNetlinkMessage::GetRoute(message), 0);
        let found = socket.dump(&request)?;
        routes.extend(found.into_iter().filter_map(from_message).filter(|route| route.protocol == protocol));
    }
    Ok(routes)
}

/// The index of the device that the main table's default route of IPv4 leads through; of IPv6, where there is none of IPv4.
///
/// # Errors
/// Why the kernel refused.
pub fn default_device(socket: &mut RtSocket) -> Result<Option<u32>, NetlinkError> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let device = |route: Route| match route.target {
            Target::Device(index) | Target::Gateway { device: Some(index), .. } => Some(index),
            _ => None,
        };
        if let Some(index) = default(socket, family)?.and_then(device) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The next hop of the main table's default route of IPv4; of IPv6, where there is none of IPv4.
///
/// # Errors
/// Why the kernel refused.
pub fn default_gateway(socket: &mut RtSocket) -> Result<Option<IpAddr>, NetlinkError> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let via = |route: Route| if let Target::Gateway { via, .. } = route.target { Some(via) } else { None };
        if let Some(via) = default(socket, family)?.and_then(via) {
            return Ok(Some(via));
        }
    }
    Ok(None)
}

/// The kernel lists the best of those to one destination first.
fn default(socket: &mut RtSocket, family: AddressFamily) -> Result<Option<Route>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let request = Request::new(Operation::new("list", "routes"), RouteNetlinkMessage::GetRoute(message), 0);
    let found = socket.dump(&request)?;
    Ok(found.into_iter().filter_map(from_message).find(|route| route.dst.prefix_len() == 0))
}

pub(crate) fn set(route: &Route) -> Request {
    making(route, message(route), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Makes a route where there is none to the destination.
pub(crate) fn add(route: &Route) -> Request {
    making(route, message(route), NLM_F_CREATE | NLM_F_EXCL)
}

/// As [`set`], for a route that is taken where none with a lower metric leads to the destination.
pub(crate) fn set_behind(route: &Route, metric: u32) -> Request {
    let mut message = message(route);
    message.attributes.push(RouteAttribute::Priority(metric));
    making(route, message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// Makes the node take packets to ::1 that come in by the device, behind the node's own way there. Done also where it does already.
pub(crate) fn to_loopback(device: u32) -> Request {
    /// More than what the kernel gives to the node's own route, and for each device another: of one metric there is one such route.
    const BEHIND: u32 = 10_000;
    let loopback = IpAddr::from(Ipv6Addr::LOCALHOST);
    let operation = Operation::new("make route through a pod's link to", loopback);
    local(loopback, device, BEHIND + device, operation)
}

/// As routes of IPv6 have it that say none (`IP6_RT_PRIO_USER`).
const OWN_METRIC: u32 = 1024;

/// Makes the namespace take packets to an address that the device has, at once. The kernel does that for an IPv6 address by itself, but
/// from a work queue, and what comes before it is dropped (`addrconf_dad_work`); its own route has a lower metric then.
pub(crate) fn to_own(addr: IpAddr, device: u32) -> Request {
    local(addr, device, OWN_METRIC, Operation::new("make route for packets to", addr))
}

/// Undoes [`to_own`].
pub(crate) fn not_to_own(addr: IpAddr, device: u32) -> Request {
    let message = local_message(addr, device, OWN_METRIC);
    let operation = Operation::new("remove route for packets to", addr);
    Request::new(operation, RouteNetlinkMessage::DelRoute(message), 0).done_at(&[Errno::SRCH])
}

fn local(addr: IpAddr, device: u32, metric: u32, operation: Operation) -> Request {
    let message = local_message(addr, device, metric);
    Request::new(operation, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

fn local_message(addr: IpAddr, device: u32, metric: u32) -> RouteMessage {
    /// The table of own addresses (`linux/rtnetlink.h`).
    const RT_TABLE_LOCAL: u8 = 255;
    let mut message = naming(IpNet::from(addr), ROUTE_PROTOCOL);
    message.header.kind = RouteType::Local;
    // IPv6 has no scopes.
    message.header.scope = if addr.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    message.header.table = RT_TABLE_LOCAL;
    message.attributes.extend([RouteAttribute::Oif(device), RouteAttribute::Priority(metric)]);
    message
}

/// As [`set`], in another table than the main one.
pub(crate) fn set_in_table(route: &Route, table: u32) -> Request {
    let mut message = message(route);
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.attributes.push(RouteAttribute::Table(table));
    making(route, message, NLM_F_CREATE | NLM_F_REPLACE)
}

fn making(route: &Route, message: RouteMessage, flags: u16) -> Request {
    Request::new(Operation::new("make route", route), RouteNetlinkMessage::NewRoute(message), flags)
}

fn message(route: &Route) -> RouteMessage {
    let mut message = naming(route.dst, route.protocol);
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    match route.target {
        Target::Device(index) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Target::Gateway { device, via, onlink } => {
            if onlink {
                message.header.flags = RouteFlags::Onlink;
            }
            message.attributes.extend(device.map(RouteAttribute::Oif));
            message.attributes.push(match via {
                // Of IPv4 through a next hop of IPv6 (RFC 8950).
                IpAddr::V6(via) if route.dst.addr().is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(via)),
                via => RouteAttribute::Gateway(RouteAddress::from(via)),
            });
        }
        Target::Blackhole => message.header.kind = RouteType::BlackHole,
    }
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(RouteAddress::from(source))));
    message
}

pub(crate) fn removal(dst: IpNet, protocol: u8) -> Request {
    let mut message = naming(dst, protocol);
    // Any type and, for IPv4 with "nowhere", any scope.
    message.header.kind = RouteType::Unspec;
    message.header.scope = RouteScope::NoWhere;
    Request::new(Operation::new("remove route to", dst), RouteNetlinkMessage::DelRoute(message), 0)
        .done_at(&[Errno::SRCH])
}

/// Removes just this route, and none that leads elsewhere. The source that it prefers need not be the same.
pub(crate) fn removal_of(route: &Route) -> Request {
    let mut message = message(&Route { source: None, ..*route });
    message.header.scope = RouteScope::NoWhere;
    message.header.flags = RouteFlags::empty();
    Request::new(Operation::new("remove route", route), RouteNetlinkMessage::DelRoute(message), 0)
        .done_at(&[Errno::SRCH])
}

pub(crate) fn naming(dst: IpNet, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(dst.addr());
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(protocol);
    if dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(dst.network())));
    }
    message
}

/// The route of the main table that a message shows; none where it shows something else.
pub(crate) fn from_message(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut dst = match header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut device, mut via, mut source) = (None, None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => dst = ip(&addr)?,
            RouteAttribute::Gateway(addr) => via = ip(&addr),
            RouteAttribute::Via(RouteVia::Inet6(addr)) => via = Some(addr.into()),
            RouteAttribute::PrefSource(addr) => source = ip(&addr),
            RouteAttribute::Oif(index) => device = Some(index),
            _ => {}
        }
    }
    let target = match (header.kind, via, device) {
        (RouteType::BlackHole, ..) => Target::Blackhole,
        (RouteType::Unicast, Some(via), device) => {
            Target::Gateway { device, via, onlink: header.flags.contains(RouteFlags::Onlink) }
        }
        (RouteType::Unicast, None, Some(device)) => Target::Device(device),
        _ => return None,
    };
    let dst = match dst {
        IpAddr::V4(addr) => Ipv4Net::new(addr, header.destination_prefix_length).ok()?.into(),
        IpAddr::V6(addr) => Ipv6Net::new(addr, header.destination_prefix_length).ok()?.into(),
    };
    Some(Route { dst, target, protocol: header.protocol.into(), source })
}

pub(crate) fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Device(index) => write!(f, "{} through device number {index}", self.dst),
            Target::Gateway { device: Some(index), via, .. } => {
                write!(f, "{} via {via} on device number {index}", self.dst)
            }
            Target::Gateway { device: None, via, .. } => write!(f, "{} via {via}", self.dst),
            Target::Blackhole => write!(f, "{} to nowhere", self.dst),
        }
    }
}

#[cfg(test)]
mod tests;
