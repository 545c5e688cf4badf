//! What changed between versions of a zone.

use std::collections::{HashSet, VecDeque};

use crate::{
    authority::{Record, Soa, Zone, size},
    message::rtype,
};

/// The change from one version of a zone to a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The older version's SOA record.
    pub from: Record,
    /// The newer version's.
    pub to: Record,
    /// Records that went, SOA records aside.
    pub deleted: Vec<Record>,
    /// Records that came, SOA records aside.
    pub added: Vec<Record>,
}

impl Difference {
    /// What changed from `old` to `new`.
    #[must_use]
    pub fn between(old: &Zone, new: &Zone) -> Self {
        let records =
            |zone: &Zone| -> HashSet<Record> { zone.records().filter(|record| record.rtype != rtype::SOA).collect() };
        let (before, after) = (records(old), records(new));
        let only = |zone: &Zone, other: &HashSet<Record>| {
            zone.records().filter(|record| record.rtype != rtype::SOA && !other.contains(record)).collect()
        };
        Self { from: old.soa_record(), to: new.soa_record(), deleted: only(old, &after), added: only(new, &before) }
    }

    fn serials(&self) -> Option<(u32, u32)> {
        Some((Soa::read(&self.from.rdata)?.serial, Soa::read(&self.to.rdata)?.serial))
    }

    fn len(&self) -> usize {
        self.deleted.len() + self.added.len() + 2
    }

    fn bytes(&self) -> usize {
        let records = [&self.from, &self.to].into_iter().chain(&self.deleted).chain(&self.added);
        records.map(|record| size(&record.owner, &record.rdata)).sum()
    }
}

/// The last changes of a zone, so many that they are still smaller than the zone is worth.
#[derive(Clone, Debug)]
pub struct Journal {
    differences: VecDeque<Difference>,
    records: usize,
    limit: usize,
}

impl Journal {
    /// A journal of up to `limit` records.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { differences: VecDeque::new(), records: 0, limit }
    }

    /// Appends a change. One that does not follow the last one begins the journal anew; the oldest ones go when there are too
    /// many records.
    pub fn push(&mut self, difference: Difference) {
        let follows = match (self.differences.back().and_then(Difference::serials), difference.serials()) {
            (None, Some(_)) => true,
            (Some((_, last)), Some((from, _))) => last == from,
            (_, None) => false,
        };
        if !follows {
            self.differences.clear();
            self.records = 0;
        }
        self.records += difference.len();
        self.differences.push_back(difference);
        while self.records > self.limit
            && let Some(oldest) = self.differences.pop_front()
        {
            self.records -= oldest.len();
        }
    }

    /// How many bytes of records it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.differences.iter().map(Difference::bytes).sum()
    }

    /// The changes that lead from one version to another, oldest first; none when they are not all here.
    #[must_use]
    pub fn since(&self, from: u32, to: u32) -> Option<impl Iterator<Item = &Difference> + Send + use<'_>> {
        let ends_there = self.differences.back().and_then(Difference::serials).is_some_and(|(_, last)| last == to);
        let first = self.differences.iter().position(|change| change.serials().is_some_and(|(old, _)| old == from));
        first.filter(|_| ends_there).map(|first| self.differences.iter().skip(first))
    }
}
