//! Rules that say which table is asked for a way (`RTM_*RULE`, `ip-rule(8)`).

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    IpProtocol, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};
use podnet_model::{Family, Protocol};
use rustix::io::Errno;

use super::attraction::number;
use crate::{
    addr::family,
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// The table of own addresses (`RT_TABLE_LOCAL`).
const LOCAL: u8 = 255;
/// Before the main table (32766), behind the node's own addresses (0).
const PORTS: u32 = 28_782;

/// Makes a table the first that is asked for the way of what has this source (`ip-rule(8)`).
pub(crate) fn use_table_for(source: IpAddr, table: u32, priority: u32) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = family(source);
    message.header.src_len = IpNet::from(source).prefix_len();
    message.header.action = RuleAction::ToTable;
    message.attributes =
        vec![RuleAttribute::Source(source), RuleAttribute::Table(table), RuleAttribute::Priority(priority)];
    let operation = Operation::new("make rule for packets from", source);
    Request::new(operation, RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL).done_at(&[Errno::EXIST])
}

/// Makes a table be asked before the main one for the way to a port, whatever the address. Done also where it is already.
pub(crate) fn use_table_for_port(family: Family, protocol: Protocol, port: u16, table: u32) -> Request {
    let operation = Operation::new("make rule for packets to", format_args!("port {port} of {protocol}"));
    let message = RouteNetlinkMessage::NewRule(of_port(family, protocol, port, table));
    Request::new(operation, message, NLM_F_CREATE | NLM_F_EXCL).done_at(&[Errno::EXIST])
}

/// Undoes [`use_table_for_port`]. Done also where there is no such rule.
pub(crate) fn use_table_no_more(family: Family, protocol: Protocol, port: u16, table: u32) -> Request {
    let operation = Operation::new("remove rule for packets to", format_args!("port {port} of {protocol}"));
    removal(operation, of_port(family, protocol, port, table))
}

/// The tables that rules of a family say to ask for ports.
///
/// # Errors
/// Where the kernel cannot be asked.
pub(crate) fn tables_of_ports(socket: &mut RtSocket, family: Family) -> Result<BTreeSet<u32>, NetlinkError> {
    let message = any(family);
    let request = Request::new(Operation::new("list", "rules of routing"), RouteNetlinkMessage::GetRule(message), 0);
    let told = match socket.dump(&request) {
        Err(error) if has_no_rules(&error) => Vec::new(),
        told => told?,
    };
    let found = told.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRule(rule) => Some(rule.attributes),
        _ => None,
    });
    let ours = found.filter(|attributes| attributes.contains(&RuleAttribute::Priority(PORTS)));
    let table = |attributes: Vec<RuleAttribute>| {
        attributes.into_iter().find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(table),
            _ => None,
        })
    };
    Ok(ours.filter_map(table).collect())
}

/// The kernel has no such family (`ipv6.disable=1`), or no rules (without `CONFIG_IP_MULTIPLE_TABLES`).
fn has_no_rules(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP))
}

/// Makes the table of own addresses be asked for the way of what comes in by a device, and for nothing else.
pub(crate) fn local_for_input_only(family: Family, device: &str) -> [Request; 2] {
    let rule = |attributes: Vec<RuleAttribute>| {
        let mut message = any(family);
        message.header.action = RuleAction::ToTable;
        message.header.table = LOCAL;
        message.attributes = attributes;
        message
    };
    let for_input = rule(vec![RuleAttribute::Iifname(device.to_owned()), RuleAttribute::Priority(10)]);
    let for_all = rule(vec![RuleAttribute::Priority(0)]);
    let make = Operation::new("make rule for packets from", device);
    [
        Request::new(make, RouteNetlinkMessage::NewRule(for_input), NLM_F_CREATE | NLM_F_EXCL).done_at(&[Errno::EXIST]),
        removal(Operation::new("remove rule to table", "local"), for_all),
    ]
}

fn of_port(family: Family, protocol: Protocol, port: u16, table: u32) -> RuleMessage {
    let mut message = any(family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::IpProtocol(IpProtocol::from(i32::from(protocol.number()))),
        RuleAttribute::DestinationPortRange(RulePortRange { start: port, end: port }),
        RuleAttribute::Table(table),
        RuleAttribute::Priority(PORTS),
    ];
    message
}

fn any(family: Family) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = number(family);
    message
}

fn removal(operation: Operation, message: RuleMessage) -> Request {
    Request::new(operation, RouteNetlinkMessage::DelRule(message), 0).done_at(&[Errno::NOENT])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_can_be_no_rules_there_are_none() {
        let refused = |errno| NetlinkError::Refused { operation: Operation::new("list", "rules"), hint: None, errno };
        assert!([Errno::AFNOSUPPORT, Errno::OPNOTSUPP].map(refused).iter().all(has_no_rules));
        assert!(!has_no_rules(&refused(Errno::PERM)));
    }
}
