//! `debug`: what is told to who looks for a fault.

use super::super::fixture::{Rig, query, upstream_answer};
use crate::message::rtype;

const PLUGINS: &str = "local\n errors {\n consolidate 1m \"no upstream answered\" debug show_first\n }\n \
                       forward . 192.0.2.1 {\n max_connect_attempts 1\n }\n";

/// The second block has `debug`, or none has it.
fn rig(debug: &str) -> Rig {
    Rig::new(&format!(". {{\n {PLUGINS}}}\nexample.net {{\n {debug}\n whoami\n}}\n"))
}

/// What was told since the last look.
fn told(rig: &Rig) -> Vec<String> {
    std::mem::take(&mut *rig.events.lock().unwrap())
}

/// An answer that the upstream's socket takes, and that announces a record which is not there.
fn asks_in_vain(rig: &Rig) {
    let (mut waiting, sent) = rig.forward(&query("www.example.org", rtype::A));
    let mut cut = upstream_answer(&sent.message, 0, &[]);
    cut[7] = 1;
    sent.answered(cut);
    assert_eq!(waiting.told(), ["SERVFAIL"]);
}

#[test]
fn what_cannot_be_read_is_told_byte_by_byte_whichever_block_wants_it() {
    let rig = rig("debug");
    rig.handle(&[1, 2, 3]);
    let dump = "what 10.244.1.2:4000 sent is no query\\ndebug: 000000 01 02 03\\ndebug: 000003";
    assert_eq!(told(&rig), [format!("Debug {{ message: \"{dump}\" }}")]);
    let mut status = query("www.example.org", rtype::A);
    status[2] = 0x10;
    rig.handle(&status);
    let events = told(&rig);
    let dump = "what 10.244.1.2:4000 sent is answered with NOTIMP\\ndebug: 000000 12 34 10 00 00 01";
    assert!(events.len() == 1 && events[0].contains(dump), "{events:?}");
    rig.ask("www.example.net", rtype::A);
    assert!(told(&rig).is_empty(), "all is well");
}

#[test]
fn who_asks_for_localhost_below_some_other_name_is_told() {
    let rig = rig("debug");
    rig.ask("localhost", rtype::A);
    assert!(told(&rig).is_empty());
    rig.ask("localhost.example.org", rtype::A);
    assert_eq!(told(&rig), ["Debug { message: \"local: localhost.example.org. is asked for by 10.244.1.2\" }"]);
}

#[test]
fn upstreams_answers_that_are_none_are_told_and_failures_that_are_of_interest_to_nobody_else() {
    let rig = rig("debug");
    asks_in_vain(&rig);
    let events = told(&rig);
    assert!(events[0].contains("what 192.0.2.1:53 answers cannot be used\\ndebug: 000000 "), "{events:?}");
    assert_eq!(events[1..], ["Debug { message: \"2 www.example.org. A: no upstream answered\" }"]);
}

#[test]
fn without_it_nothing_of_that_is_told() {
    let rig = rig("");
    rig.handle(&[1, 2, 3]);
    rig.ask("localhost.example.org", rtype::A);
    assert!(told(&rig).is_empty());
    asks_in_vain(&rig);
    assert_eq!(told(&rig), ["Failed { level: Debug, message: \"2 www.example.org. A: no upstream answered\" }"]);
}
