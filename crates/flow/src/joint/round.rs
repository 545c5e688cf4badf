//! What is asked of other nodes at a time: of each node so much at most, and nothing again before an answer may have come.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;

use super::question::Question;

/// Before who did not answer is asked again.
const SILENT: SignedDuration = SignedDuration::from_secs(3);

/// The questions of a moment, each with its number.
#[derive(Debug)]
pub(super) struct Round {
    now: Timestamp,
    /// Of one node.
    pub(super) most: usize,
    pub(super) questions: BTreeMap<NodeName, Vec<(u64, Question)>>,
}

impl Round {
    pub(super) const fn new(now: Timestamp, most: usize) -> Self {
        Self { now, most, questions: BTreeMap::new() }
    }

    /// Asks a node what there is to be asked, if it is time to and there is room; `next` says when it is time, and so when it is asked again without an
    /// answer.
    pub(super) fn ask(
        &mut self,
        number: u64,
        to: &NodeName,
        next: &mut Timestamp,
        question: impl FnOnce() -> Option<Question>,
    ) {
        let has_room = || self.questions.get(to).is_none_or(|of_node| of_node.len() < self.most);
        if *next > self.now || !has_room() {
            return;
        }
        let Some(question) = question() else { return };
        self.questions.entry(to.clone()).or_default().push((number, question));
        *next = self.now.saturating_add(SILENT).unwrap_or(self.now);
    }
}
