//! The look-up against a slow walk that goes down from the zone's name, label by label, over a list of records.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select};

use super::*;

/// What the walk says: code, kind, alias that leads out, answers, name servers of a referral.
type Said = (u16, Kind, Option<String>, BTreeSet<String>, BTreeSet<String>);

pub(super) struct Walk<'a>(pub(super) &'a [Record]);

impl Walk<'_> {
    fn at<'s>(&'s self, name: &'s Name) -> impl Iterator<Item = &'s Record> {
        self.0.iter().filter(move |record| record.owner == *name)
    }

    fn has(&self, name: &Name, rtype: u16) -> bool {
        self.at(name).any(|record| record.rtype == rtype)
    }

    pub(super) fn exists(&self, name: &Name) -> bool {
        self.0.iter().any(|record| record.owner.within(name))
    }

    pub(super) fn ask(&self, origin: &Name, asked: &Name, qtype: u16) -> Said {
        let mut answers = BTreeSet::new();
        let mut seen = vec![asked.clone()];
        loop {
            let name = seen[seen.len() - 1].clone();
            let (rcode, kind, next) = self.step(origin, &name, qtype, &mut answers);
            if let (Kind::Referral, true) = (kind, seen.len() > 1) {
                return (0, Kind::Records, Some(name.to_string()), answers, BTreeSet::new());
            }
            let Some(next) = next else {
                let cut = if kind == Kind::Referral { self.cut(origin, &name) } else { None };
                let servers = cut.iter().flat_map(|cut| self.at(cut)).filter(|record| record.rtype == rtype::NS);
                return (rcode, kind, None, answers, servers.map(ToString::to_string).collect());
            };
            if !next.within(origin) || (seen.len() == 16 && !seen.contains(&next) && self.cut(origin, &next).is_none())
            {
                return (0, Kind::Records, Some(next.to_string()), answers, BTreeSet::new());
            }
            if seen.contains(&next) {
                return (0, Kind::Records, None, answers, BTreeSet::new());
            }
            seen.push(next);
        }
    }

    /// The names from below the origin down to `name`.
    fn path(origin: &Name, name: &Name) -> Vec<Name> {
        let mut path: Vec<Name> = std::iter::successors(Some(name.clone()), Name::parent).collect();
        path.truncate(name.labels() - origin.labels());
        path.reverse();
        path
    }

    fn cut(&self, origin: &Name, name: &Name) -> Option<Name> {
        for node in Self::path(origin, name) {
            if self.has(&node.parent().unwrap(), kind::DNAME) || !self.exists(&node) {
                return None;
            }
            if self.has(&node, rtype::NS) {
                return Some(node);
            }
        }
        None
    }

    fn step(
        &self,
        origin: &Name,
        name: &Name,
        qtype: u16,
        answers: &mut BTreeSet<String>,
    ) -> (u16, Kind, Option<Name>) {
        for node in Self::path(origin, name) {
            let parent = node.parent().unwrap();
            if let Some(dname) = self.at(&parent).find(|record| record.rtype == kind::DNAME) {
                answers.insert(dname.to_string());
                let mut target = name.wire()[..name.wire().len() - parent.wire().len()].to_vec();
                target.extend_from_slice(&dname.rdata);
                let record =
                    Record { owner: name.clone(), rtype: rtype::CNAME, ttl: dname.ttl, rdata: target.clone().into() };
                answers.insert(record.to_string());
                let next = (qtype != rtype::CNAME).then(|| Name::from_wire(&target).unwrap());
                return (0, Kind::Records, next);
            }
            if !self.exists(&node) {
                let wild = parent.child("*").unwrap();
                if !self.exists(&wild) || self.has(&wild, rtype::NS) {
                    return (3, Kind::NoName, None);
                }
                return self.data(&wild, name, qtype, answers);
            }
            if self.has(&node, rtype::NS) && !(node == *name && qtype == kind::DS) {
                return (0, Kind::Referral, None);
            }
        }
        self.data(name, name, qtype, answers)
    }

    fn data(&self, node: &Name, owner: &Name, qtype: u16, answers: &mut BTreeSet<String>) -> (u16, Kind, Option<Name>) {
        let wanted = if self.has(node, rtype::CNAME) { rtype::CNAME } else { qtype };
        let mut last = None;
        for record in self.at(node).filter(|record| record.rtype == wanted) {
            answers.insert(Record { owner: owner.clone(), ..record.clone() }.to_string());
            last = Some(record);
        }
        match last {
            Some(record) if wanted != qtype => (0, Kind::Records, Some(Name::from_wire(&record.rdata).unwrap())),
            Some(_) => (0, Kind::Records, None),
            None => (0, Kind::NoData, None),
        }
    }
}

/// A name below (or, rarely, beside) the zone `z`.
pub(super) fn any_name() -> impl Strategy<Value = Name> {
    let labels = proptest::collection::vec(select(vec!["a", "b", "*"]), 0..4);
    (labels, select(vec!["z", "z", "z", "z", "y"])).prop_map(|(mut labels, last)| {
        labels.push(last);
        Name::parse(&labels.join(".")).unwrap()
    })
}

pub(super) const TYPES: [u16; 7] = [rtype::A, rtype::TXT, rtype::NS, rtype::CNAME, kind::DNAME, kind::MX, kind::DS];

fn any_record() -> impl Strategy<Value = Record> {
    let kinds =
        vec![rtype::A, rtype::A, rtype::TXT, rtype::NS, rtype::CNAME, rtype::CNAME, kind::DNAME, kind::MX, kind::DS];
    (any_name(), select(kinds), any_name()).prop_map(|(owner, rtype, target)| {
        let rdata = match rtype {
            rtype::A => vec![192, 0, 2, target.wire().len() as u8],
            rtype::TXT => vec![1, target.wire()[0]],
            kind::MX => [&[0, 1], target.wire()].concat(),
            kind::DS => vec![0, 1, 13, 2, 5],
            _ => target.wire().to_vec(),
        };
        Record { owner, rtype, ttl: 5, rdata: rdata.into() }
    })
}

/// Records that make a zone `z`.
pub(crate) fn any_zone() -> impl Strategy<Value = Vec<Record>> {
    proptest::collection::vec(any_record(), 0..24).prop_map(|records| {
        let origin = Name::parse("z").unwrap();
        let soa = super::zone("z", "@ 5 SOA a b 1 2 3 4 5").soa_record();
        let mut kept = vec![soa];
        for record in records.into_iter().filter(|record| record.owner.within(&origin)) {
            let beside = || kept.iter().filter(|other| other.owner == record.owner);
            let single = matches!(record.rtype, rtype::CNAME | kind::DNAME);
            let alias = record.rtype == rtype::CNAME && beside().next().is_some()
                || beside().any(|other| other.rtype == rtype::CNAME);
            let second = single && beside().any(|other| other.rtype == record.rtype);
            // A delegation that is redirected as well is read in two ways.
            let both = beside().any(|other| {
                [other.rtype, record.rtype] == [rtype::NS, kind::DNAME]
                    || [record.rtype, other.rtype] == [rtype::NS, kind::DNAME]
            });
            if !alias && !second && !both && !kept.contains(&record) {
                kept.push(record);
            }
        }
        kept
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn rfc1034_4_3_2_the_lookup_says_what_the_walk_says(
        records in any_zone(),
        questions in proptest::collection::vec((any_name(), select(TYPES.to_vec())), 8),
    ) {
        let origin = Name::parse("z").unwrap();
        let (zone, _) = Zone::from_records(&origin, &records).unwrap();
        for (name, qtype) in questions {
            let Some(found) = zone.lookup(&QueryName::from(&name), qtype, false) else {
                prop_assert!(!name.within(&origin));
                continue;
            };
            let (mut answers, mut servers) = (BTreeSet::new(), BTreeSet::new());
            for record in expand(&name, &found.answer) {
                let line = Record { owner: record.owner, rtype: record.rtype, ttl: record.ttl, rdata: record.rdata.into() };
                match record.section as usize {
                    0 => answers.insert(line.to_string()),
                    1 if record.rtype == rtype::NS => servers.insert(line.to_string()),
                    _ => true,
                };
            }
            let said = (found.answer.rcode.0, found.kind, found.next.map(|next| next.to_string()), answers, servers);
            prop_assert_eq!(said, Walk(&records).ask(&origin, &name, qtype), "{} {} in\n{}", name, qtype, zone.to_text());
        }
    }

    #[test]
    fn a_zone_survives_writing_and_reading(records in any_zone()) {
        let origin = Name::parse("z").unwrap();
        let (zone, _) = Zone::from_records(&origin, &records).unwrap();
        prop_assert_eq!(zone.len(), records.len());
        let text = zone.to_text();
        prop_assert_eq!(super::zone("z", &text).to_text(), text);
    }
}
