//! Stale answers.

use super::{answer_of, record};
use crate::{
    message::{rtype, walk},
    server::fixture::{Rig, query, told},
};

fn rig() -> Rig {
    Rig::new(". {\n cache {\n serve_stale 1h immediate\n }\n forward . 192.0.2.53\n}")
}

fn known(rig: &Rig, packet: &[u8]) {
    let (mut waiting, sent) = rig.forward(packet);
    let message = answer_of(&sent.message, 0x8180, [1, 0, 0], &record(1, 60, &[192, 0, 2, 1]));
    sent.answered(message);
    waiting.response().unwrap();
}

#[test]
fn section_4_what_has_ended_is_told_while_a_newer_answer_is_asked_for_once() {
    let (rig, packet) = (rig(), query("a.test", rtype::A));
    known(&rig, &packet);
    rig.at(61);
    let response = rig.answer(&packet);
    assert_eq!(told(&response), ["NOERROR", "A 192.0.2.1"]);
    // As CoreDNS, and not 30 s: clients ask again at once when there is news.
    assert_eq!(walk(&response, packet.len()).next().unwrap().unwrap().ttl, 0);
    rig.work();
    let asked = rig.sent();
    assert_eq!(asked.len(), 1);
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.1"]);
    rig.work();
    assert!(rig.sent().is_empty(), "the first question is on its way still");
}

#[test]
fn section_5_it_is_forgotten_after_a_time() {
    let (rig, packet) = (rig(), query("a.test", rtype::A));
    known(&rig, &packet);
    rig.at(60 + 3600);
    drop(rig.wait(&packet));
}

#[test]
fn section_4_news_takes_its_place_and_a_failure_does_not() {
    let (rig, packet) = (rig(), query("a.test", rtype::A));
    known(&rig, &packet);
    rig.at(61);
    rig.answer(&packet);
    rig.work();
    rig.sent().pop().unwrap().tells(2, &[]);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.1"]);
    rig.at(70);
    rig.answer(&packet);
    rig.work();
    rig.sent().pop().unwrap().tells(0, &[[192, 0, 2, 2]]);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.2"]);
}

/// Whose answers are verified before old ones are given out, for as long as the RFC's client response timer says.
fn verifying() -> (Rig, Vec<u8>) {
    let rig = Rig::new(". {\n cache {\n serve_stale 1h verify 1800ms\n }\n forward . 192.0.2.53\n}");
    let packet = query("a.test", rtype::A);
    known(&rig, &packet);
    rig.at(61);
    (rig, packet)
}

#[test]
fn section_5_who_verifies_gives_out_news_where_it_comes_in_time_and_what_has_ended_where_there_is_none() {
    for (code, expected) in [(0, ["NOERROR", "A 192.0.2.2"]), (2, ["NOERROR", "A 192.0.2.1"])] {
        let (rig, packet) = verifying();
        let (mut waiting, sent) = rig.forward(&packet);
        sent.tells(code, if code == 0 { &[[192, 0, 2, 2]] } else { &[] });
        assert_eq!(waiting.told(), expected);
    }
}

#[test]
fn section_5_the_client_response_timer_ends_the_wait_and_what_comes_later_is_kept() {
    let (rig, packet) = verifying();
    let (mut waiting, first) = rig.forward(&packet);
    rig.wake();
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.1"]);
    drop((waiting, first));
    rig.sent();
    // The question goes on without a client.
    rig.work();
    rig.sent().pop().unwrap().tells(0, &[[192, 0, 2, 2]]);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.2"]);
}
