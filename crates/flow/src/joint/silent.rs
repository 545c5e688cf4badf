//! Flows from this node's pods to those of others that nothing came back of, or a refusal that nobody explains: these nodes are asked whether anything of
//! them came there, or was beyond a limit, before what became of them is told.

use std::{collections::BTreeMap, mem::take, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;

use super::{
    others::AGAIN,
    own::expected,
    question::{Answer, Question, Sought},
    round::Round,
};
use crate::{
    entry::Way,
    record::{AtDestination, Cause, Item, Record, Report, Reporter, Verdict},
};

/// So many wait at most: what is beyond is told as it is.
const WAITING: usize = 4096;
/// So long each: until what came to the other node is told there.
const PATIENCE: SignedDuration = SignedDuration::from_secs(6);

#[derive(Debug)]
struct Waiting {
    since: Timestamp,
    /// When it is asked next.
    next: Timestamp,
    record: Arc<Record>,
    to: NodeName,
}

/// Those of one node.
#[derive(Debug, Default)]
pub(super) struct Silent {
    waiting: BTreeMap<u64, Waiting>,
    ready: Vec<Arc<Record>>,
}

impl Silent {
    /// Takes in an item, by a number of its own. It comes back where nobody is asked.
    pub(super) fn take_in(&mut self, number: u64, item: Item, node: &NodeName, now: Timestamp) -> Option<Item> {
        let Item::Flow(record) = item else { return Some(item) };
        let Some(to) = asked(&record, node).filter(|_| self.waiting.len() < WAITING) else {
            return Some(Item::Flow(record));
        };
        self.waiting.insert(number, Waiting { since: now, next: Timestamp::MIN, record, to });
        None
    }

    /// What is to be asked now, beside what else is.
    pub(super) fn questions(&mut self, round: &mut Round) {
        for (number, waiting) in &mut self.waiting {
            let Waiting { to, next, record, .. } = waiting;
            round.ask(*number, to, next, || sought(record).map(Question::Came));
        }
    }

    /// What a node answered to one of them.
    pub(super) fn answered(&mut self, number: u64, from: &NodeName, answer: &Answer, now: Timestamp) {
        let Some(waiting) = self.waiting.get_mut(&number).filter(|waiting| waiting.to == *from) else { return };
        match answer {
            Answer::Later => waiting.next = now.saturating_add(AGAIN).unwrap_or(now),
            Answer::Limited if waiting.record.verdict == Verdict::Refused => {
                Arc::make_mut(&mut waiting.record).cause = Some(Cause::Limit);
                self.release(number);
            }
            Answer::Never | Answer::Limited if waiting.record.verdict != Verdict::Refused => {
                let record = Arc::make_mut(&mut waiting.record);
                record.verdict = Verdict::Dropped;
                record.cause = (*answer == Answer::Limited).then_some(Cause::Limit);
                // Between the two nodes: it did not come to the other one's pod.
                let (sent, received) = (Way::default(), Way::default());
                record.destination_counts = Some(Box::new(AtDestination { node: from.clone(), sent, received }));
                self.release(number);
            }
            _ => self.release(number),
        }
    }

    /// That nobody answers to these.
    pub(super) fn unanswered(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.release(*number));
    }

    fn release(&mut self, number: u64) {
        self.ready.extend(self.waiting.remove(&number).map(|waiting| waiting.record));
    }

    /// What is known of by now, and what was waited for in vain; the last time, all.
    pub(super) fn due(&mut self, now: Timestamp, is_last: bool) -> Vec<Arc<Record>> {
        // The clock may have been set back.
        let is_due = |waiting: &Waiting| is_last || now.duration_since(waiting.since).abs() >= PATIENCE;
        let due: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| is_due(waiting)).map(|(number, _)| *number).collect();
        self.unanswered(&due);
        take(&mut self.ready)
    }
}

/// The node to ask: that of the pod that nothing came back from, where nothing tells why, or that somebody refused in place of.
fn asked(record: &Record, node: &NodeName) -> Option<NodeName> {
    let is_told = record.report == Report::End && record.reporter == Reporter::Source && record.sent.packets > 0;
    let is_open = match (record.verdict, record.cause) {
        (Verdict::Forwarded | Verdict::Unanswered, None) => record.received.packets == 0,
        (Verdict::Refused, None | Some(Cause::Prohibited)) => true,
        _ => false,
    };
    let pod = record.destination.pod.as_ref().filter(|pod| is_told && is_open && pod.node != *node)?;
    Some(pod.node.clone())
}

fn sought(record: &Record) -> Option<Sought> {
    let key = expected(record);
    let pod = record.destination.pod.as_ref()?.uid.clone();
    let (start, end) = (record.start, record.end);
    Some(Sought { source: key.source, destination: key.destination, protocol: key.transport, pod, start, end })
}
