//! DNSSEC on the way: what a resolver does with it that answers with what it was told, whatever it validates (with RFC 3225, RFC 6840).

use super::{answer_of, flagged, flags, record, rig};
use crate::{
    message::{flag, rtype},
    server::fixture::{Rig, query, with_edns},
};

fn authentic(rig: &Rig, packet: &[u8]) -> bool {
    let (mut waiting, sent) = rig.forward(packet);
    let message = answer_of(&sent.message, 0x8180 | flag::AD, [1, 0, 0], &record(1, 60, &[192, 0, 2, 1]));
    sent.answered(message);
    flags(&waiting.response().unwrap()) & flag::AD != 0
}

#[test]
fn section_3_2_1_do_and_cd_go_to_the_upstream() {
    let rig = rig();
    for (packet, wants, checks) in [
        (query("a.test", rtype::A), false, false),
        (with_edns(query("a.test", rtype::A), 1232, 0, true), true, false),
        (flagged("a.test", flag::RD | flag::CD), false, true),
    ] {
        let (_waiting, sent) = rig.forward(&packet);
        let end = 12 + 8 + 4;
        assert_eq!(sent.message[end + 7] & 0x80 != 0, wants, "DO");
        assert_eq!(flags(&sent.message) & flag::CD != 0, checks, "CD");
    }
}

#[test]
fn section_3_2_2_answers_for_who_checks_itself_are_kept_apart() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&flagged("a.test", flag::RD | flag::CD));
    sent.tells(0, &[[192, 0, 2, 1]]);
    let response = waiting.response().unwrap();
    assert_ne!(flags(&response) & flag::CD, 0, "CD is copied");
    drop(rig.wait(&query("a.test", rtype::A)));
}

#[test]
fn section_3_1_6_ad_is_what_the_upstream_says_and_never_of_own_data() {
    let rig = rig();
    let response = rig.answer(&flagged(super::WEB, flag::RD | flag::AD));
    assert_eq!(flags(&response) & flag::AD, 0);
    assert!(authentic(&rig, &with_edns(query("a.test", rtype::A), 1232, 0, true)));
}

#[test]
fn rfc_6840_5_8_ad_is_told_to_those_who_asked_for_it_by_ad_or_do() {
    assert!(!authentic(&rig(), &query("a.test", rtype::A)));
    assert!(authentic(&rig(), &flagged("a.test", flag::RD | flag::AD)));
    assert!(authentic(&rig(), &with_edns(query("a.test", rtype::A), 1232, 0, true)));
}

#[test]
fn rfc_6840_5_7_upstreams_are_asked_for_ad() {
    let rig = rig();
    let (_waiting, sent) = rig.forward(&query("a.test", rtype::A));
    assert_ne!(flags(&sent.message) & flag::AD, 0);
}

#[test]
fn rfc_3225_3_do_is_copied_into_the_response() {
    let rig = rig();
    for wants in [false, true] {
        let response = rig.answer(&with_edns(query(super::WEB, rtype::A), 1232, 0, wants));
        assert_eq!(response[response.len() - 4] & 0x80 != 0, wants);
    }
}
