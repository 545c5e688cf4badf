//! Taking a zone in.

use super::{apply::Working, head, newer, only_question};
use crate::{
    authority::{Defect, Record, Soa, Warning, Zone, message::Writer, rdata, size},
    message::{CLASS_IN, HEADER, Rcode, flag, rtype, u16_at, walk},
    name::Name,
};

/// Why a transfer failed. The zone stays what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The message is not what a message is made of.
    #[error("the message is malformed")]
    Malformed,
    /// It answers another question.
    #[error("the message is no answer to this request")]
    NotOurs,
    /// The primary refuses.
    #[error("the primary answers {}", .0.mnemonic())]
    Refused(Rcode),
    /// The answer was cut: ask by TCP.
    #[error("the answer was cut; ask by TCP")]
    Truncated,
    /// The server does not speak for the zone.
    #[error("the server is not authoritative for the zone")]
    NotAuthoritative,
    /// A transfer begins with the zone's SOA record.
    #[error("the transfer does not begin with the zone's SOA record")]
    NoSoa,
    /// It has to end with the one that it begins with.
    #[error("the transfer ends with serial {found}, and began with {expected}")]
    OtherSoa {
        /// At the end.
        found: u32,
        /// At the beginning.
        expected: u32,
    },
    /// A change from a version that is not the one before it.
    #[error("a change starts at serial {found}, allowed: {expected}")]
    Gap {
        /// What it starts at.
        found: u32,
        /// What it has to start at.
        expected: u32,
    },
    /// A record is to go that is not there: the versions have come apart, take the whole zone.
    #[error("a change deletes {0}, which is not there; the whole zone is needed")]
    NothingToDelete(String),
    /// Records behind the end.
    #[error("the transfer goes on behind its end")]
    Trailing,
    /// More than the zone may have.
    #[error("the transfer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// What came is no zone.
    #[error("what was transferred is no zone: {0}")]
    Zone(#[from] Defect),
}

/// What a message brought about.
#[derive(Debug)]
pub enum Progress {
    /// More messages follow.
    More,
    /// There is nothing new.
    UpToDate,
    /// The zone is complete.
    Done(Box<Zone>, Vec<Warning>),
}

/// A transfer that comes in.
#[derive(Debug)]
pub struct Incoming {
    zone: Name,
    id: u16,
    /// The serial number of the version that is there; none asks for the whole zone.
    base: Option<(u32, Working)>,
    limit: usize,
    bytes: usize,
    started: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    /// The first SOA record is there; what follows tells what the rest is.
    Begun(Record, Soa),
    Whole(Record, Soa, Vec<Record>),
    /// Records go, then come: the version that a change leads to is known after its deletions.
    Deleting(Steps),
    Adding(Steps),
    Done,
}

#[derive(Debug)]
struct Steps {
    last: Record,
    target: Soa,
    at: u32,
    working: Working,
}

impl Incoming {
    /// A transfer of the whole zone, of at most `limit` bytes of records.
    #[must_use]
    pub fn whole(zone: &Name, id: u16, limit: usize) -> Self {
        let zone = zone.clone();
        Self { zone, id, base: None, limit, bytes: 0, started: false, state: State::Start }
    }

    /// A transfer of what is new since a version; the primary may send the whole zone all the same.
    #[must_use]
    pub fn since(zone: &Zone, id: u16, limit: usize) -> Self {
        Self { base: Some((zone.soa().serial, Working::new(zone))), ..Self::whole(zone.origin(), id, limit) }
    }

    /// The request. `soa` is the SOA record of the version that is there.
    #[must_use]
    pub fn request(&self, soa: Option<&Record>) -> Vec<u8> {
        let (Some(_), Some(soa)) = (&self.base, soa) else { return head(self.id, 0, [0; 3], &self.zone, rtype::AXFR) };
        let mut message = head(self.id, 0, [0, 1, 0], &self.zone, rtype::IXFR);
        let mut writer = Writer::new(self.zone.wire(), usize::from(u16::MAX));
        writer.record(crate::answer::Section::Authority, soa);
        message.extend_from_slice(&writer.body);
        message
    }

    /// How many bytes of records came.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// When the transfer has failed; nothing of it is to be used then.
    pub fn message(&mut self, message: &[u8]) -> Result<Progress, TransferError> {
        let qtype = if self.base.is_some() || matches!(self.state, State::Deleting(_) | State::Adding(_)) {
            rtype::IXFR
        } else {
            rtype::AXFR
        };
        let end = if self.started && u16_at(message, 4) == Some(0) {
            checked(message, self.id)?;
            HEADER
        } else {
            // A message that goes on may repeat the question of the first.
            opened(message, &self.zone, self.id, if self.started { 0 } else { qtype })?
        };
        self.started = true;
        let mut finished = None;
        for record in walk(message, end) {
            let record = record.map_err(|_| TransferError::Malformed)?;
            if record.section > 0 {
                continue;
            }
            if finished.is_some() {
                return Err(TransferError::Trailing);
            }
            let owner = owner(message, record.start).ok_or(TransferError::Malformed)?;
            let data = rdata::read(message, record.rdata, record.end, record.rtype).ok_or(TransferError::Malformed)?;
            if u16_at(message, record.ttl_at - 2) != Some(CLASS_IN) {
                return Err(TransferError::Malformed);
            }
            self.bytes += size(&owner, &data);
            if self.bytes > self.limit {
                return Err(TransferError::TooLarge { limit: self.limit });
            }
            finished = self.record(Record { owner, rtype: record.rtype, ttl: record.ttl, rdata: data.into() })?;
        }
        match finished {
            Some(records) => {
                let (zone, warnings) = Zone::from_records(&self.zone, &records)?;
                Ok(Progress::Done(Box::new(zone), warnings))
            }
            None => Ok(self.alone()),
        }
    }

    /// An SOA record alone that is not newer says that there is nothing new (RFC 1995 §2).
    fn alone(&self) -> Progress {
        match (&self.state, &self.base) {
            (State::Begun(_, soa), Some((serial, _))) if !newer(soa.serial, *serial) => Progress::UpToDate,
            _ => Progress::More,
        }
    }

    /// Takes a record in; all records when it was the last one.
    fn record(&mut self, record: Record) -> Result<Option<Vec<Record>>, TransferError> {
        let soa = match record.rtype == rtype::SOA && record.owner == self.zone {
            true => Some(Soa::read(&record.rdata).ok_or(TransferError::Malformed)?),
            false => None,
        };
        let (state, done) = match std::mem::replace(&mut self.state, State::Done) {
            State::Start => (State::Begun(record, soa.ok_or(TransferError::NoSoa)?), None),
            State::Begun(first, target) => match (soa, self.base.take()) {
                // The first change starts at the version that is there. One that is the target itself ends a whole zone
                // that has nothing but its SOA record.
                (Some(soa), Some((at, working))) if soa.serial != target.serial || soa.serial == at => {
                    if soa.serial != at {
                        return Err(TransferError::Gap { found: soa.serial, expected: at });
                    }
                    (State::Deleting(Steps { last: first, target, at, working }), None)
                }
                (soa, _) => whole(first, target, Vec::new(), record, soa)?,
            },
            State::Whole(first, target, records) => whole(first, target, records, record, soa)?,
            State::Deleting(steps) => (deleting(steps, record, soa)?, None),
            State::Adding(steps) => adding(steps, record, soa)?,
            State::Done => return Err(TransferError::Trailing),
        };
        self.state = state;
        Ok(done)
    }
}

type Next = (State, Option<Vec<Record>>);

fn whole(
    first: Record,
    target: Soa,
    mut records: Vec<Record>,
    record: Record,
    soa: Option<Soa>,
) -> Result<Next, TransferError> {
    match soa {
        Some(soa) if soa.serial == target.serial => {
            records.insert(0, first);
            Ok((State::Done, Some(records)))
        }
        Some(soa) => Err(TransferError::OtherSoa { found: soa.serial, expected: target.serial }),
        None => {
            records.push(record);
            Ok((State::Whole(first, target, records), None))
        }
    }
}

fn deleting(mut steps: Steps, record: Record, soa: Option<Soa>) -> Result<State, TransferError> {
    match soa {
        Some(soa) => {
            (steps.at, steps.last) = (soa.serial, record);
            Ok(State::Adding(steps))
        }
        None if steps.working.delete(&record) => Ok(State::Deleting(steps)),
        None => Err(TransferError::NothingToDelete(record.to_string())),
    }
}

fn adding(mut steps: Steps, record: Record, soa: Option<Soa>) -> Result<Next, TransferError> {
    match soa {
        None => {
            steps.working.add(record);
            Ok((State::Adding(steps), None))
        }
        Some(soa) if soa.serial != steps.at => Err(TransferError::Gap { found: soa.serial, expected: steps.at }),
        Some(soa) if soa.serial == steps.target.serial => Ok((State::Done, Some(steps.working.finish(record)))),
        Some(_) => Ok((State::Deleting(steps), None)),
    }
}

/// Checks that a message is a response without error, with this id.
fn checked(message: &[u8], id: u16) -> Result<(), TransferError> {
    let flags = u16_at(message, 2).filter(|_| message.len() >= HEADER).ok_or(TransferError::Malformed)?;
    if u16_at(message, 0) != Some(id) || flags & flag::QR == 0 || flags & flag::OPCODE != 0 {
        return Err(TransferError::NotOurs);
    }
    match flags & flag::RCODE {
        0 if flags & flag::TC != 0 => Err(TransferError::Truncated),
        0 => Ok(()),
        rcode => Err(TransferError::Refused(Rcode(rcode))),
    }
}

/// Checks a response with its question (type 0: AXFR or IXFR), and says where that ends.
pub(super) fn opened(message: &[u8], zone: &Name, id: u16, qtype: u16) -> Result<usize, TransferError> {
    checked(message, id)?;
    match only_question(message) {
        Some((name, found, end)) if name == *zone && (found == qtype || qtype == 0) => Ok(end),
        _ => Err(TransferError::NotOurs),
    }
}

/// The owner of the record at `at`, in lower case.
pub(super) fn owner(message: &[u8], at: usize) -> Option<Name> {
    let mut wire = Vec::new();
    rdata::read_name(message, at, &mut wire)?;
    Name::from_wire(&wire).ok()
}
