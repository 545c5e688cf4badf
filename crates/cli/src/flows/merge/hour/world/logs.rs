//! What logs and collectors have of the same world, and what metrics sum up: agents ask each other.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Gap, Item, Joint, Names, Numbered, Record, RecordId, Report, Tally,
    joint::{
        question::{Answer, Inquiry, Question, Unanswered},
        translated,
    },
    parts::{MOST, Parts},
};
use podnet_model::NodeName;

use super::Stack;
use crate::flows::merge::hour::{LOST, NODES};

/// Nodes that are lost are known as such after that time.
const NOTICED: i64 = 50_000;

struct Node {
    /// None while there is no agent.
    joint: Option<Joint>,
    parts: Parts,
    tally: Tally,
    sequence: u64,
}

/// Of all nodes together.
pub(in crate::flows::merge::hour) struct Logs {
    nodes: Vec<Node>,
    /// Ends of flows.
    pub(in crate::flows::merge::hour) ends: Vec<Arc<Record>>,
    /// Ends that waited for another node's agent as their own was killed, or lost.
    pub(in crate::flows::merge::hour) gone: Vec<Arc<Record>>,
    pub(in crate::flows::merge::hour) gaps: Vec<Gap>,
}

/// What is told of items, and what of them goes into sums.
type Told = (Vec<Item>, Vec<Item>);

fn name(node: usize) -> NodeName {
    format!("node{node}").as_str().into()
}

fn end(item: Item) -> Option<Arc<Record>> {
    if let Item::Flow(record) = item { Some(record).filter(|record| record.report == Report::End) } else { None }
}

impl Logs {
    pub(super) fn new(now: Timestamp) -> Self {
        let node = |node| Node {
            joint: Some(Joint::new(name(node), now)),
            parts: Parts::new(MOST),
            tally: Tally::new(1000),
            sequence: 0,
        };
        Self { nodes: (0..NODES).map(node).collect(), ends: Vec::new(), gone: Vec::new(), gaps: Vec::new() }
    }

    /// An agent begins anew.
    pub(super) fn begin(&mut self, node: usize, now: Timestamp) {
        self.nodes[node].joint = Some(Joint::new(name(node), now));
    }

    /// And ends, in order or not: what it holds is told, or gone.
    pub(super) fn end(&mut self, node: usize, now: (Timestamp, i64), is_killed: bool) {
        let told = self.told(node, &[], now, true);
        if is_killed {
            self.gone.extend(told.0.into_iter().filter_map(end));
        } else {
            self.take(node, told);
        }
        (self.nodes[node].joint, self.nodes[node].parts) = (None, Parts::new(MOST));
    }

    /// An agent tells, at a time of the clock and since the beginning.
    pub(super) fn tell(&mut self, node: usize, items: &[Item], now: (Timestamp, i64)) {
        let told = self.told(node, items, now, false);
        self.take(node, told);
    }

    fn take(&mut self, node: usize, (told, counted): Told) {
        self.nodes[node].tally.add(&counted);
        for item in told {
            match item {
                Item::Gap(gap) => self.gaps.push(gap),
                item => self.ends.extend(end(item)),
            }
        }
    }

    fn told(&mut self, node: usize, items: &[Item], (now, since): (Timestamp, i64), is_last: bool) -> Told {
        let Node { joint, parts, sequence, .. } = &mut self.nodes[node];
        let Some(joint) = joint else { return Told::default() };
        let is_lost = since >= LOST.1 + NOTICED;
        let tells = |other: &NodeName| !(is_lost && *other == name(LOST.0));
        joint.read(now);
        let items = joint.heard(items.to_vec(), (now, is_last));
        let numbered = |item| {
            *sequence += 1;
            Numbered { record: RecordId { node: name(node), epoch: 0, sequence: *sequence, missing: false }, item }
        };
        let told = joint.told(items.into_iter().map(numbered).collect(), (now, is_last), tells);
        let orphans = parts.orphans(tells);
        let whole = orphans.into_iter().chain(parts.told(told.items, (now, is_last), tells));
        (whole.map(|numbered| numbered.item).collect(), told.counted)
    }

    /// An agent asks the others what it wants to know, and these go on by that.
    pub(super) fn ask(&mut self, node: usize, names: &Names, stacks: &mut [Stack], now: (Timestamp, i64)) {
        let questions = self.nodes[node].joint.as_mut().map(|joint| joint.questions(now.0)).unwrap_or_default();
        for (to, asked) in questions {
            let (numbers, questions): (Vec<u64>, Vec<Question>) = asked.into_iter().unzip();
            let other: usize = to.as_str().trim_start_matches("node").parse().unwrap();
            let inquiry = Inquiry::new(name(node), now.0, questions);
            let answers = self.answers(other, &inquiry, &mut stacks[other], now);
            if let Some(joint) = &mut self.nodes[node].joint {
                joint.answered(&to, &numbers, answers.as_deref().map_err(|why| *why), (names, now.0));
            }
        }
    }

    fn answers(
        &mut self,
        node: usize,
        inquiry: &Inquiry,
        stack: &mut Stack,
        now: (Timestamp, i64),
    ) -> Result<Vec<Answer>, Unanswered> {
        let origins: Vec<_> =
            inquiry.questions.iter().map(|question| stack.remembered(&translated(question)?, now.1)).collect();
        let joint = self.nodes[node].joint.as_mut().ok_or(Unanswered::Away)?;
        let answers = joint.answer(inquiry, &origins, |_| true, now.0);
        self.tell(node, &[], now);
        Ok(answers)
    }

    /// What all nodes' metrics sum up: packets of who asked, of who answered, and flows.
    pub(in crate::flows::merge::hour) fn sums(&self) -> [u64; 3] {
        let texts: Vec<String> = self.nodes.iter().map(|node| node.tally.metrics()).collect();
        let sum = |name: &str, label: &str| {
            let lines = texts.iter().flat_map(|text| text.lines());
            let lines = lines.filter(|line| line.starts_with(name) && line.contains(label));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        [
            sum("podnet_flow_packets_total{", r#"direction="sent""#),
            sum("podnet_flow_packets_total{", r#"direction="received""#),
            sum("podnet_flow_connections_total{", ""),
        ]
    }
}
