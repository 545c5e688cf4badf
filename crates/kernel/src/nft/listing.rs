//! What the kernel holds.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use podnet_model::Family;
use rustix::io::Errno;

use super::{
    NftError, element,
    transaction::{Message, head, protocol_family},
};
use crate::netlink::{
    Connection, NetlinkError, Operation,
    attribute::{Writer, attribute, text},
};

/// Attribute 1 of every message of nf_tables names the table.
const TABLE: u16 = 1;
/// How often a listing is begun anew because a transaction came between.
const ATTEMPTS: usize = 8;

pub(super) fn tables(connection: &mut Connection, family: Family) -> Result<Vec<String>, NftError> {
    let messages =
        dump(connection, protocol_family(family), Message::GetTable, &Operation::new("list", "tables"), |_| {})?;
    Ok(messages.iter().filter_map(|message| attribute(message, TABLE)).map(text).collect())
}

pub(super) fn element_count(
    connection: &mut Connection,
    family: Family,
    table: &str,
    set: &str,
) -> Result<usize, NftError> {
    let operation = Operation::new("list the elements of", format_args!("{set} in table {table}"));
    let messages = dump(connection, protocol_family(family), Message::GetElements, &operation, |writer| {
        writer.text(TABLE, table);
        element::name_set(writer, set);
    })?;
    Ok(messages.iter().map(|message| element::count(message)).sum())
}

/// The attributes of each message that answers the question.
pub(super) fn dump(
    connection: &mut Connection,
    family: u8,
    message: Message,
    operation: &Operation,
    body: impl Fn(&mut Writer),
) -> Result<Vec<Vec<u8>>, NftError> {
    let refused = |errno, hint| NetlinkError::Refused { operation: operation.clone(), hint, errno };
    for _ in 0..ATTEMPTS {
        let sequence = connection.reserve(1);
        let mut writer = Writer::default();
        writer.message(message.kind(), NLM_F_REQUEST | NLM_F_DUMP, sequence, |writer| {
            writer.raw(&head(family, 0));
            body(writer);
        });
        connection.send(&writer.into_bytes())?;
        match collect(connection, sequence)? {
            Dump::Complete(found) => return Ok(found),
            Dump::Interrupted | Dump::Refused(Errno::INTR, _) => {}
            Dump::Refused(errno, hint) => return Err(refused(errno, hint).into()),
        }
    }
    Err(refused(Errno::INTR, Some("it changes faster than it can be read".into())).into())
}

/// How a dump ended.
enum Dump {
    Complete(Vec<Vec<u8>>),
    /// A transaction came between.
    Interrupted,
    Refused(Errno, Option<String>),
}

/// Reads to the end of the dump.
fn collect(connection: &mut Connection, sequence: u32) -> Result<Dump, NetlinkError> {
    let (mut found, mut interrupted) = (Vec::new(), false);
    loop {
        for frame in connection.receive()? {
            if frame.sequence != sequence {
                continue;
            }
            interrupted |= frame.was_interrupted();
            match frame.acknowledgement() {
                None => found.push(frame.payload.get(head(0, 0).len()..).unwrap_or_default().to_vec()),
                Some(Ok(())) if interrupted => return Ok(Dump::Interrupted),
                Some(Ok(())) => return Ok(Dump::Complete(found)),
                Some(Err((errno, hint))) => return Ok(Dump::Refused(errno, hint)),
            }
        }
    }
}
