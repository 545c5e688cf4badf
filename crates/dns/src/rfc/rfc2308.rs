//! Negative caching.

use super::{WEB, answer_of, count, record, record_of, rig, soa};
use crate::{
    message::{Rcode, rtype, u16_at, walk},
    server::fixture::{Rig, query, told},
};

/// The time to live of the SOA record of a response.
fn ttl(response: &[u8], question: usize) -> u32 {
    walk(response, question).map(Result::unwrap).find(|record| record.rtype == rtype::SOA).unwrap().ttl
}

#[test]
fn sections_2_1_1_and_2_2_an_alias_may_stand_before_the_denial_of_what_it_leads_to() {
    for (code, called) in [(3, "NXDOMAIN"), (0, "NOERROR")] {
        let rig = rig();
        let packet = query("alias.example.org", rtype::A);
        let (mut waiting, sent) = rig.forward(&packet);
        let alias = record(rtype::CNAME, 300, b"\x04gone\x07example\x03net\0");
        let denial = record_of(b"\x07example\x03net\0", rtype::SOA, 900, &soa(20));
        let message = answer_of(&sent.message, 0x8180 | code, [1, 1, 0], &[alias, denial].concat());
        sent.answered(message);
        let expected = [called, "CNAME gone.example.net", "SOA"];
        assert_eq!(told(&waiting.response().unwrap()), expected);
        // It is kept as a denial is, however long the alias lasts.
        rig.at(19);
        assert_eq!(told(&rig.answer(&packet)), expected);
        rig.at(20);
        drop(rig.wait(&packet));
    }
}

#[test]
fn section_3_own_denials_have_the_soa_with_the_least_of_its_times() {
    let rig = rig();
    for name in [WEB, "nobody.web.svc.cluster.local"] {
        let packet = query(name, 15);
        let response = rig.answer(&packet);
        assert_eq!((count(&response, 1), count(&response, 2)), (0, 1), "{name}");
        let record = walk(&response, packet.len()).next().unwrap().unwrap();
        let minimum = u32::from_be_bytes(*response[..record.end].last_chunk().unwrap());
        assert!(record.ttl <= minimum, "{name}: {} of {minimum}", record.ttl);
    }
}

#[test]
fn section_5_a_denial_is_kept_for_the_least_of_the_soas_times_and_counts_down() {
    for (code, name) in [(3, "gone.example.org"), (0, "empty.example.org")] {
        let rig = rig();
        let packet = query(name, rtype::A);
        let (mut waiting, sent) = rig.forward(&packet);
        let message = answer_of(&sent.message, 0x8180 | code, [0, 1, 0], &record(rtype::SOA, 900, &soa(20)));
        sent.answered(message);
        waiting.response().unwrap();
        rig.at(15);
        let response = rig.answer(&packet);
        assert_eq!(u16_at(&response, 2).unwrap() & 15, code);
        assert_eq!(ttl(&response, packet.len()), 5);
        rig.at(20);
        drop(rig.wait(&packet));
    }
}

#[test]
fn section_5_a_denial_without_soa_is_not_kept() {
    let rig = rig();
    let packet = query("gone.example.org", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    sent.tells(3, &[]);
    assert_eq!(told(&waiting.response().unwrap()), ["NXDOMAIN"]);
    drop(rig.wait(&packet));
}

#[test]
fn section_5_denials_are_of_their_type_alone() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("half.example.org", rtype::AAAA));
    let message = answer_of(&sent.message, 0x8180, [0, 1, 0], &record(rtype::SOA, 60, &soa(60)));
    sent.answered(message);
    waiting.response().unwrap();
    drop(rig.wait(&query("half.example.org", rtype::A)));
}

#[test]
fn section_7_1_a_servers_failure_is_kept_for_five_minutes_at_most() {
    let refused = crate::Config::load("Corefile", ". {\n cache {\n servfail 5m1s\n }\n}", &crate::Environment::EMPTY);
    assert!(refused.unwrap_err().to_string().contains("RFC 2308"));
    let rig = Rig::new(". {\n cache {\n servfail 5m\n }\n forward . 192.0.2.53\n}");
    let packet = query("bad.example.org", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    sent.tells(Rcode::SERVFAIL.0, &[]);
    waiting.response().unwrap();
    rig.at(299);
    assert_eq!(told(&rig.answer(&packet)), ["SERVFAIL"]);
    rig.at(300);
    drop(rig.wait(&packet));
}
