//! What leads to a namespace apart, as the node's routing holds it.
//!
//! To whatever is led there a route leads, and behind it (by its metric) stands one that says "unreachable": that one is on no device, so it
//! outlives the process, and clients hear at once that nobody serves; else they would be led out of the node by its default route. Ways
//! of whole addresses are in the main table. For each port of which there are single ways there is a table, which a rule asks for what goes
//! to that port: so there are as many rules, which the kernel goes through one by one, as there are different ports, however many addresses.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use podnet_model::{Family, Protocol};
use podnet_planner::services::userspace::Led;
use rustix::io::Errno;

use super::PROTOCOL;
use crate::{
    netlink::{NetlinkError, Operation, Request, RtSocket},
    route::attraction::number,
    route::{self, Route},
};

/// More than anybody gives who means a route to be taken.
const BEHIND: u32 = 4_000_000_000;
const MAIN: u32 = 254;
/// The first of the tables of ports, one for each number.
const TCP: u32 = 2_878_200_000;
const UDP: u32 = 2_878_300_000;

/// A port whose ways are in a table of its own.
pub(super) type Port = (Protocol, u16);

/// The port, where single ports are led and not all of the address.
pub(super) const fn port(led: &Led) -> Option<Port> {
    match led {
        Led::Address(_) => None,
        Led::Port { protocol, port, .. } => Some((*protocol, *port)),
    }
}

const fn table(led: &Led) -> u32 {
    match port(led) {
        None => MAIN,
        Some(port) => table_of(port),
    }
}

const fn table_of((protocol, port): Port) -> u32 {
    let first = if matches!(protocol, Protocol::Udp) { UDP } else { TCP };
    first + port as u32
}

fn port_of(table: u32) -> Option<Port> {
    let of = |first: u32| table.checked_sub(first).and_then(|port| u16::try_from(port).ok());
    of(TCP).map(|port| (Protocol::Tcp, port)).or_else(|| of(UDP).map(|port| (Protocol::Udp, port)))
}

/// Makes the rule for a port, or removes it.
pub(super) fn rule(family: Family, port: Port, is_there: bool) -> Request {
    let make = if is_there { route::use_table_for_port } else { route::use_table_no_more };
    make(family, port.0, port.1, table_of(port))
}

/// Leads by this route, to which its destination alone is to be added.
pub(super) fn lead(led: &Led, by: &Route) -> Request {
    route::set_in_table(&Route { dst: led.addr().into(), ..*by }, table(led))
}

/// What stands behind the way.
pub(super) fn refuse(led: &Led) -> Request {
    let mut message = Found { table: table(led), addr: led.addr(), device: None }.message();
    message.header.scope = RouteScope::Universe;
    let operation = Operation::new("make route behind that to", led.addr());
    Request::new(operation, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Undoes [`lead`]; done also where there is no such way.
pub(super) fn leave(led: &Led, device: u32) -> Request {
    Found { table: table(led), addr: led.addr(), device: Some(device) }.removal()
}

/// Undoes [`refuse`]; done also where there is no such route.
pub(super) fn refuse_no_more(led: &Led) -> Request {
    Found { table: table(led), addr: led.addr(), device: None }.removal()
}

/// All that there is of a family.
#[derive(Debug, Default)]
pub(super) struct There {
    routes: BTreeSet<Found>,
    ports: BTreeSet<Port>,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    table: u32,
    addr: IpAddr,
    /// Where it leads; none where it says "unreachable".
    device: Option<u32>,
}

impl There {
    /// Reads it.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub(super) fn read(node: &mut RtSocket, family: Family) -> Result<Self, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = number(family);
        message.header.protocol = RouteProtocol::from(PROTOCOL);
        let request = Request::new(Operation::new("list", "routes"), RouteNetlinkMessage::GetRoute(message), 0);
        let routes = match node.dump(&request) {
            // The kernel has no such family.
            Err(error) if matches!(error.errno(), Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP)) => BTreeSet::new(),
            told => told?.into_iter().filter_map(Found::from_message).collect(),
        };
        let ports = route::tables_of_ports(node, family)?.into_iter().filter_map(port_of).collect();
        Ok(Self { routes, ports })
    }

    /// Whether something is led as it is to be.
    pub(super) fn leads(&self, led: &Led, device: u32, is_refused_behind: bool) -> bool {
        let (table, addr) = (table(led), led.addr());
        let way = Found { table, addr, device: Some(device) };
        let behind = Found { table, addr, device: None };
        self.routes.contains(&way)
            && (!is_refused_behind || self.routes.contains(&behind))
            && port(led).is_none_or(|port| self.ports.contains(&port))
    }

    /// What is led to a device. What stands behind the ways is not looked at.
    pub(super) fn led(&self, device: u32) -> BTreeSet<Led> {
        let led = |found: &Found| match port_of(found.table) {
            Some(port) if !self.ports.contains(&port) => None,
            Some((protocol, port)) => Some(Led::Port { addr: found.addr, protocol, port }),
            None => (found.table == MAIN).then_some(Led::Address(found.addr)),
        };
        self.routes.iter().filter(|found| found.device == Some(device)).filter_map(led).collect()
    }

    /// What removes all but the ways of this.
    pub(super) fn removals(&self, but: &BTreeSet<Led>, family: Family) -> Vec<Request> {
        let ports: BTreeSet<Port> = but.iter().filter_map(port).collect();
        let rules = self.ports.difference(&ports).map(|port| rule(family, *port, false));
        let wanted = |found: &Found| match port_of(found.table) {
            None => but.contains(&Led::Address(found.addr)),
            Some((protocol, port)) => but.contains(&Led::Port { addr: found.addr, protocol, port }),
        };
        rules.chain(self.routes.iter().filter(|found| !wanted(found)).map(Found::removal)).collect()
    }
}

impl Found {
    fn from_message(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewRoute(message) = message else { return None };
        let header = &message.header;
        // Older kernels tell of all routes.
        if u8::from(header.protocol) != PROTOCOL {
            return None;
        }
        let (mut table, mut addr, mut device) = (u32::from(header.table), None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(found) => addr = route::ip(found),
                RouteAttribute::Table(found) => table = *found,
                RouteAttribute::Oif(index) => device = Some(*index),
                _ => {}
            }
        }
        // Of IPv6 the loopback stands at those that lead nowhere.
        let device = device.filter(|_| header.kind == RouteType::Unicast);
        Some(Self { table, addr: addr?, device })
    }

    fn removal(&self) -> Request {
        let operation = Operation::new("remove route to", self.addr);
        Request::new(operation, RouteNetlinkMessage::DelRoute(self.message()), 0).done_at(&[Errno::SRCH])
    }

    fn message(&self) -> RouteMessage {
        let mut message = route::naming(IpNet::from(self.addr), PROTOCOL);
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.scope = RouteScope::NoWhere;
        message.attributes.push(RouteAttribute::Table(self.table));
        let (kind, attribute) = match self.device {
            Some(device) => (RouteType::Unicast, RouteAttribute::Oif(device)),
            None => (RouteType::Unreachable, RouteAttribute::Priority(BEHIND)),
        };
        message.header.kind = kind;
        message.attributes.push(attribute);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_table_of_its_own_and_none_that_another_mode_has() {
        for port in [(Protocol::Tcp, 1), (Protocol::Tcp, 65_535), (Protocol::Udp, 1), (Protocol::Udp, 65_535)] {
            assert_eq!(port_of(table_of(port)), Some(port));
        }
        assert_eq!((port_of(MAIN), port_of(podnet_planner::ipvs::ROUTES)), (None, None));
    }
}
