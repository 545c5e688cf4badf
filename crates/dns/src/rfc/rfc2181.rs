//! Clarifications to the DNS specification.

use super::{answer_of, count, flags, record, rig};
use crate::{
    message::{flag, rtype, walk},
    server::fixture::{Rig, query, told},
};

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
fn section_11_any_octet_may_stand_in_a_label() {
    let rig = rig();
    let mut packet = query("xxxx.example.org", rtype::A);
    packet[13..17].copy_from_slice(&[0, 255, b'.', b' ']);
    let (mut waiting, sent) = rig.forward(&packet);
    assert_eq!(sent.message[12..17], packet[12..17]);
    sent.tells(0, &[[192, 0, 2, 1]]);
    assert_eq!(waiting.response().unwrap()[12..packet.len()], packet[12..]);
}
