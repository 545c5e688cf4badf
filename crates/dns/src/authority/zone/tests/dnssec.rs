use proptest::{prelude::*, sample::select};

use super::{reference::*, *};
use crate::{
    authority::{order::compare, rdata::types},
    message::Expanded,
};

/// A zone with a chain of NSEC or NSEC3 records and a placeholder where each signature belongs.
fn signed(records: &[Record], nsec3: bool) -> Zone {
    let origin = records.iter().find(|record| record.rtype == rtype::SOA).unwrap().owner.clone();
    let mut all = records.to_vec();
    let (plain, _) = Zone::from_records(&origin, &all).unwrap();
    if nsec3 {
        all.push(Record {
            owner: origin.clone(),
            rtype: kind::NSEC3PARAM,
            ttl: 0,
            rdata: [1, 0, 0, 1, 1, 0xab].into(),
        });
        all.extend(hashed(&plain));
    } else {
        all.extend(super::nsec::chain(&plain));
    }
    let (chained, _) = Zone::from_records(&origin, &all).unwrap();
    let placeholder = |owner: &Name, rtype: u16, ttl| {
        let mut rdata = rtype.to_be_bytes().to_vec();
        rdata.extend_from_slice(&[13, 1, 0, 0, 0, ttl, 0, 0, 0, 9, 0, 0, 0, 1, 0, 7, 0, 1, 2, 3]);
        Record { owner: owner.clone(), rtype: kind::RRSIG, ttl: u32::from(ttl), rdata: rdata.into() }
    };
    let mut sets: Vec<Record> = chained.sets_to_sign().map(|(owner, rtype, ..)| placeholder(owner, rtype, 5)).collect();
    sets.extend(
        all.iter()
            .filter(|record| record.rtype == kind::NSEC3)
            .map(|record| placeholder(&record.owner, kind::NSEC3, 5)),
    );
    all.extend(sets);
    Zone::from_records(&origin, &all).unwrap().0
}

/// The NSEC3 records of a zone, by RFC 5155 §7.1.
fn hashed(zone: &Zone) -> Vec<Record> {
    let parameters = chain::Chain::new(&zone.origin, &[1, 0, 0, 1, 1, 0xab], &[]).unwrap();
    let mut hashes: Vec<_> = zone
        .spoken_for()
        .map(|(node, cut)| {
            let mut types: Vec<u16> = node.sets.iter().map(|set| set.rtype).collect();
            types.retain(|rtype| !cut || matches!(*rtype, rtype::NS | kind::DS));
            if types.iter().any(|rtype| !cut || *rtype == kind::DS) {
                types.push(kind::RRSIG);
            }
            (parameters.hash(node.name.wire()), types)
        })
        .collect();
    hashes.sort();
    let next: Vec<_> = hashes.iter().cycle().skip(1).map(|(hash, _)| *hash).take(hashes.len()).collect();
    let records = hashes.iter().zip(next).map(|((hash, types), next)| {
        let label = data_encoding::BASE32HEX_NOPAD.encode(hash).to_ascii_lowercase();
        let mut rdata = vec![1, 0, 0, 1, 1, 0xab, 20];
        rdata.extend_from_slice(&next);
        rdata.extend_from_slice(&crate::authority::rdata::type_bitmap(types));
        Record { owner: zone.origin.child(&label).unwrap(), rtype: kind::NSEC3, ttl: 5, rdata: rdata.into() }
    });
    records.collect()
}

/// What a validator reads from an answer's proofs.
struct Proofs {
    /// Owner, next name, types.
    nsec: Vec<(Name, Name, Vec<u16>)>,
    /// Owner's hash, next hash, types.
    nsec3: Vec<(Vec<u8>, Vec<u8>, Vec<u16>)>,
    hasher: Option<chain::Chain>,
}

impl Proofs {
    fn new(records: &[Expanded], hasher: Option<chain::Chain>) -> Self {
        let mut proofs = Self { nsec: Vec::new(), nsec3: Vec::new(), hasher };
        for record in records.iter().filter(|record| record.section as usize == 1) {
            if record.rtype == kind::NSEC {
                let (next, end) = QueryName::parse(&record.rdata, 0).unwrap();
                let set = types(&record.rdata[end..]).collect();
                proofs.nsec.push((record.owner.clone(), Name::from_query(&next), set));
            } else if record.rtype == kind::NSEC3 {
                let label = record.owner.wire()[1..33].to_ascii_uppercase();
                let hash = data_encoding::BASE32HEX_NOPAD.decode(&label).unwrap();
                let set = types(&record.rdata[27..]).collect();
                proofs.nsec3.push((hash, record.rdata[7..27].to_vec(), set));
            }
        }
        proofs
    }

    /// The name is shown not to exist.
    fn covers(&self, name: &Name) -> bool {
        if let Some(hasher) = &self.hasher {
            let hash = hasher.hash(name.wire()).to_vec();
            return self.nsec3.iter().any(|(owner, next, _)| {
                if owner < next { *owner < hash && hash < *next } else { *owner < hash || hash < *next }
            });
        }
        self.nsec.iter().any(|(owner, next, _)| {
            let after = compare(owner.wire(), name.wire()).is_lt();
            let before = compare(name.wire(), next.wire()).is_lt() || compare(next.wire(), owner.wire()).is_le();
            after && before && !next.within(name)
        })
    }

    /// The types that are shown to be at a name; an empty non-terminal has none.
    fn at(&self, name: &Name) -> Option<Vec<u16>> {
        if let Some(hasher) = &self.hasher {
            let hash = hasher.hash(name.wire()).to_vec();
            return self.nsec3.iter().find(|(owner, _, _)| *owner == hash).map(|(_, _, types)| types.clone());
        }
        let exact = self.nsec.iter().find(|(owner, _, _)| owner == name).map(|(_, _, types)| types.clone());
        let between =
            || self.nsec.iter().any(|(owner, next, _)| compare(owner.wire(), name.wire()).is_lt() && next.within(name));
        exact.or_else(|| between().then(Vec::new))
    }

    fn no_name(&self, name: &Name, encloser: &Name) -> bool {
        self.no_exact(name, encloser) && (self.hasher.is_none() || self.at(encloser).is_some())
    }

    /// Shown by one span alone, where a wildcard's signature tells the encloser (RFC 5155 §7.2.6).
    fn no_exact(&self, name: &Name, encloser: &Name) -> bool {
        let next_closer = std::iter::successors(Some(name.clone()), Name::parent)
            .find(|below| below.labels() == encloser.labels() + 1)
            .unwrap();
        match self.hasher {
            Some(_) => self.covers(&next_closer),
            None => self.covers(name),
        }
    }
}

fn check(zone: &Zone, records: &[Record], nsec3: bool, name: &Name, qtype: u16) -> Result<(), TestCaseError> {
    let Some(found) = zone.lookup(&QueryName::from(name), qtype, true) else { return Ok(()) };
    let expanded = expand(name, &found.answer);
    let hasher = nsec3.then(|| chain::Chain::new(&zone.origin, &[1, 0, 0, 1, 1, 0xab], &[]).unwrap());
    let proofs = Proofs::new(&expanded, hasher);
    let walk = Walk(records);
    // The name that the answer is about after its aliases.
    let last = expanded.iter().rfind(|record| record.section as usize == 0 && record.rtype == rtype::CNAME);
    let about = match last {
        Some(alias) if qtype != rtype::CNAME => Name::from_wire(&alias.rdata).unwrap(),
        _ => name.clone(),
    };
    let encloser = std::iter::successors(Some(about.clone()), Name::parent).find(|above| walk.exists(above)).unwrap();
    let wildcard = encloser.child("*").unwrap();
    if records.iter().any(|record| record.owner == wildcard && record.rtype == rtype::NS) {
        // A wildcard that is a delegation means nothing (RFC 4592 §4.2): neither it nor its absence can be proven.
        return Ok(());
    }
    let without =
        |types: Option<Vec<u16>>| types.is_some_and(|types| !types.contains(&qtype) && !types.contains(&rtype::CNAME));
    match found.kind {
        Kind::NoName => {
            prop_assert!(proofs.no_name(&about, &encloser), "{} is shown not to exist", about);
            prop_assert!(proofs.covers(&wildcard), "nor does {}", wildcard);
        }
        Kind::NoData if walk.exists(&about) => prop_assert!(without(proofs.at(&about)), "no {} at {}", qtype, about),
        Kind::NoData => {
            prop_assert!(proofs.no_name(&about, &encloser), "{} is a wildcard's", about);
            prop_assert!(without(proofs.at(&wildcard)), "no {} at {}", qtype, wildcard);
        }
        Kind::Referral => {
            let cut = &expanded.iter().find(|record| record.rtype == rtype::NS).unwrap().owner;
            let secure = expanded.iter().any(|record| record.rtype == kind::DS);
            let shown = proofs.at(cut).is_some_and(|types| types.contains(&rtype::NS) && !types.contains(&kind::DS));
            prop_assert!(secure || shown, "{} is shown to be unsigned", cut);
        }
        Kind::Records if found.next.is_none() && last.is_none() && !walk.exists(name) => {
            prop_assert!(proofs.no_exact(name, &encloser), "{} is a wildcard's", name);
        }
        Kind::Records => {}
    }
    signatures(&expanded)
}

/// Each set but those of delegations, glue, and aliases that DNAMEs make, is signed.
fn signatures(records: &[Expanded]) -> Result<(), TestCaseError> {
    let redirected = |owner: &Name| {
        let mut above = records.iter().filter(|record| record.rtype == kind::DNAME);
        above.any(|dname| owner != &dname.owner && owner.within(&dname.owner))
    };
    for record in records.iter().filter(|record| record.rtype != kind::RRSIG && record.section as usize != 2) {
        let plain = record.section as usize == 1 && record.rtype == rtype::NS
            || record.rtype == rtype::CNAME && redirected(&record.owner);
        let signed = records.iter().any(|signature| {
            signature.rtype == kind::RRSIG
                && signature.owner == record.owner
                && signature.rdata[..2] == record.rtype.to_be_bytes()
                && signature.section == record.section
        });
        prop_assert_eq!(signed, !plain, "{} {}", record.owner, record.rtype);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rfc4035_3_1_3_answers_from_a_signed_zone_prove_what_they_deny(
        records in any_zone(),
        questions in proptest::collection::vec((any_name(), select(TYPES.to_vec())), 6),
        nsec3 in any::<bool>(),
    ) {
        let zone = signed(&records, nsec3);
        for (name, qtype) in questions {
            check(&zone, &records, nsec3, &name, qtype)?;
        }
    }
}

#[test]
fn rfc4035_b_shapes_of_answers() {
    let text = "$TTL 5\n@ SOA a b 1 2 3 4 5\n@ NS a\na A 192.0.2.1\n*.w TXT x\nd NS ns.d\nns.d A 192.0.2.2\n\
                e NS ns.d\ne DS 1 13 2 00\nx.y TXT x\n";
    let zone = signed(&parsed("z", text).records, false);
    let soa = ["N z. 5 SOA a.z. b.z. 1 2 3 4 5", "N z. 5 RRSIG"];
    let apex = ["N z. 5 NSEC a.z. NS SOA RRSIG NSEC", "N z. 5 RRSIG"];
    let y = ["N *.w.z. 5 NSEC x.y.z. TXT RRSIG NSEC", "N *.w.z. 5 RRSIG"];
    let lines = |parts: &[&[&str]]| parts.concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let e = ["N e.z. 5 NSEC *.w.z. NS DS RRSIG NSEC", "N e.z. 5 RRSIG"];
    assert_eq!(ask(&zone, "h.z", "A", true), lines(&[&["3 aa NoName"], &soa, &e, &apex]));
    assert_eq!(ask(&zone, "y.z", "A", true), lines(&[&["0 aa NoData"], &soa, &y]));
    assert_eq!(
        ask(&zone, "q.w.z", "TXT", true),
        lines(&[&["0 aa Records", "A q.w.z. 5 TXT \"x\"", "A q.w.z. 5 RRSIG"], &y])
    );
    assert_eq!(ask(&zone, "q.w.z", "A", true), lines(&[&["0 aa NoData"], &soa, &y]));
    let glue = "X ns.d.z. 5 A 192.0.2.2";
    let unsigned = ["N d.z. 5 NSEC e.z. NS RRSIG NSEC", "N d.z. 5 RRSIG", glue];
    assert_eq!(ask(&zone, "d.z", "A", true), lines(&[&["0 - Referral", "N d.z. 5 NS ns.d.z."], &unsigned]));
    let secure = ["N e.z. 5 DS 1 13 2 00", "N e.z. 5 RRSIG", glue];
    assert_eq!(ask(&zone, "e.z", "A", true), lines(&[&["0 - Referral", "N e.z. 5 NS ns.d.z."], &secure]));
    // Without DO, nothing of it is told.
    assert_eq!(ask(&zone, "h.z", "A", false), lines(&[&["3 aa NoName"], &soa[..1]]));
}

#[test]
fn what_a_wildcards_alias_leads_to_stands_before_the_proof() {
    let text = "$TTL 5\n@ SOA a b 1 2 3 4 5\n@ NS a\na A 192.0.2.1\n* CNAME x.other.\n";
    let zone = signed(&parsed("z", text).records, false);
    let (asked, target) = (Name::parse("q.z").unwrap(), Name::parse("x.other").unwrap());
    let found = zone.lookup(&QueryName::from(&asked), rtype::A, true).unwrap();
    assert_eq!(found.answer.counts, [2, 2, 0]);
    let mut further = crate::answer::AnswerBuilder::new(&target);
    further.push_addr(crate::answer::Section::Answer, crate::answer::Owner::Question, 5, "192.0.2.9".parse().unwrap());
    let whole = found.followed(&QueryName::from(&asked), &target, &further.build());
    let sections: Vec<usize> = expand(&asked, &whole).iter().map(|record| record.section as usize).collect();
    assert_eq!((whole.counts, sections), ([3, 2, 0], vec![0, 0, 0, 1, 1]));
}

#[test]
fn rfc5155_7_2_8_hashed_owners_are_no_names_of_the_zone() {
    let text = "$TTL 5\n@ SOA a b 1 2 3 4 5\n@ NS a\na A 192.0.2.1\n";
    let zone = signed(&parsed("z", text).records, true);
    let owner = hashed(&zone)[0].owner.clone();
    assert_eq!(ask(&zone, &owner.to_string(), "NSEC3", true)[0], "3 aa NoName");
    let written: Vec<String> = zone.records().map(|record| record.to_string()).collect();
    assert_eq!(written.len(), zone.len());
    assert!(written.iter().any(|line| line.contains("NSEC3\t1 0 1 ab ")));
    // Another chain, which no parameters tell of, is kept for those who take the zone.
    let mut two: Vec<Record> = zone.records().collect();
    two.push(Record { rdata: [&[1, 0, 0, 9, 0, 20], &[7; 20][..]].concat().into(), ..hashed(&zone)[0].clone() });
    assert_eq!(Zone::from_records(&zone.origin, &two).unwrap().0.records().count(), two.len());
    assert_eq!(super::zone("z", &zone.to_text()).to_text(), zone.to_text());
}

#[test]
fn rfc9276_3_2_many_iterations_are_refused() {
    let text = "$TTL 5\n@ SOA a b 1 2 3 4 5\n@ RRSIG SOA 13 1 5 9 1 7 @ AQID\n@ NSEC3PARAM 1 0 501 -\n\
                0p9mhaveqvm6t7vbl5lop2u3t2rp3tom NSEC3 1 0 501 - 0p9mhaveqvm6t7vbl5lop2u3t2rp3tom SOA\n";
    let origin = Name::parse("z").unwrap();
    let error = Zone::from_file(&origin, &parsed("z", text), "db").unwrap_err().to_string();
    assert!(error.contains("501 iterations; allowed: up to 500"), "{error}");
}
