//! How often a Service's slices are worked out anew, and since when they should say something else.
//!
//! A large Service whose pods become ready one by one would cost the square of their number if each were an occasion to write them
//! all. So the looks at a Service follow each other at a distance that grows with its endpoints: the work of a second is bounded, and
//! what happens meanwhile is done together.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use crate::controllers::key::Key;

/// The distance between looks for each endpoint: 100 ms for a thousand.
const PER_ENDPOINT: Duration = Duration::from_micros(100);
/// The longest distance.
const LONGEST: Duration = Duration::from_secs(1);
/// Up to so many endpoints nobody waits.
const FREE: usize = 100;

/// What is remembered of Services.
#[derive(Default)]
pub(super) struct Pace {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// From when on a large Service may be looked at again.
    next: HashMap<Key, Instant>,
    /// When the first change came that the slices do not show yet.
    triggers: HashMap<Key, Timestamp>,
}

impl Pace {
    /// Something changed for the Service.
    pub(super) fn changed(&self, key: &Key, at: Timestamp) {
        self.lock().triggers.entry(key.clone()).or_insert(at);
    }

    /// How long to wait before the Service is looked at; none where it is its turn.
    pub(super) fn wait(&self, key: &Key, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let next = *state.next.get(key)?;
        let wait = next.checked_duration_since(now).filter(|wait| !wait.is_zero());
        if wait.is_none() {
            state.next.remove(key);
        }
        wait
    }

    /// When the first change came that is now being looked at. A look that fails gives it back by [`Pace::changed`].
    pub(super) fn take_trigger(&self, key: &Key) -> Option<Timestamp> {
        self.lock().triggers.remove(key)
    }

    /// The Service has been looked at and has so many endpoints.
    pub(super) fn looked(&self, key: &Key, endpoints: usize, now: Instant) {
        if endpoints > FREE {
            let count = u32::try_from(endpoints).unwrap_or(u32::MAX);
            let distance = PER_ENDPOINT.saturating_mul(count).min(LONGEST);
            self.lock().next.insert(key.clone(), now + distance);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the maps is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_service_is_looked_at_at_a_distance_and_a_small_one_at_once() {
        let (pace, now) = (Pace::default(), Instant::now());
        let (small, large) = (Key::new("a", "small"), Key::new("a", "large"));
        pace.looked(&small, 100, now);
        pace.looked(&large, 1000, now);
        assert_eq!(pace.wait(&small, now), None);
        assert_eq!(pace.wait(&large, now), Some(Duration::from_millis(100)));
        assert_eq!(pace.wait(&large, now + Duration::from_millis(100)), None);
        pace.looked(&large, 1_000_000, now);
        assert_eq!(pace.wait(&large, now), Some(LONGEST));
    }

    #[test]
    fn the_first_change_is_the_one_that_counts() {
        let (pace, key) = (Pace::default(), Key::new("a", "b"));
        let at = |second| Timestamp::from_second(second).unwrap();
        pace.changed(&key, at(1));
        pace.changed(&key, at(2));
        assert_eq!(pace.take_trigger(&key), Some(at(1)));
        assert_eq!(pace.take_trigger(&key), None);
    }
}
