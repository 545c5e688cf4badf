//! Taking turns by key: what concerns the same thing happens one after the other, everything else at once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

/// The keys whose turn somebody has.
#[derive(Debug)]
pub struct Turns<K> {
    taken: Mutex<BTreeSet<K>>,
    changed: Condvar,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { taken: Mutex::default(), changed: Condvar::new() }
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// Waits for the turn.
    pub fn take(self: &Arc<Self>, key: K) -> Turn<K> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.changed.wait_while(taken, |taken| taken.contains(&key));
        taken.unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        Turn { turns: self.clone(), key }
    }

    /// Waits for the turn until `deadline`; none where it did not come.
    pub fn take_until(self: &Arc<Self>, key: K, deadline: Instant) -> Option<Turn<K>> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(taken, patience, |taken| taken.contains(&key));
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        taken.insert(key.clone()).then(|| Turn { turns: self.clone(), key })
    }
}

/// A turn; dropping it ends it.
#[derive(Debug)]
pub struct Turn<K: Ord + Clone> {
    turns: Arc<Turns<K>>,
    key: K,
}

impl<K: Ord + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn the_same_key_is_served_one_after_the_other() {
        let (turns, inside) = (Arc::new(Turns::default()), Arc::new(AtomicU32::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (turns, inside) = (turns.clone(), inside.clone());
                thread::spawn(move || {
                    for _ in 0..200 {
                        let _turn = turns.take("pod");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn another_key_does_not_wait_and_a_deadline_ends_the_wait() {
        let turns = Arc::new(Turns::default());
        let _first = turns.take(1);
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(turns.take_until(2, soon).is_some());
        assert!(turns.take_until(1, soon).is_none());
    }
}
