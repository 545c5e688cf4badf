//! Where the recorder leaves items for a collector, and waits for nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};

use podnet_flow::Numbered;
use tokio::sync::Notify;

use super::missing::Missing;

/// Items that nobody took yet: those of some seconds, where there are many. Their records are shared with others who have them.
pub(super) const ROOM: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Intake {
    left: Mutex<Left>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Left {
    items: Vec<Numbered>,
    /// What found no room behind these.
    missing: Option<Missing>,
}

impl Intake {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn offer<'a>(&self, items: impl Iterator<Item = &'a Numbered>) {
        let mut left = self.lock();
        for item in items {
            if left.missing.is_none() && left.items.len() < ROOM {
                left.items.push(item.clone());
            } else {
                Missing::add(&mut left.missing, Missing::of(item));
            }
        }
        let is_any = !left.items.is_empty() || left.missing.is_some();
        drop(left);
        if is_any {
            self.told.notify_one();
        }
    }

    /// All that was left, and how much had no room.
    pub(super) fn take(&self) -> (Vec<Numbered>, u64) {
        let Left { mut items, missing } = std::mem::take(&mut *self.lock());
        let dropped = missing.as_ref().map_or(0, Missing::records);
        items.extend(missing.as_ref().map(Missing::told));
        (items, dropped)
    }

    /// Waits until there is something to take; it may have been taken already.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}
