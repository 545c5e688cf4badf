//! EDNS.

use super::{WEB, answer_of, count, flags, rig, with_options};
use crate::{
    message::{flag, rtype},
    server::fixture::{query, told, with_edns},
};

#[test]
fn section_6_1_1_who_sends_no_opt_record_gets_none() {
    assert_eq!(count(&rig().answer(&query(WEB, rtype::A)), 3), 0);
    assert_eq!(count(&rig().answer(&with_edns(query(WEB, rtype::A), 1232, 0, false)), 3), 1);
}

#[test]
fn section_6_1_1_it_is_the_roots_alone_and_additional() {
    let mut named = with_edns(query(WEB, rtype::A), 1232, 0, false);
    let at = named.len() - 11;
    named.splice(at..=at, [0xc0, 12]);
    assert_eq!(told(&rig().answer(&named)), ["FORMERR"]);
    let mut answer = with_edns(query(WEB, rtype::A), 1232, 0, false);
    (answer[7], answer[11]) = (1, 0);
    assert_eq!(told(&rig().answer(&answer)), ["FORMERR"]);
}

#[test]
fn section_6_1_2_unknown_options_are_passed_over_and_broken_ones_refused() {
    let rig = rig();
    let response = rig.answer(&with_options(WEB, &[0xff, 0xf0, 0, 3, 1, 2, 3]));
    assert_eq!(told(&response)[0], "NOERROR");
    assert_eq!(response[response.len() - 2..], [0, 0], "no options");
    assert_eq!(told(&rig.answer(&with_options(WEB, &[0xff, 0xf0, 0, 4, 1, 2, 3]))), ["FORMERR"]);
}

#[test]
fn section_6_1_4_unknown_flags_are_not_copied() {
    let mut packet = with_edns(query(WEB, rtype::A), 1232, 0, true);
    let at = packet.len() - 4;
    packet[at..at + 2].fill(0xff);
    let response = rig().answer(&packet);
    assert_eq!(response[response.len() - 4..response.len() - 2], [0x80, 0]);
}

#[test]
fn section_6_2_1_an_opt_record_is_neither_kept_nor_passed_on() {
    let rig = rig();
    let packet = query("a.test", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    let records = [&super::record(1, 60, &[192, 0, 2, 1])[..], &[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]].concat();
    let message = answer_of(&sent.message, 0x8180, [1, 0, 1], &records);
    sent.answered(message);
    assert_eq!(count(&waiting.response().unwrap(), 3), 0);
    assert_eq!(count(&rig.answer(&packet), 3), 0);
    let response = rig.answer(&with_edns(packet, 4096, 0, false));
    assert_eq!(response[response.len() - 8..response.len() - 6], 1232_u16.to_be_bytes(), "our own size");
}

#[test]
fn section_6_2_5_what_is_smaller_than_512_counts_as_512() {
    let names: String = (1..60).map(|last| format!(" 192.0.2.{last} many.test\n")).collect();
    let rig = crate::server::fixture::Rig::new(&format!(". {{\n hosts /nowhere {{\n{names} }}\n}}"));
    let response = rig.answer(&with_edns(query("many.test", rtype::A), 0, 0, false));
    assert!((480..=512).contains(&response.len()) && flags(&response) & flag::TC != 0);
}

#[test]
fn section_6_1_3_an_unknown_version_is_told_ours() {
    let packet = with_edns(query(WEB, rtype::A), 1232, 1, false);
    let response = rig().answer(&packet);
    let opt = &response[response.len() - 11..];
    assert_eq!((opt[5], opt[6], flags(&response) & flag::RCODE), (1, 0, 0), "BADVERS, version 0");
    assert_eq!((count(&response, 1), &response[12..packet.len() - 11]), (0, &packet[12..packet.len() - 11]));
}

#[test]
fn section_7_an_upstream_that_knows_no_edns_is_asked_without() {
    for code in [1, 4] {
        let rig = rig();
        let (mut waiting, sent) = rig.forward(&query("a.test", rtype::A));
        assert_eq!(count(&sent.message, 3), 1);
        sent.tells(code, &[]);
        assert_eq!(waiting.response(), None, "code {code}");
        let again = rig.sent().pop().unwrap();
        assert_eq!(count(&again.message, 3), 0, "code {code}");
        again.tells(0, &[[192, 0, 2, 1]]);
        assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.1"]);
    }
}

#[test]
fn section_7_such_an_upstream_may_say_so_with_a_bare_header() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("a.test", rtype::A));
    let message = [&sent.message[..2], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    sent.answered(message);
    assert_eq!(waiting.response(), None);
    let again = rig.sent().pop().unwrap();
    assert_eq!(count(&again.message, 3), 0);
    again.tells(0, &[[192, 0, 2, 1]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.1"]);
}
