//! What all of a server's parts share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{Debugger, Outside, queue::Queue, recovery::Recovery, signed::Keys};
use crate::{metrics::Metrics, plugin::Challenges};

/// What all links of a server share.
#[derive(Clone)]
pub struct Parts {
    /// The surroundings.
    pub outside: Arc<dyn Outside>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who looks for faults.
    pub debug: Debugger,
    /// What this machine is called.
    pub host: Arc<str>,
    /// Clients that wait for answers; see [`Parts::places`].
    pub(super) waiting: Arc<AtomicUsize>,
    /// Zones that are being given away.
    pub(super) given: Arc<AtomicUsize>,
    /// Zones that catalogs list, as they are looked after.
    pub(super) fetching: Arc<Queue>,
    /// The keys of all server blocks (`tsig`).
    pub(super) keys: Arc<Keys>,
    /// The cluster's state is known.
    pub(super) synced: Arc<AtomicBool>,
    /// What proves domains to authorities, where the Corefile has certificates issued.
    pub(crate) challenges: Option<Arc<Challenges>>,
    /// Survives panics on the way to answers.
    pub(super) recovery: Recovery,
}

/// A place among those who wait; it is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct PlaceInLine(Arc<AtomicUsize>);

impl Parts {
    /// Whether the cluster's state is known: what is not there does not exist.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// A place among those who wait for answers; none when there are too many.
    pub(super) fn place(&self, limit: usize) -> Option<PlaceInLine> {
        PlaceInLine::take(&self.waiting, limit)
    }

    /// Does what no client waits for, of what others sent: a panic on the way is survived, counted and told, and nothing
    /// comes of it. `what` says what it is.
    pub(crate) async fn apart<T>(&self, what: &str, work: impl Future<Output = T>) -> Option<T> {
        let done = self.recovery.survive(work).await;
        done.inspect_err(|panicked| self.recovery.tell(what, panicked)).ok()
    }

    /// A place among those to whom a zone is given away; none when there are too many.
    pub(super) fn giving(&self, limit: usize) -> Option<PlaceInLine> {
        PlaceInLine::take(&self.given, limit)
    }
}

impl PlaceInLine {
    /// A place in this line; none when there are so many.
    pub(crate) fn take(line: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(Arc::clone(line));
        // Counted first, so that two who come at once cannot both take the last one; dropping the place counts it off again.
        (line.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
