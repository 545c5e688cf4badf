//! The recent past, between the one who writes it and those who read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Item, Joint, Store,
    store::{Bookmark, Page, Retention},
};
use tokio::sync::watch;

/// Items that a reader takes at once: what a slow one holds is bounded by it.
const PAGE: usize = 64;

/// What is kept.
#[derive(Debug)]
pub(crate) struct Past {
    /// When it began, in microseconds since 1970: items are numbered from then on.
    epoch: u64,
    store: Mutex<Store>,
    /// Whether nobody writes any more.
    written: watch::Sender<bool>,
    /// What of it other nodes' agents are asked, and ask; none where no other agent can be.
    joint: Mutex<Option<Joint>>,
}

impl Past {
    pub(crate) fn new(retention: Retention) -> Arc<Self> {
        let epoch = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let (store, written) = (Mutex::new(Store::new(retention)), watch::Sender::new(false));
        Arc::new(Self { epoch, store, written, joint: Mutex::default() })
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
        Reader { past: Arc::clone(self), written, bookmark, forgotten }
    }
}

/// Somebody who reads, and where.
#[derive(Debug)]
pub(super) struct Reader {
    past: Arc<Past>,
    written: watch::Receiver<bool>,
    bookmark: Bookmark,
    forgotten: Option<Timestamp>,
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
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 });
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

    #[tokio::test]
    async fn a_reader_hears_what_was_written_last_and_that_nobody_writes_any_more() {
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 });
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
