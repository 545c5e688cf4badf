//! Writing records with compressed names (RFC 1035 §4.1.4).

use std::collections::HashMap;

use super::{Record, rdata, record::kind};
use crate::{
    answer::{Answer, Section, uniform_addresses},
    message::{CLASS_IN, HEADER, Rcode, rtype},
};

/// The part of a message that pointers reach.
const REACH: usize = 0x3fff;
/// Names remembered for compression in one message; more cost more than they save.
const MAX_NAMES: usize = 4096;
/// Room that is left for the records that a transport adds: OPT and TSIG.
pub(crate) const RESERVE: usize = 512;

/// Records behind a question, and where names stand in them.
pub(crate) struct Writer {
    question: Box<[u8]>,
    base: usize,
    limit: usize,
    names: HashMap<Box<[u8]>, u16>,
    pub(crate) body: Vec<u8>,
    pub(crate) counts: [u16; 3],
    /// A record did not fit.
    pub(crate) full: bool,
}

impl Writer {
    /// A writer of what follows a question for `name` (lower-case wire form) in a message of at most `limit` bytes.
    pub(crate) fn new(name: &[u8], limit: usize) -> Self {
        Self {
            question: name.into(),
            base: HEADER + name.len() + 4,
            limit,
            names: HashMap::new(),
            body: Vec::new(),
            counts: [0; 3],
            full: false,
        }
    }

    /// A writer of records that no question stands before.
    pub(crate) fn without_question(limit: usize) -> Self {
        Self { base: HEADER, ..Self::new(&[], limit) }
    }

    /// How long the message is.
    pub(crate) fn len(&self) -> usize {
        self.base + self.body.len()
    }

    /// Appends a record; false, and nothing appended, when it does not fit.
    pub(crate) fn push(&mut self, section: Section, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> bool {
        debug_assert!(
            self.counts[section as usize + 1..].iter().all(|count| *count == 0),
            "sections follow each other"
        );
        let before = self.body.len();
        self.name(owner);
        self.body.extend_from_slice(&rtype.to_be_bytes());
        self.body.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.body.extend_from_slice(&ttl.to_be_bytes());
        let length = self.body.len();
        self.body.extend_from_slice(&[0, 0]);
        self.data(rtype, rdata);
        let size = self.body.len() - length - 2;
        if self.len() > self.limit || size > usize::from(u16::MAX) {
            self.body.truncate(before);
            let (base, names) = (self.base, &mut self.names);
            names.retain(|_, at| usize::from(*at) < base + before);
            self.full = true;
            return false;
        }
        self.body[length..length + 2].copy_from_slice(&(size as u16).to_be_bytes());
        self.counts[section as usize] += 1;
        true
    }

    /// Appends a record of a zone.
    pub(crate) fn record(&mut self, section: Section, record: &Record) -> bool {
        self.push(section, record.owner.wire(), record.rtype, record.ttl, &record.rdata)
    }

    /// Data, its names compressed where every reader has to understand that (RFC 3597 §4).
    fn data(&mut self, rtype: u16, rdata: &[u8]) {
        let (head, names) = match rtype {
            rtype::NS | rtype::CNAME | rtype::PTR => (0, 1),
            kind::MX => (2, 1),
            rtype::SOA => (0, 2),
            _ => (rdata.len(), 0),
        };
        let mut rest = rdata.get(head..).unwrap_or_default();
        self.body.extend_from_slice(&rdata[..head.min(rdata.len())]);
        for _ in 0..names {
            let mut name = Vec::new();
            let Some(end) = rdata::read_name(rest, 0, &mut name) else { break };
            self.name(&name);
            rest = &rest[end..];
        }
        self.body.extend_from_slice(rest);
    }

    /// A name, the longest part of it that is known as a pointer.
    fn name(&mut self, wire: &[u8]) {
        let mut at = 0;
        while let Some(&size) = wire.get(at).filter(|size| **size != 0) {
            let suffix = &wire[at..];
            if let Some(target) = self.known(suffix) {
                self.body.extend_from_slice(&(0xc000 | target).to_be_bytes());
                return;
            }
            let here = self.base + self.body.len();
            if here <= REACH && self.names.len() < MAX_NAMES {
                self.names.insert(suffix.into(), here as u16);
            }
            let next = (at + usize::from(size) + 1).min(wire.len());
            self.body.extend_from_slice(&wire[at..next]);
            at = next;
        }
        self.body.push(0);
    }

    /// Where a name stands already, in the question or behind it.
    fn known(&self, suffix: &[u8]) -> Option<u16> {
        if let Some(from) = self.question.len().checked_sub(suffix.len())
            && self.question.ends_with(suffix)
            && starts_label(&self.question, from)
        {
            return Some((HEADER + from) as u16);
        }
        if self.names.is_empty() { None } else { self.names.get(suffix).copied() }
    }

    /// The answer that the records make.
    pub(crate) fn answer(self, rcode: Rcode, authoritative: bool) -> Answer {
        let rotation = uniform_addresses(&self.body, self.counts[0]);
        Answer {
            rcode,
            authoritative,
            authentic: false,
            counts: self.counts,
            body: self.body.into(),
            rotation,
            extended: None,
        }
    }
}

/// Whether a label of the name begins at `from`.
fn starts_label(name: &[u8], from: usize) -> bool {
    let mut at = 0;
    while at < from {
        at += usize::from(name[at]) + 1;
    }
    at == from
}
