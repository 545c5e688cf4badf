//! Records that wait for what another node tells of the same flows, so many at most.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use crate::record::{FlowId, Key, Record};

/// So far apart two nodes' clocks and the two ends' first packets may be; ports are seldom used again sooner.
const APART: SignedDuration = SignedDuration::from_secs(30);

/// Records by their flows: of each flow the last one.
#[derive(Debug)]
pub(super) struct Kept {
    /// Each with when it was last of use.
    pub(super) by_key: HashMap<Key, Vec<(Timestamp, Arc<Record>)>>,
    /// In the order in which they were kept, with some that are not any more.
    pub(super) order: VecDeque<(Key, FlowId)>,
    most: usize,
    pub(super) len: usize,
}

impl Kept {
    /// For no more than that many, of 1 or more: where there are as many, the oldest goes.
    pub(super) fn new(most: usize) -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new(), most, len: 0 }
    }

    /// Keeps a record that was heard now as one of a flow, which is not always the one that it names.
    pub(super) fn keep(&mut self, key: Key, record: &Arc<Record>, now: Timestamp) {
        // What ends is told long after its last packet where that is waited for.
        let at = now.max(record.end);
        let mut same = self.by_key.get_mut(&key).into_iter().flatten();
        if let Some(kept) = same.find(|(_, kept)| kept.id == record.id) {
            *kept = (at, Arc::clone(record));
        } else {
            self.make_room();
            self.by_key.entry(key).or_default().push((at, Arc::clone(record)));
            self.order.push_back((key, record.id));
            self.len += 1;
        }
    }

    fn make_room(&mut self) {
        while self.len >= self.most
            && let Some((key, id)) = self.order.pop_front()
        {
            let Some(kept) = self.by_key.get_mut(&key) else { continue };
            let before = kept.len();
            kept.retain(|(_, kept)| kept.id != id);
            self.len -= before - kept.len();
            if kept.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// Those of that flow that began at about that time: ports are used again.
    pub(super) fn near(&self, key: &Key, start: Timestamp) -> impl Iterator<Item = &Arc<Record>> {
        let all = self.by_key.get(key).into_iter().flatten().map(|(_, record)| record);
        all.filter(move |record| apart(record, start) <= APART)
    }

    /// The one of them that began nearest to it.
    pub(super) fn nearest(&self, key: &Key, start: Timestamp) -> Option<&Arc<Record>> {
        self.near(key, start).min_by_key(|record| apart(record, start))
    }

    /// Forgets those of which nothing was heard since that time.
    pub(super) fn forget(&mut self, before: Timestamp) {
        self.by_key.retain(|_, kept| {
            kept.retain(|(at, _)| *at >= before);
            !kept.is_empty()
        });
        self.len = self.by_key.values().map(Vec::len).sum();
        if self.order.len() > 2 * self.len {
            let is_kept = |(key, id): &(Key, FlowId)| {
                self.by_key.get(key).is_some_and(|kept| kept.iter().any(|(_, kept)| kept.id == *id))
            };
            self.order.retain(is_kept);
        }
    }
}

pub(super) fn apart(record: &Record, start: Timestamp) -> SignedDuration {
    record.start.duration_since(start).abs()
}
