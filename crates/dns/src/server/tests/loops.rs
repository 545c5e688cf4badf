//! `loop`: upstreams that lead back to this server.

use super::{
    super::fixture::{Rig, Sent, query, told},
    Outcome, rig,
};
use crate::{message::rtype, name::QueryName};

/// How often it was told that an upstream leads back.
fn noticed(rig: &Rig) -> usize {
    rig.events.lock().unwrap().iter().filter(|event| event.contains("Loop")).count()
}

/// The name of a probe, and how it is asked for.
fn name(probe: &Sent) -> (String, Vec<u8>) {
    (QueryName::parse(&probe.message, 12).unwrap().0.to_string(), probe.message.clone())
}

fn looping(rig: &Rig) -> String {
    let text = rig.server.metrics().render(&rig.server.gauges());
    text.lines().find(|line| line.starts_with("podnet_dns_looping_upstreams")).unwrap().to_owned()
}

#[test]
fn an_upstream_that_asks_back_is_noticed_and_left_alone() {
    let rig = rig();
    rig.server.probe_loops();
    let probes = rig.sent();
    assert_eq!(probes.len(), 2);
    assert_eq!(told(&rig.handle(&probes[0].message).1), ["SERVFAIL"]);
    rig.handle(&probes[0].message);
    assert_eq!((noticed(&rig), looping(&rig).as_str()), (1, "podnet_dns_looping_upstreams 1"));
    let (_, next) = rig.forward(&query("example.org", rtype::A));
    assert_eq!(next.upstream, probes[1].upstream);
    rig.handle(&probes[1].message);
    assert_eq!(rig.ask("example.net", rtype::A), ["SERVFAIL"]);
    assert_eq!((noticed(&rig), looping(&rig).as_str()), (2, "podnet_dns_looping_upstreams 2"));
}

#[test]
fn an_upstream_that_is_silent_is_asked_again_until_it_answers_or_half_a_minute_is_over() {
    let rig = rig();
    rig.server.probe_loops();
    let [first, second]: [Sent; 2] = rig.sent().try_into().ok().expect("two upstreams");
    let (silent, (answers, _)) = (name(&first), name(&second));
    first.failed();
    second.tells(3, &[]);
    rig.work();
    assert!(rig.sent().is_empty(), "not at once");
    for seconds in [2, 4, 28] {
        rig.at(seconds);
        rig.wake();
        rig.work();
        let [again]: [Sent; 1] = rig.sent().try_into().ok().expect("the one that was silent");
        assert_eq!(name(&again).0, silent.0);
        assert_ne!(answers, silent.0);
        again.failed();
        rig.work();
    }
    rig.at(30);
    rig.wake();
    rig.work();
    assert!(rig.sent().is_empty(), "its time is over");
    // It may be on its way round still.
    assert_eq!(told(&rig.handle(&silent.1).1), ["SERVFAIL"]);
    assert_eq!(noticed(&rig), 1);
}

#[test]
fn what_came_round_is_not_asked_again() {
    let rig = rig();
    rig.server.probe_loops();
    let [first, second]: [Sent; 2] = rig.sent().try_into().ok().expect("two upstreams");
    rig.handle(&first.message);
    first.failed();
    second.failed();
    rig.work();
    rig.wake();
    rig.work();
    let again = rig.sent();
    assert_eq!(again.len(), 1, "the other one");
}

#[test]
fn once_a_probe_is_over_its_name_is_a_name_like_others() {
    let rig = rig();
    rig.server.probe_loops();
    let probes: Vec<Vec<u8>> = rig.sent().into_iter().map(|probe| (name(&probe).1, probe.tells(3, &[])).0).collect();
    rig.work();
    rig.wake();
    rig.work();
    // Whoever saw it could have an upstream left alone by asking for it.
    assert!(matches!(rig.handle(&probes[0]).0, Outcome::Later(_)), "it is passed on");
    assert_eq!((noticed(&rig), looping(&rig).as_str()), (0, "podnet_dns_looping_upstreams 0"));
}

#[test]
fn a_server_that_is_replaced_stops_looking() {
    let mut rig = rig();
    rig.server.probe_loops();
    rig.sent().into_iter().for_each(Sent::failed);
    rig.work();
    rig.reload(". {\n whoami\n}\n");
    rig.wake();
    rig.work();
    assert!(rig.sent().is_empty());
}
