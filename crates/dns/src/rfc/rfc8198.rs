//! Aggressive use of what is validated: `nsec` of `forward`.

mod hashed;
mod validated;

use super::{answer_of, record_of};
use crate::{
    message::{flag, rtype},
    name::Name,
    server::fixture::{Rig, query, told, with_edns},
};

/// A signed zone with the names a, m (with ns below it: a delegation), x.z and *.w, whose upstream is at a loopback address.
fn rig() -> Rig {
    of("127.0.0.1")
}

fn of(upstream: &str) -> Rig {
    Rig::new(&format!(". {{\n forward . {upstream} {{\n nsec 100\n }}\n}}"))
}

fn wire(name: &str) -> Vec<u8> {
    Name::parse(name).unwrap().wire().to_vec()
}

fn full(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    record_of(&wire(owner), kind, ttl, data)
}

/// A record with its zone's signature.
fn signed(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let labels = owner.split('.').filter(|label| *label != "*").count() as u8;
    let mut signature = kind.to_be_bytes().to_vec();
    signature.extend_from_slice(&[13, labels]);
    signature.extend_from_slice(&[0; 14]);
    signature.extend_from_slice(&wire("test"));
    signature.extend_from_slice(&[7; 64]);
    [full(owner, kind, ttl, data), full(owner, 46, ttl, &signature)].concat()
}

fn nsec(owner: &str, next: &str, types: &[u16]) -> Vec<u8> {
    let mut bits = [0; 7];
    types.iter().for_each(|kind| bits[usize::from(kind / 8)] |= 0x80 >> (kind % 8));
    signed(owner, 47, 300, &[&wire(next)[..], &[0, 7], &bits].concat())
}

fn soa() -> Vec<u8> {
    let mut data = vec![0, 0];
    for number in [1, 2, 3, 4, 60_u32] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    signed("test", rtype::SOA, 900, &data)
}

/// Has the upstream deny a name.
fn denied(rig: &Rig, name: &str, code: u16, ad: bool, ranges: &[Vec<u8>]) -> Vec<u8> {
    let (mut waiting, sent) = rig.forward(&query(name, rtype::A));
    let records = [soa(), ranges.concat()].concat();
    let ad = if ad { flag::AD } else { 0 };
    let count = 2 + 2 * ranges.len() as u8;
    let message = answer_of(&sent.message, 0x8180 | ad | code, [0, count, 0], &records);
    sent.answered(message);
    waiting.response().unwrap()
}

/// Whether a question is asked upstream.
fn asks(rig: &Rig, name: &str, qtype: u16) -> bool {
    let (outcome, _) = rig.handle(&query(name, qtype));
    matches!(outcome, crate::Outcome::Later(_))
}

fn gap() -> Vec<Vec<u8>> {
    vec![nsec("a.test", "m.test", &[1, 46, 47]), nsec("test", "a.test", &[2, 6, 46, 47])]
}

#[test]
fn section_5_1_names_in_a_proved_gap_are_denied_without_asking() {
    let rig = rig();
    let response = denied(&rig, "b.test", 3, true, &gap());
    assert_eq!(told(&response), ["NXDOMAIN", "SOA"], "without signatures for who asked for none");
    assert_eq!(rig.ask("c.test", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("deep.below.l.test", rtype::AAAA), ["NXDOMAIN", "SOA"]);
    assert!(asks(&rig, "n.test", rtype::A), "behind the gap");
    assert!(asks(&rig, "other", rtype::A), "another zone");
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    assert!(metrics.contains("podnet_dns_denials_synthesized_total 2"), "{metrics}");
}

#[test]
fn section_5_1_with_do_the_proof_and_its_signatures_stand_beside() {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &gap());
    let response = rig.answer(&with_edns(query("c.test", rtype::A), 1232, 0, true));
    assert_eq!(told(&response), ["NXDOMAIN", "SOA", "RRSIG", "NSEC", "RRSIG", "NSEC", "RRSIG"]);
    assert_ne!(super::flags(&response) & flag::AD, 0);
}

#[test]
fn section_5_1_a_name_without_the_type_is_denied_too() {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &gap());
    assert_eq!(rig.ask("a.test", rtype::AAAA), ["NOERROR", "SOA"]);
    assert!(asks(&rig, "a.test", rtype::A), "it has this type");
    assert!(asks(&rig, "a.test", rtype::ANY));
}

#[test]
fn section_5_4_nothing_is_denied_while_a_wildcard_may_stand_for_it() {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &gap()[..1]);
    assert!(asks(&rig, "c.test", rtype::A), "nothing is known of *.test");
    // In the gap behind *.w it is that which answers.
    denied(&rig, "a.w.test", 0, true, &[nsec("*.w.test", "x.z.test", &[16, 46, 47])]);
    assert!(asks(&rig, "b.w.test", rtype::A));
}

#[test]
fn rfc_6840_4_1_what_is_below_a_delegation_is_the_childs() {
    let rig = rig();
    let ranges = [nsec("m.test", "*.w.test", &[2, 46, 47]), nsec("test", "a.test", &[2, 6, 46, 47])];
    denied(&rig, "n.test", 3, true, &ranges);
    assert_eq!(rig.ask("o.test", rtype::A), ["NXDOMAIN", "SOA"]);
    assert!(asks(&rig, "www.m.test", rtype::A));
    assert!(asks(&rig, "m.test", rtype::A));
    assert_eq!(rig.ask("m.test", 43), ["NOERROR", "SOA"], "there is no DS record");
    assert!(asks(&rig, "test", 43), "that is the parent's to say");
}

#[test]
fn rfc_4592_2_2_2_a_name_with_something_below_it_exists() {
    let rig = rig();
    let ranges = [nsec("*.w.test", "x.z.test", &[16, 46, 47]), nsec("test", "a.test", &[2, 6, 46, 47])];
    denied(&rig, "y.test", 3, true, &ranges);
    assert_eq!(rig.ask("z.test", rtype::A), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("yy.test", rtype::A), ["NXDOMAIN", "SOA"]);
}

#[test]
fn section_5_4_proofs_end_with_the_least_of_their_times() {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &gap());
    rig.at(59);
    assert_eq!(rig.ask("c.test", rtype::A), ["NXDOMAIN", "SOA"]);
    rig.at(60);
    assert!(asks(&rig, "c.test", rtype::A), "the SOA record says 60 s (RFC 9077)");
}

#[test]
fn only_what_was_validated_and_nobody_can_have_forged_counts() {
    let unvalidated = rig();
    denied(&unvalidated, "b.test", 3, false, &gap());
    assert!(asks(&unvalidated, "c.test", rtype::A), "without AD");
    let plain = of("192.0.2.53");
    denied(&plain, "b.test", 3, true, &gap());
    assert!(asks(&plain, "c.test", rtype::A), "in plain from afar, as long as it was not validated here");
    let secured = of("tls://192.0.2.53");
    denied(&secured, "b.test", 3, true, &gap());
    assert!(!asks(&secured, "c.test", rtype::A));
    let unasked = Rig::new(". {\n forward . 127.0.0.1\n}");
    denied(&unasked, "b.test", 3, true, &gap());
    assert!(asks(&unasked, "c.test", rtype::A), "where the Corefile does not want it");
}

#[test]
fn of_zones_that_only_their_own_resolver_has_nothing_is_denied() {
    let rig = Rig::new(". {\n forward . 127.0.0.1 {\n nsec 100\n insecure l.test\n }\n}");
    denied(&rig, "b.test", 3, true, &gap());
    assert!(asks(&rig, "l.test", rtype::A));
    assert!(asks(&rig, "deep.below.l.test", rtype::A));
    assert!(!asks(&rig, "k.test", rtype::A));
}

#[test]
fn who_checks_signatures_itself_is_told_what_the_upstream_says() {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &gap());
    let mut packet = query("c.test", rtype::A);
    packet[3] |= 0x10;
    assert!(matches!(rig.handle(&packet).0, crate::Outcome::Later(_)));
}

#[test]
fn gaps_that_a_wildcard_made_or_that_have_room_for_nobody_are_not_kept() {
    let rig = rig();
    // The signature's labels are fewer than the owner's.
    let mut made = nsec("a.test", "m.test", &[1]);
    let signature = made.windows(4).position(|bytes| bytes == [0, 47, 13, 2]).unwrap();
    made[signature + 3] = 1;
    denied(&rig, "b.test", 3, true, &[made, nsec("test", "a.test", &[2, 6])]);
    assert!(asks(&rig, "c.test", rtype::A));
    assert!(!asks(&rig, "0.test", rtype::A), "the other one is kept");
}

#[test]
fn there_are_never_more_than_the_corefile_allows() {
    let rig = rig();
    denied(&rig, "b.test", 3, true, &gap());
    for number in 0..200 {
        let (owner, next) = (format!("n{number:03}.test"), format!("n{number:03}a.test"));
        denied(&rig, &format!("n{number:03}0.test"), 3, true, &[nsec(&owner, &next, &[1])]);
    }
    assert!(asks(&rig, "c.test", rtype::A), "the first was forgotten");
}
