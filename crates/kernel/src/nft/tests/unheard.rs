//! One's own listener hears nothing of large transactions, and what others do meanwhile is known of.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use podnet_model::Family;
use podnet_planner::ruleset::{BackendMap, Edit, RuleSet};

use super::{super::NftSocket, backend, frontend, rules, slot};
use crate::{
    monitor::{Monitor, Notice},
    netlink::RtSocket,
    testing::TestNs,
};

const TABLE: &str = "podnet";

/// A table of so many elements.
fn of(elements: u32) -> RuleSet {
    let mut rules = rules(&[backend([10, 0, 0, 1], 8080)]);
    let elements = (0..elements).map(|number| (slot(frontend(80), number), backend([10, 1, 0, 1], 8080))).collect();
    rules.backend_maps.insert("backends".into(), BackendMap { elements });
    rules
}

/// A socket, and a listener that hears it like any other.
fn listening(tag: &str) -> (TestNs, NftSocket, Monitor) {
    let namespace = TestNs::new(tag);
    let stranger = NftSocket::open_in(&namespace).unwrap();
    let monitor = Monitor::open_in(&namespace, &RtSocket::open_in(&namespace).unwrap(), &stranger, &[]).unwrap();
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    socket.cover(monitor.ears().unwrap().unwrap());
    (namespace, socket, monitor)
}

fn is_told(monitor: &mut Monitor) -> bool {
    monitor.pending().unwrap().iter().any(|notice| matches!(notice, Notice::Rules(_)))
}

#[test]
fn large_transactions_are_not_heard_and_small_ones_before_and_after_are() {
    let (namespace, mut socket, mut monitor) = listening("unheard");
    let wanted = of(5_000);
    socket.replace(TABLE, &of(1)).unwrap();
    assert!(is_told(&mut monitor), "a small one");
    socket.delete_table(Family::V4, TABLE).unwrap();
    is_told(&mut monitor);
    assert!(socket.replace(TABLE, &wanted).unwrap().whole);
    assert!(!is_told(&mut monitor), "a large one");
    assert!(!socket.missed(), "nobody else did anything");
    namespace.command("nft add table ip other");
    assert!(is_told(&mut monitor), "somebody else's");
    let long = (0..5_000).map(|number| Edit::RemoveBackend { map: "backends".into(), key: slot(frontend(80), number) });
    let long: Vec<Edit> = long.chain([Edit::RemoveChain("nothing".into())]).collect();
    socket.apply(Family::V4, TABLE, &long).unwrap_err();
    assert!(!socket.missed(), "what was refused has no number");
    namespace.command("nft delete table ip other");
    assert!(is_told(&mut monitor), "somebody else's after a refusal");
}

#[test]
fn what_others_do_meanwhile_is_known_of() {
    let (namespace, mut socket, mut monitor) = listening("unheard-others");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut other = NftSocket::open_in(&namespace).unwrap();
            while !over.load(Ordering::Relaxed) {
                other.replace("other", &RuleSet::empty(Family::V4)).unwrap();
                other.delete_table(Family::V4, "other").unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut missed = false;
        while !missed && !other.is_finished() && Instant::now() < deadline {
            socket.delete_table(Family::V4, TABLE).unwrap();
            socket.replace(TABLE, &of(5_000)).unwrap();
            monitor.pending().unwrap();
            missed = socket.missed();
        }
        over.store(true, Ordering::Relaxed);
        assert!(missed);
        assert!(!socket.missed(), "told once");
    });
}
