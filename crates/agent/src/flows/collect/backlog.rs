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
mod tests {
    use super::*;
    use crate::flows::collect::tests::{flow, sequences};

    fn backlog(spill: Option<Spill>) -> (Backlog, Arc<Counts>) {
        let counts = Arc::new(Counts::new("c".to_owned()));
        (Backlog::new(spill, counts.clone()), counts)
    }

    fn drain(backlog: &mut Backlog) -> Vec<u64> {
        let mut found = Vec::new();
        while !backlog.is_empty() {
            found.extend(sequences(&backlog.batch(30)));
            backlog.sent();
        }
        found
    }

    #[test]
    fn what_did_not_come_waits_on_disk_and_what_comes_behind_it_too() {
        let directory = tempfile::tempdir().unwrap();
        let (mut backlog, counts) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
        backlog.take_in((0..50).map(flow).collect());
        assert_eq!((backlog.batch(10).len(), backlog.len()), (10, 40));
        backlog.failed();
        backlog.take_in((50..70).map(flow).collect());
        assert!(backlog.memory.is_empty() && counts.spilled_so_far() == 70);
        assert_eq!(drain(&mut backlog), (0..70).collect::<Vec<_>>());
        backlog.take_in(vec![flow(70)]);
        assert!(backlog.memory.len() == 1, "where all has come nothing is written any more");
        backlog.keep();
        assert_eq!(Spill::open(directory.path(), 1 << 20).unwrap().len(), 1);
    }

    #[test]
    fn what_has_no_room_on_disk_waits_in_memory_while_its_collector_takes_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let room = 16 << 10;
        let (mut backlog, counts) = backlog(Some(Spill::open(directory.path(), room).unwrap()));
        backlog.wait_on_disk();
        backlog.take_in((0..60).map(flow).collect());
        let written = counts.spilled_so_far();
        assert!(written > 5 && written < 50, "{written}");
        assert_eq!((backlog.len(), backlog.memory.len() as u64), (60, 60 - written));
        let mut found = sequences(&backlog.batch(5));
        backlog.take_in((60..70).map(flow).collect());
        backlog.sent();
        assert!(counts.spilled_so_far() > written, "what comes leaves room");
        found.extend(drain(&mut backlog));
        assert_eq!(found, (0..70).collect::<Vec<_>>());
        assert_eq!((counts.dropped_so_far(), counts.spilled_so_far()), (0, 70));
        // Once it is away all is on disk, and the oldest go.
        backlog.take_in((70..130).map(flow).collect());
        backlog.batch(5);
        backlog.failed();
        assert!(backlog.memory.is_empty() && counts.dropped_so_far() > 0);
    }

    #[test]
    fn what_cannot_be_written_down_stays_in_memory_and_is_told_as_missing_where_it_is_lost_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spill");
        let (mut backlog, counts) = backlog(Some(Spill::open(&path, 64 << 10).unwrap()));
        backlog.take_in(vec![flow(0)]);
        backlog.failed();
        // The file that is open takes some more, and there is no place for another one.
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        backlog.take_in((1..50).map(flow).collect());
        let written = counts.spilled_so_far();
        assert!(written > 1 && written < 50, "{written}");
        assert_eq!(backlog.memory.len() as u64, 50 - written, "what was written is in memory no more");
        backlog.failed();
        assert_eq!(counts.spilled_so_far(), written);
        // Now nothing can be added, but what is missing can be noted.
        let next = path.join("1.jsonl");
        std::fs::create_dir_all(&next).unwrap();
        backlog.keep();
        assert_eq!(counts.dropped_so_far(), 50 - written);
        std::fs::remove_dir(next).unwrap();
        assert_eq!(Spill::open(&path, 64 << 10).unwrap().take_missing().unwrap().records(), 50 - written);
    }

    #[test]
    fn that_the_disk_cannot_be_read_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let (mut backlog, _) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
        backlog.take_in(vec![flow(0)]);
        backlog.failed();
        let path = directory.path().join("0.jsonl");
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(backlog.batch(10).is_empty() && backlog.is_unreadable() && !backlog.is_empty());
        backlog.failed();
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        assert!(sequences(&backlog.batch(10)) == [0] && !backlog.is_unreadable());
    }

    #[test]
    fn what_is_missing_as_an_agent_ends_the_next_one_tells() {
        let directory = tempfile::tempdir().unwrap();
        let (mut backlog, _) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
        backlog.miss(Missing::of(&flow(7)));
        backlog.keep();
        let mut spill = Spill::open(directory.path(), 1 << 20).unwrap();
        assert_eq!(spill.take_missing().unwrap().told().record.to_string(), "node1/1/7/missing");
    }

    #[test]
    fn what_is_too_much_for_memory_is_written_down_or_told_as_missing_where_there_is_no_disk() {
        let directory = tempfile::tempdir().unwrap();
        let items = || (0..150).map(flow).collect();
        let (mut with, _) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
        with.take_in(items());
        assert_eq!(drain(&mut with), (0..150).collect::<Vec<_>>());
        let (mut without, counts) = backlog(None);
        without.take_in(items());
        let batch = without.batch(5);
        assert_eq!((batch[0].record.to_string(), batch.len()), ("node1/1/49/missing".to_owned(), 5));
        without.failed();
        assert_eq!(counts.dropped_so_far(), 50);
        let again = without.batch(5);
        assert_eq!(again, batch, "what is missing is told until it has come");
        without.sent();
        assert_eq!(drain(&mut without), (54..150).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_that_is_returned_is_sent_in_other_parts() {
        let (mut backlog, _) = backlog(None);
        backlog.take_in((0..4).map(flow).collect());
        assert_eq!(sequences(&backlog.batch(4)), [0, 1, 2, 3]);
        backlog.returned();
        assert_eq!(sequences(&backlog.batch(2)), [0, 1]);
        backlog.sent();
        assert_eq!(drain(&mut backlog), [2, 3]);
    }
}
