//! Answers from upstreams, kept for as long as they say (RFC 2181, RFC 2308), bounded in number and in bytes.

mod bounds;
mod divided;
mod kept;
mod key;
mod ring;

use std::time::{Duration, Instant};

pub use divided::Divided;
pub use kept::{Age, Kept};
pub use key::Key;

use self::ring::Ring;
use crate::{
    answer::extended,
    chain::CacheOptions,
    message::{Rcode, Times},
    name::QueryName,
    server::Reply,
};

/// What was found in the cache.
#[derive(Debug)]
pub struct Hit<'a> {
    /// In which half.
    pub half: Half,
    /// The answer.
    pub kept: &'a mut Kept,
    /// How good it is.
    pub age: Age,
}

/// Which half of the cache something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Answers with records.
    Success,
    /// Answers that say there is nothing.
    Denial,
}

/// A cache. A server block's is [`Divided`] into several of them.
#[derive(Debug)]
pub struct Cache {
    options: CacheOptions,
    success: Ring,
    denial: Ring,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(options: CacheOptions) -> Self {
        Self { success: Ring::new(options.success.capacity), denial: Ring::new(options.denial.capacity), options }
    }

    /// What it may keep.
    #[must_use]
    pub fn options(&self) -> &CacheOptions {
        &self.options
    }

    /// A kept answer: one that has not ended, or else one that may be given out after its end.
    pub fn find(&mut self, key: &Key, now: Instant) -> Option<Hit<'_>> {
        self.look(key.hash(), key, now)
    }

    fn look(&mut self, hash: u64, key: &Key, now: Instant) -> Option<Hit<'_>> {
        let place = |ring: &Ring| ring.place(hash, key.bytes()).and_then(|at| Some((at, ring.expires(at)?)));
        let ended = |place: Option<(usize, Instant)>| place.is_none_or(|(_, end)| end <= now);
        let success = place(&self.success);
        // Of two that have not ended the one with records counts, of two that have the later one.
        let denial = if ended(success) { place(&self.denial) } else { None };
        let (half, (at, end)) = match (success, denial) {
            (Some(success), None) => (Half::Success, success),
            (Some(success), Some(denial)) if success.1 > denial.1 => (Half::Success, success),
            (_, denial) => (Half::Denial, denial?),
        };
        if end + self.stale() <= now {
            return None;
        }
        let kept = match half {
            Half::Success => self.success.touch(at)?,
            Half::Denial => self.denial.touch(at)?,
        };
        let age = match self.options.prefetch {
            _ if end <= now => Age::Stale,
            Some(prefetch) if kept.popular(prefetch, now) => Age::Popular,
            _ => Age::Fresh,
        };
        Some(Hit { half, kept, age })
    }

    /// How long after its end an answer may be given out.
    fn stale(&self) -> Duration {
        self.options.serve_stale.map_or(Duration::ZERO, |stale| stale.up_to)
    }

    /// Keeps an upstream's answer, where it may be kept; then it says in which half, and how many others gave way to it.
    pub fn insert(&mut self, key: &Key, reply: &Reply, now: Instant) -> Option<(Half, usize)> {
        self.keep(key.hash(), key, reply, now)
    }

    fn keep(&mut self, hash: u64, key: &Key, reply: &Reply, now: Instant) -> Option<(Half, usize)> {
        let times = Times::of(key.question(), &reply.answer);
        let (half, seconds) = self.lifetime(reply, &times)?;
        // A failure says nothing new: what is known already is better.
        let stale = self.stale();
        let known = |ring: &Ring| {
            let end = ring.place(hash, key.bytes()).and_then(|at| ring.expires(at));
            end.is_some_and(|end| end + stale > now)
        };
        if reply.answer.rcode == Rcode::SERVFAIL && (known(&self.success) || known(&self.denial)) {
            return None;
        }
        let disabled = match half {
            Half::Success => &self.options.success_disabled,
            Half::Denial => &self.options.denial_disabled,
        };
        if !disabled.is_empty()
            && QueryName::parse(key.question(), 0)
                .is_ok_and(|(name, _)| disabled.iter().any(|zone| name.within(zone).is_some()))
        {
            return None;
        }
        let answer = match reply.answer.rcode {
            Rcode::SERVFAIL => reply.answer.clone().because(extended::CACHED_ERROR, ""),
            _ => reply.answer.clone(),
        };
        let kept = Kept::new(answer, &times.ttls, seconds, self.options.keep_ttl, now);
        let gone = match half {
            Half::Success => self.success.insert(hash, key.bytes(), kept, now),
            Half::Denial => self.denial.insert(hash, key.bytes(), kept, now),
        };
        Some((half, gone))
    }

    /// Forgets what is kept under a key.
    fn forget(&mut self, hash: u64, key: &Key) {
        self.success.remove(hash, key.bytes());
        self.denial.remove(hash, key.bytes());
    }

    /// How many answers each half holds, expired ones that were not yet replaced included.
    #[must_use]
    pub fn entries(&self) -> (usize, usize) {
        (self.success.slots.len(), self.denial.slots.len())
    }

    /// In which half an answer may be kept, and for how many seconds.
    fn lifetime(&self, reply: &Reply, times: &Times) -> Option<(Half, u32)> {
        let (rcode, answers) = (reply.answer.rcode, reply.answer.counts[0]);
        let half = match rcode {
            _ if reply.truncated => return None,
            Rcode::NOERROR if answers > 0 => Half::Success,
            // RFC 2308 §5: a negative answer without SOA is not kept.
            Rcode::NOERROR | Rcode::NXDOMAIN => times.negative.map(|_| Half::Denial)?,
            Rcode::SERVFAIL => Half::Denial,
            _ => return None,
        };
        let seconds = bounds::seconds(&self.options, rcode, answers, times)?;
        (seconds > 0).then_some((half, seconds))
    }
}

#[cfg(test)]
mod tests;
