//! Answers from upstreams, kept for as long as they say (RFC 2181, RFC 2308), bounded in number.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    answer::Answer,
    chain::{CacheOptions, Share},
    message::{HEADER, Rcode, Times},
    name::QueryName,
    server::Reply,
};

/// What an answer is kept under: the question in wire form (name in lower case, type, class) with the DO and CD bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    question: Box<[u8]>,
    bits: u8,
}

impl Key {
    /// The key of a question.
    #[must_use]
    pub fn new(question: Vec<u8>, dnssec_ok: bool, checking_disabled: bool) -> Self {
        Self { question: question.into(), bits: u8::from(dnssec_ok) | u8::from(checking_disabled) << 1 }
    }

    /// The question.
    #[must_use]
    pub fn question(&self) -> &[u8] {
        &self.question
    }

    /// DO: signatures are wanted.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.bits & 1 != 0
    }

    /// CD: the client checks signatures itself.
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.bits & 2 != 0
    }
}

/// A kept answer.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The answer.
    pub answer: Answer,
    ttls: Box<[(u16, u32)]>,
    stored: Instant,
    expires: Instant,
    keep_ttl: bool,
}

impl Kept {
    /// The answer with what is left of each record's time to live.
    #[must_use]
    pub fn aged(&self, now: Instant) -> Answer {
        let mut answer = self.answer.clone();
        self.write_ages(&mut answer.body, now);
        answer
    }

    /// Writes into a response, whose question has `question_len` bytes, what is left of each record's time to live.
    pub fn age(&self, response: &mut [u8], question_len: usize, now: Instant) {
        if let Some(body) = response.get_mut(HEADER + question_len..) {
            self.write_ages(body, now);
        }
    }

    fn write_ages(&self, body: &mut [u8], now: Instant) {
        let age = if self.keep_ttl { 0 } else { now.saturating_duration_since(self.stored).as_secs() as u32 };
        for &(at, ttl) in &self.ttls {
            let at = usize::from(at);
            if let Some(bytes) = body.get_mut(at..at + 4) {
                bytes.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
            }
        }
    }
}

/// Which half of the cache something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Answers with records.
    Success,
    /// Answers that say there is nothing.
    Denial,
}

/// The cache of one server block.
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
        let capacity = |share: Option<Share>| Ring::new(share.map_or(0, |share| share.capacity));
        Self { success: capacity(options.success), denial: capacity(options.denial), options }
    }

    /// What it may keep.
    #[must_use]
    pub fn options(&self) -> &CacheOptions {
        &self.options
    }

    /// A kept answer that has not expired.
    pub fn find(&mut self, key: &Key, now: Instant) -> Option<(Half, &Kept)> {
        if self.success.holds(key, now) {
            return self.success.touch(key).map(|kept| (Half::Success, kept));
        }
        if self.denial.holds(key, now) {
            return self.denial.touch(key).map(|kept| (Half::Denial, kept));
        }
        None
    }

    /// Keeps an upstream's answer, where it may be kept.
    pub fn insert(&mut self, key: Key, reply: &Reply, now: Instant) {
        let times = Times::of(key.question(), &reply.answer);
        let Some((half, seconds)) = self.lifetime(reply, &times) else { return };
        let disabled = match half {
            Half::Success => &self.options.success_disabled,
            Half::Denial => &self.options.denial_disabled,
        };
        if !disabled.is_empty()
            && QueryName::parse(key.question(), 0)
                .is_ok_and(|(name, _)| disabled.iter().any(|zone| name.within(zone).is_some()))
        {
            return;
        }
        let ttls = times.ttls.iter().map(|&(at, ttl)| (at, ttl.min(seconds)));
        let kept = Kept {
            answer: reply.answer.clone(),
            ttls: ttls.collect(),
            stored: now,
            expires: now + Duration::from_secs(seconds.into()),
            keep_ttl: self.options.keep_ttl,
        };
        match half {
            Half::Success => self.success.insert(key, kept, now),
            Half::Denial => self.denial.insert(key, kept, now),
        }
    }

    /// How many answers each half holds, expired ones that were not yet replaced included.
    #[must_use]
    pub fn entries(&self) -> (usize, usize) {
        (self.success.slots.len(), self.denial.slots.len())
    }

    fn lifetime(&self, reply: &Reply, times: &Times) -> Option<(Half, u32)> {
        let bounded = |share: Share, ttl: u32| ttl.clamp(share.min_ttl.min(share.max_ttl), share.max_ttl);
        let least = || times.ttls.iter().map(|&(_, ttl)| ttl).min();
        let (half, seconds) = match reply.answer.rcode {
            _ if reply.truncated => return None,
            Rcode::NOERROR if reply.answer.counts[0] > 0 => (Half::Success, bounded(self.options.success?, least()?)),
            // RFC 2308 §5: a negative answer without SOA is not kept.
            Rcode::NOERROR | Rcode::NXDOMAIN => {
                let ttl = times.negative?.min(least().unwrap_or(u32::MAX));
                (Half::Denial, bounded(self.options.denial?, ttl))
            }
            Rcode::SERVFAIL => {
                self.options.denial?;
                (Half::Denial, self.options.servfail.as_secs() as u32)
            }
            _ => return None,
        };
        (seconds > 0).then_some((half, seconds))
    }
}

/// A bounded map that replaces what was not asked for lately (the clock, or second-chance, algorithm): constant time for each
/// insertion on average, and memory only for what it holds.
#[derive(Debug)]
struct Ring {
    capacity: usize,
    hand: usize,
    index: HashMap<Key, usize>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    kept: Kept,
    used: bool,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self { capacity, hand: 0, index: HashMap::new(), slots: Vec::new() }
    }

    fn holds(&self, key: &Key, now: Instant) -> bool {
        let slot = self.index.get(key).and_then(|&at| self.slots.get(at));
        slot.is_some_and(|slot| slot.kept.expires > now)
    }

    fn touch(&mut self, key: &Key) -> Option<&Kept> {
        let slot = self.index.get(key).and_then(|&at| self.slots.get_mut(at))?;
        slot.used = true;
        Some(&slot.kept)
    }

    fn insert(&mut self, key: Key, kept: Kept, now: Instant) {
        if let Some(slot) = self.index.get(&key).and_then(|&at| self.slots.get_mut(at)) {
            slot.kept = kept;
        } else if self.slots.len() < self.capacity {
            self.index.insert(key.clone(), self.slots.len());
            self.slots.push(Slot { key, kept, used: false });
        } else if !self.slots.is_empty() {
            while self.slots[self.hand].used && self.slots[self.hand].kept.expires > now {
                self.slots[self.hand].used = false;
                self.hand = (self.hand + 1) % self.slots.len();
            }
            let slot = &mut self.slots[self.hand];
            self.index.remove(&slot.key);
            self.index.insert(key.clone(), self.hand);
            *slot = Slot { key, kept, used: false };
            self.hand = (self.hand + 1) % self.slots.len();
        }
    }
}

#[cfg(test)]
mod tests;
