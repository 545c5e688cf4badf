//! One batch: what the kernel does as a whole or not at all.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use podnet_model::Family;
use rustix::io::Errno;

use super::NftError;
use crate::netlink::{Connection, attribute::Writer};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and its end.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFPROTO_IPV4`, and with `NFPROTO_IPV6` the families of podnet's tables.
pub(super) const FAMILY_IP: u8 = 2;
const FAMILY_IP6: u8 = 10;
/// `NFPROTO_INET`.
pub(super) const FAMILY_INET: u8 = 1;

/// Messages of nf_tables (`enum nf_tables_msg_types`).
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum Message {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    DelSet = 11,
    NewElements = 12,
    GetElements = 13,
    DelElements = 14,
    GetGeneration = 16,
}

impl Message {
    /// The message's type in the netlink header.
    pub(super) fn kind(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// The head of every message of the netfilter family (`struct nfgenmsg`).
pub(super) fn head(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The number of a family of tables (`NFPROTO_…`).
pub(super) const fn protocol_family(family: Family) -> u8 {
    match family {
        Family::V4 => FAMILY_IP,
        Family::V6 => FAMILY_IP6,
    }
}

/// A transaction on the tables of one name that is being written.
pub(super) struct Transaction<'a> {
    family: u8,
    table: &'a str,
    writer: Writer,
    /// What each message is, in order: message `n` has sequence number `n + 1`.
    parts: Vec<Part>,
    /// Where the last message begins.
    last: usize,
    edit: Option<usize>,
    sets: u32,
}

struct Part {
    family: u8,
    edit: Option<usize>,
    what: String,
}

impl<'a> Transaction<'a> {
    /// On the table of a family.
    pub(super) fn new(family: Family, table: &'a str) -> Self {
        Self::in_family(protocol_family(family), table)
    }

    pub(super) fn in_family(family: u8, table: &'a str) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, NLM_F_REQUEST, 0, |writer| writer.raw(&head(0, SUBSYSTEM)));
        Self { family, table, writer, parts: Vec::new(), last: 0, edit: None, sets: 0 }
    }

    /// What follows is about the table of that family.
    pub(super) fn turn_to(&mut self, family: Family) {
        self.family = protocol_family(family);
    }

    /// What follows belongs to that edit.
    pub(super) fn begin_edit(&mut self, index: usize) {
        self.edit = Some(index);
    }

    /// Nothing was written to it.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.writer.len()
    }

    /// A number for a set that is unique in the transaction (`NFTA_SET_ID`).
    pub(super) fn next_set_id(&mut self) -> u32 {
        self.sets += 1;
        self.sets
    }

    /// Appends a message; `what` reads as "cannot …". `body` writes the attributes, of which the first is always the table's name.
    pub(super) fn message(&mut self, message: Message, flags: u16, what: String, body: impl FnOnce(&mut Writer)) {
        /// Attribute 1 of every message of nf_tables names the table (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` …).
        const TABLE: u16 = 1;
        let (family, table, edit) = (self.family, self.table, self.edit);
        self.parts.push(Part { family, edit, what });
        self.last = self.writer.len();
        let sequence = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.writer.message(message.kind(), NLM_F_REQUEST | flags, sequence, |writer| {
            writer.raw(&head(family, 0));
            writer.text(TABLE, table);
            body(writer);
        });
    }

    pub(super) fn make_table(&mut self) {
        self.message(Message::NewTable, NLM_F_CREATE, "make the table".into(), |_| {});
    }

    /// Of all chains.
    pub(super) fn remove_all_rules(&mut self) {
        self.message(Message::DelRule, 0, "remove the rules".into(), |_| {});
    }

    pub(super) fn remove_table(&mut self) {
        self.message(Message::DelTable, 0, "remove the table".into(), |_| {});
    }

    /// Sends the batch and reads what the kernel says. It does the work before `send` returns, so the answers are all there then: one
    /// for each message that it refused, and one for the last message, which alone asks for it.
    pub(super) fn commit(mut self, connection: &mut Connection) -> Result<(), NftError> {
        let end = u32::try_from(self.parts.len() + 1).unwrap_or(u32::MAX);
        self.writer.message(BATCH_END, NLM_F_REQUEST, end, |writer| writer.raw(&head(0, SUBSYSTEM)));
        let mut bytes = std::mem::take(&mut self.writer).into_bytes();
        let first = connection.reserve(self.parts.len() + 2);
        number(&mut bytes, first, self.last);
        connection.send(&bytes)?;
        let mut acknowledged = false;
        while let Some(frames) = connection.receive_pending()? {
            for frame in frames {
                let place = usize::try_from(frame.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                match frame.acknowledgement() {
                    _ if place > self.parts.len() + 1 => {}
                    Some(Err((errno, hint))) => return Err(self.refused(place, errno, hint)),
                    Some(Ok(())) => acknowledged |= place == self.parts.len(),
                    None => {}
                }
            }
        }
        if acknowledged {
            Ok(())
        } else {
            Err(self.refused(0, Errno::NOBUFS, Some("no acknowledgement arrived".into())))
        }
    }

    fn refused(&self, place: usize, errno: Errno, hint: Option<String>) -> NftError {
        let part = place.checked_sub(1).and_then(|index| self.parts.get(index));
        let (edit, what) = part.map_or((None, "commit the changes"), |part| (part.edit, part.what.as_str()));
        let family = match part.map_or(self.family, |part| part.family) {
            FAMILY_IP => "ip ",
            FAMILY_IP6 => "ip6 ",
            _ => "",
        };
        NftError::Refused { table: format!("{family}{}", self.table), part: what.to_owned(), edit, hint, errno }
    }
}

/// Gives the messages their final sequence numbers and makes the last one before the end ask for an acknowledgement.
fn number(bytes: &mut [u8], first: u32, last: usize) {
    let mut at = 0;
    while let Some(length) = word(bytes, at) {
        let relative = word(bytes, at + 8).unwrap_or_default();
        bytes[at + 8..at + 12].copy_from_slice(&first.wrapping_add(relative).to_ne_bytes());
        if at == last {
            let flags = u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]) | NLM_F_ACK;
            bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        at += usize::try_from(length).unwrap_or(usize::MAX).next_multiple_of(4);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
