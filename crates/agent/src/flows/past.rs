//! The recent past, between the one who writes it and those who read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{Item, Store, store::Retention};
use tokio::sync::watch;

/// Items that a reader takes at once: what a slow one holds is bounded by it.
const PAGE: usize = 64;

/// What is kept.
#[derive(Debug)]
pub(crate) struct Past {
    store: Mutex<Store>,
    written: watch::Sender<()>,
}

impl Past {
    pub(crate) fn new(retention: Retention) -> Arc<Self> {
        Arc::new(Self { store: Mutex::new(Store::new(retention)), written: watch::Sender::new(()) })
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
            self.written.send_replace(());
        }
    }

    /// Reads what is kept, or only what comes from now on.
    pub(super) fn read(self: &Arc<Self>, kept: bool) -> Reader {
        let written = self.written.subscribe();
        let store = self.store();
        let next = if kept { store.since(0).0 } else { store.next() };
        drop(store);
        Reader { past: Arc::clone(self), written, next }
    }
}

/// Somebody who reads, and where.
#[derive(Debug)]
pub(super) struct Reader {
    past: Arc<Past>,
    written: watch::Receiver<()>,
    next: u64,
}

impl Reader {
    /// How many items went by unread, and the next ones; none where all are read.
    pub(super) fn page(&mut self) -> (u64, Vec<Item>) {
        self.written.mark_unchanged();
        let store = self.past.store();
        let (missing, items) = store.since(self.next);
        let items: Vec<Item> = items.take(PAGE).cloned().collect();
        self.next += missing + items.len() as u64;
        (missing, items)
    }

    /// Waits until there may be more; for good where nobody writes any more.
    pub(super) async fn more(&mut self) {
        if self.written.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
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
        assert_eq!(new.page(), (0, Vec::new()));
        assert_eq!(past.read(true).page(), (0, vec![item(3)]), "what is forgotten was not asked for");
    }
}
