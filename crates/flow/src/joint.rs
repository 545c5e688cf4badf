//! One record of what two nodes count of a flow, for whatever has no reader that joins them: logs, collectors, metrics.
//!
//! The destination's agent asks the source's node, for each flow that ended at one of its pods: is this in what you tell? That one holds the end of
//! its own record for as long, puts what the other knows into it ([`crate::ends`]) and says so; the destination's then tells nothing. What seems to come
//! from a node itself is asked about as it begins: where that node translated it, it says what came to it there, so that a flow by a node's port is told
//! with who asked and which Service, also to who reads this node's records. Nothing is lost by it: the destination's agent keeps what it counted until it is answered, and without an answer it
//! goes on as if nobody could be asked ([`crate::parts`]).
//!
//! What a pod of another node was sent and did not answer, or what was refused in its place, is asked about in the other direction: where nothing came,
//! something between the two nodes dropped it, or a limit of that pod's.
//!
//! - [`question`]: what is asked and answered; `round`: how much of it at a time
//! - `own`: ends that wait for the destination's node; `others`: what waits for the source's
//! - `fronts`: what seems to come from another node itself; `behind`: who is behind its address
//! - `silent`: what may not have come; `counted`: what came

mod behind;
mod counted;
mod fronts;
mod others;
mod own;
pub mod question;
mod round;
mod silent;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use podnet_model::NodeName;

use self::{
    counted::Counted,
    fronts::Fronts,
    others::{Others, Outcome, Settled},
    own::{Found, Own},
    question::{Answer, Inquiry, MOST_ASKED, Question, Unanswered},
    round::Round,
    silent::Silent,
};
use crate::{
    beyond::Beyond,
    names::Names,
    numbered::Numbered,
    record::{Class, Item, Key, Record, Report, Reporter},
};

/// So much is asked of one node in a round, of which there are ten in a second: what ends of 20,000 flows a second between two nodes.
const OF_A_ROUND: usize = 8 * MOST_ASKED;

/// What of the items of a moment goes where.
#[derive(Debug, Default)]
pub struct Told {
    /// To logs and collectors, once what other nodes tell there is left out ([`crate::parts::Parts`]).
    pub items: Vec<Numbered>,
    /// Into sums, of which each node has what no other one has.
    pub counted: Vec<Item>,
}

/// What one node has to do with flows that others count as well.
#[derive(Debug)]
pub struct Joint {
    node: NodeName,
    own: Own,
    others: Others,
    fronts: Fronts,
    silent: Silent,
    counted: Counted,
    /// Of the next question.
    next: u64,
}

impl Joint {
    /// Of a node whose flows are counted since now.
    #[must_use]
    pub fn new(node: NodeName, now: Timestamp) -> Self {
        let (own, others) = (Own::default(), Others::new(node.clone()));
        let (fronts, silent) = (Fronts::default(), Silent::default());
        Self { node, own, others, fronts, silent, counted: Counted::since(now), next: 0 }
    }

    /// All that came to this node until then was read. As long as that is not known of what another node sent, it is not said that it never came.
    pub fn read(&mut self, until: Timestamp) {
        self.counted.read(until);
    }

    /// What limits of this node's pods lost or refused just now: it did not come to them, and is told to whoever asks why nothing did, for some minutes.
    pub fn limits(&mut self, latest: Arc<Beyond>, now: Timestamp) {
        self.counted.limits(latest, now);
    }

    /// What is to be told of items that were just made, and of earlier ones: all but flows of which it is asked first who began them, or whether
    /// anything of them came. They have no numbers yet, so that they may come later than others. The last time nothing waits.
    pub fn heard(&mut self, items: Vec<Item>, (now, is_last): (Timestamp, bool)) -> Vec<Item> {
        let mut told = Vec::with_capacity(items.len());
        // Of a flow that goes on this is what was before.
        told.extend(self.fronts.due(&mut self.others, now, is_last).into_iter().map(Item::Flow));
        for item in items {
            match &item {
                Item::Flow(record) => self.counted.note(record, now),
                Item::Gap(gap) => self.counted.miss(gap),
                Item::Drops(_) => {}
            }
            self.next += 1;
            let item = self.fronts.take_in(self.next, item, &self.node, &mut self.others, (now, is_last));
            told.extend(item.and_then(|item| self.silent.take_in(self.next, item, &self.node, now)));
        }
        told.extend(self.silent.due(now, is_last).into_iter().map(Item::Flow));
        told
    }

    /// Takes in items and says what is to be told by now. `tells` says of a node whether it tells what it records wherever this one does. The last time
    /// nothing waits.
    pub fn told(
        &mut self,
        items: Vec<Numbered>,
        (now, is_last): (Timestamp, bool),
        tells: impl Fn(&NodeName) -> bool,
    ) -> Told {
        let mut told = Told { items: Vec::with_capacity(items.len()), counted: Vec::with_capacity(items.len()) };
        // That a flow began was told before.
        told.settled(self.others.settled(), &self.node, &tells);
        for numbered in items {
            if matches!(&numbered.item, Item::Flow(record) if own::waits(record, &self.node)) {
                self.own.hold(numbered, now);
                continue;
            }
            self.next += 1;
            if let Some(numbered) = self.others.take_in(self.next, numbered, now) {
                told.add(numbered);
            }
        }
        told.settled(self.others.due(&mut self.own, now, is_last), &self.node, &tells);
        // What was put together just now is among it.
        self.own.due(now, is_last).into_iter().for_each(|numbered| told.add(numbered));
        told
    }

    /// What is to be asked of other nodes now, each question with its number. Of one node it may be more than [`MOST_ASKED`], and so several requests'.
    pub fn questions(&mut self, now: Timestamp) -> BTreeMap<NodeName, Vec<(u64, Question)>> {
        let mut round = Round::new(now, OF_A_ROUND / 2);
        // Who began a flow is waited for a shorter time than whose an end is: half of a round is for that, and what is left of the other one.
        self.fronts.questions(&mut round);
        round.most = OF_A_ROUND;
        self.others.questions(&mut round);
        self.fronts.questions(&mut round);
        self.silent.questions(&mut round);
        round.questions
    }

    /// What a node answered to questions, or why it did not. Answers that are not asked for, or too late, change nothing.
    pub fn answered(
        &mut self,
        from: &NodeName,
        numbers: &[u64],
        answers: Result<&[Answer], Unanswered>,
        (names, now): (&Names, Timestamp),
    ) {
        match answers {
            Ok(answers) => {
                self.others.answers(from);
                for (number, answer) in numbers.iter().zip(answers) {
                    self.others.answered(*number, from, answer, names, now);
                    self.fronts.answered(*number, from, answer, &mut self.others, (names, now));
                    self.silent.answered(*number, from, answer, now);
                }
            }
            Err(why) => {
                self.others.unanswered(from, numbers, why, now);
                self.fronts.unanswered(from, numbers, why, &mut self.others, now);
                self.silent.unanswered(numbers);
            }
        }
    }

    /// Answers another node's agent. `origins` has for each question what came to this node of what it is about, where that was translated here
    /// ([`translated`]); of pods that are not here it is not known what came to them, which `is_here` says of an uid.
    pub fn answer(
        &mut self,
        inquiry: &Inquiry,
        origins: &[Option<Key>],
        is_here: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<Answer> {
        let origins = origins.iter().copied().chain(std::iter::repeat(None));
        let answer = |(question, origin): (&Question, Option<Key>)| match question {
            Question::Joins(record) => self.joins(record, inquiry, origin, now),
            Question::Came(sought) if is_here(&sought.pod) => self.counted.answer(sought, inquiry, now),
            Question::Came(_) => Answer::Unknown,
        };
        inquiry.questions.iter().zip(origins).map(answer).collect()
    }

    fn joins(&mut self, record: &Record, inquiry: &Inquiry, origin: Option<Key>, now: Timestamp) -> Answer {
        // Each node says what it counted itself.
        if record.node != inquiry.node {
            return Answer::Unknown;
        }
        let (key, start) = (record.key(), inquiry.here(record.start, now));
        if record.report == Report::End {
            match self.own.take_in(&key, start, record, now) {
                Found::Joined => return Answer::Taken,
                Found::Told => return Answer::Told,
                Found::Nothing => {}
            }
        } else if self.own.knows(&key, start, &record.node) {
            return Answer::Taken;
        }
        match origin {
            Some(origin) => Answer::Behind { source: origin.source, destination: origin.destination },
            None if record.is_secondary() => Answer::Later,
            None => Answer::Unknown,
        }
    }
}

/// What a question is about, as the asked node's stack may have translated it: where it seems to be that node's own flow.
#[must_use]
pub fn translated(question: &Question) -> Option<Key> {
    let Question::Joins(record) = question else { return None };
    (record.reporter == Reporter::Destination && record.class == Class::NodePod).then(|| record.key())
}

impl Told {
    fn settled(&mut self, settled: Vec<Settled>, node: &NodeName, tells: impl Fn(&NodeName) -> bool) {
        for (numbered, to, outcome) in settled {
            match outcome {
                Outcome::AsItIs => self.add(numbered),
                Outcome::Here => {}
                // It tells it elsewhere.
                Outcome::Theirs | Outcome::TooLate if to != *node && !tells(&to) => self.items.push(numbered),
                Outcome::Theirs => {}
                Outcome::TooLate => self.items.push(part(numbered)),
            }
        }
    }

    fn add(&mut self, numbered: Numbered) {
        self.counted.push(numbered.item.clone());
        self.items.push(numbered);
    }
}

/// As what another node's record lacks.
fn part(mut numbered: Numbered) -> Numbered {
    if let Item::Flow(record) = &mut numbered.item {
        Arc::make_mut(record).report = Report::Part;
    }
    numbered
}

#[cfg(test)]
mod tests;
