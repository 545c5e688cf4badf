//! What was counted at this node's pods' ends of flows that other nodes may tell: it waits for these to say whose it is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::take,
};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;

use super::{
    behind::Behind,
    own::{Found, Own},
    question::{Answer, Question, Unanswered},
    round::Round,
};
use crate::{
    entry::Transport,
    names::Names,
    numbered::Numbered,
    record::{Class, FlowId, Item, Record, Report, Reporter},
};

/// So many wait at most, of about 1 KB each: the oldest is told as it is where there are more.
const WAITING: usize = 32_768;
/// So long an end waits for an answer: an agent that begins anew takes no longer to answer again.
const PATIENCE: SignedDuration = SignedDuration::from_secs(15);
/// And so long that a flow began, where it is not known that there is an agent that answers.
const SHORT: SignedDuration = SignedDuration::from_secs(3);
/// Before who did not know is asked again.
pub(super) const AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// So long a node is not asked whose agent does not answer such questions.
const UNABLE: SignedDuration = SignedDuration::from_mins(1);
/// Who is behind an address and has no name may be a pod that began just now, unless it has none for so long.
pub(super) const UNNAMED: SignedDuration = SignedDuration::from_secs(2);
/// So long after the last datagram the node that translated them may have forgotten that: conntrack does after 30 s.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(25);
/// Of so many flows under way it is remembered what was answered.
pub(super) const KNOWN: usize = 65_536;
/// So long at most: longer than a connection may be silent ([`crate::aggregate::Timeouts`]).
const REMEMBERED: SignedDuration = SignedDuration::from_mins(130);
/// Where there are as many, it is looked that seldom what of it is too old: each time takes milliseconds.
const LOOKED: SignedDuration = SignedDuration::from_mins(1);

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No other node tells it, or none that says so.
    AsItIs,
    /// The asked node tells the flow, with this in it.
    Theirs,
    /// The asked node told the flow, without this.
    TooLate,
    /// It is in a record of this node's.
    Here,
}

/// Something of which it is known what comes of it, and the node that was asked.
pub(super) type Settled = (Numbered, NodeName, Outcome);

#[derive(Debug)]
struct Waiting {
    since: Timestamp,
    /// When it is asked next.
    next: Timestamp,
    numbered: Numbered,
    to: NodeName,
    /// That node may tell it and have forgotten what it translated: datagrams' connections leave conntrack 30 s after the last packet, and are told as
    /// over after 60 s.
    may_be_forgotten: bool,
    /// An end of what is one of that node's pods': it tells it.
    is_theirs: bool,
    /// It was there as it was asked last.
    is_there: bool,
}

/// What was answered of a flow that is under way.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Of a pod of that node, which tells it.
    Theirs(NodeName),
    /// Nobody is behind it.
    Own,
    /// Somebody whom that node does not count.
    Behind(Box<Behind>),
    /// It is over, and that node answered to its end.
    Settled(NodeName, Outcome),
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Others {
    node: NodeName,
    waiting: BTreeMap<u64, Waiting>,
    /// Those of these that are not ends, by their flows.
    begun: HashMap<FlowId, Vec<u64>>,
    known: HashMap<FlowId, (Timestamp, Standing)>,
    /// When it was looked last what of that is too old.
    looked: Timestamp,
    /// Nodes that are not asked, until when.
    unable: HashMap<NodeName, Timestamp>,
    /// Nodes whose agents have answered: they do so again.
    answering: HashSet<NodeName>,
    settled: Vec<Settled>,
}

impl Others {
    pub(super) fn new(node: NodeName) -> Self {
        let (waiting, begun, known, unable) = (BTreeMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let (looked, answering, settled) = (Timestamp::MIN, HashSet::new(), Vec::new());
        Self { node, waiting, begun, known, looked, unable, answering, settled }
    }

    /// Takes in what was counted, by a number of its own. It comes back where no other node is asked.
    pub(super) fn take_in(&mut self, number: u64, mut numbered: Numbered, now: Timestamp) -> Option<Numbered> {
        let Item::Flow(record) = &mut numbered.item else { return Some(numbered) };
        if record.reporter != Reporter::Destination {
            return Some(numbered);
        }
        let is_end = record.report == Report::End;
        if is_end {
            self.ended(&record.id);
        }
        let standing = if is_end { self.known.remove(&record.id) } else { self.known.get(&record.id).cloned() };
        let may_be_forgotten = match &standing {
            Some((_, Standing::Theirs(_))) => is_end,
            // An earlier agent may have known it.
            None => may_be_forgotten(record, now),
            Some((_, Standing::Own | Standing::Behind(_) | Standing::Settled(..))) => false,
        };
        let is_theirs = matches!(standing, Some((_, Standing::Theirs(_))));
        let mut is_behind = false;
        match standing.map(|(_, standing)| standing) {
            Some(Standing::Own) => return Some(numbered),
            Some(Standing::Settled(node, outcome)) => {
                self.settled.push((numbered, node, outcome));
                return None;
            }
            Some(Standing::Theirs(node)) if !is_end => {
                self.settled.push((numbered, node, Outcome::Theirs));
                return None;
            }
            Some(Standing::Behind(behind)) => {
                behind.put_into(record);
                is_behind = true;
            }
            Some(Standing::Theirs(_)) | None => {}
        }
        self.place(number, numbered, (is_behind, may_be_forgotten, is_theirs), (now, now))
    }

    /// Its end says all that its beginning would, and is told by one node alone.
    pub(super) fn ended(&mut self, id: &FlowId) {
        for begun in self.begun.remove(id).unwrap_or_default() {
            self.waiting.remove(&begun);
        }
    }

    /// Has it wait since a time, where another node is asked.
    fn place(
        &mut self,
        number: u64,
        numbered: Numbered,
        (is_behind, may_be_forgotten, is_theirs): (bool, bool, bool),
        (since, now): (Timestamp, Timestamp),
    ) -> Option<Numbered> {
        let Item::Flow(record) = &numbered.item else { return Some(numbered) };
        // Who sums up, and who leaves to others what they tell, knows such ones by themselves.
        let is_under_way = record.is_secondary() && record.report != Report::End;
        let Some(to) = teller(record, &self.node, is_behind).filter(|_| !is_under_way) else { return Some(numbered) };
        if self.is_unable(&to, now) {
            if record.report != Report::End && !record.is_secondary() {
                // As its beginning is told, so is its end.
                self.remember(record.id, Standing::Own, now);
            }
            return Some(numbered);
        }
        let next = Timestamp::MIN;
        self.keep(number, Waiting { since, next, numbered, to, may_be_forgotten, is_theirs, is_there: false });
        None
    }

    fn keep(&mut self, number: u64, waiting: Waiting) {
        if let Item::Flow(record) = &waiting.numbered.item
            && record.report != Report::End
        {
            self.begun.entry(record.id).or_default().push(number);
        }
        self.waiting.insert(number, waiting);
    }

    fn release(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        if let Item::Flow(record) = &waiting.numbered.item
            && let Some(numbers) = self.begun.get_mut(&record.id)
        {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.begun.remove(&record.id);
            }
        }
        Some(waiting)
    }

    /// What is known of a flow.
    pub(super) fn standing(&self, id: &FlowId) -> Option<&Standing> {
        self.known.get(id).map(|(_, standing)| standing)
    }

    /// Whether a node is not asked now.
    pub(super) fn is_unable(&self, node: &NodeName, now: Timestamp) -> bool {
        self.unable.get(node).is_some_and(|until| now < *until)
    }

    /// What is to be asked now, beside what else is.
    pub(super) fn questions(&mut self, round: &mut Round) {
        for (number, waiting) in &mut self.waiting {
            let Waiting { to, next, numbered, .. } = waiting;
            round.ask(*number, to, next, || match &numbered.item {
                Item::Flow(record) if *to != self.node => Some(Question::Joins(record.clone())),
                _ => None,
            });
        }
    }

    /// That a node's agent answers.
    pub(super) fn answers(&mut self, node: &NodeName) {
        if !self.answering.contains(node) {
            self.answering.insert(node.clone());
        }
    }

    /// What a node answered to one of them.
    pub(super) fn answered(&mut self, number: u64, from: &NodeName, answer: &Answer, names: &Names, now: Timestamp) {
        if self.waiting.get(&number).is_none_or(|waiting| waiting.to != *from) {
            return;
        }
        let Some(mut waiting) = self.release(number) else { return };
        waiting.is_there = true;
        let Item::Flow(record) = &mut waiting.numbered.item else { return };
        let (id, is_end, is_front) = (record.id, record.report == Report::End, !record.is_secondary());
        let (mut behind, mut may_be_forgotten) = (None, waiting.may_be_forgotten);
        let answer = match answer {
            Answer::Behind { source, destination } if is_front => {
                may_be_forgotten = false;
                let found = Behind::of(record, (*source, *destination), names);
                let is_theirs = found.is_of(from);
                let is_unsure = found.has_no_name() && now.duration_since(waiting.since) < UNNAMED;
                behind = Some(found).filter(|found| !is_theirs && found.is_known());
                match (is_theirs, is_end) {
                    _ if is_unsure => Answer::Later,
                    // It has not read it yet, or one before it told it.
                    (true, true) => {
                        waiting.is_theirs = true;
                        Answer::Later
                    }
                    (true, false) => Answer::Taken,
                    (false, _) => Answer::Unknown,
                }
            }
            answer => answer.clone(),
        };
        let (outcome, standing) = match answer {
            Answer::Taken => (Outcome::Theirs, Standing::Theirs(from.clone())),
            Answer::Told if is_end => (Outcome::TooLate, Standing::Own),
            Answer::Told => (Outcome::Theirs, Standing::Theirs(from.clone())),
            // Its end comes soon, and says all.
            Answer::Unknown if is_front && may_be_forgotten && !is_end => return,
            Answer::Unknown if is_front && !may_be_forgotten => {
                (Outcome::AsItIs, behind.clone().map_or(Standing::Own, |behind| Standing::Behind(Box::new(behind))))
            }
            _ => {
                waiting.next = now.saturating_add(AGAIN).unwrap_or(now);
                self.keep(number, waiting);
                return;
            }
        };
        if !is_end {
            self.remember(id, standing, now);
        }
        let Some(behind) = behind else { return self.settled.push((waiting.numbered, waiting.to, outcome)) };
        behind.put_into(record);
        // Its node tells it, where it is a pod.
        if let Some(numbered) = self.place(number, waiting.numbered, (true, false, false), (waiting.since, now)) {
            self.settled.push((numbered, waiting.to, outcome));
        }
    }

    /// That a node did not answer these.
    pub(super) fn unanswered(&mut self, from: &NodeName, numbers: &[u64], why: Unanswered, now: Timestamp) {
        match why {
            Unanswered::Away => {
                let next = now.saturating_add(AGAIN).unwrap_or(now);
                for number in numbers {
                    if let Some(waiting) = self.waiting.get_mut(number) {
                        (waiting.next, waiting.is_there) = (next, false);
                    }
                }
            }
            Unanswered::Unable => {
                self.unable.retain(|_, until| now < *until);
                self.unable.insert(from.clone(), now.saturating_add(UNABLE).unwrap_or(now));
                self.answering.remove(from);
                let theirs: Vec<u64> =
                    self.waiting.iter().filter(|(_, waiting)| waiting.to == *from).map(|(number, _)| *number).collect();
                theirs.into_iter().for_each(|number| self.settle(number, Outcome::AsItIs, now));
            }
        }
    }

    /// What is known of by now.
    pub(super) fn settled(&mut self) -> Vec<Settled> {
        take(&mut self.settled)
    }

    /// That, and what was waited for in vain; the last time, all.
    pub(super) fn due(&mut self, own: &mut Own, now: Timestamp, is_last: bool) -> Vec<Settled> {
        self.look_here(own, now);
        let too_many = self.waiting.len().saturating_sub(WAITING);
        let outcome = |(at, (number, waiting)): (usize, (&u64, &Waiting))| {
            if is_last || at < too_many {
                return Some((*number, Outcome::AsItIs));
            }
            let is_end = matches!(&waiting.numbered.item, Item::Flow(record) if record.report == Report::End);
            // What is told of its beginning is told to its end, whatever that agent says once it is back.
            let patience = if is_end || self.answering.contains(&waiting.to) { PATIENCE } else { SHORT };
            // The clock may have been set back.
            let is_due = now.duration_since(waiting.since).abs() >= patience;
            // An agent that is there and knows nothing of what its node's pod sent has begun since the one before it told that.
            let was_told = waiting.is_theirs && waiting.is_there;
            is_due.then_some((*number, if was_told { Outcome::TooLate } else { Outcome::AsItIs }))
        };
        let due: Vec<(u64, Outcome)> = self.waiting.iter().enumerate().filter_map(outcome).collect();
        due.into_iter().for_each(|(number, outcome)| self.settle(number, outcome, now));
        self.settled()
    }

    /// Pods of this node may have asked another one, whose translation led back here.
    fn look_here(&mut self, own: &mut Own, now: Timestamp) {
        let mut found = Vec::new();
        for (number, waiting) in self.waiting.iter().filter(|(_, waiting)| waiting.to == self.node) {
            let Item::Flow(record) = &waiting.numbered.item else { continue };
            match own.take_in(&record.key(), record.start, record, now) {
                Found::Joined => found.push((*number, Outcome::Here)),
                Found::Told => found.push((*number, Outcome::TooLate)),
                Found::Nothing => {}
            }
        }
        found.into_iter().for_each(|(number, outcome)| self.settle(number, outcome, now));
    }

    fn settle(&mut self, number: u64, outcome: Outcome, now: Timestamp) {
        let Some(waiting) = self.release(number) else { return };
        let mut later = Vec::new();
        if let Item::Flow(record) = &waiting.numbered.item
            && record.report != Report::End
        {
            // As its beginning is told, so is its end, and what was heard of it since.
            self.remember(record.id, Standing::Own, now);
            later = self.begun.remove(&record.id).unwrap_or_default();
        }
        let later = later.into_iter().filter_map(|number| self.waiting.remove(&number));
        let told = std::iter::once(waiting).chain(later);
        self.settled.extend(told.map(|waiting| (waiting.numbered, waiting.to, outcome)));
    }

    /// Keeps what is known of a flow, as far as there is room.
    pub(super) fn remember(&mut self, id: FlowId, standing: Standing, now: Timestamp) {
        if self.known.len() >= KNOWN && now.duration_since(self.looked).abs() >= LOOKED {
            self.looked = now;
            self.known.retain(|_, (at, _)| now.duration_since(*at) < REMEMBERED);
        }
        if self.known.len() < KNOWN {
            self.known.insert(id, (now, standing));
        }
    }
}

/// Whether the node that translated it, if one did, may know nothing of it any more.
pub(super) fn may_be_forgotten(record: &Record, now: Timestamp) -> bool {
    let is_over = record.report == Report::End || now.duration_since(record.end) >= FORGOTTEN;
    record.protocol == Transport::UDP && is_over
}

/// The node that may tell what was counted here: the source's, or the one that seems to be the source.
pub(super) fn teller(record: &Record, node: &NodeName, is_behind: bool) -> Option<NodeName> {
    if record.reporter != Reporter::Destination {
        return None;
    }
    if record.is_secondary() {
        let pod = record.source.pod.as_deref()?;
        return (pod.node != *node || is_behind).then(|| pod.node.clone());
    }
    // What is not translated comes from the node itself.
    let may_be_translated = matches!(record.protocol, Transport::TCP | Transport::UDP | Transport::SCTP);
    let is_front = record.class == Class::NodePod && may_be_translated && !is_behind;
    record.source.node.clone().filter(|other| is_front && other != node)
}
