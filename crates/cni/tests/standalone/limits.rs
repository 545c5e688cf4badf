//! The capability `bandwidth`, in the modes that have it.

use std::time::{Duration, Instant};

use podnet_testnet::eventually;
use serde_json::{Value, json};

use crate::{Machine, Sandbox, machine::address};

/// 8 Mbit/s are a megabyte a second.
const RATE: u64 = 8_000_000;
const SENT: u32 = 1_500_000;

/// Seconds that this many bytes take from one sandbox to the other.
fn seconds(from: &Sandbox, to: &Sandbox, addr: &str) -> f64 {
    let _sink = to.sink(7000);
    let began = Instant::now();
    // The receiver closes when it has all: what waits in queues counts.
    let send = format!(
        "use IO::Socket::INET; $s=IO::Socket::INET->new(PeerAddr=>q({addr}),PeerPort=>7000,Timeout=>5) or die $@; print $s q(x) x {SENT}; shutdown($s,1); <$s>"
    );
    from.run(&["perl", "-e", &send]);
    began.elapsed().as_secs_f64()
}

#[test]
fn traffic_is_held_back_in_both_directions_and_free_again_with_the_container() {
    for mode in [json!({}), json!({"mode": "bridge", "isDefaultGateway": true})] {
        let machine = Machine::new("limited");
        let list = machine.network(&json!({"subnet": "10.77.0.0/24"}), &mode);
        let burst = 400_000;
        let limited = list.with(json!({"bandwidth": {
            "ingressRate": RATE, "ingressBurst": burst, "egressRate": RATE, "egressBurst": burst,
        }}));
        let (a, b) = (Sandbox::new("slow"), Sandbox::new("free"));
        let first = limited.add("slow", &a.path(), "eth0").done();
        let second = list.add("free", &b.path(), "eth0").done();
        let _ = limited.check("slow", &a.path(), "eth0", &first).done();
        let (to, from) = (seconds(&b, &a, &address(&first, '.')), seconds(&a, &b, &address(&second, '.')));
        // 1.5 MB less the burst take 1.45 s and, with headers, a little more; much more where others have the processors.
        for (what, took) in [("to it", to), ("from it", from)] {
            assert!((1.3..12.0).contains(&took), "{what}, {mode}: {took} s");
        }
        let (code, message) = list.check("slow", &a.path(), "eth0", &first).refused();
        assert!(code == 101 && message.contains("not limited as asked for"), "{message}");
        let _ = limited.del("slow", &a.path(), "eth0", &first).done();

        let wrong = list.with(json!({"bandwidth": {"ingressRate": 10}}));
        let (code, message) = wrong.add("slow", &a.path(), "eth0").refused();
        assert!(code == 7 && message.contains("runtimeConfig.bandwidth.ingressRate is \"10\""), "{message}");
        let _ = list.del("free", &b.path(), "eth0", &second).done();
        assert_eq!(machine.traces(), [""; 0]);
    }
}

#[test]
fn what_served_a_container_that_is_lost_goes_with_the_next_one() {
    let machine = Machine::new("limit-lost");
    let list = machine.network(&json!({"subnet": "10.78.0.0/24"}), &json!({}));
    let limited = list.with(json!({"bandwidth": {"egressRate": RATE}}));
    let lost = Sandbox::new("lost");
    let first = limited.add("lost", &lost.path(), "eth0").done();
    let gone = lost.path();
    drop(lost);
    eventually("the link is gone", Duration::from_secs(5), || {
        let left = machine.traces();
        if left.iter().any(|trace| trace.contains(": pc")) { Err(format!("{left:?}")) } else { Ok(()) }
    });
    assert!(machine.traces().iter().any(|trace| trace.contains(": pd")), "{:?}", machine.traces());
    let next = Sandbox::new("next");
    let result = list.add("next", &next.path(), "eth0").done();
    assert!(!machine.traces().iter().any(|trace| trace.contains(": pd")), "{:?}", machine.traces());
    let _ = limited.del("lost", &gone, "eth0", &first).done();
    let _ = list.del("next", &next.path(), "eth0", &result).done();
    assert_eq!(machine.traces(), [""; 0]);
    let _: Value = list.status().done();
}
