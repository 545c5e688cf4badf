//! The TSIG record: finding it, taking it off, putting it on (RFC 8945 §4.2).

use super::mac::Key;
use crate::{
    authority::record::kind,
    message::{HEADER, u16_at, walk},
    name::{Name, QueryName},
};

/// The class of the record.
const CLASS_ANY: u16 = 255;

/// What a TSIG record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tsig {
    pub(super) key: Name,
    /// The algorithm's name on the wire, in lower case.
    pub(super) algorithm: Vec<u8>,
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: Vec<u8>,
    pub(super) id: u16,
    pub(super) error: u16,
    pub(super) other: Vec<u8>,
}

/// A message whose TSIG record is not where or what it has to be.
pub(super) struct BadRecord;

impl Tsig {
    /// Takes the record off a message, whose id is the original one then. None when there is none.
    pub(super) fn take(message: &mut Vec<u8>) -> Result<Option<Self>, BadRecord> {
        let at = questions_end(message).ok_or(BadRecord)?;
        let mut found = None;
        for record in walk(message, at) {
            // RFC 8945 §5.1: one at most, and the last record of the message.
            let record = record.map_err(|_| BadRecord)?;
            if found.is_some() {
                return Err(BadRecord);
            }
            if record.rtype == kind::TSIG {
                if record.section != 2 || record.end != message.len() {
                    return Err(BadRecord);
                }
                found = Some(record);
            }
        }
        let Some(record) = found else { return Ok(None) };
        let tsig = Self::read(message, record.start, record.rdata, record.end).ok_or(BadRecord)?;
        message.truncate(record.start);
        let additional = u16_at(message, 10).unwrap_or(1).saturating_sub(1);
        message[10..12].copy_from_slice(&additional.to_be_bytes());
        message[..2].copy_from_slice(&tsig.id.to_be_bytes());
        Ok(Some(tsig))
    }

    fn read(message: &[u8], start: usize, rdata: usize, end: usize) -> Option<Self> {
        let mut key = Vec::new();
        let fixed = crate::authority::rdata::read_name(message, start, &mut key)?;
        // Class ANY, time to live zero.
        (message.get(fixed + 2..fixed + 8)? == [0, 255, 0, 0, 0, 0]).then_some(())?;
        let data = message.get(rdata..end)?;
        let (algorithm, at) = QueryName::parse(data, 0).ok()?;
        let time = data.get(at..at + 6)?.iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
        let size = usize::from(u16_at(data, at + 8)?);
        let mac = data.get(at + 10..at + 10 + size)?.to_vec();
        let rest = at + 10 + size;
        let other = data.get(rest + 6..)?.to_vec();
        (usize::from(u16_at(data, rest + 4)?) == other.len()).then_some(Self {
            key: Name::from_wire(&key).ok()?,
            algorithm: algorithm.wire().to_vec(),
            time,
            fudge: u16_at(data, at + 6)?,
            mac,
            id: u16_at(data, rest)?,
            error: u16_at(data, rest + 2)?,
            other,
        })
    }

    /// Puts the record behind a message.
    pub(super) fn put(&self, message: &mut Vec<u8>) {
        let mut data = self.algorithm.clone();
        data.extend_from_slice(&self.time.to_be_bytes()[2..]);
        data.extend_from_slice(&self.fudge.to_be_bytes());
        data.extend_from_slice(&(self.mac.len() as u16).to_be_bytes());
        data.extend_from_slice(&self.mac);
        data.extend_from_slice(&self.id.to_be_bytes());
        data.extend_from_slice(&self.error.to_be_bytes());
        data.extend_from_slice(&(self.other.len() as u16).to_be_bytes());
        data.extend_from_slice(&self.other);
        message.extend_from_slice(self.key.wire());
        for word in [kind::TSIG, CLASS_ANY, 0, 0, data.len() as u16] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&data);
        let additional = u16_at(message, 10).unwrap_or(0) + 1;
        message[10..12].copy_from_slice(&additional.to_be_bytes());
    }

    /// What is signed beside the message itself (RFC 8945 §4.3.3).
    pub(super) fn variables(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.wire());
        out.extend_from_slice(&CLASS_ANY.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.algorithm);
        self.timers(out);
        out.extend_from_slice(&self.error.to_be_bytes());
        out.extend_from_slice(&(self.other.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.other);
    }

    /// What is signed instead of it from the second message of an answer on (RFC 8945 §5.3.1).
    pub(super) fn timers(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_be_bytes()[2..]);
        out.extend_from_slice(&self.fudge.to_be_bytes());
    }

    /// A record of this key, yet without signature.
    pub(super) fn of(key: &Key, message: &[u8], time: u64, fudge: u16) -> Self {
        Self {
            key: key.name().clone(),
            algorithm: key.algorithm().wire(),
            time,
            fudge,
            mac: Vec::new(),
            id: u16_at(message, 0).unwrap_or(0),
            error: 0,
            other: Vec::new(),
        }
    }
}

/// Where the records begin.
fn questions_end(message: &[u8]) -> Option<usize> {
    match u16_at(message, 4)? {
        0 => Some(HEADER),
        1 => Some(QueryName::parse(message, HEADER).ok()?.1 + 4),
        _ => None,
    }
}
