//! Ends of this node's pods' flows to other nodes: held until these say what they counted, and remembered for a while once they were told.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem::take,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;

use crate::{
    ends::join,
    numbered::Numbered,
    record::{Asked, FlowId, Item, Key, Record, Report, Reporter},
};

/// So long an end waits for what the destination's node counted: both read every second, and an end is told at the second reading that finds it over.
const HOLD: SignedDuration = SignedDuration::from_secs(3);
/// So many wait at most, of about 1 KB each: the oldest is told as it is where there are more. Of 20,000 flows a second they wait for the 3 s.
const HELD: usize = 65_536;
/// So many that were told are remembered at most, and for so long: destinations' nodes ask no longer.
const TOLD: usize = 131_072;
const REMEMBERED: SignedDuration = SignedDuration::from_mins(1);
/// The first packet comes to the destination's end that much sooner at most than to the source's, as far as clocks are known to differ.
const SOONER: SignedDuration = SignedDuration::from_secs(1);
/// And that much later: the first ones may have been lost.
const LATER: SignedDuration = SignedDuration::from_secs(30);
/// And that long after the last one was sent: a question is on its way for no longer.
const AFTER: SignedDuration = SignedDuration::from_secs(5);
/// What began later is not taken for what was told already: the next flow from that port may not have been read here yet.
const AT_ONCE: SignedDuration = SignedDuration::from_secs(2);

/// What became of something that the destination's node counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is in the flow's record now, or was before.
    Joined,
    /// The flow was told without it.
    Told,
    /// Nothing of such a flow was told so far.
    Nothing,
}

#[derive(Debug)]
struct Ended {
    start: Timestamp,
    /// What of the destination's is in it.
    with: Option<FlowId>,
}

/// Those of one node.
#[derive(Debug, Default)]
pub(super) struct Own {
    held: BTreeMap<u64, (Timestamp, Numbered)>,
    by_key: HashMap<Key, Vec<u64>>,
    told: HashMap<Key, Vec<Ended>>,
    order: VecDeque<(Timestamp, Key)>,
    /// Put together since it was asked last.
    ready: Vec<Numbered>,
    next: u64,
}

impl Own {
    /// Takes in the end of a flow that another node may say something of.
    pub(super) fn hold(&mut self, numbered: Numbered, now: Timestamp) {
        let Item::Flow(record) = &numbered.item else { return self.ready.push(numbered) };
        self.by_key.entry(expected(record)).or_default().push(self.next);
        self.held.insert(self.next, (now, numbered));
        self.next += 1;
    }

    /// What the destination's node counted of the flow of that key, which began there at `start` by the clock of here.
    pub(super) fn take_in(&mut self, key: &Key, start: Timestamp, destination: &Record, now: Timestamp) -> Found {
        let told = self.told.get(key).into_iter().flatten();
        if told.clone().any(|ended| ended.with == Some(destination.id)) {
            return Found::Joined;
        }
        let Some(number) = self.nearest(key, start, &destination.node) else {
            let is_it = |ended: &Ended| is_near(ended.start, start) && start.duration_since(ended.start) <= AT_ONCE;
            let is_told = told.filter(|ended| ended.with.is_none()).any(is_it);
            return if is_told { Found::Told } else { Found::Nothing };
        };
        if let Some((_, mut numbered)) = self.release(number)
            && let Item::Flow(record) = &mut numbered.item
        {
            self.remember(record, Some(destination.id), now);
            let mut joined = join(record, destination);
            if record.destination.pod.is_some() {
                // Whom it asked and who answers is known here; another node's agent only adds to it.
                joined.destination = record.destination.clone();
                (joined.service, joined.class) = (record.service.clone(), record.class);
            }
            *record = Arc::new(joined);
            self.ready.push(numbered);
        }
        Found::Joined
    }

    /// Whether an end of such a flow to that node is held, or was told.
    pub(super) fn knows(&self, key: &Key, start: Timestamp, to: &NodeName) -> bool {
        let mut told = self.told.get(key).into_iter().flatten();
        self.nearest(key, start, to).is_some() || told.any(|ended| is_near(ended.start, start))
    }

    /// The one that is held of that key whose beginning is nearest. Where it is known on which node the pod is that it asked, no other one has counted it.
    fn nearest(&self, key: &Key, start: Timestamp, to: &NodeName) -> Option<u64> {
        let apart = |number: &u64| {
            let Item::Flow(record) = &self.held.get(number)?.1.item else { return None };
            let is_within = start.duration_since(record.end) <= AFTER && is_near(record.start, start);
            let is_to = record.destination.pod.as_ref().is_none_or(|pod| pod.node == *to);
            (is_within && is_to).then(|| (start.duration_since(record.start).abs(), *number))
        };
        self.by_key.get(key)?.iter().filter_map(apart).min().map(|(_, number)| number)
    }

    /// What is to be told: what was put together, and what nobody said anything of in time.
    pub(super) fn due(&mut self, now: Timestamp, is_last: bool) -> Vec<Numbered> {
        let mut due = take(&mut self.ready);
        while let Some((number, (at, _))) = self.held.first_key_value() {
            // The clock may have been set back.
            if !is_last && self.held.len() <= HELD && now.duration_since(*at).abs() < HOLD {
                break;
            }
            let number = *number;
            let Some((_, numbered)) = self.release(number) else { break };
            if let Item::Flow(record) = &numbered.item {
                self.remember(record, None, now);
            }
            due.push(numbered);
        }
        self.forget(now);
        due
    }

    fn release(&mut self, number: u64) -> Option<(Timestamp, Numbered)> {
        let released = self.held.remove(&number)?;
        if let Item::Flow(record) = &released.1.item {
            let key = expected(record);
            if let Some(numbers) = self.by_key.get_mut(&key) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
        Some(released)
    }

    fn remember(&mut self, record: &Record, with: Option<FlowId>, now: Timestamp) {
        let key = expected(record);
        self.told.entry(key).or_default().push(Ended { start: record.start, with });
        self.order.push_back((now, key));
    }

    fn forget(&mut self, now: Timestamp) {
        while self.order.len() > TOLD || self.order.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED)
        {
            let Some((_, key)) = self.order.pop_front() else { return };
            if let Some(ended) = self.told.get_mut(&key) {
                // They are in the order in which they were told.
                ended.remove(0);
                if ended.is_empty() {
                    self.told.remove(&key);
                }
            }
        }
    }
}

/// Whether the destination's node of what this node tells may count it, and is another one.
pub(super) fn waits(record: &Record, node: &NodeName) -> bool {
    let destination = &record.destination;
    let is_candidate = record.report == Report::End
        && record.reporter == Reporter::Source
        && record.source.pod.is_some()
        && record.destination_counts.is_none();
    // Who answers at a port of another node is what that one knows.
    let is_port = || {
        let is_asked = |asked: &Asked| asked.at() == destination.at();
        let is_others = destination.node.as_ref().is_some_and(|other| other != node);
        is_others && record.service.as_ref().is_some_and(is_asked)
    };
    is_candidate && (destination.pod.as_ref().is_some_and(|pod| pod.node != *node) || is_port())
}

/// The flow as its destination's node knows it.
pub(super) fn expected(record: &Record) -> Key {
    record.seen_key().unwrap_or_else(|| record.key())
}

/// Whether what began at the destination's end at that time may be what began at the source's then.
fn is_near(source: Timestamp, destination: Timestamp) -> bool {
    let apart = destination.duration_since(source);
    apart >= -SOONER && apart <= LATER
}
