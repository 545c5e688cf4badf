//! Connections that end between two readings of the map: all of their entries rang, and nothing is due any more.

use super::{Aggregator, Scene, flow::Rest};
use crate::{
    entry::{Entry, Transport},
    record::Record,
};

/// Entries in the kernel, one at a time.
pub trait Entries {
    /// Why the kernel does not do it.
    type Error;

    /// The entry of that key as it is now, which may be a later one; none where there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    fn look(&mut self, entry: &Entry) -> Result<Option<Entry>, Self::Error>;

    /// Takes an entry out that is as it was read; its last counters. None where it is not.
    ///
    /// # Errors
    /// What the kernel refused.
    fn take(&mut self, entry: &Entry) -> Result<Option<Entry>, Self::Error>;
}

impl Aggregator {
    /// Takes in an entry that rang as the protocol said that it is over, as [`Aggregator::observe`] does.
    pub fn rang(&mut self, entry: &Entry, scene: &mut Scene<'_>, told: &mut Vec<Record>) {
        let _ = self.observe(entry, scene, told);
        // What ends an association of SCTP is not acknowledged.
        if entry.key.transport != Transport::TCP {
            return;
        }
        let Some(live) = self.live.get(&(entry.key, entry.born)) else { return };
        if let Some(flow) = self.flows.get_mut(live.flow) {
            flow.ring(live.side, entry);
            self.ending.insert(live.flow);
        }
    }

    /// Takes out the entries of connections that rang ([`Aggregator::rang`]), without waiting for a reading of the map: where their end was
    /// acknowledged or a reset, and nothing passed for [`Timeouts::acknowledged`](super::Timeouts::acknowledged). Both ends' go together, and each is
    /// looked at first; where one is missing, or did not ring, they wait for [`Aggregator::sweep`]. [`Aggregator::settle`] tells of them.
    ///
    /// # Errors
    /// The first that the kernel refused. What it keeps from being taken out here goes by a reading.
    pub fn take_ended<K: Entries>(
        &mut self,
        entries: &mut K,
        scene: &mut Scene<'_>,
        told: &mut Vec<Record>,
    ) -> Result<(), K::Error> {
        for id in std::mem::take(&mut self.ending) {
            if self.is_still_ending(id, entries, scene, told)? {
                self.ending.insert(id);
            }
        }
        Ok(())
    }

    /// Takes a flow's entries out, if it may; else whether that is to be tried again.
    fn is_still_ending<K: Entries>(
        &mut self,
        id: u64,
        entries: &mut K,
        scene: &mut Scene<'_>,
        told: &mut Vec<Record>,
    ) -> Result<bool, K::Error> {
        let last = self.flows.get_mut(id).and_then(|flow| flow.open().map(|entry| entry.last).max());
        let Some(last) = last else { return Ok(false) };
        if self.rest(id, scene) == Rest::Unknown {
            return Ok(false);
        }
        let silence = scene.now.duration_since(last);
        if silence < self.timeouts.acknowledged {
            return Ok(true);
        }
        for entry in &self.open(id) {
            match entries.look(entry)?.filter(|there| there.born == entry.born) {
                Some(there) => drop(self.observe(&there, scene, told)),
                // What takes its place rang; what others took out is missed by a reading.
                None => return Ok(false),
            }
        }
        if self.rest(id, scene) != Rest::Over {
            // By then a reading finds it.
            return Ok(silence < self.timeouts.ended);
        }
        let mut is_left = false;
        for entry in self.open(id) {
            match entries.take(&entry)? {
                Some(last) => self.over(&last, scene),
                // Something passed just now.
                None => is_left = true,
            }
        }
        Ok(is_left)
    }

    fn open(&mut self, id: u64) -> Vec<Entry> {
        self.flows.get_mut(id).map(|flow| flow.open().copied().collect()).unwrap_or_default()
    }

    fn rest(&mut self, id: u64, scene: &Scene<'_>) -> Rest {
        let quiet = self.timeouts.acknowledged;
        self.flows.get_mut(id).map_or(Rest::Unknown, |flow| flow.rest(scene.now, quiet))
    }
}
