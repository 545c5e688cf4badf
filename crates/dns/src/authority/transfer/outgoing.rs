//! Giving a zone away.

use std::iter::Peekable;

use super::{Difference, Journal, newer, only_question};
use crate::{
    answer::Section,
    authority::{
        Record, Soa, Zone,
        message::{RESERVE, Writer},
    },
    message::{HEADER, Rcode, flag, question, rtype, u16_at, walk},
    name::Name,
};

/// Messages are ended near this size: names further back than pointers reach cannot be compressed any more.
const SIZE: usize = 16 * 1024;

/// A request for a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The message's id.
    pub id: u16,
    /// The zone.
    pub zone: Name,
    /// The serial number that the client has, when it asks for what is new since (IXFR).
    pub serial: Option<u32>,
    flags: u16,
}

impl Request {
    /// Reads a query of type AXFR or IXFR; none when the message is something else, or is malformed.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (id, flags) = (u16_at(message, 0)?, u16_at(message, 2)?);
        if flags & (flag::QR | flag::OPCODE) != 0 {
            return None;
        }
        let (zone, qtype, end) = only_question(message)?;
        let serial = match qtype {
            rtype::AXFR => None,
            // RFC 1995 §3: the client's version stands in the authority section.
            rtype::IXFR => {
                let mut records = walk(message, end).map_while(Result::ok);
                let soa = records.find(|record| record.section == 1 && record.rtype == rtype::SOA)?;
                Some(Soa::read(&message[soa.rdata..soa.end])?.serial)
            }
            _ => return None,
        };
        Some(Self { id, zone, serial, flags: flags & flag::RD })
    }

    fn qtype(&self) -> u16 {
        if self.serial.is_some() { rtype::IXFR } else { rtype::AXFR }
    }
}

/// The messages of a transfer, in order, each with room for a TSIG record.
pub struct Outgoing<'z> {
    request: Request,
    records: Peekable<Box<dyn Iterator<Item = Record> + Send + 'z>>,
    first: bool,
    /// Bytes of a message, at most.
    limit: usize,
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("request", &self.request).finish_non_exhaustive()
    }
}

/// The whole zone: its SOA record, all others, and the SOA record again (RFC 5936 §2.2).
#[must_use]
pub fn axfr<'z>(zone: &'z Zone, request: &Request) -> Outgoing<'z> {
    outgoing(request, Box::new(zone.records().chain(std::iter::once(zone.soa_record()))))
}

/// The whole zone but for the SOA record at its end, by which a client sees that it did not get all (RFC 5936 §2.2).
#[must_use]
pub fn unfinished<'z>(zone: &'z Zone, request: &Request) -> Outgoing<'z> {
    outgoing(request, Box::new(zone.records()))
}

/// What is new since the client's version (RFC 1995 §4): from the journal when it reaches that far back, else the whole zone; the
/// SOA record alone when nothing is. `udp` is the size of the client's datagrams when it asked by one: what does not fit is the
/// SOA record alone, upon which it asks by TCP.
#[must_use]
pub fn ixfr<'z>(zone: &'z Zone, journal: &'z Journal, request: &Request, udp: Option<u16>) -> Outgoing<'z> {
    let soa = || std::iter::once(zone.soa_record());
    let Some(serial) = request.serial else { return axfr(zone, request) };
    if !newer(zone.soa().serial, serial) {
        return outgoing(request, Box::new(soa()));
    }
    let whole = match journal.since(serial, zone.soa().serial) {
        Some(differences) => {
            let steps = differences.flat_map(|difference| {
                let Difference { from, to, deleted, added } = difference;
                let removed = std::iter::once(from).chain(deleted);
                removed.chain(std::iter::once(to)).chain(added).cloned()
            });
            outgoing(request, Box::new(soa().chain(steps).chain(soa())))
        }
        None => axfr(zone, request),
    };
    let Some(limit) = udp else { return whole };
    // No more is made of it than fits.
    let mut probe = Outgoing { limit: limit.into(), ..whole };
    match probe.next() {
        Some(only) if probe.records.peek().is_none() && only.len() <= usize::from(limit) => {
            // The iterator is used up: the records come again.
            let again = Request { serial: Some(serial), ..request.clone() };
            ixfr(zone, journal, &again, None)
        }
        _ => outgoing(request, Box::new(soa())),
    }
}

/// The message that a zone cannot be given away after all.
#[must_use]
pub fn failed(request: &Request) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + 300);
    for word in [request.id, flag::QR | request.flags | Rcode::SERVFAIL.0, 1, 0, 0, 0] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(&question(request.zone.wire(), request.qtype()));
    message
}

fn outgoing<'z>(request: &Request, records: Box<dyn Iterator<Item = Record> + Send + 'z>) -> Outgoing<'z> {
    let limit = usize::from(u16::MAX) - RESERVE;
    Outgoing { request: request.clone(), records: records.peekable(), first: true, limit }
}

impl Iterator for Outgoing<'_> {
    type Item = Vec<u8>;

    /// The next message. A record that no message can hold ends the transfer early, which the client notices.
    fn next(&mut self) -> Option<Vec<u8>> {
        self.records.peek()?;
        // RFC 5936 §2.2.1: the question stands in the first message.
        let mut writer = if self.first {
            Writer::new(self.request.zone.wire(), self.limit)
        } else {
            Writer::without_question(self.limit)
        };
        while writer.len() < SIZE
            && let Some(record) = self.records.peek()
            && writer.record(Section::Answer, record)
        {
            self.records.next();
        }
        if writer.counts[0] == 0 {
            return None;
        }
        let mut message = Vec::with_capacity(HEADER + writer.body.len() + 300);
        let flags = flag::QR | flag::AA | self.request.flags;
        for word in [self.request.id, flags, u16::from(self.first), writer.counts[0], 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        if self.first {
            message.extend_from_slice(&question(self.request.zone.wire(), self.request.qtype()));
        }
        message.extend_from_slice(&writer.body);
        self.first = false;
        Some(message)
    }
}
