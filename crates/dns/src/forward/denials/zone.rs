//! The gaps of one signed zone.

use std::{cmp::Ordering, collections::BTreeMap, time::Instant};

use super::{NSEC, RRSIG};
use crate::{
    authority::compare,
    message::{Expanded, Rcode, rtype, u16_at},
    name::{Name, QueryName},
};

const DNAME: u16 = 39;
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
}

/// An NSEC record: its owner has these types, and up to `next` there is no other name.
#[derive(Debug)]
pub(super) struct Range {
    next: Name,
    pub(super) nsec: Expanded,
    pub(super) signature: Expanded,
    until: Instant,
}

impl Range {
    /// Reads a record of a zone; none where it proves nothing that could be of use.
    pub(super) fn read(nsec: &Expanded, signature: Expanded, zone: &Name, until: Instant) -> Option<Self> {
        let (next, _) = QueryName::parse(&nsec.rdata, 0).ok()?;
        let next = Name::from_query(&next);
        // A gap behind a name that is made for the question alone (RFC 4470, RFC 9824) has room for nobody.
        let made = next.wire().strip_prefix(&[1, 0]).is_some_and(|rest| rest == nsec.owner.wire());
        let forwards = next == *zone || compare(nsec.owner.wire(), next.wire()) == Ordering::Less;
        (!made && forwards && nsec.owner.within(zone) && next.within(zone)).then(|| Self {
            next,
            nsec: nsec.clone(),
            signature,
            until,
        })
    }

    pub(super) fn owner(&self) -> &Name {
        &self.nsec.owner
    }

    /// Seconds for which it holds.
    pub(super) fn left(&self, now: Instant) -> u32 {
        self.until.saturating_duration_since(now).as_secs() as u32
    }

    /// Whether a name lies in the gap. The last record's next name is the zone's own.
    fn covers(&self, name: &Name) -> bool {
        let behind = compare(self.owner().wire(), name.wire()) == Ordering::Less;
        let last = compare(self.next.wire(), self.owner().wire()) != Ordering::Greater;
        behind && (last || compare(name.wire(), self.next.wire()) == Ordering::Less)
    }

    /// Whether its owner has records of a type (RFC 4034 §4.1.2).
    fn has(&self, kind: u16) -> bool {
        let mut bitmap = self.nsec.rdata.get(self.next.wire().len()..).unwrap_or_default();
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
    fn delegates(&self) -> bool {
        self.has(rtype::NS) && !self.has(rtype::SOA)
    }
}

impl Zone {
    /// Why a name, or its type, does not exist.
    pub(super) fn proof(&self, name: &Name, qtype: u16, now: Instant) -> Option<(Rcode, Vec<&Range>)> {
        let range = self.before(name, now)?;
        if range.owner() == name {
            // A child's apex says nothing of its DS record, and its parent nothing but that.
            let other_side = if qtype == DS { range.has(rtype::SOA) } else { range.delegates() };
            let unclear = matches!(qtype, rtype::ANY | RRSIG | NSEC) || other_side;
            let there = range.has(qtype) || range.has(rtype::CNAME);
            return (!there && !unclear).then(|| (Rcode::NOERROR, vec![range]));
        }
        let above = name.within(range.owner());
        if !range.covers(name) || above && (range.delegates() || range.has(DNAME)) {
            return None;
        }
        if range.next.within(name) {
            // An empty non-terminal: there is something below it (RFC 4592 §2.2.2).
            return Some((Rcode::NOERROR, vec![range]));
        }
        // Nothing may stand in for it either (RFC 4035 §5.4).
        let wildcard = closest(name, range).child("*").ok()?;
        let instead = self.before(&wildcard, now)?;
        (instead.owner() != &wildcard && instead.covers(&wildcard)).then(|| (Rcode::NXDOMAIN, vec![range, instead]))
    }

    /// The last range that begins at a name or before it, as long as it holds.
    fn before(&self, name: &Name, now: Instant) -> Option<&Range> {
        let (_, range) = self.ranges.range(..=Place(name.clone())).next_back()?;
        (range.until > now).then_some(range)
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
