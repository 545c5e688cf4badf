//! How many bytes of records the zones of catalogs may have together: others decide how many these are and how large.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What several zones share.
#[derive(Debug)]
pub(super) struct Allowance {
    /// In bytes.
    limit: usize,
    taken: AtomicUsize,
}

/// What one zone has of it. When it is dropped, others may have that.
#[derive(Debug)]
pub(super) struct Part {
    of: Arc<Allowance>,
    bytes: usize,
}

impl Allowance {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }
}

impl Part {
    /// Nothing yet.
    pub(super) fn new(of: &Arc<Allowance>) -> Self {
        Self { of: Arc::clone(of), bytes: 0 }
    }

    /// What all zones together may have.
    pub(super) fn limit(&self) -> usize {
        self.of.limit
    }

    /// What the zone has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the zone so many bytes; false: there is no room for more, and it has what it had.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = |taken: usize| taken.checked_add(more).filter(|taken| more == 0 || *taken <= self.of.limit);
        if self.of.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        self.of.taken.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_share_what_there_is_and_who_goes_leaves_room() {
        let all = Allowance::new(100);
        let (mut one, mut other) = (Part::new(&all), Part::new(&all));
        assert!(one.resize(60) && !other.resize(41) && other.resize(40));
        assert_eq!((one.bytes(), other.bytes(), all.taken.load(Ordering::Relaxed)), (60, 40, 100));
        assert!(!one.resize(61), "what it had stays its own");
        assert!(one.resize(60) && one.resize(10) && other.resize(90));
        drop(one);
        assert!(other.resize(100) && !other.resize(usize::MAX) && other.resize(0));
        assert_eq!(all.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_takes_room_at_the_same_time_never_has_more_than_there_is() {
        let all = Allowance::new(1000);
        let taking = |_| {
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                let mut part = Part::new(&all);
                for round in 0..2000 {
                    part.resize(round % 400);
                    assert!(all.taken.load(Ordering::Relaxed) <= 1000);
                }
            })
        };
        let threads: Vec<_> = (0..4).map(taking).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(all.taken.load(Ordering::Relaxed), 0);
    }
}
