//! One order of what several agents tell, each flow once.

#[cfg(test)]
mod hour;
mod lately;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podnet_flow::{Item, Record, Report, ends::Destinations};

use self::lately::Lately;
use super::agents::Heard;
use crate::report::Failure;

/// So long an item is held for others that were earlier, and for what the other end's node tells of it: agents read what was counted every second.
const HOLD: SignedDuration = SignedDuration::from_secs(2);
/// So long it is remembered what a destination's node told of a flow that is over: longer than the end of one of UDP is waited for (60 s).
const REMEMBERED: SignedDuration = SignedDuration::from_mins(3);
/// An agent that begins anew tells what it had not told; one that is silent for longer is taken for lost.
const SILENT: SignedDuration = SignedDuration::from_secs(15);
/// So many are held at most.
const HELD: usize = 100_000;

/// What is known of the agents, and what of what they tell is left out.
pub(super) struct Merge {
    agents: BTreeSet<String>,
    /// Who does not answer, and since when.
    lost: BTreeMap<String, Timestamp>,
    /// Those of them whose flows the nodes of the other ends tell.
    gone: BTreeSet<String>,
    /// Only that flows ended.
    ends_only: bool,
    /// What is left out because the source's node tells it as well.
    destinations: Destinations,
    lately: Lately,
}

impl Merge {
    pub(super) fn new(agents: BTreeSet<String>, ends_only: bool) -> Self {
        Self {
            agents,
            lost: BTreeMap::new(),
            gone: BTreeSet::new(),
            ends_only,
            destinations: Destinations::new(HELD),
            lately: Lately::default(),
        }
    }

    /// An item that is wanted. Who does not answer is told at once.
    pub(super) fn hear(&mut self, heard: Heard, now: Timestamp) -> Option<Item> {
        match heard {
            Heard::Lost { agent, why } => {
                eprintln!("podnet: the flows of {agent} are missing: {why}");
                self.lost.entry(agent).or_insert(now);
                None
            }
            Heard::Back { agent, resumes } => {
                let behind = if resumes { "" } else { "; what ended meanwhile is missing" };
                eprintln!("podnet: {agent} answers again{behind}");
                self.lost.remove(&agent);
                self.gone.remove(&agent);
                None
            }
            Heard::Anew(agent) => {
                eprintln!("podnet: {agent} began to record anew; what ended while it did not record is missing");
                None
            }
            Heard::Item(Item::Flow(record)) => self.flow(record).map(Item::Flow),
            Heard::Item(gap) => Some(gap),
        }
    }

    fn flow(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        if self.ends_only && record.report != Report::End {
            return None;
        }
        if self.is_told_by_other(&record) {
            self.destinations.keep(&record);
            self.lately.leave_out(&record);
            return None;
        }
        self.lately.tell(&record).then_some(record)
    }

    /// What nodes were to tell that are silent for too long, as the nodes of the other ends told it.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Vec<Item> {
        let is_gone = |(_, since): &(&String, &Timestamp)| now.duration_since(**since) >= SILENT;
        let gone: Vec<String> = self.lost.iter().filter(is_gone).map(|(agent, _)| agent.clone()).collect();
        let anew = gone.into_iter().filter(|agent| self.gone.insert(agent.clone())).collect::<Vec<_>>();
        anew.iter().flat_map(|agent| self.lately.take(agent)).map(Item::Flow).collect()
    }

    /// The source's node tells it as well. Where its name is left out, that holds if all nodes answer.
    fn is_told_by_other(&self, record: &Record) -> bool {
        let answers = |name: &str| self.agents.contains(name) && !self.gone.contains(name);
        record.is_secondary()
            && match &record.source.pod {
                Some(pod) => answers(pod.node.as_str()),
                None => self.agents.len() > 1 && self.gone.is_empty(),
            }
    }
}

impl Merge {
    /// Items with what the nodes of their destinations told of them.
    pub(super) fn joined(&self, items: Vec<Item>) -> Vec<Item> {
        let join = |item| match item {
            Item::Flow(record) => Item::Flow(self.destinations.joined(&record)),
            item => item,
        };
        items.into_iter().map(join).collect()
    }

    /// Forgets what was told of flows that are over for long.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.destinations.forget(now.checked_sub(REMEMBERED).unwrap_or(now));
    }

    /// All that was heard, in the order of time: of each flow its last record, and of these the last `number`.
    pub(super) fn whole(&mut self, mut held: Held, number: Option<usize>) -> Vec<Item> {
        // Nobody comes back any more.
        held.add(self.overdue(Timestamp::MAX), Timestamp::MAX);
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
        self.joined(chosen.split_off(from))
    }

    /// That nobody answered.
    pub(super) fn failure(&self) -> Option<Failure> {
        let is_nobody = !self.agents.is_empty() && self.agents.iter().all(|agent| self.lost.contains_key(agent));
        is_nobody.then(|| {
            Failure::new("no agent lets its flows be read")
                .remedy("the past is kept by `podnet up --flows`, on nodes of yours by `podnet agent --flow-retention 1h …`; with --follow it is not needed")
        })
    }
}

/// Items that wait for others that were earlier, with the time at which they were heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Vec<(Timestamp, Item)>);

impl Held {
    pub(super) fn add(&mut self, items: impl IntoIterator<Item = Item>, now: Timestamp) {
        self.0.extend(items.into_iter().map(|item| (now, item)));
    }

    /// Those that nothing earlier, and nothing of their other end, is awaited for any more, and those that are too many.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Item> {
        // Of what has one time, the order in which it was heard stays.
        self.0.sort_by_key(|(_, item)| item.at());
        let until = now.checked_sub(HOLD).unwrap_or(now);
        let mut too_many = self.0.len().saturating_sub(HELD);
        let is_due = |(heard, item): &mut (Timestamp, Item)| {
            let is_one = too_many > 0;
            too_many = too_many.saturating_sub(1);
            is_one || (*heard).max(item.at()) <= until
        };
        self.0.extract_if(.., is_due).map(|(_, item)| item).collect()
    }

    pub(super) fn all(mut self) -> Vec<Item> {
        self.0.sort_by_key(|(_, item)| item.at());
        self.0.into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use podnet_flow::Reporter;
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
        let mut merge = merge(&["node1"], false);
        let mut held = Held::default();
        let records = [(1, 9, "start"), (2, 3, "end"), (1, 9, "end"), (3, 1, "end")];
        for (id, second, report) in records {
            held.add(Some(flow(id, second, report, "source", "pod-pod-other-node")), Timestamp::UNIX_EPOCH);
        }
        let expected = [(3, 1), (2, 3), (1, 9)].map(|(id, at)| flow(id, at, "end", "source", "pod-pod-other-node"));
        assert_eq!(merge.whole(held.clone(), None), expected);
        assert_eq!(merge.whole(held, Some(2)), expected[1..]);
    }

    #[test]
    fn what_the_sources_node_tells_is_left_out_of_what_the_others_does_unless_that_node_is_silent() {
        let mut merge = merge(&["node1", "node2"], true);
        let secondary = || flow(1, 1, "end", "destination", "pod-pod-other-node");
        let now = |second: u8| format!("2026-01-01T00:01:{second:02}Z").parse().unwrap();
        let mut hear = |item| merge.hear(Heard::Item(item), now(0)).is_some();
        assert!(!hear(secondary()) && !hear(flow(1, 1, "start", "source", "pod-pod-other-node")));
        assert!(hear(flow(1, 1, "end", "source", "pod-pod-other-node")));
        assert!(hear(flow(1, 1, "end", "destination", "world-pod")));
        assert!(!hear(flow(2, 40, "end", "destination", "pod-pod-other-node")));
        let lost = |agent: &str| Heard::Lost { agent: agent.to_owned(), why: String::new() };
        merge.hear(lost("node1"), now(0));
        assert!(merge.overdue(now(14)).is_empty(), "it may come back");
        // What it had not told by then is told for it, and what it had is not told again.
        assert_eq!(merge.overdue(now(15)), [flow(2, 40, "end", "destination", "pod-pod-other-node")]);
        assert!(merge.overdue(now(16)).is_empty());
        let mut hear = |item| merge.hear(Heard::Item(item), now(16)).is_some();
        assert!(!hear(secondary()));
        assert!(hear(flow(3, 50, "end", "destination", "pod-pod-other-node")));
        merge.hear(Heard::Back { agent: "node1".into(), resumes: true }, now(17));
        let mut hear = |item| merge.hear(Heard::Item(item), now(18)).is_some();
        assert!(!hear(flow(4, 40, "end", "source", "pod-pod-other-node")), "it was told for it");
        assert!(hear(flow(5, 58, "end", "source", "pod-pod-other-node")) && merge.failure().is_none());
        ["node1", "node2"].into_iter().for_each(|agent| drop(merge.hear(lost(agent), now(20))));
        assert!(merge.failure().is_some());
    }

    #[test]
    fn an_item_waits_for_those_that_were_earlier() {
        let mut held = Held::default();
        let at = |second| flow(second, second, "end", "source", "pod-pod-other-node");
        let now = |second: u8| format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
        [at(5), at(3)].into_iter().for_each(|item| held.add(Some(item), now(3)));
        assert_eq!(held.due(now(5)), [at(3)]);
        held.add(Some(at(4)), now(6));
        assert_eq!(held.due(now(7)), [at(5)], "what was heard late waits for what is told of its other end");
        assert_eq!(held.due(now(8)), [at(4)]);
    }

    #[test]
    fn what_the_destinations_node_tells_becomes_part_of_what_the_sources_does() {
        let mut merge = merge(&["node1", "node2"], true);
        let mut held = Held::default();
        for (id, reporter) in [(1, "source"), (2, "destination")] {
            let heard = Heard::Item(flow(id, 1, "end", reporter, "pod-pod-other-node"));
            held.add(merge.hear(heard, Timestamp::UNIX_EPOCH), Timestamp::UNIX_EPOCH);
        }
        let told = merge.joined(held.all());
        let [Item::Flow(record)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((record.reporter, record.destination_counts.is_some()), (Reporter::Both, true));
        merge.forget("2026-01-01T00:05:00Z".parse().unwrap());
        let Item::Flow(later) = &merge.joined(vec![flow(1, 1, "end", "source", "pod-pod-other-node")])[0] else {
            panic!()
        };
        assert!(later.destination_counts.is_none());
    }
}
