//! From records to a zone, and what keeps records from being one.

use std::{cmp::Ordering, fmt};

use super::{Cover, Denial, Node, Packed, RrSet, Soa, Zone, chain::Chain, table::Table};
use crate::{
    authority::{
        Record,
        order::{Labels, compare},
        rdata::{canonical, mnemonic},
        record::{kind, size},
        zonefile::{ZoneFault, ZoneFile, ZoneFileError},
    },
    corefile::Place,
    message::{rtype, u16_at},
    name::Name,
};

/// Why records are no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// No SOA record.
    #[error("the zone {zone} has no SOA record; its name needs exactly one")]
    NoSoa {
        /// The zone.
        zone: Name,
    },
    /// An SOA record that does not belong here.
    #[error("a second SOA record, at {owner}; a zone has exactly one, at its own name")]
    SecondSoa {
        /// Whose it is.
        owner: Name,
    },
    /// A CNAME record that is not alone.
    #[error(
        "{owner} has a CNAME record, which may have nothing beside it, and a record of type {other}; remove one of them"
    )]
    BesideAlias {
        /// The name.
        owner: Name,
        /// The other record's type.
        other: String,
    },
    /// Several records where only one may be.
    #[error("{owner} has several records of type {rtype}; one is allowed")]
    Several {
        /// The name.
        owner: Name,
        /// The type.
        rtype: String,
    },
    /// NSEC3 records that would cost more work for an answer than any reason asks for (RFC 9276 §3.1 wants 0).
    #[error("NSEC3 with {found} iterations; allowed: up to {limit}, and 0 is what RFC 9276 asks for")]
    Iterations {
        /// How many.
        found: u16,
        /// The limit.
        limit: u16,
    },
    /// Data that is not what its type says.
    #[error("the data of {owner}, type {rtype}, is not what the type is made of")]
    Data {
        /// The name.
        owner: Name,
        /// The type.
        rtype: String,
    },
}

/// Something about a zone that its owner should know; the zone serves nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where in the file; none for what came by transfer.
    pub place: Option<Place>,
    /// What.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A defect and the record that it was found at, by its number.
type Found = (Defect, Option<usize>);

impl Zone {
    /// The zone of a file.
    ///
    /// # Errors
    /// With the first thing that keeps it from being a zone, and where.
    pub fn from_file(origin: &Name, file: &ZoneFile, name: &str) -> Result<(Self, Vec<Warning>), ZoneFileError> {
        let (zone, warnings) = build(origin, &file.records).map_err(|(defect, at)| {
            let start = Place { file: name.into(), line: 1, column: 1 };
            let place = at.and_then(|at| file.places.get(at)).cloned().unwrap_or(start);
            ZoneFileError { place, fault: ZoneFault::Zone(defect) }
        })?;
        let warnings = warnings.into_iter().map(|(at, text)| Warning { place: file.places.get(at).cloned(), text });
        Ok((zone, warnings.collect()))
    }

    /// The zone of records from elsewhere.
    ///
    /// # Errors
    /// With the first thing that keeps them from being a zone.
    pub fn from_records(origin: &Name, records: &[Record]) -> Result<(Self, Vec<Warning>), Defect> {
        let (zone, warnings) = build(origin, records).map_err(|(defect, _)| defect)?;
        Ok((zone, warnings.into_iter().map(|(_, text)| Warning { place: None, text }).collect()))
    }
}

fn build(origin: &Name, records: &[Record]) -> Result<(Zone, Vec<(usize, String)>), Found> {
    let mut warnings = Vec::new();
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.retain(|&at| {
        let inside = records[at].owner.within(origin);
        if !inside {
            warnings
                .push((at, format!("{} does not lie in the zone {origin}; the record is left out", records[at].owner)));
        }
        inside
    });
    order.sort_by(|left, right| by_place(&records[*left], &records[*right]));
    // RFC 2181 §5: a set has each record once.
    order.dedup_by(|left, right| by_place(&records[*left], &records[*right]).is_eq());
    let soa = start_of_authority(origin, records, &order)?;
    let mut builder = Builder { records, warnings, nodes: Vec::new(), hashed: Vec::new(), kept: 0, bytes: 0 };
    for group in order.chunk_by(|left, right| records[*left].owner == records[*right].owner) {
        builder.name(origin, group)?;
    }
    let Builder { mut nodes, hashed, kept, bytes, mut warnings, .. } = builder;
    cover(&mut nodes);
    if nodes[0].set(rtype::NS).is_none() {
        warnings.push((order[0], format!("the zone {origin} has no NS records; give it at least one")));
    }
    let denial = denial(origin, &nodes, &hashed).map_err(|defect| (defect, None))?;
    let table = Table::new(nodes.len(), |index| nodes[index].name.wire());
    Ok((Zone { origin: origin.clone(), soa, nodes, table, denial, hashed, records: kept, bytes }, warnings))
}

/// Canonical order of names, then types, then data (RFC 4034 §6).
fn by_place(left: &Record, right: &Record) -> Ordering {
    compare(left.owner.wire(), right.owner.wire())
        .then(left.rtype.cmp(&right.rtype))
        .then_with(|| canonical(left.rtype, &left.rdata).cmp(&canonical(right.rtype, &right.rdata)))
}

fn start_of_authority(origin: &Name, records: &[Record], order: &[usize]) -> Result<Soa, Found> {
    let mut found = None;
    for &at in order.iter().filter(|at| records[**at].rtype == rtype::SOA) {
        let owner = &records[at].owner;
        if owner != origin || found.is_some() {
            // Of two at the zone's own name, the one that stands further down is the second.
            let at = found.filter(|_| owner == origin).map_or(at, |first: usize| first.max(at));
            return Err((Defect::SecondSoa { owner: owner.clone() }, Some(at)));
        }
        found = Some(at);
    }
    let at = found.ok_or_else(|| (Defect::NoSoa { zone: origin.clone() }, None))?;
    let data = || Defect::Data { owner: origin.clone(), rtype: mnemonic(rtype::SOA) };
    Soa::read(&records[at].rdata).ok_or_else(|| (data(), Some(at)))
}

struct Builder<'a> {
    records: &'a [Record],
    warnings: Vec<(usize, String)>,
    nodes: Vec<Node>,
    hashed: Vec<(Name, RrSet)>,
    kept: usize,
    bytes: usize,
}

impl Builder<'_> {
    /// Takes the records of one name in; names come in canonical order.
    fn name(&mut self, origin: &Name, group: &[usize]) -> Result<(), Found> {
        let owner = &self.records[group[0]].owner;
        self.check(group)?;
        let mut sets = Vec::new();
        for same in group.chunk_by(|left, right| self.records[*left].rtype == self.records[*right].rtype) {
            if self.records[same[0]].rtype != kind::RRSIG {
                sets.push(self.set(same));
            }
        }
        for &at in group.iter().filter(|at| self.records[**at].rtype == kind::RRSIG) {
            let covered = u16_at(&self.records[at].rdata, 0).unwrap_or(0);
            if !sets.iter().any(|set: &RrSet| set.rtype == covered) {
                let text = format!("{owner} has a signature for type {} and no such record", mnemonic(covered));
                self.warnings.push((at, text));
            }
        }
        if owner.wire().starts_with(b"\x01*") && sets.iter().any(|set| set.rtype == rtype::NS) {
            // RFC 4592 §4.2 leaves open what that would mean.
            let text = format!("{owner} is a wildcard with NS records, which stands for no name; remove them");
            self.warnings.push((group[0], text));
        }
        for set in &mut sets {
            let signatures = group
                .iter()
                .map(|at| &self.records[*at])
                .filter(|record| record.rtype == kind::RRSIG && u16_at(&record.rdata, 0) == Some(set.rtype));
            set.signatures = Packed::new(signatures.map(|record| &*record.rdata));
            for data in set.data.iter().chain(set.signatures.iter()) {
                (self.kept, self.bytes) = (self.kept + 1, self.bytes + size(owner, data));
            }
        }
        self.hashed.extend(sets.extract_if(.., |set| set.rtype == kind::NSEC3).map(|set| (owner.clone(), set)));
        if !sets.is_empty() {
            self.ancestors(origin, owner);
            self.nodes.push(Node { name: owner.clone(), sets: sets.into(), cover: Cover::Nothing });
        }
        Ok(())
    }

    fn set(&mut self, same: &[usize]) -> RrSet {
        let records = || same.iter().map(|at| &self.records[*at]);
        let ttl = records().map(|record| record.ttl).min().unwrap_or(0);
        let rtype = self.records[same[0]].rtype;
        let data = Packed::new(records().map(|record| &*record.rdata));
        // RFC 2181 §5.2: they differ by mistake; the lowest is the safe one.
        if let Some(&at) = same.iter().find(|at| self.records[**at].ttl != ttl) {
            let owner = &self.records[at].owner;
            let text =
                format!("the records of {owner}, type {}, differ in time to live; {ttl} s is used", mnemonic(rtype));
            self.warnings.push((at, text));
        }
        RrSet { rtype, ttl, data, signatures: Packed::default() }
    }

    /// RFC 1034 §3.6.2, RFC 2181 §10.1, RFC 6672 §2.4: what a name with an alias may not have.
    fn check(&self, group: &[usize]) -> Result<(), Found> {
        let owner = &self.records[group[0]].owner;
        let of = |rtype| group.iter().copied().filter(move |at| self.records[*at].rtype == rtype);
        for single in [rtype::CNAME, kind::DNAME] {
            if let Some(second) = of(single).nth(1) {
                return Err((Defect::Several { owner: owner.clone(), rtype: mnemonic(single) }, Some(second)));
            }
        }
        if of(rtype::CNAME).next().is_none() {
            return Ok(());
        }
        let beside = [rtype::CNAME, kind::RRSIG, kind::NSEC, kind::KEY, kind::SIG, kind::NSEC3];
        match group.iter().find(|at| !beside.contains(&self.records[**at].rtype)) {
            Some(&at) => {
                let other = mnemonic(self.records[at].rtype);
                Err((Defect::BesideAlias { owner: owner.clone(), other }, Some(at)))
            }
            None => Ok(()),
        }
    }

    /// Nodes for the names between `owner` and the last one before it that have nothing themselves (RFC 4592 §2.2.2).
    fn ancestors(&mut self, origin: &Name, owner: &Name) {
        let labels = Labels::of(owner.wire());
        for count in origin.labels() + 1..labels.count() {
            let Ok(name) = Name::from_wire(labels.last(count)) else { continue };
            // What lies below a name follows it directly: if the last one does not, the name has no node yet.
            if self.nodes.last().is_none_or(|last| !last.name.within(&name)) {
                self.nodes.push(Node { name, sets: Box::default(), cover: Cover::Nothing });
            }
        }
    }
}

/// Finds what lies at or below delegations, and below DNAMEs.
fn cover(nodes: &mut [Node]) {
    let mut above: Option<(usize, Cover)> = None;
    for index in 0..nodes.len() {
        if let Some((top, cover)) = above
            && nodes[index].name.within(&nodes[top].name)
        {
            nodes[index].cover = cover;
            continue;
        }
        above = None;
        if index > 0 && nodes[index].set(rtype::NS).is_some() {
            nodes[index].cover = Cover::Cut(index as u32);
            above = Some((index, Cover::Cut(index as u32)));
        } else if nodes[index].set(kind::DNAME).is_some() {
            above = Some((index, Cover::Redirect(index as u32)));
        }
    }
}

fn denial(origin: &Name, nodes: &[Node], hashed: &[(Name, RrSet)]) -> Result<Denial, Defect> {
    let signed = nodes[0].set(rtype::SOA).is_some_and(|soa| !soa.signatures.is_empty());
    if !signed {
        return Ok(Denial::Plain);
    }
    if let Some(parameters) = nodes[0].set(kind::NSEC3PARAM)
        && !hashed.is_empty()
    {
        return Chain::new(origin, parameters.data.first(), hashed).map(Denial::Nsec3);
    }
    let with = nodes.iter().enumerate().filter(|(_, node)| node.set(kind::NSEC).is_some());
    let with: Vec<u32> = with.map(|(index, _)| index as u32).collect();
    Ok(if with.is_empty() { Denial::Plain } else { Denial::Nsec(with) })
}
