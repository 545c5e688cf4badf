//! The same with NSEC3 (RFC 5155): the upstream proves each denial with all the records that the zone has.

use super::*;
use crate::authority::{Nsec3Hash, nsec3_hash};

const SALT: &[u8] = &[0xaa, 0xbb];

/// The names of the zone: a, m (a delegation), w with a wildcard below it, and what they have.
const NAMES: [(&str, &[u16]); 5] =
    [("test", &[2, 6, 46, 48, 51]), ("a.test", &[1, 46]), ("m.test", &[2]), ("w.test", &[]), ("*.w.test", &[16, 46])];

fn hash(name: &str, iterations: u16) -> Nsec3Hash {
    nsec3_hash(&wire(name), iterations, SALT)
}

/// The NSEC3 records of the zone.
fn chain(flags: u8, iterations: u16) -> Vec<Vec<u8>> {
    type Hashed = (Nsec3Hash, &'static [u16]);
    let mut names: Vec<Hashed> = NAMES.iter().map(|(name, types)| (hash(name, iterations), *types)).collect();
    names.sort_unstable();
    let nexts = names.iter().cycle().skip(1);
    let record = |(&(owner, types), &(next, _)): (&Hashed, &Hashed)| {
        let mut bits = [0; 7];
        types.iter().for_each(|kind| bits[usize::from(kind / 8)] |= 0x80 >> (kind % 8));
        let owner = data_encoding::BASE32HEX_NOPAD.encode(&owner).to_ascii_lowercase();
        let head = [&[1, flags][..], &iterations.to_be_bytes(), &[2], SALT, &[20]].concat();
        signed(&format!("{owner}.test"), 50, 300, &[&head[..], &next, &[0, 7], &bits].concat())
    };
    names.iter().zip(nexts).map(record).collect()
}

/// A server that has heard of all of them.
fn heard(flags: u8, iterations: u16) -> Rig {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &chain(flags, iterations));
    rig
}

#[test]
fn rfc5155_8_4_names_between_the_hashes_are_denied_without_asking() {
    let rig = heard(0, 3);
    assert_eq!(rig.ask("c.test", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("deep.below.l.test", rtype::AAAA), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("below.a.test", rtype::A), ["NXDOMAIN", "SOA"]);
    assert!(asks(&rig, "other", rtype::A), "another zone");
    assert!(asks(&rig, "1.2.3.4.5.6.7.8.9.0.1.test", rtype::A), "that is deeper than is worth the hashes");
    let response = rig.answer(&with_edns(query("c.test", rtype::A), 4096, 0, true));
    let told = told(&response);
    assert_eq!(told[..3], ["NXDOMAIN", "SOA", "RRSIG"]);
    assert!((2..=3).contains(&told.iter().filter(|record| *record == "NSEC3").count()), "{told:?}");
}

#[test]
fn rfc5155_8_5_names_without_the_type_are_denied_too() {
    let rig = heard(0, 0);
    assert_eq!(rig.ask("a.test", rtype::AAAA), ["NOERROR", "SOA"]);
    assert!(asks(&rig, "a.test", rtype::A), "it has this type");
    assert_eq!(rig.ask("w.test", rtype::A), ["NOERROR", "SOA"], "there is only something below it");
    assert!(asks(&rig, "b.w.test", rtype::A), "a wildcard stands for it");
}

#[test]
fn rfc_6840_4_1_what_is_below_a_delegation_is_the_childs() {
    let rig = heard(0, 0);
    assert!(asks(&rig, "www.m.test", rtype::A));
    assert!(asks(&rig, "m.test", rtype::A));
    assert_eq!(rig.ask("m.test", 43), ["NOERROR", "SOA"], "there is no DS record");
    assert!(asks(&rig, "test", 43), "that is the parent's to say");
}

#[test]
fn section_5_2_gaps_that_opt_out_prove_nothing() {
    let rig = heard(1, 0);
    assert!(asks(&rig, "c.test", rtype::A));
    assert!(asks(&rig, "below.a.test", rtype::A));
    assert_eq!(rig.ask("a.test", rtype::AAAA), ["NOERROR", "SOA"], "the name is there");
}

#[test]
fn rfc9276_costly_hashes_and_unknown_flags_are_left_out() {
    for (flags, iterations) in [(0, 11), (2, 0)] {
        let rig = heard(flags, iterations);
        assert!(asks(&rig, "c.test", rtype::A), "{flags} {iterations}");
        assert!(asks(&rig, "a.test", rtype::AAAA), "{flags} {iterations}");
    }
}

#[test]
fn proofs_end_with_their_time_and_with_their_zone_s_way_of_hashing() {
    let rig = heard(0, 1);
    rig.at(59);
    assert_eq!(rig.ask("c.test", rtype::A), ["NXDOMAIN", "SOA"]);
    // The zone is hashed anew: what was known before fits no more.
    let own = data_encoding::BASE32HEX_NOPAD.encode(&hash("a.test", 2)).to_ascii_lowercase();
    let anew: Vec<Vec<u8>> = chain(0, 2).into_iter().filter(|record| record[1..33] == *own.as_bytes()).collect();
    assert_eq!(anew.len(), 1);
    denied(&rig, "a.test", 0, true, &anew);
    assert!(asks(&rig, "c.test", rtype::A));
    let other = heard(0, 1);
    other.at(60);
    assert!(asks(&other, "c.test", rtype::A), "the SOA record says 60 s");
}
