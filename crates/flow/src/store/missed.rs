//! What went by somebody who reads, and whose it was.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    names::PodIdentity,
    record::{Item, Report, Reporter},
};

/// Of so many pods it is kept apart: nearly all that a node has. What is of others is one.
const MOST: usize = 128;

/// What is lost with items: flows by the records of their ends, since those before say less of the same, and what gaps say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Packets of both directions.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows.
    pub flows: u64,
}

impl Sum {
    /// One more item is lost.
    pub fn add(&mut self, item: &Item) {
        let (packets, bytes, flows) = match item {
            Item::Flow(record) if record.report == Report::End => {
                (record.sent.packets + record.received.packets, record.sent.bytes + record.received.bytes, 1)
            }
            // Of the latter the packets are in records as well.
            Item::Flow(_) | Item::Drops(_) => return,
            Item::Gap(gap) => (gap.packets, gap.bytes, gap.flows),
        };
        self.packets += packets;
        self.bytes += bytes;
        self.flows += flows;
    }
}

/// What is missing of what was counted at one pod's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The pod. None: it is not known, or there are too many to tell all apart.
    pub pod: Option<Arc<PodIdentity>>,
    /// Items of whatever kind: 1 or more.
    pub items: u64,
    /// What was in them.
    pub sum: Sum,
}

/// Items that went by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// By the pods' uids.
    shares: BTreeMap<Option<Arc<str>>, Share>,
    unknown: u64,
}

impl Missed {
    /// One more.
    pub(super) fn add(&mut self, item: &Item) {
        let mut pod = counted_at(item);
        let mut uid = pod.map(|pod| pod.uid.clone());
        if self.shares.len() >= MOST && !self.shares.contains_key(&uid) {
            (pod, uid) = (None, None);
        }
        let share = self.shares.entry(uid).or_insert_with(|| Share { pod: pod.cloned(), ..Share::default() });
        share.items += 1;
        share.sum.add(item);
    }

    /// So many went by in all, whatever is known of them.
    pub(super) fn among(mut self, all: u64) -> Self {
        self.unknown = all.saturating_sub(self.shares.values().map(|share| share.items).sum());
        self
    }

    /// Each pod once.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.values()
    }

    /// How many items went by of which nothing else is known: before somebody read who asks for what is behind an earlier one.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }

    /// How many items went by.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.unknown + self.shares.values().map(|share| share.items).sum::<u64>()
    }
}

/// The pod at whose interface it was counted.
fn counted_at(item: &Item) -> Option<&Arc<PodIdentity>> {
    match item {
        Item::Flow(record) if record.reporter == Reporter::Destination => record.destination.pod.as_ref(),
        Item::Flow(record) => record.source.pod.as_ref(),
        Item::Gap(gap) => gap.pod.as_ref(),
        Item::Drops(drops) => drops.pod.as_ref(),
    }
}
