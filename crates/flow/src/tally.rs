//! What flows came to, by who asked whom: sums for Prometheus, with a bounded number of pairs.
//!
//! A flow counts where it is told first: what the source's node tells as well is left out ([`Record::is_secondary`]), so that the sums of
//! all nodes are those of the cluster.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use crate::{
    entry::Way,
    record::{End, FlowId, Item, Record, Report, Verdict},
};

/// How all pairs beyond the limit are called together.
const OTHERS: &str = "other";

/// Sums by pairs of workloads.
#[derive(Debug)]
pub struct Tally {
    limit: usize,
    pairs: BTreeMap<Pair, Sums>,
    /// What of flows under way is in the sums.
    counted: HashMap<FlowId, [(u64, u64); 2]>,
}

/// Who asked whom: `namespace/workload`, `node` or `world`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    source: String,
    destination: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Packets and bytes of who asked, and of who answered.
    ways: [(u64, u64); 2],
    flows: u64,
    failures: u64,
    handshakes: u64,
    handshake_micros: u64,
}

impl Tally {
    /// For that many pairs; what is beyond is summed up as one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, pairs: BTreeMap::new(), counted: HashMap::new() }
    }

    /// Takes in what was told. Records of a flow say what passed since it began, so only what is new of it counts.
    pub fn add(&mut self, items: &[Item]) {
        for item in items {
            if let Item::Flow(record) = item
                && !record.is_secondary()
            {
                self.record(record);
            }
        }
    }

    /// Nothing is told of flows under way any more.
    pub fn forget_flows(&mut self) {
        self.counted.clear();
    }

    fn record(&mut self, record: &Record) {
        let passed = [&record.sent, &record.received].map(|way: &Way| (way.packets, way.bytes));
        let before = self.counted.insert(record.id, passed);
        if record.report == Report::End {
            self.counted.remove(&record.id);
        }
        let pair = Pair { source: workload(&record.source), destination: workload(&record.destination) };
        let sums = self.sums(pair);
        if before.is_none() {
            sums.flows += 1;
            if let Some(micros) = record.handshake_micros {
                sums.handshakes += 1;
                sums.handshake_micros += u64::from(micros);
            }
        }
        for ((sum, now), before) in sums.ways.iter_mut().zip(passed).zip(before.unwrap_or_default()) {
            sum.0 += now.0.saturating_sub(before.0);
            sum.1 += now.1.saturating_sub(before.1);
        }
        if record.report == Report::End && record.verdict != Verdict::Forwarded {
            sums.failures += 1;
        }
    }

    fn sums(&mut self, pair: Pair) -> &mut Sums {
        let has_room = self.pairs.len() < self.limit || self.pairs.contains_key(&pair);
        let others = || Pair { source: OTHERS.to_owned(), destination: OTHERS.to_owned() };
        self.pairs.entry(if has_room { pair } else { others() }).or_default()
    }

    /// In the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let ways = |number: fn((u64, u64)) -> u64| {
            move |sums: &Sums| {
                let [sent, received] = sums.ways.map(number);
                vec![
                    (r#",direction="sent""#, Number::Whole(sent)),
                    (r#",direction="received""#, Number::Whole(received)),
                ]
            }
        };
        self.family(
            &mut text,
            ("podnet_flow_bytes_total", "Bytes of flows, from the IP header on.", "counter"),
            "",
            ways(|way| way.1),
        );
        self.family(&mut text, ("podnet_flow_packets_total", "Packets of flows.", "counter"), "", ways(|way| way.0));
        let one = |number: fn(&Sums) -> u64| move |sums: &Sums| vec![("", Number::Whole(number(sums)))];
        self.family(
            &mut text,
            ("podnet_flow_connections_total", "Flows that began.", "counter"),
            "",
            one(|sums| sums.flows),
        );
        let help = "Flows that were refused, dropped or never answered.";
        self.family(&mut text, ("podnet_flow_failures_total", help, "counter"), "", one(|sums| sums.failures));
        let help = "How long handshakes of TCP took.";
        let name = "podnet_flow_handshake_seconds";
        self.family(&mut text, (name, help, "summary"), "_sum", |sums| {
            vec![("", Number::Micros(sums.handshake_micros))]
        });
        self.samples(&mut text, &format!("{name}_count"), one(|sums| sums.handshakes));
        text
    }

    fn family(
        &self,
        text: &mut String,
        (name, help, kind): (&str, &str, &str),
        suffix: &str,
        values: impl Fn(&Sums) -> Vec<(&'static str, Number)>,
    ) {
        if self.pairs.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.samples(text, &format!("{name}{suffix}"), values);
    }

    fn samples(&self, text: &mut String, name: &str, values: impl Fn(&Sums) -> Vec<(&'static str, Number)>) {
        for (Pair { source, destination }, sums) in &self.pairs {
            for (label, number) in values(sums) {
                let _ = write!(text, r#"{name}{{source="{source}",destination="{destination}"{label}}} "#);
                let _ = match number {
                    Number::Whole(number) => writeln!(text, "{number}"),
                    Number::Micros(micros) => writeln!(text, "{}.{:06}", micros / 1_000_000, micros % 1_000_000),
                };
            }
        }
    }
}

enum Number {
    Whole(u64),
    Micros(u64),
}

/// Names of Kubernetes need no escaping.
fn workload(end: &End) -> String {
    match (&end.pod, &end.node) {
        (Some(pod), _) => {
            let name = pod.owner.as_ref().map_or(&pod.name, |owner| &owner.name);
            format!("{}/{name}", pod.namespace)
        }
        (None, Some(_)) => "node".to_owned(),
        (None, None) => "world".to_owned(),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(tally.counted.is_empty(), "what ended is not remembered");
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
}
