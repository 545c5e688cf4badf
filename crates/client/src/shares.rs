//! How many each may have of what all share: connections, readers. Whoever is reached by anybody bounds them by asker.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// What is taken, by whom.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash> {
    most: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One that is taken, until the value goes.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    by: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// So many for each at most.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// One more, for as long as the answer lives; none where somebody has as many as they may.
    pub fn take(self: &Arc<Self>, by: K) -> Option<Share<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(by.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { shares: Arc::clone(self), by })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_its_share_gets_no_more_until_one_is_given_back_and_others_do() {
        let shares = Shares::new(2);
        let [first, second] = ["a", "a"].map(|by| shares.take(by).unwrap());
        assert!(shares.take("a").is_none());
        let other = shares.take("b").unwrap();
        drop(first);
        let third = shares.take("a").unwrap();
        assert!(shares.take("a").is_none());
        drop((second, third, other));
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
