//! The cache of one server block, in parts: threads that ask for different names seldom wait for each other.

use std::{
    mem,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use super::{Cache, Half, Hit, Key};
use crate::{
    chain::{CacheOptions, Share},
    server::{Reply, lock},
};

/// Into how many parts a cache is divided.
const PARTS: usize = 16;
/// The least capacity of a part's halves: names do not spread quite evenly over the parts, which matters less in larger ones.
const LEAST: usize = 256;

/// A cache in parts, each with a lock of its own.
#[derive(Debug)]
pub struct Divided {
    options: CacheOptions,
    parts: Box<[Mutex<Cache>]>,
}

impl Divided {
    /// An empty cache. A small one has one part only.
    #[must_use]
    pub fn new(options: CacheOptions) -> Self {
        let large = [options.success, options.denial].iter().all(|share| share.capacity >= PARTS * LEAST);
        let parts = if large { PARTS } else { 1 };
        let part = |share: Share| Share { capacity: share.capacity.div_ceil(parts), ..share };
        let options_of_part =
            CacheOptions { success: part(options.success), denial: part(options.denial), ..options.clone() };
        let parts = (0..parts).map(|_| Mutex::new(Cache::new(options_of_part.clone()))).collect();
        Self { options, parts }
    }

    /// What it may keep.
    #[must_use]
    pub fn options(&self) -> &CacheOptions {
        &self.options
    }

    /// Looks at a kept answer: one that has not ended, or else one that may be given out after its end. Its part stands still meanwhile.
    pub fn find<R>(&self, key: &Key, now: Instant, then: impl FnOnce(Option<Hit<'_>>) -> R) -> R {
        let hash = key.hash();
        then(self.part(hash).look(hash, key, now))
    }

    /// Keeps an upstream's answer, where it may be kept; then it says in which half, and how many others gave way to it.
    pub fn insert(&self, key: &Key, reply: &Reply, now: Instant) -> Option<(Half, usize)> {
        let hash = key.hash();
        self.part(hash).keep(hash, key, reply, now)
    }

    /// Forgets what is kept under a key: there is something newer that is not kept.
    pub fn forget(&self, key: &Key) {
        let hash = key.hash();
        self.part(hash).forget(hash, key);
    }

    /// How many answers each half holds, expired ones that were not yet replaced included.
    #[must_use]
    pub fn entries(&self) -> (usize, usize) {
        let entries = self.parts.iter().map(|part| lock(part).entries());
        entries.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Takes over what another cache holds, where that has the same options; the other one has what this one held.
    pub fn inherit(&self, from: &Self) {
        if self.options != from.options {
            return;
        }
        for (here, there) in self.parts.iter().zip(&from.parts) {
            mem::swap(&mut *lock(here), &mut *lock(there));
        }
    }

    /// The part in which a key's answer is.
    fn part(&self, hash: u64) -> MutexGuard<'_, Cache> {
        // The tables within take their places from the lower bits, and marks from the uppermost ones.
        lock(&self.parts[(hash >> 40) as usize % self.parts.len()])
    }
}
