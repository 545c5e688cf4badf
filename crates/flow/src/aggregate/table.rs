//! Flows by number and by key.

use std::hash::BuildHasher;

use foldhash::{HashMap, fast::RandomState};
use podnet_model::NodeName;

use super::flow::{Flow, Side};
use crate::{
    entry::Entry,
    record::{End, Key},
};

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Apart from the table, whose empty places would be as large.
    flows: HashMap<u64, Box<Flow>>,
    /// Flows by the hashes of their keys: others may have the same one.
    by_key: HashMap<u64, Vec<u64>>,
    keyed: RandomState,
    next: u64,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Flow> {
        self.flows.get_mut(&id).map(Box::as_mut)
    }

    pub(super) fn insert(&mut self, flow: Flow) -> u64 {
        let id = self.next;
        self.next += 1;
        self.note(&flow.key, id);
        self.flows.insert(id, Box::new(flow));
        id
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.forget(&flow.key, id);
        }
    }

    /// The flow of that key whose other end's entry is nearest to one of this end.
    pub(super) fn nearest(&self, key: &Key, side: Side, entry: &Entry) -> Option<u64> {
        let fits = |id: &u64| {
            let flow = self.flows.get(id).filter(|flow| flow.key == *key)?;
            Some((flow.distance(side, entry)?, *id))
        };
        let ids = self.by_key.get(&self.keyed.hash_one(key))?;
        ids.iter().filter_map(fits).min().map(|(_, id)| id)
    }

    /// It is known by now between whom a flow is.
    pub(super) fn readdress(&mut self, id: u64, key: Key, ends: (End, End), node: &NodeName) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = flow.key;
        flow.readdress(key, ends, node);
        self.forget(&before, id);
        self.note(&key, id);
    }

    fn note(&mut self, key: &Key, id: u64) {
        // Nearly all are alone.
        self.by_key.entry(self.keyed.hash_one(key)).or_insert_with(|| Vec::with_capacity(1)).push(id);
    }

    fn forget(&mut self, key: &Key, id: u64) {
        let hash = self.keyed.hash_one(key);
        if let Some(ids) = self.by_key.get_mut(&hash) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&hash);
            }
        }
    }
}
