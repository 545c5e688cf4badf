//! A query has one question.

use super::{WEB, rig};
use crate::{
    message::rtype,
    server::fixture::{query, told},
};

#[test]
fn section_4_several_questions_are_a_format_error() {
    for number in [2_u16, 3, 0xffff] {
        let mut packet = query(WEB, rtype::A);
        packet[4..6].copy_from_slice(&number.to_be_bytes());
        let more = packet[12..].to_vec();
        packet.extend_from_slice(&more);
        assert_eq!(told(&rig().answer(&packet)), ["FORMERR"], "{number}");
    }
}
