//! The gaps of one signed zone.

use std::{cmp::Ordering, collections::BTreeMap, time::Instant};

use super::{NSEC, Proved, RRSIG, hashed::Spans};
use crate::{
    authority::compare,
    message::{Expanded, Rcode, rtype, u16_at},
    name::{Name, QueryName},
};

pub(super) const DNAME: u16 = 39;
const DS: u16 = 43;

/// A name in the canonical order (RFC 4034 §6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(pub(super) Name);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.0.wire(), other.0.wire())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is known of a zone.
#[derive(Debug, Default)]
pub(super) struct Zone {
    /// Its SOA record and the signature over it.
    pub(super) soa: Vec<Expanded>,
    /// By owner.
    pub(super) ranges: BTreeMap<Place, Range>,
    /// What is proved by hashes.
    pub(super) spans: Spans,
}

/// An NSEC record: its owner has these types, and up to `next` there is no other name.
#[derive(Debug)]
pub(super) struct Range {
    next: Name,
    known: Known,
}

/// A record that tells which types its owner has.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) proved: Proved,
    /// Where in its data the types begin.
    pub(super) types: usize,
}

impl Range {
    /// Reads a record of a zone; none where it proves nothing that could be of use.
    pub(super) fn read(proved: Proved, zone: &Name) -> Option<Self> {
        let Expanded { owner, rdata, .. } = &proved.record;
        let (next, end) = QueryName::parse(rdata, 0).ok()?;
        let next = Name::from_query(&next);
        // A gap behind a name that is made for the question alone (RFC 4470, RFC 9824) has room for nobody.
        let made = next.wire().strip_prefix(&[1, 0]).is_some_and(|rest| rest == owner.wire());
        let forwards = next == *zone || compare(owner.wire(), next.wire()) == Ordering::Less;
        let of_zone = owner.within(zone) && next.within(zone);
        (!made && forwards && of_zone).then_some(Self { next, known: Known { proved, types: end } })
    }

    pub(super) fn owner(&self) -> &Name {
        &self.known.proved.record.owner
    }

    /// Whether a name lies in the gap. The last record's next name is the zone's own.
    fn covers(&self, name: &Name) -> bool {
        let behind = compare(self.owner().wire(), name.wire()) == Ordering::Less;
        let last = compare(self.next.wire(), self.owner().wire()) != Ordering::Greater;
        behind && (last || compare(name.wire(), self.next.wire()) == Ordering::Less)
    }
}

impl Known {
    /// Whether there are records of a type (RFC 4034 §4.1.2).
    pub(super) fn has(&self, kind: u16) -> bool {
        let mut bitmap = self.proved.record.rdata.get(self.types..).unwrap_or_default();
        while let [window, length, rest @ ..] = bitmap {
            let Some((bits, behind)) = rest.split_at_checked(usize::from(*length)) else { return true };
            if u16::from(*window) == kind >> 8 {
                let (octet, bit) = (usize::from(kind as u8 / 8), kind % 8);
                return bits.get(octet).is_some_and(|bits| bits & 0x80 >> bit != 0);
            }
            bitmap = behind;
        }
        false
    }

    /// It is the parent's side of a delegation: of the child it says nothing (RFC 6840 §4.1).
    pub(super) fn delegates(&self) -> bool {
        self.has(rtype::NS) && !self.has(rtype::SOA)
    }

    /// Whether the owner is known to have nothing that answers a question for a type.
    pub(super) fn denies(&self, qtype: u16) -> bool {
        // A child's apex says nothing of its DS record, and its parent nothing but that.
        let other_side = if qtype == DS { self.has(rtype::SOA) } else { self.delegates() };
        let unclear = matches!(qtype, rtype::ANY | RRSIG | NSEC) || other_side;
        let there = self.has(qtype) || self.has(rtype::CNAME);
        !there && !unclear
    }
}

impl Zone {
    /// Why a name, or its type, does not exist.
    pub(super) fn proof(&self, name: &Name, qtype: u16, now: Instant) -> Option<(Rcode, Vec<&Proved>)> {
        let hashed = || self.spans.proof(&self.soa.first()?.owner, name, qtype, now);
        self.by_name(name, qtype, now).or_else(hashed)
    }

    fn by_name(&self, name: &Name, qtype: u16, now: Instant) -> Option<(Rcode, Vec<&Proved>)> {
        let range = self.before(name, now)?;
        if range.owner() == name {
            return range.known.denies(qtype).then(|| (Rcode::NOERROR, vec![&range.known.proved]));
        }
        let above = name.within(range.owner());
        if !range.covers(name) || above && (range.known.delegates() || range.known.has(DNAME)) {
            return None;
        }
        if range.next.within(name) {
            // An empty non-terminal: there is something below it (RFC 4592 §2.2.2).
            return Some((Rcode::NOERROR, vec![&range.known.proved]));
        }
        // Nothing may stand in for it either (RFC 4035 §5.4).
        let wildcard = closest(name, range).child("*").ok()?;
        let instead = self.before(&wildcard, now)?;
        (instead.owner() != &wildcard && instead.covers(&wildcard))
            .then(|| (Rcode::NXDOMAIN, vec![&range.known.proved, &instead.known.proved]))
    }

    /// The last range that begins at a name or before it, as long as it holds.
    fn before(&self, name: &Name, now: Instant) -> Option<&Range> {
        let (_, range) = self.ranges.range(..=Place(name.clone())).next_back()?;
        (range.known.proved.until > now).then_some(range)
    }
}

/// The closest name above `name` that exists: the longest that either end of the gap around it is or lies below.
fn closest(name: &Name, range: &Range) -> Name {
    let mut above = name.parent();
    while let Some(candidate) = &above {
        if range.owner().within(candidate) || range.next.within(candidate) {
            break;
        }
        above = candidate.parent();
    }
    above.unwrap_or_else(Name::root)
}

/// Whether a record is the signature over another one, by its zone, and not over one that a wildcard made (RFC 4035 §5.3.4).
pub(super) fn signs(record: &Expanded, of: &Expanded, zone: &Name) -> bool {
    let wildcard = usize::from(of.owner.wire().starts_with(b"\x01*"));
    record.rtype == RRSIG
        && record.owner == of.owner
        && u16_at(&record.rdata, 0) == Some(of.rtype)
        && record.rdata.get(3).is_some_and(|labels| usize::from(*labels) + wildcard == of.owner.labels())
        && QueryName::parse(&record.rdata, 18).is_ok_and(|(signer, _)| signer.wire() == zone.wire())
}
