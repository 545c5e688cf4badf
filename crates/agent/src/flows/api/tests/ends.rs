//! Who reads of flows that have ended alone.

use super::*;

fn flow(report: &str, port: u16) -> Item {
    let way = json!({"packets": 1, "bytes": 40});
    serde_json::from_value(json!({
        "type": "flow", "id": "00000000-0000-0000-0000-000000000001", "report": report, "protocol": "TCP",
        "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:01Z",
        "source": {"ip": "10.0.0.1", "port": port, "pod": {"namespace": "web", "name": "a", "uid": "here", "node": "node1"}},
        "destination": {"ip": "192.0.2.1", "port": 80}, "class": "pod-world", "verdict": "forwarded", "node": "node1",
        "reporter": "source", "sent": way, "received": way,
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_ends_is_sent_no_records_of_flows_that_go_on() {
    let lab = Lab::new().await;
    let (status, mut following) = lab.ask("here", "follow=true&ends=true").await;
    assert_eq!(status, 200);
    lab.past.add(&[flow("start", 4001), flow("update", 4002), flow("end", 4003)], Timestamp::now());
    let text = until_read(&mut following, "\"port\":4003").await;
    assert!(!text.contains("\"port\":4001") && !text.contains("\"port\":4002"), "{text}");
}
