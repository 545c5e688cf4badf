//! The recent past, between the one who writes it and those who read.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Item, Joint, RecordId, Store,
    jsonl::Writer,
    store::{Bookmark, Page, Retention},
};
use tokio::sync::watch;

use super::private;

/// Items that a reader takes at once: what a slow one holds is bounded by it.
const PAGE: usize = 64;

/// What is kept.
#[derive(Debug)]
pub(crate) struct Past {
    /// When it began, in microseconds since 1970: items are numbered from then on.
    epoch: u64,
    /// The recording with whose counters this one went on.
    before: Option<u64>,
    store: Mutex<Store>,
    /// Whether nobody writes any more.
    written: watch::Sender<bool>,
    /// What writes lines for all who read, as long as somebody does: they are told of the same pods.
    lines: Mutex<Weak<Mutex<Writer>>>,
    /// What of it other nodes' agents are asked, and ask; none where no other agent can be.
    joint: Mutex<Option<Joint>>,
}

impl Past {
    /// Of a recording that goes on with what was counted for the one `before` it ([`earlier`]), or with nothing.
    pub(crate) fn new(retention: Retention, before: Option<u64>) -> Arc<Self> {
        let epoch = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let (store, written) = (Mutex::new(Store::new(retention)), watch::Sender::new(false));
        Arc::new(Self { epoch, before, store, written, lines: Mutex::default(), joint: Mutex::default() })
    }

    /// Leaves word in a file for the agent that goes on with what was counted for this one.
    pub(super) fn leave_word(&self, path: &Path) {
        if private::replace(path, self.epoch.to_string().as_bytes()).is_err() {
            // It is of an earlier one, with which the next does not go on. Where there is none, readers are told so.
            let _ = fs::remove_file(path);
        }
    }

    /// Which recording it is of (`RecordId`).
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is settled with other nodes' agents, which whoever records sets.
    pub(super) fn joint(&self) -> MutexGuard<'_, Option<Joint>> {
        self.joint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was told; what is too old goes also where nothing was.
    pub(super) fn add(&self, items: &[Item], now: Timestamp) {
        let mut store = self.store();
        store.forget(now);
        items.iter().for_each(|item| store.push(item.clone(), now));
        drop(store);
        if !items.is_empty() {
            self.written.send_modify(|_| {});
        }
    }

    /// Nothing more is added: who has read all is at the end.
    pub(super) fn end(&self) {
        self.written.send_replace(true);
    }

    /// Reads what is kept, or only what comes from now on.
    pub(super) fn read(self: &Arc<Self>, kept: bool) -> Reader {
        self.reader(|store| if kept { store.first() } else { store.next() })
    }

    /// Reads on behind an item that was read before. Of another recording's it is not known how many were behind it there: all of this one is read.
    pub(super) fn read_after(self: &Arc<Self>, epoch: u64, sequence: u64) -> Reader {
        self.reader(|_| if epoch == self.epoch { sequence.saturating_add(1) } else { 0 })
    }

    fn reader(self: &Arc<Self>, from: impl FnOnce(&Store) -> u64) -> Reader {
        let written = self.written.subscribe();
        let mut store = self.store();
        let next = from(&store);
        let (bookmark, forgotten) = (store.enter(next), store.forgotten());
        drop(store);
        Reader { past: Arc::clone(self), written, bookmark, forgotten, lines: self.lines() }
    }

    fn lines(&self) -> Arc<Mutex<Writer>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *lines = Arc::downgrade(&new);
            new
        })
    }
}

/// Which recording an earlier agent left word of ([`Past::leave_word`]), where its counters are gone on with; none where that is not known. Else its word
/// holds for nobody.
pub(super) fn earlier(path: &Path, goes_on: bool) -> Option<u64> {
    if !goes_on {
        let _ = fs::remove_file(path);
        return None;
    }
    fs::read_to_string(path).ok()?.parse().ok()
}

/// Somebody who reads, and where.
#[derive(Debug)]
pub(super) struct Reader {
    past: Arc<Past>,
    written: watch::Receiver<bool>,
    bookmark: Bookmark,
    forgotten: Option<Timestamp>,
    lines: Arc<Mutex<Writer>>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.past.store().leave(&self.bookmark);
    }
}

impl Reader {
    /// The recording that is read.
    pub(super) fn epoch(&self) -> u64 {
        self.past.epoch
    }

    /// Whether that goes on with what was counted for this one, and no other was between. What that one had read already it told those who followed it
    /// to its end, and nobody else: that they did not hear it is in no gap, unless it was killed.
    pub(super) fn goes_on_with(&self, epoch: u64) -> bool {
        self.past.before == Some(epoch)
    }

    /// Adds an item as a line with its end.
    pub(super) fn write(&self, to: &mut Vec<u8>, record: &RecordId, item: &Item) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).add(to, Some(record), item);
    }

    /// Until when something was that was not kept any more as this one began to read.
    pub(super) const fn forgotten(&self) -> Option<Timestamp> {
        self.forgotten
    }

    /// The next items, none where all are read, and what went by unread before them.
    pub(super) fn page(&mut self) -> Page {
        self.written.mark_unchanged();
        self.past.store().page(&self.bookmark, PAGE)
    }

    /// Waits until there may be more; not where nobody writes any more and all is read.
    pub(super) async fn more(&mut self) -> bool {
        let is_read = matches!(self.written.has_changed(), Ok(false));
        let is_ended = *self.written.borrow();
        !(is_read && is_ended) && self.written.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;
    use podnet_flow::{Gap, record::GapAt};

    use super::*;

    fn item(packets: u64) -> Item {
        let at = Timestamp::UNIX_EPOCH;
        let node = "node1".into();
        let at_ = GapAt::Kernel;
        Item::Gap(Gap { start: at, end: at, node, at: at_, device: None, pod: None, packets, bytes: 0, flows: 0 })
    }

    /// How many items went by, and the next ones.
    fn page(reader: &mut Reader) -> (u64, Vec<Item>) {
        let Page { missed, items, .. } = reader.page();
        (missed.items(), items)
    }

    #[test]
    fn a_reader_is_told_how_much_went_by_and_reads_on_from_there() {
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 }, None);
        let at = |second| Timestamp::from_second(second).unwrap();
        past.add(&[item(0), item(1)], at(0));
        let (mut all, mut new) = (past.read(true), past.read(false));
        assert_eq!(page(&mut all), (0, vec![item(0), item(1)]));
        assert_eq!(page(&mut new), (0, Vec::new()));
        past.add(&[item(2)], at(5));
        past.add(&[item(3)], at(16));
        let late = new.page();
        assert_eq!((late.missed.items(), late.first, late.items), (1, 3, vec![item(3)]));
        assert_eq!(late.missed.shares().map(|share| share.sum.packets).collect::<Vec<_>>(), [2]);
        assert_eq!(page(&mut new), (0, Vec::new()));
        assert_eq!(page(&mut past.read(true)), (0, vec![item(3)]), "what is forgotten was not asked for");
        let behind = |epoch, sequence| page(&mut past.read_after(epoch, sequence));
        assert_eq!(behind(past.epoch(), 2), (0, vec![item(3)]));
        assert_eq!(behind(past.epoch(), 1), (1, vec![item(3)]));
        assert_eq!(behind(past.epoch(), 3), (0, Vec::new()));
        assert_eq!(behind(past.epoch(), u64::MAX), (0, Vec::new()), "nobody has read what is not there yet");
        assert_eq!(behind(past.epoch() - 1, 7), (3, vec![item(3)]), "another recording's numbers mean nothing here");
        let missed = past.read_after(past.epoch(), 0).page().missed;
        assert_eq!((missed.items(), missed.unknown()), (2, 2), "what was in them is not known any more");
    }

    #[test]
    fn all_who_read_have_their_lines_from_one_writer_which_goes_with_the_last_of_them() {
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 }, None);
        let readers = [past.read(true), past.read_after(7, 7)];
        assert!(Arc::ptr_eq(&readers[0].lines, &readers[1].lines));
        let (record, mut text) = ("node1/1/7".parse::<RecordId>().unwrap(), Vec::new());
        readers[0].write(&mut text, &record, &item(3));
        assert!(String::from_utf8(text).unwrap().starts_with(r#"{"record":"node1/1/7","type":"gap""#));
        drop(readers);
        assert!(past.lines.lock().unwrap().upgrade().is_none());
    }

    #[test]
    fn a_recording_goes_on_with_the_one_before_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flow-epoch");
        let retention = Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 };
        let record = |goes_on| {
            let past = Past::new(retention, earlier(&path, goes_on));
            past.leave_word(&path);
            past
        };
        assert_eq!(record(true).before, None, "nobody left word");
        let first = record(false);
        let second = record(true);
        let epoch = first.epoch();
        let goes_on = |past: &Arc<Past>, epoch| past.read(true).goes_on_with(epoch);
        assert!(goes_on(&second, epoch) && !goes_on(&second, epoch - 1));
        let third = record(true);
        assert!(goes_on(&third, second.epoch()), "{third:?}");
        // Between them there were new counters.
        record(false);
        let last = record(true);
        assert!(![&first, &second, &third].iter().any(|past| goes_on(&last, past.epoch())), "{last:?}");
        // Where no word can be left, there is none of an earlier one either.
        assert_eq!(earlier(&path, true), Some(last.epoch()));
        fs::create_dir(path.with_extension("new")).unwrap();
        last.leave_word(&path);
        assert_eq!(earlier(&path, true), None);
    }

    #[tokio::test]
    async fn a_reader_hears_what_was_written_last_and_that_nobody_writes_any_more() {
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 }, None);
        let mut reader = past.read(false);
        let late = tokio::spawn({
            let mut reader = past.read(false);
            async move { reader.more().await }
        });
        past.add(&[item(0)], Timestamp::UNIX_EPOCH);
        assert!(late.await.unwrap());
        past.end();
        assert!(reader.more().await);
        assert_eq!(page(&mut reader), (0, vec![item(0)]));
        assert!(!reader.more().await);
        let mut next = past.read(false);
        assert!(!next.more().await, "who comes later waits for nothing");
    }
}
