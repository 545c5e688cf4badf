//! Questions that are being asked.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::server::lock;

/// No more questions can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

type Flight<T> = BoxFuture<'static, T>;
/// Each with a number, which tells it from an earlier one for the same question.
type Open<K, T> = HashMap<K, (u64, WeakShared<Flight<T>>)>;

/// Questions that are being asked, each once for all who want to know.
pub(crate) struct Flights<K: Hash + Eq, T: Clone> {
    open: Mutex<Open<K, T>>,
    next: AtomicU64,
}

impl<K: Hash + Eq, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0) }
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// The flight for a question: the one that is under way, or else a new one. It goes on as long as somebody waits for it.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &K,
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
    pub(crate) fn len(&self) -> usize {
        lock(&self.open).len()
    }
}

/// A flight's entry in the list: it goes with the flight, when it has landed and when nobody waits for it any more.
struct Entry<K: Hash + Eq, T: Clone> {
    flights: Arc<Flights<K, T>>,
    key: K,
    number: u64,
}

impl<K: Hash + Eq, T: Clone> Drop for Entry<K, T> {
    fn drop(&mut self) {
        let mut open = lock(&self.flights.open);
        if open.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.key);
        }
    }
}
