//! Answers from upstreams, kept for as long as they say (RFC 2181, RFC 2308), bounded in number and in bytes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    answer::{Answer, extended},
    chain::{CacheOptions, Prefetch, Share},
    message::{HEADER, Rcode, Times},
    name::QueryName,
    server::Reply,
};

/// What an answer is kept under: the question in wire form (name in lower case, type, class) with the DO and CD bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    question: Box<[u8]>,
    bits: u8,
    options: Box<[u8]>,
}

impl Key {
    /// The key of a question.
    #[must_use]
    pub fn new(question: Vec<u8>, dnssec_ok: bool, checking_disabled: bool) -> Self {
        Self {
            question: question.into(),
            bits: u8::from(dnssec_ok) | u8::from(checking_disabled) << 1,
            options: Box::default(),
        }
    }

    /// The key of the question when it is sent with EDNS options, on which the answer may depend.
    #[must_use]
    pub fn with(self, options: &[u8]) -> Self {
        Self { options: options.into(), ..self }
    }

    /// The EDNS options that are sent with it.
    #[must_use]
    pub fn options(&self) -> &[u8] {
        &self.options
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
    /// Questions for it without a long pause between them.
    asked: u32,
    last_asked: Instant,
    /// When a newer answer was asked for.
    refreshed: Option<Instant>,
}

/// How good a kept answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It is as good as new.
    Fresh,
    /// It is asked for often and ends soon: a newer one is to be fetched.
    Popular,
    /// It has ended, and may be given out while there is no newer one (RFC 8767).
    Stale,
}

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

/// How often a newer answer is asked for, at most, while there is none: who serves the name has trouble enough.
const REFRESH: Duration = Duration::from_secs(5);

impl Kept {
    /// Whether a newer answer is to be asked for now; not again for some seconds.
    pub fn takes_refresh(&mut self, now: Instant) -> bool {
        let due = self.refreshed.is_none_or(|last| now.saturating_duration_since(last) >= REFRESH);
        if due {
            self.refreshed = Some(now);
        }
        due
    }

    /// Counts a question, and says whether the answer is to be fetched anew.
    fn popular(&mut self, prefetch: Prefetch, now: Instant) -> bool {
        let pause = now.saturating_duration_since(self.last_asked);
        self.asked = if pause > prefetch.within { 1 } else { self.asked.saturating_add(1) };
        self.last_asked = now;
        let left = self.expires.saturating_duration_since(now);
        let whole = self.expires.saturating_duration_since(self.stored);
        prefetch.amount > 0 && self.asked >= prefetch.amount && left <= whole * u32::from(prefetch.percentage) / 100
    }

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
        // RFC 8767 §4 would have 30 s told of what has ended; CoreDNS tells 0, and clients ask again at once when there is news.
        let age = if self.keep_ttl && now < self.expires {
            0
        } else {
            now.saturating_duration_since(self.stored).as_secs() as u32
        };
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

    /// A kept answer: one that has not ended, or else one that may be given out after its end.
    pub fn find(&mut self, key: &Key, now: Instant) -> Option<Hit<'_>> {
        let stale = self.options.serve_stale.map_or(Duration::ZERO, |stale| stale.up_to);
        let ends = [(Half::Success, self.success.expires(key)), (Half::Denial, self.denial.expires(key))];
        let ends = || ends.into_iter().filter_map(|(half, end)| Some((half, end?)));
        // Of two that have ended the later one counts.
        let ended = || ends().filter(|(_, end)| *end + stale > now).max_by_key(|(_, end)| *end);
        let (half, end) = ends().find(|(_, end)| *end > now).or_else(ended)?;
        let kept = match half {
            Half::Success => self.success.touch(key)?,
            Half::Denial => self.denial.touch(key)?,
        };
        let age = match self.options.prefetch {
            _ if end <= now => Age::Stale,
            Some(prefetch) if kept.popular(prefetch, now) => Age::Popular,
            _ => Age::Fresh,
        };
        Some(Hit { half, kept, age })
    }

    /// Keeps an upstream's answer, where it may be kept.
    pub fn insert(&mut self, key: Key, reply: &Reply, now: Instant) {
        let times = Times::of(key.question(), &reply.answer);
        let Some((half, seconds)) = self.lifetime(reply, &times) else { return };
        // A failure says nothing new: what is known already is better.
        let stale = self.options.serve_stale.map_or(Duration::ZERO, |stale| stale.up_to);
        let known = |ring: &Ring| ring.expires(&key).is_some_and(|end| end + stale > now);
        if reply.answer.rcode == Rcode::SERVFAIL && (known(&self.success) || known(&self.denial)) {
            return;
        }
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
            answer: match reply.answer.rcode {
                Rcode::SERVFAIL => reply.answer.clone().because(extended::CACHED_ERROR, ""),
                _ => reply.answer.clone(),
            },
            ttls: ttls.collect(),
            stored: now,
            expires: now + Duration::from_secs(seconds.into()),
            keep_ttl: self.options.keep_ttl,
            asked: 0,
            last_asked: now,
            refreshed: None,
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

/// Bytes for each answer of a half's capacity. Answers are a fourth of that; a half that is full of large ones holds fewer of them.
const ROOM: usize = 1024;
/// What there is for the largest of all answers, however small the capacity.
const LEAST_ROOM: usize = 256 * 1024;
/// What an answer takes beside its own bytes.
const OVERHEAD: usize = size_of::<Slot>() + size_of::<(Key, usize)>();

/// A bounded map that replaces what was not asked for lately (the clock, or second-chance, algorithm): constant time for each
/// insertion on average, and memory only for what it holds.
#[derive(Debug)]
struct Ring {
    capacity: usize,
    /// Bytes that it may hold, and holds.
    room: usize,
    bytes: usize,
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
        let room = capacity.saturating_mul(ROOM).max(LEAST_ROOM);
        Self { capacity, room, bytes: 0, hand: 0, index: HashMap::new(), slots: Vec::new() }
    }

    fn expires(&self, key: &Key) -> Option<Instant> {
        let slot = self.index.get(key).and_then(|&at| self.slots.get(at));
        slot.map(|slot| slot.kept.expires)
    }

    fn touch(&mut self, key: &Key) -> Option<&mut Kept> {
        let slot = self.index.get(key).and_then(|&at| self.slots.get_mut(at))?;
        slot.used = true;
        Some(&mut slot.kept)
    }

    fn insert(&mut self, key: Key, kept: Kept, now: Instant) {
        if self.capacity == 0 {
            return;
        }
        let mut slot = Slot { key, kept, used: false };
        let size = slot.size();
        if let Some(known) = self.index.get(&slot.key).and_then(|&at| self.slots.get_mut(at)) {
            slot.used = true;
            self.bytes -= known.size();
            *known = slot;
            self.bytes += size;
            self.give_way(0, now);
            return;
        }
        self.give_way(size, now);
        self.bytes += size;
        if self.slots.len() < self.capacity {
            self.index.insert(slot.key.clone(), self.slots.len());
            self.slots.push(slot);
        } else {
            self.turn(now);
            self.index.insert(slot.key.clone(), self.hand);
            let old = std::mem::replace(&mut self.slots[self.hand], slot);
            self.bytes -= old.size();
            self.index.remove(&old.key);
            self.hand += 1;
        }
    }

    /// Makes room for so many bytes more.
    fn give_way(&mut self, size: usize, now: Instant) {
        while self.bytes + size > self.room && !self.slots.is_empty() {
            self.turn(now);
            let old = self.slots.swap_remove(self.hand);
            self.bytes -= old.size();
            self.index.remove(&old.key);
            match self.slots.get(self.hand).and_then(|moved| self.index.get_mut(&moved.key)) {
                Some(at) => {
                    *at = self.hand;
                    // It came from the end, where the newest are.
                    self.hand += 1;
                }
                None => self.hand = 0,
            }
        }
    }

    /// Turns the hand to what gives way next.
    fn turn(&mut self, now: Instant) {
        self.hand %= self.slots.len();
        while self.slots[self.hand].used && self.slots[self.hand].kept.expires > now {
            self.slots[self.hand].used = false;
            self.hand = (self.hand + 1) % self.slots.len();
        }
    }
}

impl Slot {
    /// Bytes, those of the index included.
    fn size(&self) -> usize {
        let key = self.key.question.len() + self.key.options.len();
        OVERHEAD + 2 * key + self.kept.answer.body.len() + size_of_val(&*self.kept.ttls)
    }
}

#[cfg(test)]
mod tests;
