//! A cluster's zones as a whole, for those who fetch them (`transfer`).

use std::collections::BTreeSet;

use super::{Found, Names, Zone, known::Known};
use crate::{
    answer::Section,
    authority::{self, Record as Line},
    message::{expand, rtype},
    name::{Name, QueryName, reverse_name},
};

/// The types that names of the cluster have records of.
const TYPES: [u16; 8] =
    [rtype::SOA, rtype::NS, rtype::A, rtype::AAAA, rtype::SRV, rtype::TXT, rtype::PTR, rtype::CNAME];

impl Zone {
    /// Whether it serves a zone of this name.
    #[must_use]
    pub fn serves(&self, zone: &Name) -> bool {
        self.origins.iter().chain(&self.reverse_origins).any(|origin| origin.name == *zone)
    }

    /// All records of one of its zones; none where it has no such zone. Pods have names of their own in it where they are verified:
    /// where any address is one, there is no end to them.
    ///
    /// Its names are gathered at once and their records one by one, so that nobody waits for all of them: a change meanwhile may be in
    /// it or not, and makes a higher serial number than the one that it has.
    #[must_use]
    pub fn whole(&self, zone: &Name) -> Option<authority::Zone> {
        put_together(self, zone, &self.names_of(zone)?)
    }

    /// The names of a zone, its own first.
    fn names_of(&self, zone: &Name) -> Option<Vec<Name>> {
        let known = self.cluster.read();
        let set = self.set.read();
        let mut names: BTreeSet<Name> = BTreeSet::new();
        if let Some(origin) = self.origins.iter().find(|origin| origin.name == *zone) {
            let is_unknown = if origin.in_set { !set.complete } else { self.verifies_pods() && known.awaits_pods };
            // What is not known cannot be given.
            if is_unknown {
                return None;
            }
            names.extend(["ns.dns", "dns-version"].iter().filter_map(|text| zone.prefixed_text(text).ok()));
            let mut tell = |name| {
                names.insert(name);
            };
            if origin.in_set {
                let stands = set.records().filter_map(|record| self.imported(&known, record, &origin.tail));
                stands.for_each(|stand| stand.names(&mut tell));
            } else {
                let stands = known.records().filter_map(|record| self.stand(&known, record, &origin.tail));
                stands.for_each(|stand| stand.names(&mut tell));
            }
            if !origin.in_set && self.verifies_pods() {
                self.names_of_pods(&known, zone, &mut names);
            }
        } else {
            self.reverse_origins.iter().find(|origin| origin.name == *zone)?;
            // Those of the set have names where some zone shows it.
            names.extend(known.addresses().chain(set.addresses()).map(reverse_name).filter(|name| name.within(zone)));
        }
        names.remove(zone);
        Some(std::iter::once(zone.clone()).chain(names).collect())
    }

    fn names_of_pods(&self, known: &Known, zone: &Name, names: &mut BTreeSet<Name>) {
        for (addr, pods) in known.pods.all() {
            for pod in pods {
                let text = format!("{}.{}.pod", super::stand::dashed(addr), pod.namespace);
                names.extend(zone.prefixed_text(&text).ok());
            }
        }
    }
}

/// A zone of all records that its names have.
pub(super) fn put_together(all: &impl Names, zone: &Name, names: &[Name]) -> Option<authority::Zone> {
    let mut lines: Vec<Line> = Vec::new();
    for name in names {
        let asked = QueryName::from(name);
        // An alias stands at every type, so it comes again and again.
        let before = lines.len();
        for qtype in TYPES {
            for line in all.find(&asked, qtype, |found| records_at(name, &asked, found)) {
                if !lines[before..].contains(&line) {
                    lines.push(line);
                }
            }
        }
    }
    authority::Zone::from_records(zone, &lines).ok().map(|(zone, _)| zone)
}

/// The records of one type at a name.
fn records_at(name: &Name, asked: &QueryName, found: Option<Found<'_>>) -> Vec<Line> {
    let line = |rtype, ttl, rdata: &[u8]| Line { owner: name.clone(), rtype, ttl, rdata: rdata.into() };
    let answer = match found {
        Some(Found::Records(answer)) => answer.into_owned(),
        Some(Found::Authority(authority)) => authority.itself(asked),
        Some(Found::Alias(alias)) => return vec![line(rtype::CNAME, alias.ttl, alias.target.wire())],
        Some(Found::NoData(_) | Found::Unknown | Found::NoName(_)) | None => return Vec::new(),
    };
    let told = expand(name, &answer).into_iter().filter(|record| record.section == Section::Answer);
    told.map(|record| line(record.rtype, record.ttl, &record.rdata)).collect()
}
