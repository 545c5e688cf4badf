//! One kept answer: how old it is, and how much it is asked for.

use std::time::{Duration, Instant};

use crate::{answer::Answer, chain::Prefetch, message::HEADER};

/// A kept answer.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The answer.
    pub answer: Answer,
    /// Where each record's time to live stands in the body, and what it was in seconds.
    ttls: Box<[(u16, u32)]>,
    stored: Instant,
    pub(super) expires: Instant,
    keep_ttl: bool,
    /// Questions for it without a long pause between them.
    asked: u32,
    last_asked: Instant,
    /// When a newer answer was asked for, or failed to come.
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

impl Kept {
    /// An answer that is kept from now on for so many seconds, which none of its records' times to live exceeds.
    pub(super) fn new(answer: Answer, ttls: &[(u16, u32)], seconds: u32, keep_ttl: bool, now: Instant) -> Self {
        Self {
            answer,
            ttls: ttls.iter().map(|&(at, ttl)| (at, ttl.min(seconds))).collect(),
            stored: now,
            expires: now + Duration::from_secs(seconds.into()),
            keep_ttl,
            asked: 0,
            last_asked: now,
            refreshed: None,
        }
    }

    /// Bytes that it has outside of itself.
    pub(super) fn size(&self) -> usize {
        self.answer.body.len() + size_of_val(&*self.ttls)
    }

    /// Whether a newer answer may be asked for now: that did not happen, or did not fail, for so long.
    #[must_use]
    pub fn is_due(&self, pause: Duration, now: Instant) -> bool {
        self.refreshed.is_none_or(|last| now.saturating_duration_since(last) >= pause)
    }

    /// A newer answer is asked for now, or has failed to come.
    pub fn refreshed(&mut self, now: Instant) {
        self.refreshed = Some(now);
    }

    /// Counts a question, and says whether the answer is to be fetched anew.
    pub(super) fn popular(&mut self, prefetch: Prefetch, now: Instant) -> bool {
        let pause = now.saturating_duration_since(self.last_asked);
        self.asked = if pause > prefetch.within { 1 } else { self.asked.saturating_add(1) };
        self.last_asked = now;
        let left = self.expires.saturating_duration_since(now);
        let whole = self.expires.saturating_duration_since(self.stored);
        // With little to live there is a last second all the same.
        let last = (whole * u32::from(prefetch.percentage) / 100).max(Duration::from_secs(1));
        prefetch.amount > 0 && self.asked >= prefetch.amount && left <= last
    }

    /// The answer with what is left of each record's time to live.
    #[must_use]
    pub fn aged(&self, now: Instant) -> Answer {
        let mut answer = self.answer.clone();
        self.write_ages(&mut answer.body, now);
        answer
    }

    /// The answer after its end, with this time to live, in seconds, for each record.
    #[must_use]
    pub fn stale(&self, ttl: u32) -> Answer {
        let mut answer = self.answer.clone();
        for &(at, _) in &self.ttls {
            write(&mut answer.body, at, ttl);
        }
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
            write(body, at, ttl.saturating_sub(age));
        }
    }
}

fn write(body: &mut [u8], at: u16, ttl: u32) {
    let at = usize::from(at);
    if let Some(bytes) = body.get_mut(at..at + 4) {
        bytes.copy_from_slice(&ttl.to_be_bytes());
    }
}
