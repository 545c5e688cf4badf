//! Collectors of a few lines, as far as their protocols go; some that are away, full, or picky; and those that Debian has.

#[cfg(any(feature = "amqp", feature = "kafka", feature = "parquet", all(feature = "ipfix", feature = "syslog")))]
mod agent;
#[cfg(feature = "amqp")]
mod amqp;
mod away;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "parquet")]
mod parquet;
mod places;
#[cfg(feature = "amqp")]
mod rabbitmq;
#[cfg(all(feature = "ipfix", feature = "syslog"))]
mod real;
#[cfg(all(feature = "elasticsearch", feature = "ipfix", feature = "otlp", feature = "syslog"))]
mod wire;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures::FutureExt;
use podnet_flow::{Gap, record::GapAt};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

fn id(sequence: u64) -> podnet_flow::RecordId {
    podnet_flow::RecordId { node: "node1".into(), epoch: 1, sequence, missing: false }
}

/// A flow of TCP that has ended, between two pods, with the sequence's number of bytes.
pub(super) fn flow(sequence: u64) -> Numbered {
    let pod = |name: &str, ip: &str, port: u16| {
        json!({"ip": ip, "port": port,
            "pod": {"namespace": "shop", "name": name, "uid": name, "node": "node1", "labels": {"app": name}}})
    };
    let way = |bytes: u64| json!({"packets": 4, "bytes": bytes, "flags": 0x1b});
    let item = serde_json::from_value(json!({
        "type": "flow", "id": uuid::Uuid::from_u128(u128::from(sequence) << 64).to_string(), "report": "end",
        "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:01.5Z", "protocol": "TCP",
        "source": pod("client", "10.0.0.1", 40000), "destination": pod("web", "10.0.0.2", 80), "class": "pod-pod-same-node",
        "verdict": "forwarded", "node": "node1", "reporter": "both", "sent": way(sequence), "received": way(500),
    }));
    Numbered { record: id(sequence), item: item.unwrap() }
}

pub(super) fn gap(sequence: u64, packets: u64) -> Numbered {
    let (start, end) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:00:01Z".parse().unwrap());
    let (node, at) = ("node1".into(), GapAt::Kernel);
    Numbered {
        record: id(sequence),
        item: Item::Gap(Gap { start, end, node, at, device: None, pod: None, packets, bytes: 0, flows: 1 }),
    }
}

pub(super) fn sequences(items: &[Numbered]) -> Vec<u64> {
    items.iter().map(|item| item.record.sequence).collect()
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
