//! Flows that seem to come from another node itself, and may be of somebody who asked one of its ports: that node is asked who began them before they are told
//! to anybody, so that whoever reads this node's records reads that, too. They have no numbers yet.

use std::{
    collections::{BTreeMap, HashMap},
    mem::take,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;

use super::{
    behind::Behind,
    others::{AGAIN, Others, Outcome, Standing, UNNAMED, may_be_forgotten, teller},
    question::{Answer, Question, Unanswered},
    round::Round,
};
use crate::{
    names::Names,
    record::{FlowId, Item, Record, Report},
};

/// So many flows wait at most, of about 1 KB each: what is beyond is told as it is. Of 20,000 a second from outside each waits for a little more than 2 s.
const WAITING: usize = 65_536;
/// So long each: a little longer than somebody without a name may get one.
const PATIENCE: SignedDuration = SignedDuration::from_secs(3);

#[derive(Debug)]
struct Waiting {
    since: Timestamp,
    /// When it is asked next.
    next: Timestamp,
    to: NodeName,
    /// What is asked about: what was heard first of the flow.
    asked: Arc<Record>,
    /// What is to be told of it, in the order in which it was heard.
    records: Vec<Arc<Record>>,
    /// Who is behind it, and may have a name soon.
    found: Option<Box<Behind>>,
}

/// Those of one node.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    waiting: BTreeMap<u64, Waiting>,
    by_flow: HashMap<FlowId, u64>,
    ready: Vec<Arc<Record>>,
}

impl Fronts {
    /// Takes in an item, by a number of its own. It comes back where nobody is asked, with who began it where that is known; the last time each does.
    pub(super) fn take_in(
        &mut self,
        number: u64,
        item: Item,
        node: &NodeName,
        others: &mut Others,
        (now, is_last): (Timestamp, bool),
    ) -> Option<Item> {
        let Item::Flow(mut record) = item else { return Some(item) };
        if record.report == Report::End {
            // Whoever is found to tell it: its beginning, which was given up here and waits there, is not told any more.
            others.ended(&record.id);
        }
        if let Some(earlier) = self.by_flow.get(&record.id)
            && let Some(waiting) = self.waiting.get_mut(earlier)
        {
            if record.report == Report::End {
                // It says all that was said before.
                waiting.records.clear();
            }
            waiting.records.push(record);
            return None;
        }
        let Some(to) = asked(&record, node) else { return Some(Item::Flow(record)) };
        let standing = others.standing(&record.id);
        if let Some(Standing::Behind(behind)) = standing {
            behind.put_into(&mut record);
        }
        if standing.is_some() || is_last || self.waiting.len() >= WAITING || others.is_unable(&to, now) {
            return Some(Item::Flow(record));
        }
        self.by_flow.insert(record.id, number);
        let (asked, records) = (Arc::clone(&record), vec![record]);
        self.waiting.insert(number, Waiting { since: now, next: Timestamp::MIN, to, asked, records, found: None });
        None
    }

    /// What is to be asked now, beside what else is.
    pub(super) fn questions(&mut self, round: &mut Round) {
        for (number, waiting) in &mut self.waiting {
            let Waiting { to, next, asked, .. } = waiting;
            round.ask(*number, to, next, || Some(Question::Joins(Arc::clone(asked))));
        }
    }

    /// What a node answered to one of them. What it says of the flow holds for `others`, too, which ask no more than is left to ask.
    pub(super) fn answered(
        &mut self,
        number: u64,
        from: &NodeName,
        answer: &Answer,
        others: &mut Others,
        (names, now): (&Names, Timestamp),
    ) {
        let Some(waiting) = self.waiting.get_mut(&number).filter(|waiting| waiting.to == *from) else { return };
        let asked = &waiting.asked;
        let is_end = asked.report == Report::End;
        let theirs = || Standing::Theirs(from.clone());
        let standing = match answer {
            Answer::Behind { source, destination } => {
                let found = Box::new(Behind::of(asked, (*source, *destination), names));
                let named = asked.start.saturating_add(UNNAMED).unwrap_or(now);
                if found.has_no_name() && now < named {
                    (waiting.next, waiting.found) = (named, Some(found));
                    return;
                }
                if found.is_of(from) {
                    // Its node has yet to read the end of what it tells.
                    (!is_end).then(theirs)
                } else if found.is_known() {
                    Some(Standing::Behind(found))
                } else {
                    Some(Standing::Own)
                }
            }
            Answer::Taken if is_end => Some(Standing::Settled(from.clone(), Outcome::Theirs)),
            Answer::Told if is_end => Some(Standing::Settled(from.clone(), Outcome::TooLate)),
            Answer::Taken | Answer::Told => Some(theirs()),
            Answer::Unknown if waiting.found.is_none() && !may_be_forgotten(asked, now) => Some(Standing::Own),
            // What was found before holds, and where nothing was others ask on.
            _ => waiting.found.take().map(Standing::Behind),
        };
        self.settle(number, standing, others, now);
    }

    /// That a node did not answer these.
    pub(super) fn unanswered(
        &mut self,
        from: &NodeName,
        numbers: &[u64],
        why: Unanswered,
        others: &mut Others,
        now: Timestamp,
    ) {
        match why {
            Unanswered::Away => {
                let next = now.saturating_add(AGAIN).unwrap_or(now);
                for number in numbers {
                    if let Some(waiting) = self.waiting.get_mut(number) {
                        waiting.next = next;
                    }
                }
            }
            Unanswered::Unable => {
                let theirs: Vec<u64> =
                    self.waiting.iter().filter(|(_, waiting)| waiting.to == *from).map(|(number, _)| *number).collect();
                self.give_up(&theirs, others, now);
            }
        }
    }

    /// Waits no longer for what nodes may say of these. Who began one is told as far as it is known, and so it is at its end.
    fn give_up(&mut self, numbers: &[u64], others: &mut Others, now: Timestamp) {
        for number in numbers {
            let found = self.waiting.get_mut(number).and_then(|waiting| waiting.found.take());
            self.settle(*number, found.map(Standing::Behind), others, now);
        }
    }

    /// Has one told, as what is known of it by now says. That holds for `others`, too, unless these knew before: as its beginning was told
    /// meanwhile, so is its end.
    fn settle(&mut self, number: u64, standing: Option<Standing>, others: &mut Others, now: Timestamp) {
        let Some(waiting) = self.waiting.remove(&number) else { return };
        let id = waiting.asked.id;
        self.by_flow.remove(&id);
        let standing = standing.filter(|_| others.standing(&id).is_none());
        for mut record in waiting.records {
            if let Some(Standing::Behind(behind)) = &standing {
                behind.put_into(&mut record);
            }
            self.ready.push(record);
        }
        if let Some(standing) = standing {
            others.remember(id, standing, now);
        }
    }

    /// What is known of by now, and what was waited for in vain; the last time, all.
    pub(super) fn due(&mut self, others: &mut Others, now: Timestamp, is_last: bool) -> Vec<Arc<Record>> {
        // The clock may have been set back.
        let is_due = |waiting: &Waiting| is_last || now.duration_since(waiting.since).abs() >= PATIENCE;
        let due: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| is_due(waiting)).map(|(number, _)| *number).collect();
        self.give_up(&due, others, now);
        take(&mut self.ready)
    }
}

/// The node that the flow seems to come from, where it may have translated it.
fn asked(record: &Record, node: &NodeName) -> Option<NodeName> {
    if record.is_secondary() { None } else { teller(record, node, false) }
}
