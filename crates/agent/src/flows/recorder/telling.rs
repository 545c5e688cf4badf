//! Where what was recorded goes: into the past as it is, and to the log, to collectors and into sums as one record of each flow.

use std::sync::{Arc, PoisonError};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Item, Joint, Numbered,
    joint::{self, question::MOST_ASKED},
};
use podnet_model::NodeName;

use super::{Neighbours, Recorder};

impl Recorder {
    /// Hands items to whoever reads the past and adds them to sums. What is left is for the log and for collectors. `is_read`: the map was just read.
    pub(super) fn tell(&mut self, mut items: Vec<Item>, is_read: bool, is_last: bool) -> Vec<Numbered> {
        let (past, recorders) = (self.sinks.past.clone(), self.known.recorders());
        let mut guard = past.as_ref().filter(|_| self.neighbours.is_some()).map(|past| past.joint());
        let mut joint = guard.as_deref_mut().and_then(Option::as_mut);
        let now = (Timestamp::now(), is_last);
        if let Some(joint) = joint.as_deref_mut() {
            self.hear(joint, now.0);
            if is_read {
                joint.read(self.whole);
                joint.limits(self.known.facts().names.beyond(), now.0);
            }
            items = joint.heard(items, now);
        }
        if let Some(past) = &past {
            past.add(&items, now.0);
        }
        let numbered = self.numbered(&items);
        let tells = |node: &NodeName| recorders.tell(node, &self.marks);
        let joint::Told { items, counted } = match joint.as_deref_mut() {
            Some(joint) => joint.told(numbered, now, tells),
            None => joint::Told { items: numbered, counted: items },
        };
        if let Some(joint) = joint.filter(|_| !is_last) {
            self.ask(joint, now.0);
        }
        drop(guard);
        self.sinks.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&counted);
        if self.sinks.collectors.is_empty() && self.sinks.log.is_none() {
            return Vec::new();
        }
        let is_news = !Arc::ptr_eq(&recorders, &self.recorders);
        let mut told = if is_news { self.parts.orphans(tells) } else { Vec::new() };
        told.extend(self.parts.told(items, now, tells));
        self.recorders = recorders;
        told
    }

    fn numbered(&mut self, items: &[Item]) -> Vec<Numbered> {
        let number = |item: &Item| {
            let record = self.next.clone();
            self.next.sequence += 1;
            Numbered { record, item: item.clone() }
        };
        items.iter().map(number).collect()
    }

    /// Takes in what other nodes answered.
    fn hear(&mut self, joint: &mut Joint, now: Timestamp) {
        let answers = self.neighbours.as_mut().map(Neighbours::answers).unwrap_or_default();
        if answers.is_empty() {
            return;
        }
        let facts = self.known.facts();
        for answered in answers {
            let answers = answered.answers.as_deref().map_err(|why| *why);
            joint.answered(&answered.from, &answered.numbers, answers, (&facts.names, now));
        }
    }

    /// Has other nodes be asked what is to be asked now.
    fn ask(&self, joint: &mut Joint, now: Timestamp) {
        let Some(neighbours) = &self.neighbours else { return };
        for (to, mut questions) in joint.questions(now) {
            while !questions.is_empty() {
                let later = questions.split_off(questions.len().min(MOST_ASKED));
                neighbours.ask(to.clone(), std::mem::replace(&mut questions, later));
            }
        }
    }
}
