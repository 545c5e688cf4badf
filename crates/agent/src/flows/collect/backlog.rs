//! What is not sent yet: in memory while the collector keeps up, on disk from the moment that it does not, until all there has come. What is put together
//! for a long time is on disk from the start, and so is all where the collector's URL says so: a process that is killed does not lose it.

use std::{collections::VecDeque, io, sync::Arc};

use podnet_flow::Numbered;
use tracing::{info, warn};

use super::{counts::Counts, missing::Missing, spill::Spill};

/// Items that wait in memory: more than a collector that keeps up is ever behind.
const MEMORY: usize = if cfg!(test) { 100 } else { 20_000 };

#[derive(Debug)]
pub(super) struct Backlog {
    memory: VecDeque<Numbered>,
    /// None where the directory cannot be used.
    spill: Option<Spill>,
    /// All goes to disk, also while the collector keeps up.
    is_on_disk: bool,
    /// What was sent last has not come.
    is_away: bool,
    out: Out,
    /// What went unsent and is being told.
    telling: Option<Missing>,
    /// What went unsent and was not told yet; where there is a spill, that has it.
    missing: Option<Missing>,
    counts: Arc<Counts>,
    /// That the disk refuses was told.
    is_told: bool,
    /// The last batch is without what waits on disk, as that could not be read.
    is_unreadable: bool,
}

/// Where what is being sent came from.
#[derive(Debug)]
enum Out {
    Nothing,
    Memory(Vec<Numbered>),
    Spill,
}

impl Backlog {
    pub(super) fn new(spill: Option<Spill>, counts: Arc<Counts>) -> Self {
        let (memory, out) = (VecDeque::new(), Out::Nothing);
        let (telling, missing, is_told, is_unreadable) = (None, None, false, false);
        let (is_on_disk, is_away) = (false, false);
        let backlog =
            Self { memory, spill, is_on_disk, is_away, out, telling, missing, counts, is_told, is_unreadable };
        backlog.count();
        backlog
    }

    /// From now on all waits on disk, where there is one.
    pub(super) const fn wait_on_disk(&mut self) {
        self.is_on_disk = true;
    }

    /// The same, for so long that much is sent together.
    pub(super) const fn gather_on_disk(&mut self) {
        self.wait_on_disk();
        if let Some(spill) = &mut self.spill {
            spill.in_large_files();
        }
    }

    /// Whether more waits on disk than what is added to at the moment: nothing is gained by waiting for others.
    pub(super) fn has_whole_part(&self) -> bool {
        self.spill.as_ref().is_some_and(Spill::has_whole_part)
    }

    /// Adds what is to be sent.
    pub(super) fn take_in(&mut self, items: Vec<Numbered>) {
        self.memory.extend(items);
        let is_behind = self.spill.as_ref().is_some_and(|spill| !spill.is_empty());
        if is_behind || self.is_on_disk || self.memory.len() > MEMORY {
            self.write_down();
        }
        while self.memory.len() > MEMORY {
            if let Some(item) = self.memory.pop_front() {
                self.counts.dropped(1);
                self.miss(Missing::of(&item));
            }
        }
        self.count();
    }

    /// How many items may be sent now, without those that say what is missing.
    pub(super) fn len(&self) -> usize {
        let spilled = self.spill.as_ref().map_or(0, Spill::len);
        self.memory.len() + usize::try_from(spilled).unwrap_or(usize::MAX)
    }

    /// Whether nothing is to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.missing.is_none() && !self.spill.as_ref().is_some_and(Spill::is_missing_some)
    }

    /// The oldest items, `most` of them at most, behind what tells which are missing. They are answered for by one of the next three.
    pub(super) fn batch(&mut self, most: usize) -> Vec<Numbered> {
        self.telling = self.spill.as_mut().and_then(Spill::take_missing).or_else(|| self.missing.take());
        let mut batch: Vec<Numbered> = self.telling.as_ref().map(Missing::told).into_iter().collect();
        let most = most.saturating_sub(batch.len());
        let spilled = match &mut self.spill {
            Some(spill) if most > 0 => spill.next(most),
            _ => Ok(Vec::new()),
        };
        self.is_unreadable = spilled.is_err();
        match spilled {
            Ok(items) if !items.is_empty() => {
                batch.extend(items);
                self.out = Out::Spill;
            }
            spilled => {
                if spilled.is_err() {
                    self.heed(spilled.map(drop));
                }
                let items: Vec<Numbered> = self.memory.drain(..most.min(self.memory.len())).collect();
                batch.extend_from_slice(&items);
                self.out = Out::Memory(items);
            }
        }
        batch
    }

    /// Whether something waits on disk that could not be read for the last batch.
    pub(super) const fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    /// The batch has come.
    pub(super) fn sent(&mut self) {
        self.is_away = false;
        let was_told = self.telling.take().is_some();
        let out = std::mem::replace(&mut self.out, Out::Nothing);
        let done = self.spill.as_mut().and_then(|spill| {
            let sent = matches!(out, Out::Spill).then(|| spill.sent());
            let noted = was_told.then(|| spill.note());
            sent.into_iter().chain(noted).reduce(Result::and)
        });
        if let Some(done) = done {
            self.heed(done);
        }
        // There is room for what had none.
        if self.is_on_disk {
            self.write_down();
        }
        self.count();
    }

    /// The batch has not come, and is to be sent in other parts.
    pub(super) fn returned(&mut self) {
        match std::mem::replace(&mut self.out, Out::Nothing) {
            Out::Memory(items) => items.into_iter().rev().for_each(|item| self.memory.push_front(item)),
            Out::Spill => self.spill.iter_mut().for_each(Spill::unsent),
            Out::Nothing => {}
        }
        if let Some(missing) = self.telling.take() {
            self.miss(missing);
        }
    }

    /// The batch has not come: what is in memory goes to disk, as it may be long until it does.
    pub(super) fn failed(&mut self) {
        self.returned();
        self.is_away = true;
        self.write_down();
        self.count();
    }

    /// Records never come: their collector does not take them, or there is no room.
    pub(super) fn miss(&mut self, missing: Missing) {
        match &mut self.spill {
            Some(spill) => spill.missing(missing),
            None => Missing::add(&mut self.missing, missing),
        }
    }

    /// Nobody is left to send anything: what is in memory goes to disk, and what is missing is noted there for the next agent.
    pub(super) fn keep(mut self) {
        self.failed();
        if !self.memory.is_empty() {
            self.counts.dropped(self.memory.len() as u64);
            warn!(records = self.memory.len(), "flows that were not sent are lost: they cannot be written down");
            for item in std::mem::take(&mut self.memory) {
                self.miss(Missing::of(&item));
            }
        }
        let missing = self.missing.take();
        if let Some(spill) = &mut self.spill {
            if let Some(missing) = missing {
                spill.missing(missing);
            }
            let noted = spill.note();
            self.heed(noted);
        }
        if self.spill.as_ref().is_some_and(|spill| !spill.is_empty()) {
            info!(records = self.len(), "flows wait on disk for their collector");
        }
    }

    fn write_down(&mut self) {
        let Some(spill) = self.spill.as_mut().filter(|_| !self.memory.is_empty()) else { return };
        let items = self.memory.make_contiguous();
        // What would be sent soon does not go for what comes behind it.
        let added = if self.is_on_disk && !self.is_away { spill.fill(items) } else { spill.add(items) };
        self.counts.dropped(added.gone);
        self.counts.spilled(added.written as u64);
        self.memory.drain(..added.written);
        self.heed(added.done);
    }

    /// Tells once that the disk refuses.
    fn heed(&mut self, done: io::Result<()>) {
        match done {
            Ok(()) => self.is_told = false,
            Err(error) if !std::mem::replace(&mut self.is_told, true) => {
                warn!(%error, "flows that wait for their collector cannot be kept on disk; told once until it works again");
            }
            Err(_) => {}
        }
    }

    fn count(&self) {
        let bytes = self.spill.as_ref().map_or(0, Spill::bytes);
        self.counts.waiting(self.len() as u64, bytes);
    }
}

#[cfg(test)]
mod tests;
