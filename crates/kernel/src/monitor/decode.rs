//! From the kernel's messages to notices.

use netlink_packet_core::ParseableParametrized;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressHeader, AddressMessage, AddressScope},
    route::{RouteAttribute, RouteHeader, RouteMessage},
    rule::RuleAttribute,
};

use super::{Author, Notice, Transaction};
use crate::{
    addr, fdb, link, neigh,
    netlink::{
        Frame,
        attribute::{attribute, text},
    },
    nft::Touched,
    route,
};

/// So many elements of a transaction are told one by one.
const MOST_TOUCHED: usize = 256;
/// And so many chains.
const MOST_CHAINS: usize = 256;
/// `RTM_NEWNETCONF` and `RTM_DELNETCONF` (`linux/rtnetlink.h`).
const SETTINGS: std::ops::RangeInclusive<u16> = 80..=81;

/// What a message of the route family tells; nothing where it is of no interest.
pub(crate) fn route_family(frame: &Frame) -> Option<Notice> {
    if SETTINGS.contains(&frame.kind) {
        return setting(&frame.payload);
    }
    match RouteNetlinkMessage::parse_with_param(&frame.payload, frame.kind).ok()? {
        message @ RouteNetlinkMessage::NewLink(_) => link::from_message(message).map(Notice::Link),
        RouteNetlinkMessage::DelLink(message) => {
            link::from_message(RouteNetlinkMessage::NewLink(message)).map(Notice::LinkGone)
        }
        RouteNetlinkMessage::NewAddress(message) => address(message, true),
        RouteNetlinkMessage::DelAddress(message) => address(message, false),
        message @ RouteNetlinkMessage::NewRoute(_) => route::from_message(message).map(Notice::Route),
        RouteNetlinkMessage::DelRoute(message) => {
            let way = way_gone(&message);
            route::from_message(RouteNetlinkMessage::NewRoute(message)).map(Notice::RouteGone).or(way)
        }
        RouteNetlinkMessage::DelRule(message) => message.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(Notice::WayGone { table: *table }),
            _ => None,
        }),
        RouteNetlinkMessage::NewNeighbour(message) => neighbour(message, true),
        RouteNetlinkMessage::DelNeighbour(message) => neighbour(message, false),
        _ => None,
    }
}

fn address(message: AddressMessage, there: bool) -> Option<Notice> {
    let AddressHeader { family, scope, index: device, .. } = message.header;
    // Every container's device comes with a link-local address of IPv6, by which no node is reached.
    if family == AddressFamily::Inet6 && scope == AddressScope::Link {
        return None;
    }
    let flags = there.then(|| addr::flags(&message).bits());
    Some(Notice::Address { device, addr: addr::address(RouteNetlinkMessage::NewAddress(message), device)?, flags })
}

/// Of a table that not every address and every pod has a route in.
fn way_gone(message: &RouteMessage) -> Option<Notice> {
    /// `RT_TABLE_LOCAL` (`linux/rtnetlink.h`).
    const LOCAL: u32 = 255;
    let told = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = told.unwrap_or_else(|| message.header.table.into());
    let is_usual = [RouteHeader::RT_TABLE_MAIN.into(), LOCAL].contains(&table);
    (!is_usual).then_some(Notice::WayGone { table })
}

fn neighbour(message: netlink_packet_route::neighbour::NeighbourMessage, there: bool) -> Option<Notice> {
    let device = message.header.ifindex;
    let lasting = there && neigh::is_lasting(message.header.state);
    if message.header.family == AddressFamily::Bridge {
        let (mac, remote) = fdb::parts(message.attributes);
        return Some(Notice::Fdb { device, mac: mac?, remote: remote.filter(|_| lasting) });
    }
    let (addr, mac) = neigh::parts(message.attributes);
    Some(Notice::Neighbour { device, addr: addr?, mac: mac.filter(|_| lasting) })
}

/// `struct netconfmsg` is one byte, padded; the device is a signed number, negative for `all` and `default`.
fn setting(payload: &[u8]) -> Option<Notice> {
    const NETCONFA_IFINDEX: u16 = 1;
    let index = attribute(payload.get(4..)?, NETCONFA_IFINDEX)?;
    let index = i32::from_ne_bytes(index.try_into().ok()?);
    Some(Notice::Setting { device: u32::try_from(index).ok() })
}

/// The chain that a message of nf_tables is about; an empty name where a table goes, and none where it is about something else.
fn chain(kind: u16, attributes: &[u8]) -> Option<String> {
    // enum nf_tables_msg_types, nft_chain_attributes, nft_rule_attributes
    const DEL_TABLE: u16 = 2;
    const NEW_CHAIN: u16 = 3;
    const DEL_CHAIN: u16 = 5;
    const NEW_RULE: u16 = 6;
    const DEL_RULE: u16 = 8;
    const NAME: u16 = 3;
    const CHAIN_OF_RULE: u16 = 2;
    let name = match kind {
        DEL_TABLE => return Some(String::new()),
        NEW_CHAIN | DEL_CHAIN => NAME,
        NEW_RULE | DEL_RULE => CHAIN_OF_RULE,
        _ => return None,
    };
    attribute(attributes, name).map(text)
}

/// What a message of nf_tables tells. Those of a transaction come first and are gathered in `open`; the last one names its author.
pub(super) fn nf_tables(frame: &Frame, open: &mut Transaction) -> Option<Notice> {
    // enum nf_tables_msg_types, nft_gen_attributes
    const NEW_ELEMENTS: u16 = 12;
    const DEL_ELEMENTS: u16 = 14;
    const NEW_GENERATION: u16 = 15;
    const TABLE: u16 = 1;
    const GENERATION: u16 = 1;
    const PROCESS: u16 = 2;
    const PROCESS_NAME: u16 = 3;
    /// `struct nfgenmsg`: family, version, resource.
    const HEAD: usize = 4;
    let attributes = frame.payload.get(HEAD..)?;
    if frame.kind & 0xff != NEW_GENERATION {
        let table = attribute(attributes, TABLE).map(|name| (frame.payload[0], text(name)));
        if let Some(((family, table), chain)) = table.clone().zip(chain(frame.kind & 0xff, attributes)) {
            let key = (family, table, chain);
            if open.chains.len() < MOST_CHAINS || open.chains.contains(&key) {
                open.chains.insert(key);
            } else {
                open.has_more_chains = true;
            }
        }
        open.tables.extend(table);
        let is_of_elements = [NEW_ELEMENTS, DEL_ELEMENTS].contains(&(frame.kind & 0xff));
        let touched = is_of_elements.then(|| Touched::told(frame.payload[0], attributes)).flatten();
        match touched.filter(|touched| open.touched.len() + touched.len() <= MOST_TOUCHED) {
            Some(touched) => open.touched.extend(touched),
            None => open.is_more = true,
        }
        return None;
    }
    let number = |kind| attribute(attributes, kind).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
    let (generation, pid) = (number(GENERATION), number(PROCESS));
    let name = attribute(attributes, PROCESS_NAME).map(text).unwrap_or_default();
    let told = std::mem::take(open);
    let author = pid.map(|pid| Author { pid, name });
    (!told.tables.is_empty()).then_some(Notice::Rules(Transaction { generation, author, ..told }))
}
