//! What flows came to, by who asked whom: sums for Prometheus, with a bounded number of pairs.
//!
//! A flow counts where it is told first: what the source's node tells as well is left out ([`Record::is_secondary`], [`crate::joint`]), so that the sums of
//! all nodes are those of the cluster.

mod handshakes;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use handshakes::Handshakes;
use jiff::Timestamp;

use crate::{
    entry::Way,
    record::{Cause, End, FlowId, Item, Record, Report, Verdict},
};

/// How all pairs beyond the limit are called together.
const OTHERS: &str = "other";

/// Sums by pairs of workloads.
#[derive(Debug)]
pub struct Tally {
    limit: usize,
    pairs: BTreeMap<Pair, Sums>,
    /// What of flows under way is in the sums.
    counted: HashMap<FlowId, Counted>,
    /// What began before was told by an earlier agent.
    since: Timestamp,
}

/// What of a flow is in the sums, or was in those of an earlier agent.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    ways: [(u64, u64); 2],
    has_handshake: bool,
}

/// Who asked whom: `namespace/workload`, `node` or `world`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    source: String,
    destination: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Packets and bytes of who asked, and of who answered.
    ways: [(u64, u64); 2],
    flows: u64,
    failures: u64,
    /// Of what dropped or refused packets at the end of flows: as many as there are names.
    causes: BTreeMap<Cause, u64>,
    handshakes: Handshakes,
}

impl Tally {
    /// For that many pairs; what is beyond is summed up as one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, pairs: BTreeMap::new(), counted: HashMap::new(), since: Timestamp::MIN }
    }

    /// Another recording begins. What flows came to that began before `since` is in the sums of an earlier agent, as far as it is in the first record
    /// of each that is told now; nothing is where that is [`Timestamp::MIN`].
    pub fn begin(&mut self, since: Timestamp) {
        self.forget_flows();
        self.since = since;
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
        let had = self.counted.get(&record.id).copied();
        let has_handshake = record.handshake_micros.is_some();
        // An earlier agent told it up to about here: whoever adds up both agents' sums would have all of it twice.
        let base = if record.start < self.since { Counted { ways: passed, has_handshake } } else { Counted::default() };
        let before = had.unwrap_or(base);
        if record.report == Report::End {
            self.counted.remove(&record.id);
        } else {
            let has_handshake = before.has_handshake || has_handshake;
            self.counted.insert(record.id, Counted { ways: passed, has_handshake });
        }
        let is_new = had.is_none() && record.start >= self.since;
        let pair = Pair { source: workload(&record.source), destination: workload(&record.destination) };
        let sums = self.sums(pair);
        sums.flows += u64::from(is_new);
        // The first record may tell of a handshake that is under way.
        if let Some(micros) = record.handshake_micros
            && !before.has_handshake
        {
            sums.handshakes.add(micros);
        }
        for ((sum, now), before) in sums.ways.iter_mut().zip(passed).zip(before.ways) {
            sum.0 += now.0.saturating_sub(before.0);
            sum.1 += now.1.saturating_sub(before.1);
        }
        if record.report == Report::End {
            sums.failures += u64::from(record.verdict != Verdict::Forwarded);
            if let Some(cause) = record.cause {
                *sums.causes.entry(cause).or_default() += 1;
            }
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
                let label = |direction: &str| format!(r#",direction="{direction}""#);
                vec![(label("sent"), Number::Whole(sent)), (label("received"), Number::Whole(received))]
            }
        };
        self.family(
            &mut text,
            ("podnet_flow_bytes_total", "Bytes of flows, from the IP header on.", "counter"),
            "",
            ways(|way| way.1),
        );
        self.family(&mut text, ("podnet_flow_packets_total", "Packets of flows.", "counter"), "", ways(|way| way.0));
        let one = |number: fn(&Sums) -> u64| move |sums: &Sums| vec![(String::new(), Number::Whole(number(sums)))];
        self.family(
            &mut text,
            ("podnet_flow_connections_total", "Flows that began.", "counter"),
            "",
            one(|sums| sums.flows),
        );
        let help = "Flows that were refused, dropped or never answered.";
        self.family(&mut text, ("podnet_flow_failures_total", help, "counter"), "", one(|sums| sums.failures));
        if self.pairs.values().any(|sums| !sums.causes.is_empty()) {
            let help = "Flows at whose end packets were dropped or refused, by what did that.";
            self.family(&mut text, ("podnet_flow_causes_total", help, "counter"), "", |sums| {
                let label = |cause: &Cause| format!(r#",cause="{cause}""#);
                sums.causes.iter().map(|(cause, count)| (label(cause), Number::Whole(*count))).collect()
            });
        }
        let name = "podnet_flow_handshake_seconds";
        self.family(&mut text, (name, "How long handshakes of TCP took.", "histogram"), "_bucket", |sums| {
            let label = |least: &str| format!(r#",le="{least}""#);
            sums.handshakes.buckets().map(|(least, count)| (label(&least), Number::Whole(count))).collect()
        });
        self.samples(&mut text, &format!("{name}_sum"), |sums| {
            vec![(String::new(), Number::Micros(sums.handshakes.micros()))]
        });
        self.samples(&mut text, &format!("{name}_count"), one(|sums| sums.handshakes.count()));
        text
    }

    fn family(
        &self,
        text: &mut String,
        (name, help, kind): (&str, &str, &str),
        suffix: &str,
        values: impl Fn(&Sums) -> Vec<(String, Number)>,
    ) {
        if self.pairs.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.samples(text, &format!("{name}{suffix}"), values);
    }

    fn samples(&self, text: &mut String, name: &str, values: impl Fn(&Sums) -> Vec<(String, Number)>) {
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
mod tests;
