//! What the kernel holds.

use std::{collections::BTreeMap, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use podnet_model::Family;
use rustix::io::Errno;

use super::{
    NftError, NotedFlow, element,
    transaction::{Message, head, protocol_family},
};
use crate::netlink::{
    Connection, NetlinkError, Operation,
    attribute::{Writer, attribute, attributes, text},
};

/// Attribute 1 of every message of nf_tables names the table.
const TABLE: u16 = 1;
/// How often a listing is begun anew because a transaction came between.
const ATTEMPTS: usize = 32;

pub(super) fn tables(connection: &mut Connection, family: Family) -> Result<Vec<String>, NftError> {
    let messages =
        dump(connection, protocol_family(family), Message::GetTable, &Operation::new("list", "tables"), |_| {})?;
    Ok(messages.iter().filter_map(|message| attribute(message, TABLE)).map(text).collect())
}

/// The attributes of the one table, asked for by its name, however many there are; none where it is not there.
pub(super) fn table(connection: &mut Connection, family: Family, name: &str) -> Result<Option<Vec<u8>>, NftError> {
    let operation = Operation::new("look for", format_args!("table {name}"));
    let asked = connection.ask(&operation, Message::GetTable.kind(), NLM_F_ACK, |writer| {
        writer.raw(&head(protocol_family(family), 0));
        writer.text(TABLE, name);
    });
    match asked {
        Ok(frames) => {
            let attributes = frames.first().and_then(|frame| frame.payload.get(head(0, 0).len()..));
            Ok(attributes.map(<[u8]>::to_vec))
        }
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Asks for the one chain, however many there are.
pub(super) fn has_chain(
    connection: &mut Connection,
    family: Family,
    table: &str,
    chain: &str,
) -> Result<bool, NftError> {
    /// `NFTA_CHAIN_NAME`.
    const NAME: u16 = 3;
    let operation = Operation::new("look for", format_args!("chain {chain} in table {table}"));
    let asked = connection.ask(&operation, Message::GetChain.kind(), NLM_F_ACK, |writer| {
        writer.raw(&head(protocol_family(family), 0));
        writer.text(TABLE, table);
        writer.text(NAME, chain);
    });
    match asked {
        Ok(_) => Ok(true),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn element_count(
    connection: &mut Connection,
    family: Family,
    table: &str,
    set: &str,
) -> Result<usize, NftError> {
    let operation = Operation::new("list the elements of", format_args!("{set} in table {table}"));
    let body = |writer: &mut Writer| {
        writer.text(TABLE, table);
        element::name_set(writer, set);
    };
    let family = protocol_family(family);
    gather(connection, family, Message::GetElements, &operation, body, |count, message| {
        *count += element::count(message);
    })
}

/// How many packets each address of a set of counters has counted.
pub(super) fn counters(
    connection: &mut Connection,
    family: Family,
    table: &str,
    set: &str,
) -> Result<BTreeMap<IpAddr, u64>, NftError> {
    let operation = Operation::new("list the counters of", format_args!("{set} in table {table}"));
    let body = |writer: &mut Writer| {
        writer.text(TABLE, table);
        element::name_set(writer, set);
    };
    let family = protocol_family(family);
    // The kernel may tell of an element twice.
    gather(connection, family, Message::GetElements, &operation, body, |all: &mut BTreeMap<_, _>, message| {
        all.extend(element::counters(message));
    })
}

/// The flows that rules noted in a set. The kernel may tell of one twice.
pub(super) fn flows(
    connection: &mut Connection,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<NotedFlow>, NftError> {
    let operation = Operation::new("list the flows in", format_args!("{set} in table {table}"));
    let body = |writer: &mut Writer| {
        writer.text(TABLE, table);
        element::name_set(writer, set);
    };
    let family = protocol_family(family);
    gather(connection, family, Message::GetElements, &operation, body, |all: &mut Vec<NotedFlow>, message| {
        all.extend(element::flows(message));
    })
}

/// How many packets the counter of a chain's first rule has counted; none where there is no such rule, or none that counts.
pub(super) fn packets(
    connection: &mut Connection,
    family: Family,
    table: &str,
    chain: &str,
) -> Result<Option<u64>, NftError> {
    /// `NFTA_RULE_CHAIN`.
    const CHAIN: u16 = 2;
    let operation = Operation::new("list the rules of", format_args!("chain {chain} in table {table}"));
    let name = |writer: &mut Writer| {
        writer.text(TABLE, table);
        writer.text(CHAIN, chain);
    };
    let rules = dump(connection, protocol_family(family), Message::GetRule, &operation, name)?;
    Ok(rules.first().and_then(|rule| counted(rule)))
}

/// What the counter among a rule's expressions has counted.
fn counted(rule: &[u8]) -> Option<u64> {
    // enum nft_rule_attributes, nft_expr_attributes, nft_counter_attributes
    const EXPRESSIONS: u16 = 4;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    const PACKETS: u16 = 2;
    let mut expressions = attributes(attribute(rule, EXPRESSIONS)?).map(|(_, expression)| expression);
    let is_counter = |expression: &&[u8]| attribute(expression, NAME).is_some_and(|name| text(name) == "counter");
    let counter = expressions.find(is_counter)?;
    attribute(attribute(counter, DATA)?, PACKETS)?.try_into().ok().map(u64::from_be_bytes)
}

/// The attributes of each message that answers the question.
pub(super) fn dump(
    connection: &mut Connection,
    family: u8,
    message: Message,
    operation: &Operation,
    body: impl Fn(&mut Writer),
) -> Result<Vec<Vec<u8>>, NftError> {
    gather(connection, family, message, operation, body, |found: &mut Vec<_>, attributes| {
        found.push(attributes.to_vec());
    })
}

/// What `take` makes of the attributes of each message that answers the question, one after the other. Where the kernel says
/// that a transaction came between, it is begun anew; of elements it does not say so.
pub(super) fn gather<T: Default>(
    connection: &mut Connection,
    family: u8,
    message: Message,
    operation: &Operation,
    body: impl Fn(&mut Writer),
    mut take: impl FnMut(&mut T, &[u8]),
) -> Result<T, NftError> {
    let refused = |errno, hint| NetlinkError::Refused { operation: operation.clone(), hint, errno };
    for _ in 0..ATTEMPTS {
        let sequence = connection.reserve(1);
        let mut writer = Writer::default();
        writer.message(message.kind(), NLM_F_REQUEST | NLM_F_DUMP, sequence, |writer| {
            writer.raw(&head(family, 0));
            body(writer);
        });
        connection.send(&writer.into_bytes())?;
        let mut found = T::default();
        match read(connection, sequence, |attributes| take(&mut found, attributes))? {
            End::Complete => return Ok(found),
            End::Interrupted | End::Refused(Errno::INTR, _) => {}
            End::Refused(errno, hint) => return Err(refused(errno, hint).into()),
        }
    }
    Err(refused(Errno::INTR, Some("it changes faster than it can be read".into())).into())
}

/// How a dump ended.
enum End {
    Complete,
    /// A transaction came between.
    Interrupted,
    Refused(Errno, Option<String>),
}

/// Reads to the end of the dump.
fn read(connection: &mut Connection, sequence: u32, mut take: impl FnMut(&[u8])) -> Result<End, NetlinkError> {
    let mut interrupted = false;
    loop {
        for frame in connection.receive()? {
            if frame.sequence != sequence {
                continue;
            }
            interrupted |= frame.was_interrupted();
            match frame.acknowledgement() {
                // What was interrupted is read to its end all the same: the next question is refused before.
                None if interrupted => {}
                None => take(frame.payload.get(head(0, 0).len()..).unwrap_or_default()),
                Some(Ok(())) if interrupted => return Ok(End::Interrupted),
                Some(Ok(())) => return Ok(End::Complete),
                Some(Err((errno, hint))) => return Ok(End::Refused(errno, hint)),
            }
        }
    }
}
