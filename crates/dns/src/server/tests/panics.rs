//! Panics on the way to an answer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::Ordering},
};

use futures::FutureExt as _;

use super::super::{
    Event, Server,
    fixture::{Rig, query, told},
};
use crate::{Config, Environment, message::rtype, zone::Cluster};

/// A server whose `log` cannot be written, and what is told of failures.
fn rig(corefile: &str) -> (Rig, Arc<Mutex<Vec<String>>>) {
    let mut rig = Rig::new(". {\n whoami\n}\n");
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&failures);
    let observer = Box::new(move |event: &Event<'_>| match event {
        Event::Answered { .. } => panic!("the log is full"),
        other => heard.lock().unwrap().push(format!("{other:?}")),
    });
    let config = Config::load("Corefile", corefile, &Environment::EMPTY).unwrap();
    let outside = Arc::clone(&rig.outside);
    rig.server = Arc::new(Server::new(config, &Cluster::default(), 1, Arc::default(), outside, observer));
    (rig, failures)
}

#[test]
fn a_panic_is_a_failure_that_the_client_and_the_operator_are_told_of_and_counted() {
    // Answered at once, and by what takes time.
    for plugin in ["whoami", "erratic {\n drop 0\n }"] {
        let (rig, failures) = rig(&format!(". {{\n log\n {plugin}\n}}\n"));
        let packet = query("www.example.org", rtype::A);
        let response = rig.answer(&packet);
        assert_eq!(told(&response), ["SERVFAIL"], "{plugin}");
        assert_eq!(response[..2], packet[..2]);
        assert_eq!(response[12..], packet[12..], "the question is told back");
        let heard = std::mem::take(&mut *failures.lock().unwrap());
        let message = "www.example.org. A from 10.244.1.2:4000 led to a panic, which was survived: the log is full";
        assert_eq!(heard, [format!("Failed {{ level: Error, message: \"{message}\" }}")], "{plugin}");
        // It goes on, and nobody who was told so is thought to wait.
        assert_eq!(rig.ask("www.example.org", rtype::A), ["SERVFAIL"]);
        assert_eq!(rig.server.parts.waiting.load(Ordering::Relaxed), 0);
        let text = rig.server.metrics().render(&rig.server.gauges());
        assert!(text.contains("\ncoredns_panics_total 2\n"), "{text}");
        let dropped = "coredns_dns_responses_total{server=\"dns://:53\",zone=\"dropped\"";
        assert!(text.lines().any(|line| line.starts_with(dropped) && line.ends_with(" 2")), "{text}");
    }
}

#[test]
fn what_nobody_waits_for_is_survived_and_told_where_it_is_done_apart() {
    let (rig, failures) = rig(". {\n whoami\n}\n");
    let wrong = std::future::poll_fn(|_| -> std::task::Poll<()> { panic!("it is wrong") });
    assert_eq!(rig.server.parts.apart("the work", wrong).now_or_never(), Some(None));
    let message = "the work led to a panic, which was survived: it is wrong";
    assert_eq!(*failures.lock().unwrap(), [format!("Failed {{ level: Error, message: \"{message}\" }}")]);
    assert!(rig.server.metrics().render(&rig.server.gauges()).contains("\ncoredns_panics_total 1\n"));
}

#[test]
fn who_debugs_has_the_panic_as_it_was() {
    let (rig, failures) = rig(". {\n debug\n log\n whoami\n}\n");
    let handled = catch_unwind(AssertUnwindSafe(|| rig.handle(&query("www.example.org", rtype::A)).0));
    assert!(handled.is_err());
    assert!(rig.server.metrics().render(&rig.server.gauges()).contains("\ncoredns_panics_total 0\n"));
    assert!(failures.lock().unwrap().is_empty());
}
