//! The rules of an attraction.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    IpProtocol, RouteNetlinkMessage,
    route::{RouteHeader, RouteProtocol},
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};
use podnet_model::{Family, Protocol};
use podnet_planner::{ruleset::FrontendKey, step::ROUTE_PROTOCOL};
use rustix::io::Errno;

use super::{Attraction, number};
use crate::netlink::{NetlinkError, Operation, Request, RtSocket};

const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// What the node sends comes in by it, as far as rules are asked.
const OUTPUT: &str = "lo";

/// What one rule is for, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// What the node sends to a frontend goes by the main table.
    Own(FrontendKey),
    /// What else is for a frontend is the node's.
    To(FrontendKey),
    /// What has these bits of the mark may be.
    Marked(u32),
}

/// What makes the rules that there have to be of those that are there: those that are made first, and those that go then.
pub(super) fn edits(
    socket: &mut RtSocket,
    family: Family,
    what: &Attraction,
) -> Result<(Vec<Request>, Vec<Request>), NetlinkError> {
    let mut wanted: BTreeSet<Rule> = what.frontends.iter().flat_map(|key| [Rule::Own(*key), Rule::To(*key)]).collect();
    wanted.extend((what.bits != 0).then_some(Rule::Marked(what.bits)));
    let mut gone = Vec::new();
    for message in list(socket, family)?.into_iter().filter(|message| is_ours(message, what)) {
        // One that is there twice goes, too.
        if !read(&message, family, what).is_some_and(|rule| wanted.remove(&rule)) {
            let operation = Operation::new("remove rule to table", what.table);
            gone.push(Request::new(operation, RouteNetlinkMessage::DelRule(message), 0).done_at(&[Errno::NOENT]));
        }
    }
    let made = wanted.into_iter().map(|rule| {
        let operation = Operation::new("make rule for packets", rule);
        let message = RouteNetlinkMessage::NewRule(write(rule, family, what));
        Request::new(operation, message, NLM_F_CREATE | NLM_F_EXCL).done_at(&[Errno::EXIST])
    });
    Ok((made.collect(), gone))
}

fn list(socket: &mut RtSocket, family: Family) -> Result<Vec<RuleMessage>, NetlinkError> {
    let mut message = RuleMessage::default();
    message.header.family = number(family);
    let request = Request::new(Operation::new("list", "rules of routing"), RouteNetlinkMessage::GetRule(message), 0);
    let told = match socket.dump(&request) {
        // The kernel has no such family, or no rules at all: then there are none.
        Err(error) if matches!(error.errno(), Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP)) => Vec::new(),
        told => told?,
    };
    let rule = |message| if let RouteNetlinkMessage::NewRule(rule) = message { Some(rule) } else { None };
    Ok(told.into_iter().filter_map(rule).collect())
}

/// Those to the table are, and those of what the node sends.
fn is_ours(message: &RuleMessage, what: &Attraction) -> bool {
    let says = |attribute| message.attributes.contains(&attribute);
    let is_own = || {
        says(RuleAttribute::Priority(what.priority - 1))
            && says(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)))
    };
    says(RuleAttribute::Table(what.table)) || is_own()
}

/// None of what podnet does not make.
fn read(message: &RuleMessage, family: Family, what: &Attraction) -> Option<Rule> {
    let find = |find: fn(&RuleAttribute) -> Option<Rule>| message.attributes.iter().find_map(find);
    let mark = || {
        find(|attribute| match attribute {
            RuleAttribute::FwMark(bits) => Some(Rule::Marked(*bits)),
            _ => None,
        })
    };
    let rule = match frontend(message) {
        Some(key) if message.attributes.iter().any(|one| matches!(one, RuleAttribute::Iifname(_))) => Rule::Own(key),
        Some(key) => Rule::To(key),
        None => mark()?,
    };
    let as_written = write(rule, family, what);
    let is_as_written = message.header.dst_len == as_written.header.dst_len
        && message.header.src_len == 0
        && message.header.action == as_written.header.action
        && as_written.attributes.iter().all(|attribute| {
            // Earlier kernels do not tell.
            message.attributes.contains(attribute) || matches!(attribute, RuleAttribute::Protocol(_))
        });
    is_as_written.then_some(rule)
}

fn frontend(message: &RuleMessage) -> Option<FrontendKey> {
    let (mut addr, mut protocol, mut port) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Destination(to) => addr = Some(*to),
            RuleAttribute::IpProtocol(of) => {
                let same = |one: &Protocol| IpProtocol::from(i32::from(one.number())) == *of;
                protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(same);
            }
            RuleAttribute::DestinationPortRange(ports) => port = Some(ports.start),
            _ => {}
        }
    }
    Some(FrontendKey { addr: addr?, protocol: protocol?, port: port? })
}

fn write(rule: Rule, family: Family, what: &Attraction) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = number(family);
    message.header.action = RuleAction::ToTable;
    let mut attributes = match rule {
        Rule::Marked(bits) => vec![RuleAttribute::FwMark(bits), RuleAttribute::FwMask(bits)],
        Rule::Own(key) | Rule::To(key) => {
            message.header.dst_len = IpNet::from(key.addr).prefix_len();
            vec![
                RuleAttribute::Destination(key.addr),
                RuleAttribute::IpProtocol(IpProtocol::from(i32::from(key.protocol.number()))),
                RuleAttribute::DestinationPortRange(RulePortRange { start: key.port, end: key.port }),
            ]
        }
    };
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
    if matches!(rule, Rule::Own(_)) {
        let own = [RuleAttribute::Table(MAIN), RuleAttribute::Priority(what.priority - 1)];
        attributes.extend(own);
        attributes.push(RuleAttribute::Iifname(OUTPUT.to_owned()));
    } else {
        attributes.extend([RuleAttribute::Table(what.table), RuleAttribute::Priority(what.priority)]);
    }
    message.attributes = attributes;
    message
}

/// As `ip rule` writes it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(key) => write!(f, "of the node's own to {key}"),
            Self::To(key) => write!(f, "to {key}"),
            Self::Marked(bits) => write!(f, "with mark {bits:#x}/{bits:#x}"),
        }
    }
}
