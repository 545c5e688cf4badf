//! What metrics tell of collectors.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Debug)]
pub(super) struct Counts {
    collector: String,
    sent: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    spilled: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
    bytes: AtomicU64,
}

/// A name without what all have in common, what it is, its kind, and where it is counted.
type Metric = (&'static str, &'static str, &'static str, fn(&Counts) -> &AtomicU64);

const METRICS: [Metric; 7] = [
    ("sent_records_total", "Records that came to a collector", "counter", |counts| &counts.sent),
    ("failed_batches_total", "Batches that did not come and are sent again", "counter", |counts| &counts.failed),
    ("refused_records_total", "Records that a collector does not take", "counter", |counts| &counts.refused),
    ("spilled_records_total", "Records that had to wait on disk", "counter", |counts| &counts.spilled),
    ("dropped_records_total", "Records that there was no room for", "counter", |counts| &counts.dropped),
    ("waiting_records", "Records that are not sent yet", "gauge", |counts| &counts.waiting),
    ("spill_bytes", "Bytes on disk of records that are not sent yet", "gauge", |counts| &counts.bytes),
];

impl Counts {
    pub(super) fn new(collector: String) -> Self {
        let zero = AtomicU64::default;
        Self {
            collector,
            sent: zero(),
            failed: zero(),
            refused: zero(),
            spilled: zero(),
            dropped: zero(),
            waiting: zero(),
            bytes: zero(),
        }
    }

    pub(super) fn sent(&self, records: u64) {
        self.sent.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, records: u64) {
        self.refused.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn spilled(&self, records: u64) {
        self.spilled.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self, records: u64, bytes: u64) {
        self.waiting.store(records, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Counts {
    pub(super) fn spilled_so_far(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    pub(super) fn dropped_so_far(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn sent_so_far(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn refused_so_far(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Of all collectors, as Prometheus reads it.
pub(super) fn metrics(all: &[Arc<Counts>]) -> String {
    let mut text = String::new();
    for (name, what, kind, of) in METRICS.iter().filter(|_| !all.is_empty()) {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "# HELP podnet_flow_collector_{name} {what}.\n# TYPE podnet_flow_collector_{name} {kind}");
        for counts in all {
            let (collector, count) =
                (counts.collector.replace(['\\', '"', '\n'], "_"), of(counts).load(Ordering::Relaxed));
            let _ = writeln!(text, "podnet_flow_collector_{name}{{collector=\"{collector}\"}} {count}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collector_has_its_own_counts() {
        let counts = ["syslog+tcp://a:1", "b\"c"].map(|name| Arc::new(Counts::new(name.to_owned())));
        counts[0].sent(3);
        counts[1].waiting(7, 700);
        let text = metrics(&counts);
        for line in [
            "podnet_flow_collector_sent_records_total{collector=\"syslog+tcp://a:1\"} 3",
            "podnet_flow_collector_sent_records_total{collector=\"b_c\"} 0",
            "podnet_flow_collector_spill_bytes{collector=\"b_c\"} 700",
            "# TYPE podnet_flow_collector_waiting_records gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(metrics(&[]), "");
    }
}
