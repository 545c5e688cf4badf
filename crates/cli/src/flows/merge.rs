//! One order of what several agents tell, each flow once.

#[cfg(test)]
mod hour;
mod lately;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podnet_flow::{Class, Filter, Item, Record, Report, Reporter, ends::Destinations};

use self::lately::Lately;
use super::agents::Heard;
use crate::report::Failure;

/// So long an item is held for others that were earlier, and for what the other end's node tells of it: agents read what was counted every second.
const HOLD: SignedDuration = SignedDuration::from_secs(2);
/// The same of what no other node has to tell more of: agents hear of connections that end ten times in a second.
const SOON: SignedDuration = SignedDuration::from_millis(400);
/// The same of what the destination's node may take for another node's: it tells it once it has asked that one who began it, for 3 s at most.
const ASKED: SignedDuration = SignedDuration::from_secs(4);
/// So long it is remembered what a destination's node told of a flow that is over: longer than the end of one of UDP is waited for (60 s).
const REMEMBERED: SignedDuration = SignedDuration::from_mins(3);
/// What is remembered for longer is forgotten that often: each time all of it is looked through.
const FORGETTING: SignedDuration = SignedDuration::from_secs(10);
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
    /// What is left out because the source's node tells it as well, and what may be.
    destinations: Destinations,
    /// So many of these are kept.
    most: usize,
    /// When it was last looked which of these are over for long.
    forgot: Timestamp,
    /// How many came since when, no longer ago than they are waited for; and that it was told that they are too many.
    came: (Timestamp, usize),
    is_told: bool,
    /// It was told that something cannot be read.
    is_unread: bool,
    lately: Lately,
    /// What is asked of what was joined.
    outcome: Filter,
}

impl Merge {
    pub(super) fn new(agents: BTreeSet<String>, ends_only: bool) -> Self {
        Self {
            agents,
            lost: BTreeMap::new(),
            gone: BTreeSet::new(),
            ends_only,
            destinations: Destinations::new(HELD),
            most: HELD,
            forgot: Timestamp::MIN,
            came: (Timestamp::MIN, 0),
            is_told: false,
            is_unread: false,
            lately: Lately::default(),
            outcome: Filter::default(),
        }
    }

    /// Only flows of which this became.
    pub(super) fn picking(self, outcome: Filter) -> Self {
        Self { outcome, ..self }
    }

    /// Of what agents keep alone, which is bounded there: all of it is held until they have told it.
    pub(super) fn of_the_past(self) -> Self {
        Self { destinations: Destinations::new(usize::MAX), most: usize::MAX, ..self }
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
            Heard::Anew { agent, heard_all } => {
                let missing = if heard_all {
                    ""
                } else {
                    "; what ended before that and was not heard here may be missing, of which a gap tells the last seconds at most"
                };
                eprintln!("podnet: {agent} began to record anew and goes on with what was counted{missing}");
                None
            }
            Heard::Begun { agent, at } => {
                let since = at.map_or_else(String::new, |at| format!(" since {at}"));
                eprintln!("podnet: {agent} records{since}; of what was before nothing is known there");
                None
            }
            Heard::Unread { agent, why } => {
                if !std::mem::replace(&mut self.is_unread, true) {
                    eprintln!(
                        "podnet: {agent} tells things that this version of podnet cannot read, which are left out: {why}"
                    );
                }
                None
            }
            Heard::Item(Item::Flow(record)) => self.flow(record, now).map(Item::Flow),
            Heard::Item(item) => Some(item),
        }
    }

    fn flow(&mut self, record: Arc<Record>, now: Timestamp) -> Option<Arc<Record>> {
        if self.ends_only && record.report != Report::End {
            return None;
        }
        if self.is_told_by_other(&record) {
            self.destinations.keep(&record, now);
            if self.came_too_many(now) && !std::mem::replace(&mut self.is_told, true) {
                eprintln!(
                    "podnet: more than {HELD} flows between nodes are told at a time: of some it is missing what the destination's node knows"
                );
            }
            if record.names_who_answers() {
                // The other one does not: it may not tell what is asked for, nor to whom this is told.
                return Some(record);
            }
            self.lately.leave_out(&record);
            return None;
        }
        if !record.is_secondary() {
            self.destinations.keep(&record, now);
        }
        self.lately.tell(&record).then_some(record)
    }

    /// Whether more came of late than are kept until the source's nodes tell the same.
    fn came_too_many(&mut self, now: Timestamp) -> bool {
        let (since, count) = &mut self.came;
        if now.duration_since(*since) >= HOLD {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > self.most
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
        record.is_secondary()
            && match &record.source.pod {
                Some(pod) => self.answers(pod.node.as_str()),
                None => self.agents.len() > 1 && self.gone.is_empty(),
            }
    }

    fn answers(&self, node: &str) -> bool {
        self.agents.contains(node) && !self.gone.contains(node)
    }

    /// How long an item is held.
    pub(super) fn hold(&self, item: &Item) -> SignedDuration {
        match item {
            Item::Flow(record) if !self.is_awaited(record) => SOON,
            Item::Flow(record) if is_asked_about(record) => ASKED,
            _ => HOLD,
        }
    }

    /// Another node may tell more of it, and did not yet.
    fn is_awaited(&self, record: &Record) -> bool {
        if self.agents.len() < 2 {
            return false;
        }
        match record.class {
            Class::PodPodSameNode | Class::PodNode | Class::PodWorld => false,
            // There may be a pod behind it, whose node tells it.
            Class::NodePod | Class::WorldPod => true,
            // The source's node may tell it, or not.
            Class::PodService if record.names_who_answers() => self.is_told_by_other(record),
            Class::PodPodOtherNode | Class::PodService => {
                let destination = &record.destination;
                let node = destination.pod.as_ref().map(|pod| &pod.node).or(destination.node.as_ref());
                record.reporter == Reporter::Source
                    && record.destination_counts.is_none()
                    && node.is_none_or(|node| *node != record.node && self.answers(node.as_str()))
                    && !self.destinations.is_told(record)
            }
        }
    }
}

impl Merge {
    /// What is told now, joined. Of a flow that the destination's node alone told by then the source's is not told any more.
    pub(super) fn told(&mut self, items: Vec<Item>) -> Vec<Item> {
        let mut told = self.joined(items);
        told.retain(|item| match item {
            Item::Flow(record) if record.names_who_answers() => self.lately.tell(record),
            Item::Flow(_) | Item::Gap(_) | Item::Drops(_) => true,
        });
        told
    }

    /// Items with what the nodes of their destinations told of them; of flows those that are wanted. What was told as a node's own and is
    /// a pod's, masqueraded by that node, is left out where that node told it: it is in what it told. So is what was told of who answers at a port of
    /// another node where the source's node told who asked it.
    pub(super) fn joined(&self, items: Vec<Item>) -> Vec<Item> {
        let destinations = &self.destinations;
        let is_told = |record: &Arc<Record>| destinations.is_of_pod(record) || destinations.is_of_source(record);
        let join = |item| match item {
            Item::Flow(record) if is_told(&record) => None,
            Item::Drops(drops) => self.outcome.wants_drops(&drops).then_some(Item::Drops(drops)),
            Item::Flow(record) => {
                let record = self.destinations.joined(&record);
                self.outcome.wants(&record).then_some(Item::Flow(record))
            }
            Item::Gap(gap) => Some(Item::Gap(gap)),
        };
        items.into_iter().filter_map(join).collect()
    }

    /// Forgets what was told of flows that are over for long.
    pub(super) fn forget(&mut self, now: Timestamp) {
        if now.duration_since(self.forgot).abs() >= FORGETTING {
            self.forgot = now;
            self.destinations.forget(now.checked_sub(REMEMBERED).unwrap_or(now));
        }
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
            Item::Gap(_) | Item::Drops(_) => true,
        };
        let chosen =
            all.iter().enumerate().filter(|(at, item)| is_last(*at, item)).map(|(_, item)| item.clone()).collect();
        let mut joined = self.joined(chosen);
        let from = number.map_or(0, |number| joined.len().saturating_sub(number));
        joined.split_off(from)
    }

    /// Of what is held the last `number` that are wanted, by what is known until now.
    pub(super) fn latest(&self, mut held: Held, number: usize) -> Held {
        held.0.retain(|(_, item)| !self.joined(vec![item.clone()]).is_empty());
        held.0.sort_by_key(|(_, item)| item.at());
        let from = held.0.len().saturating_sub(number);
        Held(held.0.split_off(from))
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

/// Its destination sees a node as its source: that of a port that a pod asked, or the pod's own one.
fn is_asked_about(record: &Record) -> bool {
    let destination = &record.destination;
    let is_port = record.service.is_some() && destination.pod.is_none() && destination.node.is_some();
    record.reporter == Reporter::Source && (is_port || record.seen_as.is_some())
}

/// Items that wait for others that were earlier, with the time at which they were heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Vec<(Timestamp, Item)>);

impl Held {
    pub(super) fn add(&mut self, items: impl IntoIterator<Item = Item>, now: Timestamp) {
        self.0.extend(items.into_iter().map(|item| (now, item)));
    }

    /// Those that are held for long enough, by how long each is; and those that are too many. What nothing is awaited of is held for a moment, and so may be
    /// told before what was earlier and waits for its other end.
    pub(super) fn due(&mut self, now: Timestamp, hold: impl Fn(&Item) -> SignedDuration) -> Vec<Item> {
        // Of what has one time, the order in which it was heard stays.
        self.0.sort_by_key(|(_, item)| item.at());
        let mut too_many = self.0.len().saturating_sub(HELD);
        let is_due = |(heard, item): &mut (Timestamp, Item)| {
            let is_one = too_many > 0;
            too_many = too_many.saturating_sub(1);
            is_one || now.duration_since((*heard).max(item.at())) >= hold(item)
        };
        self.0.extract_if(.., is_due).map(|(_, item)| item).collect()
    }

    pub(super) fn all(mut self) -> Vec<Item> {
        self.0.sort_by_key(|(_, item)| item.at());
        self.0.into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests;
