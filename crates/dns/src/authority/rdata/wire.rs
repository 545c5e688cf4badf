//! Reading data from messages.

use super::{Field, fields, rare};
use crate::name::MAX_NAME;

/// The data of a record of type `rtype` in `message[start..end]`, with its names spelled out (RFC 3597 §4); none when it is not
/// what the type's data is made of.
pub(crate) fn read(message: &[u8], start: usize, end: usize, rtype: u16) -> Option<Vec<u8>> {
    let raw = message.get(start..end)?;
    let Some(fields) = fields(rtype) else { return Some(raw.to_vec()) };
    let mut data = Vec::with_capacity(raw.len());
    let mut at = start;
    for field in fields {
        at = copy(message, at, end, *field, &mut data)?;
    }
    (at == end && data.len() <= usize::from(u16::MAX)).then_some(data)
}

/// Copies one field and says where the next one starts.
fn copy(message: &[u8], at: usize, end: usize, field: Field, data: &mut Vec<u8>) -> Option<usize> {
    let size = match field {
        Field::Name => {
            let next = read_name(message, at, data)?;
            return (next <= end).then_some(next);
        }
        Field::Gateway => match *message.get(at.checked_sub(2)?)? {
            0 => 0,
            1 => 4,
            2 => 16,
            3 => return copy(message, at, end, Field::Name, data),
            _ => return None,
        },
        Field::Location => 16,
        Field::Prefixes => rare::prefixes_size(message.get(at..end)?)?,
        Field::U8 | Field::Algorithm => 1,
        Field::U16 | Field::Type => 2,
        Field::U32 | Field::Period | Field::V4 | Field::Time => 4,
        Field::Locator => 8,
        Field::V6 => 16,
        Field::Eui(size) => usize::from(size),
        Field::Text | Field::Salt | Field::Hash => usize::from(*message.get(at)?) + 1,
        Field::Rest | Field::Hex | Field::Base64 => end.checked_sub(at)?,
        Field::Texts => chunks(message.get(at..end)?, 1)?,
        Field::Types => bitmap(message.get(at..end)?)?,
        Field::Service => parameters(message.get(at..end)?)?,
    };
    let next = at + size;
    data.extend_from_slice(message.get(at..next).filter(|_| next <= end)?);
    Some(next)
}

/// The length of `bytes` when they are character strings, at least `least` of them.
fn chunks(bytes: &[u8], least: usize) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while let Some(&size) = bytes.get(at) {
        at += usize::from(size) + 1;
        count += 1;
    }
    (at == bytes.len() && count >= least).then_some(at)
}

/// The length of `bytes` when they are the windows of a set of types, in rising order.
fn bitmap(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut before) = (0, None);
    while at < bytes.len() {
        let (window, size) = (bytes[at], *bytes.get(at + 1)?);
        if !(1..=32).contains(&size) || before.is_some_and(|before| before >= window) {
            return None;
        }
        before = Some(window);
        at += 2 + usize::from(size);
    }
    (at == bytes.len()).then_some(at)
}

/// The length of `bytes` when they are parameters with rising keys.
fn parameters(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut before) = (0, None);
    while at < bytes.len() {
        let key = crate::message::u16_at(bytes, at)?;
        let size = crate::message::u16_at(bytes, at + 2)?;
        if before.is_some_and(|before| before >= key) {
            return None;
        }
        before = Some(key);
        at += 4 + usize::from(size);
    }
    (at == bytes.len()).then_some(at)
}

/// Appends the name at `at`, pointers followed, and says where it ends in the message.
///
/// Each pointer has to lead further back than the last one, so that no message can make it go on for ever (RFC 9267 §2).
pub(crate) fn read_name(message: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    let mut end = None;
    let mut barrier = at;
    loop {
        match *message.get(at)? {
            0 => {
                out.push(0);
                return (out.len() - start <= MAX_NAME).then_some(end.unwrap_or(at + 1));
            }
            size @ 1..=63 => {
                let next = at + usize::from(size) + 1;
                out.extend_from_slice(message.get(at..next)?);
                if out.len() - start > MAX_NAME {
                    return None;
                }
                at = next;
            }
            high @ 0xc0.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                end.get_or_insert(at + 2);
                if target >= barrier {
                    return None;
                }
                barrier = target;
                at = target;
            }
            _ => return None,
        }
    }
}
