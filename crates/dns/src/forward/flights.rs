//! Questions that are being asked.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::{cache::Key, server::lock};

/// No more questions can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

type Flight<T> = BoxFuture<'static, T>;
/// Each with a number, which tells it from an earlier one for the same question.
type Open<T> = HashMap<Key, (u64, WeakShared<Flight<T>>)>;

/// Questions that are being asked, each once for all who want to know.
pub(super) struct Flights<T: Clone> {
    open: Mutex<Open<T>>,
    next: AtomicU64,
}

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0) }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// The flight for a question: the one that is under way, or else a new one. It goes on as long as somebody waits for it.
    pub(super) fn join(
        self: &Arc<Self>,
        key: &Key,
        limit: usize,
        journey: impl FnOnce() -> Flight<T>,
    ) -> Result<Shared<Flight<T>>, Full> {
        let mut open = lock(&self.open);
        if let Some(flight) = open.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return Ok(flight);
        }
        if open.len() >= limit {
            return Err(Full);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { flights: Arc::clone(self), key: key.clone(), number };
        let journey = journey();
        let flight = async move {
            let landed = journey.await;
            drop(entry);
            landed
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            open.insert(key.clone(), (number, weak));
        }
        Ok(flight)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.open).len()
    }
}

/// A flight's entry in the list: it goes with the flight, when it has landed and when nobody waits for it any more.
struct Entry<T: Clone> {
    flights: Arc<Flights<T>>,
    key: Key,
    number: u64,
}

impl<T: Clone> Drop for Entry<T> {
    fn drop(&mut self) {
        let mut open = lock(&self.flights.open);
        if open.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.key);
        }
    }
}
