//! Slices that the API has and the cache does not show yet: who counts in a cache that is behind would make some twice.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::controllers::key::Key;

/// Until the cache is looked at again.
const PAUSE: Duration = Duration::from_millis(5);
/// What the cache does not show by then was deleted by somebody.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names of slices by their Service, with the time of the API's answer.
#[derive(Default)]
pub(super) struct Unseen(Mutex<HashMap<Key, BTreeMap<String, Instant>>>);

impl Unseen {
    /// The API has made a slice of the Service.
    pub(super) fn created(&self, service: &Key, slice: String, at: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(service.clone()).or_default().insert(slice, at);
    }

    /// How long to wait until the cache shows what was made for the Service; none where it does.
    pub(super) fn wait(&self, service: &Key, now: Instant, shows: impl Fn(&str) -> bool) -> Option<Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = all.get_mut(service)?;
        made.retain(|slice, at| now.duration_since(*at) < PATIENCE && !shows(slice));
        if made.is_empty() {
            all.remove(service);
            return None;
        }
        Some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_made_a_slice_waits_until_the_cache_shows_it_and_not_for_ever() {
        let (unseen, service, now) = (Unseen::default(), Key::new("default", "web"), Instant::now());
        assert_eq!(unseen.wait(&service, now, |_| false), None);
        for slice in ["web-a", "web-b"] {
            unseen.created(&service, slice.to_owned(), now);
        }
        assert_eq!(unseen.wait(&service, now, |slice| slice == "web-a"), Some(PAUSE));
        assert_eq!(unseen.wait(&Key::new("default", "other"), now, |_| false), None);
        assert_eq!(unseen.wait(&service, now, |slice| slice == "web-b"), None);
        unseen.created(&service, "web-c".to_owned(), now);
        assert_eq!(unseen.wait(&service, now + PATIENCE, |_| false), None);
    }
}
