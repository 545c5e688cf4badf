//! What was told lately of flows that both ends' nodes tell: a node may be lost before it told the end of what the other one saw.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podnet_flow::{Key, Record, Report, Reporter};

/// Longer than it takes to notice that a node does not answer any more.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(2);
/// So many ends are remembered at most.
const MOST: usize = 100_000;
/// The clocks of two nodes are no farther apart; nor are two flows with the same ports closer.
const NEARLY: SignedDuration = SignedDuration::from_secs(5);

/// A flow, and when it began.
type Begun = (Key, Timestamp);

/// Who told the end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Source,
    /// Its word was taken for the source's.
    Destination,
}

/// Ends of flows.
#[derive(Debug, Default)]
pub(super) struct Lately {
    told: BTreeMap<Begun, By>,
    /// Those that the destination's node alone told so far.
    left_out: BTreeMap<Begun, Arc<Record>>,
    /// All of them, with when they ended.
    order: VecDeque<(Timestamp, Begun)>,
}

impl Lately {
    /// What is to be told is told; false where the other end's node told it before.
    pub(super) fn tell(&mut self, record: &Record) -> bool {
        // What both ends of were counted on one node no other one tells.
        if record.report != Report::End || record.reporter == Reporter::Both {
            return true;
        }
        let by = if record.is_secondary() { By::Destination } else { By::Source };
        if self.told.range(near(record)).any(|(_, told)| *told != by) {
            return false;
        }
        let others: Vec<Begun> = self.left_out.range(near(record)).map(|(begun, _)| *begun).collect();
        others.iter().for_each(|begun| drop(self.left_out.remove(begun)));
        self.told.insert(begun(record), by);
        self.remember(record);
        true
    }

    /// The destination's node told it, and the source's is about to.
    pub(super) fn leave_out(&mut self, record: &Arc<Record>) {
        if record.report == Report::End && self.told.range(near(record)).next().is_none() {
            self.left_out.insert(begun(record), Arc::clone(record));
            self.remember(record);
        }
    }

    /// This node tells nothing any more: the ends that it was to tell.
    pub(super) fn take(&mut self, node: &str) -> Vec<Arc<Record>> {
        let was_to_tell = |record: &Record| record.source.pod.as_ref().is_none_or(|pod| pod.node.as_str() == node);
        let mut taken: Vec<_> = self.left_out.values().filter(|record| was_to_tell(record)).cloned().collect();
        taken.sort_by_key(|record| record.end);
        taken.retain(|record| self.tell(record));
        taken
    }

    fn remember(&mut self, record: &Record) {
        self.order.push_back((record.end, begun(record)));
        let is_old = |(end, _): &(Timestamp, Begun)| record.end.duration_since(*end) > REMEMBERED;
        while self.order.len() > MOST || self.order.front().is_some_and(is_old) {
            let Some((_, begun)) = self.order.pop_front() else { return };
            self.told.remove(&begun);
            self.left_out.remove(&begun);
        }
    }
}

fn begun(record: &Record) -> Begun {
    (record.key(), record.start)
}

/// The same flow as another node's clock has it.
fn near(record: &Record) -> RangeInclusive<Begun> {
    let (key, start) = begun(record);
    (key, start.saturating_sub(NEARLY).unwrap_or(start))..=(key, start.saturating_add(NEARLY).unwrap_or(start))
}
