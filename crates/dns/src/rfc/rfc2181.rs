//! Clarifications to the DNS specification.

use super::{answer_of, count, flags, record, record_of, rig};
use crate::{
    authority::{Zone, zonefile},
    message::{flag, rtype, walk},
    name::{Name, QueryName},
    server::fixture::{Rig, query, told},
};

/// The zone `example` with these records; none where they make no zone.
fn zone(records: &str) -> Option<Zone> {
    let (origin, none) = (Name::parse("example").unwrap(), |_: &str| Err(std::io::ErrorKind::NotFound.into()));
    let text = format!("$TTL 60\n@ SOA ns host 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n{records}\n");
    let file = zonefile::parse("db", &text, &origin, &none).unwrap();
    Zone::from_file(&origin, &file, "db").ok().map(|(zone, _)| zone)
}

#[test]
fn section_5_2_records_of_a_set_have_the_least_time_to_live_of_them() {
    let rig = rig();
    let packet = query("example.org", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    let records = [record(1, 300, &[192, 0, 2, 1]), record(1, 60, &[192, 0, 2, 2])].concat();
    let message = answer_of(&sent.message, 0x8180, [2, 0, 0], &records);
    sent.answered(message);
    waiting.response().unwrap();
    rig.at(10);
    let ttls: Vec<u32> = walk(&rig.answer(&packet), packet.len()).map(|record| record.unwrap().ttl).collect();
    assert_eq!(ttls, [50, 50]);
    rig.at(60);
    drop(rig.wait(&packet));
}

#[test]
fn section_5_4_1_what_stood_beside_an_answer_is_no_answer() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    let (zone, server) = (b"\x07example\x03org\0", b"\x02ns\x07example\x03org\0");
    let answer = record(1, 60, &[192, 0, 2, 1]);
    let beside = [record_of(zone, rtype::NS, 60, server), record_of(server, 1, 60, &[192, 0, 2, 66])];
    let message = answer_of(&sent.message, 0x8180, [1, 1, 1], &[answer, beside.concat()].concat());
    sent.answered(message);
    assert_eq!(told(&waiting.response().unwrap())[..2], ["NOERROR", "A 192.0.2.1"]);
    drop(rig.wait(&query("ns.example.org", rtype::A)));
    drop(rig.wait(&query("example.org", rtype::NS)));
}

#[test]
fn section_8_a_time_to_live_with_the_top_bit_is_zero_and_not_kept() {
    // By default nothing is kept for less than 5 s, as in CoreDNS.
    let rig = Rig::new(". {\n cache {\n success 100 60 0\n }\n forward . 192.0.2.53\n}");
    let packet = query("example.org", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    let message = answer_of(&sent.message, 0x8180, [1, 0, 0], &record(1, 0x8000_0001, &[192, 0, 2, 1]));
    sent.answered(message);
    assert_eq!(told(&waiting.response().unwrap()), ["NOERROR", "A 192.0.2.1"]);
    drop(rig.wait(&packet));
}

#[test]
fn section_9_a_cut_answer_is_asked_for_again_and_never_given_out_as_whole() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("example.org", rtype::A));
    let message = answer_of(&sent.message, 0x8380, [1, 0, 0], &record(1, 60, &[192, 0, 2, 1]));
    sent.answered(message);
    assert_eq!(waiting.response(), None);
    let again = rig.sent().pop().unwrap();
    assert_eq!(again.transport, crate::Transport::Tcp);
    again.tells(0, &[[192, 0, 2, 1], [192, 0, 2, 2]]);
    let response = waiting.response().unwrap();
    assert_eq!((count(&response, 1), flags(&response) & flag::TC), (2, 0));
}

#[test]
fn section_10_1_an_alias_has_one_name_and_nothing_beside_it() {
    assert!(zone("a CNAME b").is_some());
    for records in ["a CNAME b\na A 192.0.2.2", "a CNAME b\na CNAME c", "a CNAME b\na TXT x"] {
        assert!(zone(records).is_none(), "{records}");
    }
}

#[test]
fn section_10_3_a_server_that_is_an_alias_comes_without_addresses() {
    let origin = QueryName::from(&Name::parse("example").unwrap());
    for (records, counts) in [("@ MX 10 ns", [1, 0, 1]), ("@ MX 10 a\na CNAME ns", [1, 0, 0])] {
        let found = zone(records).unwrap().lookup(&origin, rtype::MX, false).unwrap();
        assert_eq!(found.answer.counts, counts, "{records}");
    }
}

#[test]
fn section_11_any_octet_may_stand_in_a_label() {
    let rig = rig();
    let mut packet = query("xxxx.example.org", rtype::A);
    packet[13..17].copy_from_slice(&[0, 255, b'.', b' ']);
    let (mut waiting, sent) = rig.forward(&packet);
    assert_eq!(sent.message[12..17], packet[12..17]);
    sent.tells(0, &[[192, 0, 2, 1]]);
    assert_eq!(waiting.response().unwrap()[12..packet.len()], packet[12..]);
}
