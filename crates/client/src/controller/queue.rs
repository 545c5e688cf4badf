//! Which keys have to be looked at, each at most once at a time.
//!
//! A key that is added while it waits is one key; a key that is added while it is being worked on is looked at again afterwards.
//! So a queue never holds more than the objects that exist, and no two workers ever act for the same object.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The wait after a first failure; doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// The longest wait after failures.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A work queue for one consumer task.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    active: HashSet<K>,
    again: HashSet<K>,
    timers: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            active: HashSet::new(),
            again: HashSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// Has the key looked at.
    pub fn add(&self, key: K) {
        self.locked().add(key);
        self.wake.notify_one();
    }

    /// Has the key looked at after that time; an earlier appointment of the key stays.
    pub fn add_after(&self, key: K, wait: Duration) {
        self.locked().add_at(key, Instant::now() + wait);
        self.wake.notify_one();
    }

    /// Has the key looked at again after a wait that grows with each failure in a row. Answers the wait.
    pub fn retry(&self, key: K) -> Duration {
        let wait = {
            let mut state = self.locked();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            let doubled = FIRST_RETRY.saturating_mul(1 << (*failures - 1).min(20));
            doubled.min(LAST_RETRY)
        };
        self.add_after(key, wait);
        wait
    }

    /// Forgets the key's failures.
    pub fn succeeded(&self, key: &K) {
        self.locked().failures.remove(key);
    }

    /// Waits for a key. Whoever takes it says [`Queue::done`] when finished with it.
    pub async fn take(&self) -> K {
        loop {
            let next_timer = {
                let mut state = self.locked();
                state.move_due(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match next_timer {
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// Takes what is ready now, if anything is.
    pub fn take_ready(&self) -> Option<K> {
        let mut state = self.locked();
        state.move_due(Instant::now());
        state.take()
    }

    /// The key is finished; it comes back if it was added meanwhile.
    pub fn done(&self, key: &K) {
        let mut state = self.locked();
        state.active.remove(key);
        if let Some(key) = state.again.take(key) {
            state.add(key);
            drop(state);
            self.wake.notify_one();
        }
    }

    fn locked(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Ord + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.active.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                let later = *later;
                self.timers.remove(&(later, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
    }

    fn move_due(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.active.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_however_often_it_is_added() {
        let queue = Queue::default();
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        assert_eq!((queue.take_ready(), queue.take_ready(), queue.take_ready()), (Some("a"), Some("b"), None));
    }

    #[test]
    fn a_key_added_during_its_work_comes_back_after_it_and_not_before() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.take_ready(), Some("a"));
        queue.add("a");
        assert_eq!(queue.take_ready(), None);
        queue.done(&"a");
        assert_eq!(queue.take_ready(), Some("a"));
    }

    #[test]
    fn failures_in_a_row_wait_longer_until_half_a_minute_and_success_forgets_them() {
        let queue = Queue::default();
        let waits: Vec<_> = (0..16).map(|_| queue.retry("a").as_millis()).collect();
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[15], 30_000);
        queue.succeeded(&"a");
        assert_eq!(queue.retry("a").as_millis(), 5);
    }

    #[test]
    fn the_earliest_appointment_of_a_key_counts() {
        let (queue, start) = (Queue::default(), Instant::now());
        let mut state = queue.locked();
        for seconds in [10, 1, 5] {
            state.add_at("a", start + Duration::from_secs(seconds));
        }
        state.move_due(start);
        assert_eq!(state.take(), None);
        state.move_due(start + Duration::from_secs(1));
        assert_eq!(state.take(), Some("a"));
        assert!(state.timers.is_empty());
    }
}
