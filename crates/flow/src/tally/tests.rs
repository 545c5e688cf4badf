//! Records of flows, and what metrics say of them.

use std::sync::Arc;

use serde_json::json;

use super::*;

fn record(id: u8, report: &str, reporter: &str, (pod, verdict): (&str, &str), packets: u64) -> Item {
    let end = |name: &str| {
        json!({"ip": "10.0.0.1", "port": 1,
            "pod": {"namespace": "shop", "name": format!("{name}-1"), "uid": name, "node": "node1",
                "owner": {"kind": "Deployment", "name": name}}})
    };
    let way = |packets| json!({"packets": packets, "bytes": packets * 100});
    let record: Record = serde_json::from_value(json!({
        "id": format!("00000000-0000-0000-0000-0000000000{id:02}"), "report": report,
        "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:01Z", "protocol": "TCP",
        "source": end(pod), "destination": end("cart"), "class": "pod-pod-other-node", "verdict": verdict,
        "node": "node1", "reporter": reporter, "sent": way(packets), "received": way(packets / 2),
        "handshakeMicros": 1500,
    }))
    .unwrap();
    Item::Flow(Arc::new(record))
}

fn value<'a>(text: &'a str, line: &str) -> Option<&'a str> {
    text.lines().find_map(|one| one.strip_prefix(line)).map(str::trim)
}

#[test]
fn each_packet_counts_once_though_records_tell_all_since_the_flow_began() {
    let mut tally = Tally::new(10);
    assert_eq!(tally.metrics(), "");
    let good = ("web", "forwarded");
    tally.add(&[record(1, "start", "source", good, 2), record(1, "update", "source", good, 10)]);
    tally.add(&[record(1, "end", "source", good, 12), record(2, "end", "source", ("web", "refused"), 1)]);
    // The source's node tells it.
    tally.add(&[record(3, "end", "destination", good, 1000)]);
    let text = tally.metrics();
    let labels = r#"{source="shop/web",destination="shop/cart""#;
    for (name, label, expected) in [
        ("podnet_flow_packets_total", r#",direction="sent""#, "13"),
        ("podnet_flow_packets_total", r#",direction="received""#, "6"),
        ("podnet_flow_bytes_total", r#",direction="sent""#, "1300"),
        ("podnet_flow_connections_total", "", "2"),
        ("podnet_flow_failures_total", "", "1"),
        ("podnet_flow_handshake_seconds_sum", "", "0.003000"),
        ("podnet_flow_handshake_seconds_count", "", "2"),
    ] {
        assert_eq!(value(&text, &format!("{name}{labels}{label}}} ")), Some(expected), "{name}{label}\n{text}");
    }
    assert_eq!(text.matches("# TYPE").count(), 5, "{text}");
    assert!(text.contains("# TYPE podnet_flow_handshake_seconds histogram"), "{text}");
    assert!(tally.counted.is_empty(), "what ended is not remembered");
}

/// The same with or without the time that its handshake took.
fn with_handshake(item: Item, micros: Option<u32>) -> Item {
    let Item::Flow(mut record) = item else { panic!("no flow") };
    Arc::make_mut(&mut record).handshake_micros = micros;
    Item::Flow(record)
}

#[test]
fn a_handshake_counts_once_also_where_it_took_longer_than_until_the_first_record() {
    let mut tally = Tally::new(10);
    let good = ("web", "forwarded");
    tally.add(&[with_handshake(record(1, "start", "source", good, 1), None)]);
    let labels = r#"{source="shop/web",destination="shop/cart""#;
    let count = |tally: &Tally, suffix: &str| {
        let line = format!("podnet_flow_handshake_seconds_{suffix}}} ");
        value(&tally.metrics(), &line).map(str::to_owned)
    };
    assert_eq!(count(&tally, &format!("count{labels}")).as_deref(), Some("0"));
    for report in ["update", "update", "end"] {
        tally.add(&[with_handshake(record(1, report, "source", good, 4), Some(3_200_000))]);
    }
    tally.add(&[with_handshake(record(2, "end", "source", good, 4), Some(200))]);
    for (suffix, expected) in [
        (format!("count{labels}"), "2"),
        (format!("sum{labels}"), "3.200200"),
        (format!(r#"bucket{labels},le="0.0001""#), "0"),
        (format!(r#"bucket{labels},le="0.00025""#), "1"),
        (format!(r#"bucket{labels},le="2.9""#), "1"),
        (format!(r#"bucket{labels},le="+Inf""#), "2"),
    ] {
        assert_eq!(count(&tally, &suffix).as_deref(), Some(expected), "{suffix}\n{}", tally.metrics());
    }
}

#[test]
fn what_an_earlier_agent_counted_does_not_count_again_and_what_comes_then_does() {
    let mut tally = Tally::new(10);
    let good = ("web", "forwarded");
    let Item::Flow(old) = record(1, "update", "source", good, 100) else { panic!("no flow") };
    tally.begin(old.start + jiff::SignedDuration::from_millis(1));
    tally.add(&[record(1, "update", "source", good, 100), record(1, "update", "source", good, 104)]);
    tally.add(&[record(1, "end", "source", ("web", "dropped"), 110), record(2, "end", "source", good, 50)]);
    let mut new = Record::clone(&old);
    (new.id, new.start) = (FlowId(uuid::Uuid::from_u128(3)), old.start + jiff::SignedDuration::from_millis(2));
    tally.add(&[Item::Flow(Arc::new(new))]);
    let text = tally.metrics();
    let labels = r#"{source="shop/web",destination="shop/cart""#;
    for (name, expected) in [
        (format!(r#"podnet_flow_packets_total{labels},direction="sent"}} "#), "110"),
        (format!("podnet_flow_connections_total{labels}}} "), "1"),
        (format!("podnet_flow_handshake_seconds_count{labels}}} "), "1"),
        // An end was not told before.
        (format!("podnet_flow_failures_total{labels}}} "), "1"),
    ] {
        assert_eq!(value(&text, &name), Some(expected), "{name}\n{text}");
    }
    // Nothing was counted before a recording that goes on with nobody's counters.
    tally.begin(Timestamp::MIN);
    tally.add(&[record(1, "update", "source", good, 7)]);
    let packets = format!(r#"podnet_flow_packets_total{labels},direction="sent"}} "#);
    assert_eq!(value(&tally.metrics(), &packets), Some("117"));
}

#[test]
fn what_stopped_flows_is_counted_as_they_end_by_its_name() {
    let stopped = |id: u8, report: &str, verdict: &str, cause: Cause| {
        let Item::Flow(mut record) = record(id, report, "source", ("web", verdict), 1) else { panic!("no flow") };
        Arc::make_mut(&mut record).cause = Some(cause);
        Item::Flow(record)
    };
    let mut tally = Tally::new(10);
    tally.add(&[stopped(1, "start", "dropped", Cause::NoRoute), stopped(1, "end", "dropped", Cause::NoRoute)]);
    tally.add(&[stopped(2, "end", "dropped", Cause::NoRoute), stopped(3, "end", "forwarded", Cause::PortClosed)]);
    let text = tally.metrics();
    let labels = r#"{source="shop/web",destination="shop/cart""#;
    for (line, expected) in [
        (format!(r#"podnet_flow_causes_total{labels},cause="no-route"}} "#), "2"),
        (format!(r#"podnet_flow_causes_total{labels},cause="port-closed"}} "#), "1"),
        (format!("podnet_flow_failures_total{labels}}} "), "2"),
    ] {
        assert_eq!(value(&text, &line), Some(expected), "{line}\n{text}");
    }
    assert_eq!(text.matches("podnet_flow_causes_total{").count(), 2, "{text}");
}

#[test]
fn pairs_beyond_the_limit_are_summed_up_as_one() {
    let mut tally = Tally::new(1);
    tally.add(&["web", "api", "job"].map(|pod| record(1, "end", "source", (pod, "forwarded"), 4)));
    let text = tally.metrics();
    let packets = |pair: &str| value(&text, &format!("podnet_flow_packets_total{{{pair},direction=\"sent\"}} "));
    assert_eq!(packets(r#"source="shop/web",destination="shop/cart""#), Some("4"));
    assert_eq!(packets(r#"source="other",destination="other""#), Some("8"), "{text}");
}
