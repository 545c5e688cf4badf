//! Zone transfers without sockets: AXFR (RFC 5936), IXFR (RFC 1995), NOTIFY (RFC 1996), and a secondary's timers.
//!
//! The shell parses a [`Request`] and sends the messages of an [`Outgoing`]; as a secondary it asks [`Secondary`] when to look,
//! compares serials with [`soa_query`] and [`soa_answer`], and feeds an [`Incoming`] what the primary sends.

mod apply;
mod incoming;
mod journal;
mod notify;
mod outgoing;
mod secondary;
#[cfg(test)]
mod tests;

pub use incoming::{Incoming, Progress, TransferError};
pub use journal::{Difference, Journal};
pub use notify::{Notify, is_notify_reply, notify, notify_reply};
pub use outgoing::{Outgoing, Request, axfr, failed, ixfr, unfinished};
pub use secondary::Secondary;

use crate::{
    message::{HEADER, flag, question, rtype, u16_at, walk},
    name::{Name, QueryName},
};

/// Whether serial number `left` is newer than `right` (RFC 1982 §3.2); two that are half the circle apart are not.
#[must_use]
pub const fn newer(left: u32, right: u32) -> bool {
    (left.wrapping_sub(right) as i32) > 0
}

/// A message with one question, counts of the other sections as given.
fn head(id: u16, flags: u16, counts: [u16; 3], zone: &Name, qtype: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + zone.wire().len() + 4);
    for word in [id, flags, 1].into_iter().chain(counts) {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(&question(zone.wire(), qtype));
    message
}

/// The question of a zone's SOA record, by which a secondary learns the serial number (RFC 1034 §4.3.5).
#[must_use]
pub fn soa_query(zone: &Name, id: u16) -> Vec<u8> {
    head(id, 0, [0; 3], zone, rtype::SOA)
}

/// The serial number in the answer to [`soa_query`].
///
/// # Errors
/// When the message is no such answer.
pub fn soa_answer(zone: &Name, id: u16, message: &[u8]) -> Result<u32, TransferError> {
    let end = incoming::opened(message, zone, id, rtype::SOA)?;
    // A server that is no authority, or has no answer itself, cannot say how new the zone is.
    if u16_at(message, 2).unwrap_or(0) & flag::AA == 0 {
        return Err(TransferError::NotAuthoritative);
    }
    for record in walk(message, end) {
        let record = record.map_err(|_| TransferError::Malformed)?;
        if record.section == 0
            && record.rtype == rtype::SOA
            && incoming::owner(message, record.start) == Some(zone.clone())
        {
            let soa = crate::authority::Soa::read(&message[record.rdata..record.end]);
            return soa.map(|soa| soa.serial).ok_or(TransferError::Malformed);
        }
    }
    Err(TransferError::NoSoa)
}

/// The only question of a message: name, type, and where it ends.
fn only_question(message: &[u8]) -> Option<(Name, u16, usize)> {
    if u16_at(message, 4) != Some(1) {
        return None;
    }
    let (name, end) = QueryName::parse(message, HEADER).ok()?;
    (u16_at(message, end + 2)? == crate::message::CLASS_IN).then_some(())?;
    Some((Name::from_query(&name), u16_at(message, end)?, end + 4))
}
