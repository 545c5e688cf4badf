//! One order of what several agents tell, each flow once.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podnet_flow::{Item, Record, Report};

use super::agents::Heard;
use crate::report::Failure;

/// So long an item is held for others that were earlier: agents read what was counted every second.
const HOLD: SignedDuration = SignedDuration::from_secs(2);
/// So many are held at most.
const HELD: usize = 100_000;

/// What is known of the agents, and what of what they tell is left out.
pub(super) struct Merge {
    agents: BTreeSet<String>,
    lost: BTreeSet<String>,
    /// Only that flows ended.
    ends_only: bool,
}

impl Merge {
    pub(super) fn new(agents: BTreeSet<String>, ends_only: bool) -> Self {
        Self { agents, lost: BTreeSet::new(), ends_only }
    }

    /// An item that is wanted. Who does not answer is told at once.
    pub(super) fn hear(&mut self, heard: Heard) -> Option<Item> {
        match heard {
            Heard::Lost { agent, why } => {
                eprintln!("podnet: the flows of {agent} are missing: {why}");
                self.lost.insert(agent);
                None
            }
            Heard::Back(agent) => {
                eprintln!("podnet: {agent} answers again; what ended meanwhile is missing");
                self.lost.remove(&agent);
                None
            }
            Heard::Item(Item::Flow(record)) if self.ends_only && record.report != Report::End => None,
            Heard::Item(Item::Flow(record)) if self.is_told_by_other(&record) => None,
            Heard::Item(item) => Some(item),
        }
    }

    /// The source's node tells it as well. Where its name is left out, that holds if all nodes answer.
    fn is_told_by_other(&self, record: &Record) -> bool {
        let answers = |name: &str| self.agents.contains(name) && !self.lost.contains(name);
        record.is_secondary()
            && match &record.source.pod {
                Some(pod) => answers(pod.node.as_str()),
                None => self.agents.len() > 1 && self.lost.is_empty(),
            }
    }
}

impl Merge {
    /// All that was heard, in the order of time: of each flow its last record, and of these the last `number`.
    pub(super) fn whole(&self, held: Held, number: Option<usize>) -> Vec<Item> {
        let all = held.all();
        let mut last = HashMap::new();
        for (at, item) in all.iter().enumerate() {
            if let Item::Flow(record) = item {
                last.insert(record.id, at);
            }
        }
        let is_last = |at: usize, item: &Item| match item {
            Item::Flow(record) => last.get(&record.id) == Some(&at),
            Item::Gap(_) => true,
        };
        let mut chosen: Vec<Item> =
            all.iter().enumerate().filter(|(at, item)| is_last(*at, item)).map(|(_, item)| item.clone()).collect();
        let from = number.map_or(0, |number| chosen.len().saturating_sub(number));
        chosen.split_off(from)
    }

    /// That nobody answered.
    pub(super) fn failure(&self) -> Option<Failure> {
        let is_nobody = !self.agents.is_empty() && self.agents.iter().all(|agent| self.lost.contains(agent));
        is_nobody.then(|| {
            Failure::new("no agent lets its flows be read")
                .remedy("the past is kept by `podnet up --flows`, on nodes of yours by `podnet agent --flow-retention 1h …`; with --follow it is not needed")
        })
    }
}

/// Items that wait for others that were earlier.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<Item>);

impl Extend<Item> for Held {
    fn extend<T: IntoIterator<Item = Item>>(&mut self, items: T) {
        self.0.extend(items);
    }
}

impl Held {
    pub(super) fn add(&mut self, item: Item) {
        self.0.push(item);
    }

    /// Those that nothing earlier is awaited for any more, and those that are too many.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Item> {
        // Of what has one time, the order in which it was heard stays.
        self.0.sort_by_key(Item::at);
        let until = now.checked_sub(HOLD).unwrap_or(now);
        let due = self.0.partition_point(|item| item.at() <= until).max(self.0.len().saturating_sub(HELD));
        self.0.drain(..due).collect()
    }

    pub(super) fn all(mut self) -> Vec<Item> {
        self.0.sort_by_key(Item::at);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow(id: u8, second: u8, report: &str, reporter: &str, class: &str) -> Item {
        let time = format!("2026-01-01T00:00:{second:02}Z");
        let pod = |node: &str| {
            json!({"ip": "10.0.0.1", "port": 1,
                "pod": {"namespace": "a", "name": "b", "uid": "c", "node": node, "labels": {}}})
        };
        let way = json!({"packets": 1, "bytes": 1});
        serde_json::from_value(json!({
            "type": "flow", "id": format!("00000000-0000-0000-0000-0000000000{id:02}"), "report": report, "start": time,
            "end": time, "protocol": "TCP", "source": pod("node1"), "destination": pod("node2"), "class": class,
            "verdict": "forwarded", "node": "node1", "reporter": reporter, "sent": way, "received": way,
        }))
        .unwrap()
    }

    fn merge(agents: &[&str], ends_only: bool) -> Merge {
        Merge::new(agents.iter().map(|agent| (*agent).to_owned()).collect(), ends_only)
    }

    #[test]
    fn each_flow_is_there_once_in_the_order_of_time() {
        let merge = merge(&["node1"], false);
        let mut held = Held::default();
        let records = [(1, 9, "start"), (2, 3, "end"), (1, 9, "end"), (3, 1, "end")];
        held.extend(records.map(|(id, second, report)| flow(id, second, report, "source", "pod-pod-other-node")));
        let expected = [(3, 1), (2, 3), (1, 9)].map(|(id, at)| flow(id, at, "end", "source", "pod-pod-other-node"));
        assert_eq!(merge.whole(Held(held.0.clone()), None), expected);
        assert_eq!(merge.whole(held, Some(2)), expected[1..]);
    }

    #[test]
    fn what_the_sources_node_tells_is_left_out_of_what_the_others_does_unless_that_node_is_silent() {
        let mut merge = merge(&["node1", "node2"], true);
        let secondary = || flow(1, 1, "end", "destination", "pod-pod-other-node");
        let mut hear = |item| merge.hear(Heard::Item(item)).is_some();
        assert!(!hear(secondary()) && !hear(flow(1, 1, "start", "source", "pod-pod-other-node")));
        assert!(hear(flow(1, 1, "end", "source", "pod-pod-other-node")));
        assert!(hear(flow(1, 1, "end", "destination", "world-pod")));
        merge.hear(Heard::Lost { agent: "node1".into(), why: String::new() });
        assert!(merge.hear(Heard::Item(secondary())).is_some() && merge.failure().is_none());
        merge.hear(Heard::Lost { agent: "node2".into(), why: String::new() });
        assert!(merge.failure().is_some());
    }

    #[test]
    fn an_item_waits_for_those_that_were_earlier() {
        let mut held = Held::default();
        let at = |second| flow(second, second, "end", "source", "pod-pod-other-node");
        held.extend([at(5), at(3)]);
        let now = |second: u8| format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
        assert_eq!(held.due(now(5)), [at(3)]);
        held.add(at(4));
        assert_eq!(held.due(now(7)), [at(4), at(5)]);
    }
}
