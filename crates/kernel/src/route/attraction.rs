//! Packets that a node takes for its own although they are for somebody else: those that rules have marked (`ip-rule(8)`).

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
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

/// Makes a namespace take these packets of a family for its own. Done also where it does.
///
/// # Errors
/// Where the namespace cannot be entered, its loopback is down, or the kernel has no such rules.
pub fn attract(netns: &NetNs, family: Family, what: Attraction) -> Result<(), NetlinkError> {
    let operation = Operation::new("make route to the node itself in table", what.table);
    let route = RouteNetlinkMessage::NewRoute(route(family, what));
    let route = Request::new(operation, route, NLM_F_CREATE | NLM_F_REPLACE);
    let operation = Operation::new("make rule for packets with mark", Bits(what));
    let rule = Request::new(operation, RouteNetlinkMessage::NewRule(rule(family, what)), NLM_F_CREATE | NLM_F_EXCL);
    Ok(RtSocket::open_in(netns)?.perform_all(&[route, rule.done_at(&[Errno::EXIST])])?)
}

/// Ends that. Done also where there is nothing to end.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel refuses.
pub fn release(netns: &NetNs, family: Family, what: Attraction) -> Result<(), NetlinkError> {
    let operation = Operation::new("remove rule for packets with mark", Bits(what));
    let rule = Request::new(operation, RouteNetlinkMessage::DelRule(rule(family, what)), 0);
    let operation = Operation::new("remove route to the node itself in table", what.table);
    let route = Request::new(operation, RouteNetlinkMessage::DelRoute(route(family, what)), 0);
    Ok(RtSocket::open_in(netns)?.perform_all(&[rule.done_at(&[Errno::NOENT]), route.done_at(&[Errno::SRCH])])?)
}

/// To everything.
fn route(family: Family, what: Attraction) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = number(family);
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    message.attributes = vec![RouteAttribute::Table(what.table), RouteAttribute::Oif(LOOPBACK)];
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
    fn marked_packets_to_anybody_are_the_nodes_until_they_are_released() {
        let namespace = TestNs::new("attract");
        namespace.command("ip link set lo up");
        let lines = ["ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all"];
        let look = || lines.map(|line| namespace.command(line));
        let untouched = look();
        let what = Attraction { bits: 0x40, table: 4242, priority: 99 };
        let way = |line: &str| namespace.command(line);
        for (family, plain, marked) in [
            (Family::V4, "ip route get 192.0.2.1 mark 0xc0", "local 192.0.2.1 dev lo"),
            (Family::V6, "ip route get 2001:db8::1 mark 0xc0", "local 2001:db8::1 from :: dev lo"),
        ] {
            for _ in 0..2 {
                attract(&namespace, family, what).unwrap();
            }
            assert!(way(plain).starts_with(marked), "{}", way(plain));
        }
        assert!(way("ip rule").contains("99:\tfrom all fwmark 0x40/0x40 lookup 4242"), "{}", way("ip rule"));
        for family in Family::ALL {
            for _ in 0..2 {
                release(&namespace, family, what).unwrap();
            }
        }
        assert_eq!(look(), untouched);
    }
}
