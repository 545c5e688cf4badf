//! Far more questions than upstreams answer.

use super::super::{
    Outcome,
    fixture::{Rig, Waiting, query, told},
};
use crate::{forward::MAX_FLIGHTS, message::rtype};

/// Asks; what waits is added to those who wait, the code of the others is told.
fn ask(rig: &Rig, packet: &[u8], waiting: &mut Vec<Waiting>) -> Option<String> {
    let response = match rig.handle(packet) {
        (Outcome::Answer, response) => response,
        (Outcome::Later(later), _) => {
            let mut client = Waiting::new(std::sync::Arc::clone(&rig.server).finish(later));
            match client.response() {
                Some(response) => response,
                None => {
                    waiting.push(client);
                    return None;
                }
            }
        }
        _ => panic!("no answer"),
    };
    told(&response).into_iter().next()
}

#[test]
fn a_hundred_thousand_questions_for_a_silent_upstream_end_at_once_but_for_those_that_are_asked() {
    let rig = Rig::new(". {\n cache\n hosts {\n 192.0.2.7 known.test\n fallthrough\n }\n forward . 192.0.2.53\n}");
    let mut waiting = Vec::new();
    let mut failed = 0;
    for number in 0..100_000 {
        let code = ask(&rig, &query(&format!("n{number}.test"), rtype::A), &mut waiting);
        failed += usize::from(code.as_deref() == Some("SERVFAIL"));
    }
    assert_eq!((waiting.len(), failed), (MAX_FLIGHTS, 100_000 - MAX_FLIGHTS));
    assert_eq!(rig.server.gauges().flights, MAX_FLIGHTS);
    let sent = rig.sent();
    assert_eq!(sent.len(), MAX_FLIGHTS, "each is sent once");
    // What is known is answered all the while.
    assert_eq!(ask(&rig, &query("known.test", rtype::A), &mut waiting).as_deref(), Some("NOERROR"));
    // Who waits is answered when the upstream wakes up, and there is room again for others.
    for (client, sent) in waiting.iter_mut().zip(sent) {
        sent.tells(0, &[[192, 0, 2, 1]]);
        assert_eq!(client.told(), ["NOERROR", "A 192.0.2.1"]);
    }
    drop(waiting);
    assert_eq!(rig.server.gauges().flights, 0);
    let (mut client, sent) = rig.forward(&query("n99999.test", rtype::A));
    sent.tells(0, &[[192, 0, 2, 2]]);
    assert_eq!(client.told(), ["NOERROR", "A 192.0.2.2"]);
}
