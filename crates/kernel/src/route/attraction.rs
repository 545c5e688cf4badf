//! Packets that a node takes for its own although they are for somebody else: those to certain addresses that rules have marked
//! (`ip-rule(8)`). Both count: what was marked and then translated goes where it is translated to.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use podnet_model::Family;
use podnet_planner::step::ROUTE_PROTOCOL;
use rustix::io::Errno;

use crate::{
    netlink::{NetlinkError, Operation, Request, RtSocket},
    netns::NetNs,
};

/// The loopback's index, in every namespace.
const LOOPBACK: u32 = 1;

/// Which packets, and by what they are led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attraction {
    /// The bits of the mark that they all have, at least one.
    pub bits: u32,
    /// The table that leads them; nothing else may be in it.
    pub table: u32,
    /// The place of the rule that asks the table. The table of the node's own addresses is asked before (0), the main one after (32766).
    pub priority: u32,
}

/// Makes a namespace take these packets of a family to these addresses for its own, and to no others. Done also where it does.
///
/// # Errors
/// Where the namespace cannot be entered, its loopback is down, or the kernel has no such rules.
pub fn attract(netns: &NetNs, family: Family, what: Attraction, addrs: &BTreeSet<IpAddr>) -> Result<(), NetlinkError> {
    let mut socket = RtSocket::open_in(netns)?;
    let there = attracted(&mut socket, family, what.table)?;
    let operation = Operation::new("make rule for packets with mark", Bits(what));
    let rule = Request::new(operation, RouteNetlinkMessage::NewRule(rule(family, what)), NLM_F_CREATE | NLM_F_EXCL);
    let more = addrs.difference(&there).map(|addr| {
        let operation = Operation::new("take for the node's own packets to", addr);
        Request::new(operation, RouteNetlinkMessage::NewRoute(route(*addr, what)), NLM_F_CREATE | NLM_F_REPLACE)
    });
    let fewer = there.difference(addrs).map(|addr| no_more(*addr, what));
    let requests: Vec<_> = more.chain([rule.done_at(&[Errno::EXIST])]).chain(fewer).collect();
    Ok(socket.perform_all(&requests)?)
}

/// Ends that. Done also where there is nothing to end.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel refuses.
pub fn release(netns: &NetNs, family: Family, what: Attraction) -> Result<(), NetlinkError> {
    let mut socket = RtSocket::open_in(netns)?;
    let there = attracted(&mut socket, family, what.table)?;
    let operation = Operation::new("remove rule for packets with mark", Bits(what));
    let rule = Request::new(operation, RouteNetlinkMessage::DelRule(rule(family, what)), 0);
    let routes = there.into_iter().map(|addr| no_more(addr, what));
    let requests: Vec<_> = [rule.done_at(&[Errno::NOENT])].into_iter().chain(routes).collect();
    Ok(socket.perform_all(&requests)?)
}

/// The addresses that the table has.
fn attracted(socket: &mut RtSocket, family: Family, table: u32) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = number(family);
    message.attributes = vec![RouteAttribute::Table(table)];
    let operation = Operation::new("list the routes of table", table);
    let request = Request::new(operation, RouteNetlinkMessage::GetRoute(message), 0);
    let found = match socket.dump(&request) {
        // There is no such table.
        Err(error) if error.is_missing() => Vec::new(),
        found => found?,
    };
    Ok(found.into_iter().filter_map(|message| addr_of(message, table)).collect())
}

fn addr_of(message: RouteNetlinkMessage, table: u32) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    // A kernel that does not look at what is asked for lists all tables.
    if !message.attributes.contains(&RouteAttribute::Table(table)) {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::from(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::from(*addr)),
        _ => None,
    })
}

fn no_more(addr: IpAddr, what: Attraction) -> Request {
    let operation = Operation::new("take for the node's own no more packets to", addr);
    Request::new(operation, RouteNetlinkMessage::DelRoute(route(addr, what)), 0).done_at(&[Errno::SRCH])
}

fn route(addr: IpAddr, what: Attraction) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = number(Family::of(&addr));
    message.header.destination_prefix_length = IpNet::from(addr).prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    let to = RouteAttribute::Destination(RouteAddress::from(addr));
    message.attributes = vec![to, RouteAttribute::Table(what.table), RouteAttribute::Oif(LOOPBACK)];
    message
}

fn rule(family: Family, what: Attraction) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = number(family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::FwMark(what.bits),
        RuleAttribute::FwMask(what.bits),
        RuleAttribute::Table(what.table),
        RuleAttribute::Priority(what.priority),
    ];
    message
}

const fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The mark, as `ip rule` writes it.
struct Bits(Attraction);

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{0:#x}/{0:#x}", self.0.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn marked_packets_to_an_address_are_the_nodes_until_they_are_released() {
        let namespace = TestNs::new("attract");
        namespace.command("ip link set lo up");
        let lines = ["ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all"];
        let look = || lines.map(|line| namespace.command(line));
        let untouched = look();
        let what = Attraction { bits: 0x40, table: 4242, priority: 99 };
        for (family, one, other) in [(Family::V4, "192.0.2.1", "192.0.2.2"), (Family::V6, "2001:db8::1", "2001:db8::2")]
        {
            let addrs = |addrs: &[&str]| addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            let is_taken = |addr: &str, mark| {
                let line = format!("ip route get {addr} mark {mark}");
                let output = namespace.run(|| std::process::Command::new("sh").args(["-c", &line]).output());
                String::from_utf8(output.unwrap().unwrap().stdout).unwrap().starts_with(&format!("local {addr} "))
            };
            for _ in 0..2 {
                attract(&namespace, family, what, &addrs(&[one])).unwrap();
                assert!(is_taken(one, "0xc0") && !is_taken(one, "0x80") && !is_taken(other, "0xc0"));
            }
            attract(&namespace, family, what, &addrs(&[other])).unwrap();
            assert!(is_taken(other, "0x40") && !is_taken(one, "0x40"));
        }
        let rules = namespace.command("ip rule");
        assert!(rules.contains("99:\tfrom all fwmark 0x40/0x40 lookup 4242"), "{rules}");
        for family in Family::ALL {
            for _ in 0..2 {
                release(&namespace, family, what).unwrap();
            }
        }
        assert_eq!(look(), untouched);
    }
}
