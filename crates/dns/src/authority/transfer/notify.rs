//! NOTIFY: a primary tells that there is a new version (RFC 1996).

use super::{head, incoming::owner, only_question};
use crate::{
    answer::Section,
    authority::{Record, Soa, message::Writer},
    message::{flag, rtype, u16_at, walk},
    name::Name,
};

/// The operation's code, in its place in the flags.
const NOTIFY: u16 = 4 << 11;

/// A primary's word of a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The message's id.
    pub id: u16,
    /// The zone.
    pub zone: Name,
    /// The new version's serial number, where the primary tells it: a hint that nobody has vouched for (RFC 1996 §3.7).
    pub serial: Option<u32>,
}

impl Notify {
    /// Reads a notification; none when the message is something else.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (id, flags) = (u16_at(message, 0)?, u16_at(message, 2)?);
        if flags & (flag::QR | flag::OPCODE) != NOTIFY {
            return None;
        }
        let (zone, qtype, end) = only_question(message)?;
        (qtype == rtype::SOA).then_some(())?;
        let mut records = walk(message, end).map_while(Result::ok);
        let soa = records.find(|record| {
            record.section == 0 && record.rtype == rtype::SOA && owner(message, record.start).as_ref() == Some(&zone)
        });
        let serial = soa.and_then(|soa| Soa::read(&message[soa.rdata..soa.end])).map(|soa| soa.serial);
        Some(Self { id, zone, serial })
    }
}

/// The message that tells secondaries of a new version, with its SOA record.
#[must_use]
pub fn notify(soa: &Record, id: u16) -> Vec<u8> {
    let mut writer = Writer::new(soa.owner.wire(), 1232);
    let told = u16::from(writer.record(Section::Answer, soa));
    let mut message = head(id, NOTIFY | flag::AA, [told, 0, 0], &soa.owner, rtype::SOA);
    message.extend_from_slice(&writer.body);
    message
}

/// The answer to a notification (RFC 1996 §3.12).
#[must_use]
pub fn notify_reply(notify: &Notify) -> Vec<u8> {
    head(notify.id, NOTIFY | flag::QR | flag::AA, [0; 3], &notify.zone, rtype::SOA)
}

/// Whether a message answers the notification with this id: its sender need not be told again, whatever the code.
#[must_use]
pub fn is_notify_reply(message: &[u8], zone: &Name, id: u16) -> bool {
    let flags = u16_at(message, 2).unwrap_or(0);
    u16_at(message, 0) == Some(id)
        && flags & (flag::QR | flag::OPCODE) == NOTIFY | flag::QR
        && only_question(message).is_none_or(|(name, _, _)| name == *zone)
}
