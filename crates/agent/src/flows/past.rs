//! The recent past, between the one who writes it and those who read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Item, Store,
    store::{Retention, Sum},
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
}

impl Past {
    pub(crate) fn new(retention: Retention) -> Arc<Self> {
        let epoch = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        Arc::new(Self { epoch, store: Mutex::new(Store::new(retention)), written: watch::Sender::new(false) })
    }

    /// Which recording it is of (`RecordId`).
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
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
        let written = self.written.subscribe();
        let store = self.store();
        let next = if kept { store.since(0).0 } else { store.next() };
        let sum = store.sum_before(next);
        drop(store);
        Reader { past: Arc::clone(self), written, next, sum, missed: None }
    }

    /// Reads on behind an item that was read before. Of another recording's it is not known how many were behind it there: all of this one is read.
    pub(super) fn read_after(self: &Arc<Self>, epoch: u64, sequence: u64) -> Reader {
        let written = self.written.subscribe();
        let store = self.store();
        let next = if epoch == self.epoch { sequence.saturating_add(1).min(store.next()) } else { 0 };
        let sum = store.sum_before(next);
        drop(store);
        Reader { past: Arc::clone(self), written, next, sum, missed: None }
    }
}

/// Somebody who reads, and where.
#[derive(Debug)]
pub(super) struct Reader {
    past: Arc<Past>,
    written: watch::Receiver<bool>,
    next: u64,
    /// Of all items before the next one, as far as it is known.
    sum: Option<Sum>,
    missed: Option<Sum>,
}

impl Reader {
    /// The recording that is read, and the number of the item that is read next.
    pub(super) fn at(&self) -> (u64, u64) {
        (self.past.epoch, self.next)
    }

    /// How many items went by unread, and the next ones; none where all are read.
    pub(super) fn page(&mut self) -> (u64, Vec<Item>) {
        self.written.mark_unchanged();
        let store = self.past.store();
        let (missing, items) = store.since(self.next);
        let items: Vec<Item> = items.take(PAGE).cloned().collect();
        if missing > 0 {
            let now = store.sum_before(self.next + missing);
            self.missed = now.zip(self.sum).map(|(now, before)| now.since(before));
            self.sum = now;
        }
        if let Some(sum) = &mut self.sum {
            items.iter().for_each(|item| sum.add(item));
        }
        self.next += missing + items.len() as u64;
        (missing, items)
    }

    /// What was in the items that went by unread when some did the last time; none where that is not known.
    pub(super) const fn missed(&self) -> Option<Sum> {
        self.missed
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

    #[test]
    fn a_reader_is_told_how_much_went_by_and_reads_on_from_there() {
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 });
        let at = |second| Timestamp::from_second(second).unwrap();
        past.add(&[item(0), item(1)], at(0));
        let (mut all, mut new) = (past.read(true), past.read(false));
        assert_eq!(all.page(), (0, vec![item(0), item(1)]));
        assert_eq!(new.page(), (0, Vec::new()));
        past.add(&[item(2)], at(5));
        past.add(&[item(3)], at(16));
        assert_eq!(new.page(), (1, vec![item(3)]));
        assert_eq!(new.missed(), Some(Sum { packets: 2, ..Sum::default() }));
        assert_eq!(new.page(), (0, Vec::new()));
        assert_eq!(past.read(true).page(), (0, vec![item(3)]), "what is forgotten was not asked for");
        let behind = |epoch, sequence| past.read_after(epoch, sequence).page();
        assert_eq!(behind(past.epoch(), 2), (0, vec![item(3)]));
        assert_eq!(behind(past.epoch(), 1), (1, vec![item(3)]));
        assert_eq!(behind(past.epoch(), 3), (0, Vec::new()));
        assert_eq!(behind(past.epoch(), u64::MAX), (0, Vec::new()), "nobody has read what is not there yet");
        assert_eq!(behind(past.epoch() - 1, 7), (3, vec![item(3)]), "another recording's numbers mean nothing here");
        let mut behind = past.read_after(past.epoch(), 0);
        assert_eq!((behind.page().0, behind.missed()), (2, None), "what was in the second is not known any more");
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
        assert_eq!(reader.page(), (0, vec![item(0)]));
        assert!(!reader.more().await);
        let mut next = past.read(false);
        assert!(!next.more().await, "who comes later waits for nothing");
    }
}
