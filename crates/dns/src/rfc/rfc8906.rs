//! Servers answer: silence is taken for a broken path. The tests of the RFC's section 8, over UDP.

use super::{WEB, flagged, flags, rig, with_options};
use crate::{
    message::{flag, rtype},
    server::fixture::{query, told, with_edns},
};

#[test]
fn section_8_1_plain_questions_and_unknown_types_are_answered() {
    assert_eq!(told(&rig().answer(&query("cluster.local", rtype::SOA)))[0], "NOERROR");
    assert_eq!(told(&rig().answer(&query("cluster.local", 1000)))[0], "NOERROR");
}

#[test]
fn section_8_1_3_flags_do_not_silence_it() {
    for set in [flag::CD, flag::AD, 0x0040, flag::RD] {
        let response = rig().answer(&flagged(WEB, set));
        assert_eq!(told(&response)[0], "NOERROR");
        assert_eq!(flags(&response) & 0x0040, 0, "the reserved flag");
    }
}

#[test]
fn section_8_1_4_unknown_operations_are_answered() {
    let mut packet = query(WEB, rtype::A);
    packet[2] = 15 << 3;
    assert_eq!(told(&rig().answer(&packet)), ["NOTIMP"]);
}

#[test]
fn section_8_2_edns_of_all_kinds_is_answered() {
    let rig = rig();
    let answered = |packet: &[u8]| told(&rig.answer(packet))[0].clone();
    assert_eq!(answered(&with_edns(query(WEB, rtype::A), 1232, 0, false)), "NOERROR");
    assert_eq!(answered(&with_options(WEB, &[0, 100, 0, 0])), "NOERROR", "an unknown option");
    let mut version = with_edns(query(WEB, rtype::A), 1232, 1, false);
    assert_eq!(rig.answer(&version)[12..41], version[12..41], "an unknown version");
    let at = version.len();
    version[at - 1] = 4;
    version.extend_from_slice(&[0, 100, 0, 0]);
    assert!(!rig.answer(&version).is_empty(), "an unknown version with an unknown option");
}
