//! Names that are proved not to exist are denied without asking (RFC 8198): with the NSEC records (RFC 4034 §4) of denials that were
//! validated.
//!
//! Each record says that there is nothing between two names of its zone, in canonical order; a later question for a name in between is
//! answered with it. NSEC3 records (RFC 5155) say the same of names' hashes: a later question is denied with the closest name above it
//! that exists, the gap around the next one, and that of the wildcard. Gaps that opt out prove nothing.

mod claim;
mod hashed;
mod zone;

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

pub(super) use self::claim::Claim;
use self::{
    claim::Signed,
    hashed::Span,
    zone::{Place, Range, Zone},
};
use crate::{
    answer::{Answer, composed, extended},
    authority::Nsec3Hash,
    message::{Expanded, expand, rtype},
    name::{Name, QueryName},
};

/// The longest that a denial is believed (RFC 2308 §5 suggests one to three hours).
const LONGEST: Duration = Duration::from_secs(3 * 3600);

const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

/// What is known not to exist, bounded in number.
#[derive(Debug)]
pub(super) struct Denials {
    capacity: usize,
    /// By the zone's name in wire form.
    zones: HashMap<Box<[u8]>, Zone>,
    /// The records in the order in which they were learned: the first goes when there are too many.
    order: VecDeque<(Box<[u8]>, Key)>,
}

/// What a record is kept by.
#[derive(Debug)]
enum Key {
    Name(Place),
    Hash(Nsec3Hash),
}

/// A record that proves something, and the signature over it.
#[derive(Debug)]
struct Proved {
    record: Expanded,
    signature: Expanded,
    until: Instant,
}

impl Proved {
    /// Seconds for which it holds.
    fn left(&self, now: Instant) -> u32 {
        self.until.saturating_duration_since(now).as_secs() as u32
    }
}

impl Denials {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, zones: HashMap::new(), order: VecDeque::new() }
    }

    /// Takes in what a validated denial proves.
    pub(super) fn learn(&mut self, claim: Claim, now: Instant) {
        let Claim { soa: Signed { record: soa, signatures }, gaps } = claim;
        let Some(minimum) = soa.rdata.last_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { return };
        let Some(signed) = signatures.into_iter().next() else { return };
        for Signed { record, signatures } in gaps {
            let Some(signature) = signatures.into_iter().next() else { continue };
            // RFC 9077 §3: no longer than the zone's denials.
            let seconds = record.ttl.min(signature.ttl).min(soa.ttl).min(signed.ttl).min(minimum);
            let until = now + Duration::from_secs(seconds.into()).min(LONGEST);
            self.keep(&soa, &signed, Proved { record, signature, until });
        }
    }

    fn keep(&mut self, soa: &Expanded, signature: &Expanded, proved: Proved) {
        let wire: Box<[u8]> = soa.owner.wire().into();
        let mut zone = self.zones.remove(&wire).unwrap_or_default();
        let key = zone.keep(proved, &soa.owner);
        if !zone.is_empty() {
            zone.soa = vec![soa.clone(), signature.clone()];
            self.zones.insert(wire.clone(), zone);
        }
        self.order.extend(key.map(|key| (wire, key)));
        while self.order.len() > self.capacity {
            let Some((wire, key)) = self.order.pop_front() else { break };
            if let Some(zone) = self.zones.get_mut(&wire) {
                zone.forget(&key);
                if zone.is_empty() {
                    self.zones.remove(&wire);
                }
            }
        }
    }

    /// The denial of a name or of its type, where it is proved; `signed`: with the proof.
    pub(super) fn deny(&self, name: &QueryName, qtype: u16, signed: bool, now: Instant) -> Option<Answer> {
        // The closest zone is the one whose names these are.
        let zone = (0..=name.labels()).find_map(|index| self.zones.get(name.suffix(index)))?;
        let name = Name::from_query(name);
        let (rcode, proof) = zone.proof(&name, qtype, now)?;
        let left = proof.iter().map(|proved| proved.left(now)).min()?;
        let mut records: Vec<Expanded> = zone.soa.clone();
        for proved in proof {
            if !records.contains(&proved.record) {
                records.extend([proved.record.clone(), proved.signature.clone()]);
            }
        }
        records.iter_mut().for_each(|record| record.ttl = record.ttl.min(left));
        records.retain(|record| signed || record.rtype == rtype::SOA);
        let answer = Answer { authentic: true, ..composed(&name, rcode, &records) };
        Some(answer.because(extended::SYNTHESIZED, ""))
    }
}

impl Zone {
    /// Keeps what a record proves; its key, where it has not been there.
    fn keep(&mut self, proved: Proved, origin: &Name) -> Option<Key> {
        if proved.record.rtype == NSEC3 {
            let (parameters, hash, span) = Span::read(proved, origin)?;
            return self.spans.keep(parameters, hash, span).then_some(Key::Hash(hash));
        }
        let range = Range::read(proved, origin)?;
        let place = Place(range.owner().clone());
        self.ranges.insert(place.clone(), range).is_none().then_some(Key::Name(place))
    }

    fn forget(&mut self, key: &Key) {
        match key {
            Key::Name(place) => drop(self.ranges.remove(place)),
            Key::Hash(hash) => self.spans.remove(hash),
        }
    }

    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.spans.is_empty()
    }
}

/// The answer for a client that did not ask for signatures (RFC 4035 §3.2.1): what it asked for stays, whatever it is.
pub(super) fn plain(name: &Name, qtype: u16, answer: &Answer) -> Answer {
    let mut records = expand(name, answer);
    let all = records.len();
    if all != answer.counts.iter().map(|count| usize::from(*count)).sum::<usize>() {
        return answer.clone();
    }
    records
        .retain(|record| record.rtype == qtype || qtype == rtype::ANY || !matches!(record.rtype, RRSIG | NSEC | NSEC3));
    if records.len() == all {
        return answer.clone();
    }
    let Answer { rcode, authoritative, authentic, .. } = *answer;
    Answer { authoritative, authentic, extended: answer.extended.clone(), ..composed(name, rcode, &records) }
}
