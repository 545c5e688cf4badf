//! The spans of one zone that is signed with NSEC3 (RFC 5155).

use std::{collections::BTreeMap, time::Instant};

use super::{
    NSEC3, Proved,
    zone::{DNAME, Known},
};
use crate::{
    authority::{Nsec3Hash, nsec3_hash},
    message::{Expanded, Rcode},
    name::Name,
    validate::Nsec3,
};

/// Records with more iterations are left out: each question would cost that many hashes several times over, and RFC 9276 §3.1 wants 0.
const MAX_ITERATIONS: u16 = 10;
/// Of names that lie deeper in their zone nothing is denied here: for each label there is a hash to make.
const DEEPEST: usize = 10;

/// What is known of a zone.
#[derive(Debug, Default)]
pub(super) struct Spans {
    parameters: Parameters,
    /// By the owners' hashes.
    spans: BTreeMap<Nsec3Hash, Span>,
}

/// How a zone's names are hashed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    iterations: u16,
    salt: Box<[u8]>,
}

/// An NSEC3 record: the name with its owner's hash has these types, and up to `next` there is no other hash.
#[derive(Debug)]
pub(super) struct Span {
    next: Nsec3Hash,
    opt_out: bool,
    known: Known,
}

impl Span {
    /// Reads a record of a zone, with the hash that it is for; none where it proves nothing that could be of use.
    pub(super) fn read(proved: Proved, zone: &Name) -> Option<(Parameters, Nsec3Hash, Self)> {
        let Expanded { owner, rdata, .. } = &proved.record;
        let Nsec3 { owner: hash, next, opt_out, iterations, salt, types } = Nsec3::read(owner, zone, rdata)?;
        // A gap that is made for the question alone (RFC 7129 §B) has room for nobody else.
        let made = next == after(hash) || next == after(after(hash));
        if made || iterations > MAX_ITERATIONS {
            return None;
        }
        let parameters = Parameters { iterations, salt: salt.into() };
        Some((parameters, hash, Self { next, opt_out, known: Known { proved, types } }))
    }
}

impl Spans {
    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Keeps a span; true: there was none of its hash. A zone that is hashed in another way now is another one.
    pub(super) fn keep(&mut self, parameters: Parameters, hash: Nsec3Hash, span: Span) -> bool {
        if self.parameters != parameters {
            self.spans.clear();
            self.parameters = parameters;
        }
        self.spans.insert(hash, span).is_none()
    }

    pub(super) fn remove(&mut self, hash: &Nsec3Hash) {
        self.spans.remove(hash);
    }

    /// Why a name of the zone, or its type, does not exist.
    pub(super) fn proof(&self, zone: &Name, name: &Name, qtype: u16, now: Instant) -> Option<(Rcode, Vec<&Proved>)> {
        let depth = name.labels().checked_sub(zone.labels())?;
        if self.is_empty() || depth > DEEPEST {
            return None;
        }
        if let Some(span) = self.matching(name, now) {
            let denied = qtype != NSEC3 && span.known.denies(qtype);
            return denied.then(|| (Rcode::NOERROR, vec![&span.known.proved]));
        }
        // The closest name above that is known to exist, and the next one towards the name, which has to be proved not to (RFC
        // 5155 §8.3). In a span that opts out there may be a delegation of that name.
        let mut next = name.clone();
        let (encloser, above) = loop {
            if next == *zone {
                return None;
            }
            let above = next.parent()?;
            match self.matching(&above, now) {
                Some(span) => break (span, above),
                None => next = above,
            }
        };
        if encloser.known.delegates() || encloser.known.has(DNAME) {
            return None;
        }
        let gap = self.covering(&next, now)?;
        // Nothing may stand in for it either (RFC 5155 §8.4).
        let instead = self.covering(&above.child("*").ok()?, now)?;
        let proof = [encloser, gap, instead].map(|span| &span.known.proved);
        (!gap.opt_out && !instead.opt_out).then(|| (Rcode::NXDOMAIN, proof.to_vec()))
    }

    fn hash(&self, name: &Name) -> Nsec3Hash {
        nsec3_hash(name.wire(), self.parameters.iterations, &self.parameters.salt)
    }

    /// The record of a name, as long as it holds.
    fn matching(&self, name: &Name, now: Instant) -> Option<&Span> {
        self.spans.get(&self.hash(name)).filter(|span| span.known.proved.until > now)
    }

    /// The record into whose span a name's hash falls, as long as it holds. The last one's span goes round to the first.
    fn covering(&self, name: &Name, now: Instant) -> Option<&Span> {
        let hash = self.hash(name);
        let before = self.spans.range(..hash).next_back().or_else(|| self.spans.last_key_value());
        let (owner, span) = before?;
        let within =
            if *owner < span.next { *owner < hash && hash < span.next } else { *owner < hash || hash < span.next };
        (within && span.known.proved.until > now).then_some(span)
    }
}

/// The next hash.
fn after(mut hash: Nsec3Hash) -> Nsec3Hash {
    for octet in hash.iter_mut().rev() {
        *octet = octet.wrapping_add(1);
        if *octet != 0 {
            break;
        }
    }
    hash
}
