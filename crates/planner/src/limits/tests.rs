use podnet_model::limits::BANDWIDTH;
use proptest::prelude::*;

use super::*;

const MTU: u32 = 1450;

fn bandwidth(rate: u64) -> Bandwidth {
    Bandwidth { rate, burst: None, peak: None }
}

fn limits(ingress: Option<Bandwidth>, egress: Option<Bandwidth>) -> PodLimits {
    let direction = |bandwidth| Limits { bandwidth, ..Limits::default() };
    PodLimits { ingress: direction(ingress), egress: direction(egress) }
}

/// What passes a bucket that is kept full for that long, in bytes of frames.
fn passed(bucket: &Bucket, seconds: u64) -> u128 {
    u128::from(bucket.burst) + u128::from(bucket.rate) * u128::from(seconds)
}

#[test]
fn ten_megabits_are_within_five_percent_by_counters_and_by_payload() {
    let bucket = bucket(bandwidth(10_000_000), MTU);
    let asked = 12_500_000.0;
    let by_counters = passed(&bucket, 10) as f64;
    // IPv4 and TCP with time stamps: 52 of the 1450 bytes.
    let by_payload = by_counters * 1398.0 / 1464.0;
    assert!((0.95..=1.05).contains(&(by_counters / asked)), "{by_counters}");
    assert!((0.95..=1.05).contains(&(by_payload / asked)), "{by_payload}");
    assert_eq!(bucket, Bucket { rate: 1_262_068, burst: 126_206, queue: 126_206 + (66 << 10), peak: None });
}

#[test]
fn a_slow_bucket_still_passes_the_largest_packet_and_queues_a_first_window() {
    let bucket = bucket(bandwidth(1000), MTU);
    assert_eq!(bucket.rate, 126);
    assert_eq!(bucket.burst, 2 * 1464);
    assert_eq!(bucket.queue, 12 * 1464);
}

#[test]
fn a_fast_bucket_keeps_what_the_kernel_can_hold() {
    let bucket = bucket(bandwidth(*BANDWIDTH.end()), MTU);
    assert_eq!(bucket.burst, u32::MAX);
    assert_eq!(bucket.queue, (32 << 20) + (66 << 10));
}

#[test]
fn a_burst_that_is_asked_for_is_given_in_bytes() {
    let asked = |burst| bucket(Bandwidth { burst: Some(burst), ..bandwidth(10_000_000) }, MTU).burst;
    assert_eq!(asked(8_000_000), 1_000_000);
    assert_eq!(asked(1000), 2928, "less than two packets would stop the traffic");
    let slow = Bandwidth { burst: Some(34_359_738_360), ..bandwidth(1000) };
    assert_eq!(bucket(slow, MTU).burst, 126 * 250);
}

#[test]
fn a_peak_bounds_the_burst() {
    let peak = Some(Peak { rate: 20_000_000, min_burst: None });
    let shaped = bucket(Bandwidth { peak, ..bandwidth(10_000_000) }, MTU);
    assert_eq!(shaped.peak, Some(PeakBucket { rate: 2_524_137, burst: 2928 }));
    let peak = Some(Peak { rate: 20_000_000, min_burst: Some(1000) });
    let shaped = bucket(Bandwidth { peak, ..bandwidth(10_000_000) }, MTU);
    assert_eq!(shaped.peak.map(|peak| peak.burst), Some(1464), "a packet has to pass");
}

#[test]
fn only_what_differs_is_done() {
    let (one, other) = (bucket(bandwidth(1_000_000), MTU), bucket(bandwidth(2_000_000), MTU));
    let found = |ingress, egress, diverted| Found { ingress, egress, diverted };
    let shaped = |ingress, egress| Shaping { ingress, egress };
    for (wanted, found, expected) in [
        (shaped(None, None), found(None, None, false), vec![]),
        (shaped(Some(one), Some(other)), found(Some(one), Some(other), true), vec![]),
        (shaped(Some(one), Some(one)), found(None, None, false), vec![Step::SetIngress(one), Step::SetEgress(one)]),
        (shaped(Some(one), Some(one)), found(Some(other), Some(one), true), vec![Step::SetIngress(one)]),
        (shaped(None, None), found(Some(one), Some(one), true), vec![Step::RemoveIngress, Step::RemoveEgress]),
        // A device without a bucket, or without what leads there.
        (shaped(None, Some(one)), found(None, None, true), vec![Step::SetEgress(one)]),
        (shaped(None, None), found(None, None, true), vec![Step::RemoveEgress]),
    ] {
        assert_eq!(steps(&wanted, &found), expected, "{wanted:?} of {found:?}");
    }
}

#[test]
fn annotations_decide_and_the_runtime_fills_what_they_leave_open() {
    let (slow, fast) = (bandwidth(1000), bandwidth(5000));
    let annotated = limits(Some(slow), None);
    let given = limits(Some(fast), Some(fast));
    assert_eq!(effective(&annotated, &given), limits(Some(slow), Some(fast)));
    // What the runtime made of an annotation goes with it.
    let kept = beyond_annotations(&annotated, &given);
    assert_eq!(kept, limits(None, Some(fast)));
    assert_eq!(effective(&PodLimits::default(), &kept), limits(None, Some(fast)));
}

#[test]
fn devices_know_their_links_and_others_are_not_taken_for_ours() {
    for (host, device) in [("pn0123456789ab", "pb0123456789ab"), ("pc0123456789ab", "pd0123456789ab")] {
        let egress = egress_device(&host.into()).unwrap();
        assert_eq!(egress.as_str(), device);
        assert_eq!(served_by(&egress), Some(host.into()));
    }
    assert_eq!(egress_device(&"eth0".into()), None);
    for name in ["pb0", "pbx123456789ab", "pn0123456789ab", "ifb0", "pb0123456789abc"] {
        assert_eq!(served_by(&name.into()), None, "{name}");
    }
}

proptest! {
    #[test]
    fn the_rate_holds_over_ten_seconds_and_every_packet_passes(rate in 200_000_u64..=100_000_000_000, mtu in 576_u32..=9000) {
        let bucket = bucket(bandwidth(rate), mtu);
        let packets = passed(&bucket, 10) as f64 * f64::from(mtu) / f64::from(mtu + HEADER);
        let asked = rate as f64 * 10.0 / 8.0;
        // Below these rates two packets are more than a twentieth of what passes in ten seconds.
        prop_assume!(f64::from(mtu) * 2.0 < asked * 0.04);
        prop_assert!((0.99..=1.05).contains(&(packets / asked)), "{packets} of {asked}");
        prop_assert!(bucket.burst >= mtu + HEADER);
        prop_assert!(bucket.queue >= 10 * (mtu + HEADER) + bucket.burst.min(65_536));
    }

    #[test]
    fn what_is_done_to_nothing_leaves_nothing_to_do(ingress in proptest::option::of(1000_u64..1 << 40), egress in proptest::option::of(1000_u64..1 << 40)) {
        let wanted = shaping(&limits(ingress.map(bandwidth), egress.map(bandwidth)), MTU);
        let mut found = Found::default();
        for step in steps(&wanted, &found) {
            match step {
                Step::SetIngress(bucket) => found.ingress = Some(bucket),
                Step::SetEgress(bucket) => (found.egress, found.diverted) = (Some(bucket), true),
                Step::RemoveIngress => found.ingress = None,
                Step::RemoveEgress => (found.egress, found.diverted) = (None, false),
            }
        }
        prop_assert_eq!(steps(&wanted, &found), vec![]);
        prop_assert!(steps(&Shaping::default(), &Found::default()).is_empty());
    }
}
