use std::{cell::Cell, sync::Arc};

use domain::{base::iana::SecurityAlgorithm, crypto::common::PublicKey, rdata::Dnskey};

use super::{signature::Set, *};
use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    authority::{
        Record, Zone,
        rdata::{read_name, type_named, types},
        record::kind,
        zone::tests::zone,
    },
    message::{Rcode, expand, rtype, u16_at, u32_at},
    name::{Name, QueryName},
};

const NOW: u32 = 1_800_000_000;

macro_rules! key {
    ($name:literal) => {
        SigningKey::from_bind(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name, ".key")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name, ".private")),
        )
        .unwrap()
    };
}

const HOST: &str = "$TTL 60\n@ SOA ns host 7 3600 600 86400 30\n@ NS Ns\nNs A 192.0.2.1\nNs A 192.0.2.2\n*.w MX 10 Ns\n\
                    d NS ns.d\nns.d A 192.0.2.3\ns NS ns.d\ns DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000\nalias CNAME ns\nfar CNAME x.other.\n\
                    lost CNAME nowhere\nx.deep TXT y\n";

fn signed(keys: &[SigningKey]) -> Vec<Record> {
    sign(&zone("example", HOST), keys, Validity::of_zone(NOW, [0, 0]), NOW).unwrap()
}

/// Checks the signatures of records against the keys, and says how many there are.
fn verify(records: &[Record], keys: &[Vec<u8>]) -> usize {
    let mut count = 0;
    for signature in records.iter().filter(|record| record.rtype == kind::RRSIG) {
        let covered = u16_at(&signature.rdata, 0).unwrap();
        let of: Vec<&Record> =
            records.iter().filter(|record| record.owner == signature.owner && record.rtype == covered).collect();
        assert!(!of.is_empty(), "{signature}");
        let data = of.iter().map(|record| &*record.rdata).collect();
        let set = Set { owner: &signature.owner, rtype: covered, ttl: u32_at(&signature.rdata, 4).unwrap(), data };
        let end = read_name(&signature.rdata, 18, &mut Vec::new()).unwrap();
        let key = keys.iter().find(|key| u16_at(&signature.rdata, 16) == Some(super::key::tag(key))).unwrap();
        let algorithm = SecurityAlgorithm::from_int(key[3]);
        let dnskey = Dnskey::new(u16_at(key, 0).unwrap(), 3, algorithm, key[4..].to_vec()).unwrap();
        let message = [&signature.rdata[..end], &set.canonical()].concat();
        PublicKey::from_dnskey(&dnskey).unwrap().verify(&message, &signature.rdata[end..]).unwrap();
        count += 1;
    }
    count
}

fn public(keys: &[SigningKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.dnskey().to_vec()).collect()
}

#[test]
fn rfc4034_b_keys_are_read_as_bind_writes_them() {
    let keys = [key!("p256"), key!("p384"), key!("ed25519"), key!("ed25519-zsk"), key!("rsa256"), key!("rsa512")];
    let told: Vec<_> = keys.iter().map(|key| (key.algorithm(), key.tag(), key.is_entry_point())).collect();
    let expected = [
        (13, 52134, true),
        (14, 60000, true),
        (15, 35019, true),
        (15, 62417, false),
        (8, 64262, true),
        (10, 51204, true),
    ];
    assert_eq!(told, expected, "the tags are those in the names that the files had");
    assert_eq!(keys[0].owner(), &Name::parse("example").unwrap());
}

#[test]
fn keys_that_do_not_fit_are_told() {
    let public = include_str!("../../../testdata/ed25519.key");
    let private = include_str!("../../../testdata/ed25519.private");
    let fault = |public: &str, private: &str| SigningKey::from_bind(public, private).unwrap_err().to_string();
    let other = include_str!("../../../testdata/ed25519-zsk.private");
    assert!(fault(public, other).starts_with("the private key does not fit the public key with tag 35019"));
    let p256 = include_str!("../../../testdata/p256.private");
    assert!(fault(public, p256).contains("it is of another algorithm"));
    assert!(fault(public, "").starts_with("the private key: "));
    assert!(fault("", private).contains("has 0 records, allowed: one"));
    assert!(fault("example. IN DNSKEY 256 3 15 x!", private).starts_with("the public key: key:1:29: found \"x!\""));
    assert!(fault(&public.replace("257 3", "0 3"), private).starts_with("the key's flags are 0, allowed: 256"));
}

#[test]
fn rfc4035_2_each_algorithm_signs_a_zone_so_that_it_can_be_verified() {
    for keys in [[key!("p256")], [key!("p384")], [key!("ed25519")], [key!("rsa256")], [key!("rsa512")]] {
        let records = signed(&keys);
        // SOA, NS, DNSKEY, CDS, CDNSKEY; ns, w, three aliases, deep, DS; an NSEC record for each of 9 names.
        assert_eq!(verify(&records, &public(&keys)), 5 + 7 + 9, "algorithm {}", keys[0].algorithm());
    }
}

#[test]
fn rfc4035_2_3_the_chain_has_the_zones_names_and_ends_where_it_begins() {
    let records = signed(&[key!("ed25519")]);
    let chain: Vec<String> = records
        .iter()
        .filter(|record| record.rtype == kind::NSEC)
        .map(|record| record.to_string().replace('\t', " ").replace("IN NSEC ", ""))
        .collect();
    assert_eq!(
        chain,
        [
            "example. 30 alias.example. NS SOA RRSIG NSEC DNSKEY CDS CDNSKEY",
            "alias.example. 30 d.example. CNAME RRSIG NSEC",
            "d.example. 30 x.deep.example. NS RRSIG NSEC",
            "x.deep.example. 30 far.example. TXT RRSIG NSEC",
            "far.example. 30 lost.example. CNAME RRSIG NSEC",
            "lost.example. 30 ns.example. CNAME RRSIG NSEC",
            "ns.example. 30 s.example. A RRSIG NSEC",
            "s.example. 30 *.w.example. NS DS RRSIG NSEC",
            "*.w.example. 30 example. MX RRSIG NSEC",
        ]
    );
    let wildcard = records.iter().find(|record| record.rtype == kind::RRSIG && record.owner.wire()[1] == b'*').unwrap();
    assert_eq!(wildcard.rdata[3], 2, "RFC 4034 §3.1.3: the wildcard's label is not counted");
    let soa = records.iter().find(|record| record.rtype == rtype::SOA).unwrap();
    assert_eq!(crate::authority::Soa::read(&soa.rdata).unwrap().serial, NOW);
}

#[test]
fn keys_of_both_kinds_share_the_work() {
    let keys = [key!("ed25519"), key!("ed25519-zsk")];
    let records = signed(&keys);
    verify(&records, &public(&keys));
    let by = |rtype: u16| -> Vec<u16> {
        let signatures = records.iter().filter(|record| record.rtype == kind::RRSIG);
        let of = signatures.filter(|record| u16_at(&record.rdata, 0) == Some(rtype));
        of.map(|record| u16_at(&record.rdata, 16).unwrap()).collect()
    };
    assert_eq!((by(kind::DNSKEY), by(rtype::SOA)), (vec![35019], vec![62417]));
    let count = |rtype| records.iter().filter(|record| record.rtype == rtype).count();
    assert_eq!((count(kind::DNSKEY), count(kind::CDS), count(kind::CDNSKEY)), (2, 1, 1));
}

#[test]
fn rfc9905_the_parent_is_told_of_each_entry_point_once_and_by_no_digest_of_sha_1() {
    let keys = [key!("ed25519"), key!("p256"), key!("ed25519-zsk")];
    let records = signed(&keys);
    let of = |rtype: u16| records.iter().filter(move |record| record.rtype == rtype);
    // Tag, algorithm, and 2 for SHA-256 (RFC 4509), whose digests have 32 bytes.
    let mut told: Vec<_> = of(kind::CDS)
        .map(|record| (u16_at(&record.rdata, 0).unwrap(), record.rdata[2], record.rdata[3], record.rdata.len() - 4))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(35019, 15, 2, 32), (52134, 13, 2, 32)]);
    assert_eq!(of(kind::CDNSKEY).count(), 2);
}

#[test]
fn a_signed_zone_is_signed_again_and_proves_what_it_denies() {
    let keys = [key!("p256")];
    let first = signed(&keys);
    let origin = Name::parse("example").unwrap();
    let (zone, warnings) = Zone::from_records(&origin, &first).unwrap();
    assert_eq!((warnings, zone.is_signed()), (Vec::new(), true));
    let again = sign(&zone, &keys, Validity::of_zone(NOW, [0, 0]), NOW + 1).unwrap();
    assert_eq!(again.len(), first.len());
    let name = QueryName::from(&Name::parse("no.example").unwrap());
    let found = zone.lookup(&name, 1, true).unwrap().answer;
    assert_eq!(found.counts, [0, 6, 0], "SOA, two NSEC records, and their signatures");
    let day = 86_400;
    assert!(!is_due(&zone, NOW) && !is_due(&zone, NOW + 5 * day) && is_due(&zone, NOW + 6 * day));
    assert!(is_due(&super::tests::zone("example", HOST), NOW));
    let long_ago = Validity { inception: NOW - day, expiration: NOW + 13 * day };
    let (short, _) = Zone::from_records(&origin, &sign(&zone, &keys, long_ago, NOW).unwrap()).unwrap();
    assert!(is_due(&short, NOW), "it expires within 14 days");
}

#[test]
fn validities_are_spread() {
    let (none, all) = (Validity::of_zone(NOW, [0, 0]), Validity::of_zone(NOW, [u16::MAX, u16::MAX]));
    assert_eq!((NOW - none.inception, none.expiration - NOW), (3 * 3600, 32 * 86_400));
    assert_eq!((NOW - all.inception, all.expiration - NOW), (21 * 3600, 37 * 86_400));
}

/// An answer of the zone without signatures, signed on its way.
fn online(signer: &Online, name: &str, qtype: &str) -> (u16, Vec<Record>) {
    let zone = zone("example", HOST);
    let name = Name::parse(name).unwrap();
    let (asked, qtype) = (QueryName::from(&name), type_named(qtype).unwrap());
    let answer = zone.lookup(&asked, qtype, true).unwrap().answer;
    let signed = signer.sign(zone.origin(), &asked, qtype, &answer, NOW, &|_| ()).unwrap();
    let again = signer.sign(zone.origin(), &asked, qtype, &signed, NOW, &|_| ()).unwrap();
    assert_eq!(again, signed, "what is signed stays");
    (signed.rcode.0, records(&name, &signed))
}

fn records(name: &Name, answer: &Answer) -> Vec<Record> {
    let records = expand(name, answer).into_iter();
    records.map(|r| Record { owner: r.owner, rtype: r.rtype, ttl: r.ttl, rdata: r.rdata.into() }).collect()
}

fn shape(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let line = record.to_string().replace('\t', " ").replace(" IN ", " ");
        let words = if record.rtype == kind::RRSIG { 4 } else { 99 };
        line.split(' ').take(words).collect::<Vec<_>>().join(" ")
    };
    records.iter().map(line).collect()
}

#[test]
fn answers_are_signed_on_their_way() {
    let keys = [key!("p256")];
    let public = public(&keys);
    let signer = Online::new(keys.map(Arc::new).into(), 100);
    let (rcode, records) = online(&signer, "alias.example", "A");
    assert_eq!((rcode, verify(&records, &public)), (0, 2));
    assert_eq!(
        shape(&records),
        [
            "alias.example. 60 CNAME ns.example.",
            "alias.example. 60 RRSIG CNAME",
            "ns.example. 60 A 192.0.2.1",
            "ns.example. 60 A 192.0.2.2",
            "ns.example. 60 RRSIG A",
        ]
    );
    let (_, delegated) = online(&signer, "a.d.example", "A");
    assert_eq!(
        shape(&delegated)[..3],
        [
            "d.example. 60 NS ns.d.example.",
            "d.example. 60 NSEC \\000.d.example. NS RRSIG NSEC",
            "d.example. 60 RRSIG NSEC"
        ]
    );
    verify(&delegated, &public);
    let keys = signer.keys(&Name::parse("example").unwrap(), true, NOW, &|_| ()).unwrap();
    assert_eq!(verify(&self::records(&Name::parse("example").unwrap(), &keys), &public), 1);
    assert_eq!(keys.counts, [2, 0, 0]);
}

#[test]
fn rfc9824_3_what_is_not_there_is_denied_by_a_record_that_covers_nothing_else() {
    let keys = [key!("ed25519")];
    let public = public(&keys);
    let signer = Online::new(keys.map(Arc::new).into(), 100);
    let (rcode, records) = online(&signer, "no.example", "A");
    assert_eq!((rcode, verify(&records, &public)), (0, 2));
    let soa = "example. 30 SOA ns.example. host.example. 7 3600 600 86400 30";
    assert_eq!(shape(&records)[0], soa);
    assert_eq!(
        shape(&records)[2],
        "no.example. 30 NSEC \\000.no.example. RRSIG NSEC TYPE128"
            .replace("TYPE128", &crate::authority::rdata::mnemonic(128))
    );
    let (rcode, records) = online(&signer, "lost.example", "A");
    assert_eq!((rcode, verify(&records, &public)), (0, 3));
    assert!(shape(&records)[4].starts_with("nowhere.example. 30 NSEC \\000.nowhere.example."));
    let (rcode, records) = online(&signer, "ns.example", "AAAA");
    assert_eq!((rcode, verify(&records, &public)), (0, 2));
    let nsec = records.iter().find(|record| record.rtype == kind::NSEC).unwrap();
    let end = read_name(&nsec.rdata, 0, &mut Vec::new()).unwrap();
    let set: Vec<u16> = types(&nsec.rdata[end..]).collect();
    assert!(set.contains(&rtype::A) && !set.contains(&rtype::AAAA) && !set.contains(&rtype::CNAME));
    // Failures, and names of others, stay what they are.
    let name = Name::parse("x.other").unwrap();
    let mut builder = AnswerBuilder::new(&name);
    builder.push_addr(Section::Answer, Owner::Question, 5, "192.0.2.9".parse().unwrap());
    let other = builder.build();
    let origin = Name::parse("example").unwrap();
    assert_eq!(signer.sign(&origin, &QueryName::from(&name), 1, &other, NOW, &|_| ()).unwrap(), other);
    let failed = Answer::code(Rcode::SERVFAIL);
    assert_eq!(signer.sign(&origin, &QueryName::from(&origin), 1, &failed, NOW, &|_| ()).unwrap(), failed);
}

#[test]
fn a_set_whose_records_stand_apart_is_signed_as_one() {
    let keys = [key!("p256")];
    let public = public(&keys);
    let signer = Online::new(keys.map(Arc::new).into(), 100);
    let name = Name::parse("a.example").unwrap();
    let mut builder = AnswerBuilder::new(&name);
    for octet in [1, 2] {
        builder.push_addr(Section::Answer, Owner::Question, 5, [192, 0, 2, octet].into());
        builder.push(Section::Answer, Owner::Question, rtype::TXT, 5, &[1, octet]);
    }
    let origin = Name::parse("example").unwrap();
    let signed = signer.sign(&origin, &QueryName::from(&name), 255, &builder.build(), NOW, &|_| ()).unwrap();
    assert_eq!((verify(&records(&name, &signed), &public), signed.counts), (2, [6, 0, 0]));
}

#[test]
fn a_signature_is_made_once_while_it_holds_and_room_is_bounded() {
    let signer = Online::new(vec![Arc::new(key!("p256"))], 3);
    let origin = Name::parse("example").unwrap();
    let name = Name::parse("a.example").unwrap();
    let (found, made) = (Cell::new(0), Cell::new(0));
    let told = |is_found: bool| {
        let count = if is_found { &found } else { &made };
        count.set(count.get() + 1);
    };
    let ask = |octet: u8, now| {
        let mut builder = AnswerBuilder::new(&name);
        builder.push_addr(Section::Answer, Owner::Question, 5, [192, 0, 2, octet].into());
        signer.sign(&origin, &QueryName::from(&name), 1, &builder.build(), now, &told).unwrap()
    };
    // ECDSA signatures of the same differ, so equal ones were made once.
    assert_eq!(ask(1, NOW), ask(1, NOW + 5 * 86_400));
    assert_eq!((signer.kept(), found.get(), made.get()), (1, 1, 1));
    assert_ne!(ask(1, NOW), ask(1, NOW + 6 * 86_400), "it would expire within two days");
    for octet in 2..9 {
        ask(octet, NOW);
    }
    assert_eq!(signer.kept(), 3);
}

#[test]
fn a_zone_file_is_signed_anew_when_it_or_its_keys_changed_and_before_its_signatures_expire() {
    let (p256, zsk) = (key!("p256"), key!("ed25519-zsk"));
    let origin = Name::parse("example").unwrap();
    let none = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let file = |text: &str, signed: Option<&str>, keys: &[&SigningKey], now: u32| {
        signed_file(&origin, ("db", text), &none, signed, keys, now, [0, 0]).unwrap()
    };
    let first = file(HOST, None, &[&p256], NOW).expect("there is none yet");
    assert!(zone("example", &first).is_signed());
    assert_eq!(zone("example", &first).soa().serial, NOW);
    assert_eq!(file(HOST, Some(&first), &[&p256], NOW + 60), None);
    // Five days and a bit later its signatures are six days old, three hours included.
    assert_eq!(file(HOST, Some(&first), &[&p256], NOW + 5 * 86_400), None);
    assert!(file(HOST, Some(&first), &[&p256], NOW + 6 * 86_400).is_some());
    let other = HOST.replace("192.0.2.1", "192.0.2.77");
    let again = file(&other, Some(&first), &[&p256], NOW).expect("it is another zone");
    assert_eq!(zone("example", &again).soa().serial, NOW + 1, "though the time is the same");
    assert!(again.contains("192.0.2.77"));
    assert!(file(HOST, Some(&first), &[&p256, &zsk], NOW).is_some(), "there is another key");
    assert!(file(HOST, Some(&first[..first.len() / 2]), &[&p256], NOW).is_some(), "it is broken");
    assert!(signed_file(&origin, ("db", "@ A x"), &none, None, &[&p256], NOW, [0, 0]).is_err());
}
