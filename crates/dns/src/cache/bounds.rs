//! How long what is told lives at most, whoever says it: others, or this server itself.
//!
//! As with CoreDNS no record of a message lives longer than the one that ends first, nor than the `cache` lets its half live. Unlike
//! there a short time to live never becomes a longer one: what is kept beyond its end is nobody else's to keep.

use super::{Divided, Key};
use crate::{
    chain::CacheOptions,
    message::{HEADER, Rcode, Times, flag, u16_at},
    server::Reply,
};

/// The most seconds that the records of a message live which has `answers` of them in its answer section; none where it has no records.
/// A failure may be without any.
pub(super) fn seconds(options: &CacheOptions, rcode: Rcode, answers: u16, times: &Times) -> Option<u32> {
    if rcode == Rcode::SERVFAIL {
        return Some(options.servfail.as_secs() as u32);
    }
    // RFC 2308 §2.2, §5: what is denied, behind an alias too, is denied for no longer than the SOA record says.
    let least = times.ttls.iter().map(|&(_, ttl)| ttl).chain(times.negative).min()?;
    let denies = rcode == Rcode::NXDOMAIN || (answers == 0 && times.negative.is_some());
    let half = if denies { options.denial } else { options.success };
    Some(half.bounded(least))
}

impl Divided {
    /// Whether records that live for `ttl` seconds, all of a message alike, are told so, whatever they say.
    #[must_use]
    pub fn lets(&self, ttl: u32) -> bool {
        let CacheOptions { success, denial, .. } = self.options();
        ttl <= success.max_ttl.min(denial.max_ttl)
    }

    /// Bounds an answer that comes for the first time by the time for which it is kept, or would be: it is told as all who ask later
    /// are told.
    pub fn bound(&self, key: &Key, reply: &mut Reply) {
        let answer = &mut reply.answer;
        let times = Times::of(key.question(), answer);
        if let Some(most) = seconds(self.options(), answer.rcode, answer.counts[0], &times) {
            lower(&mut answer.body, &times, most);
        }
    }

    /// Bounds a response in the same way, whose question has `question` bytes.
    pub fn bound_response(&self, response: &mut [u8], question: usize) {
        let base = HEADER + question;
        let (Some(flags), Some(answers)) = (u16_at(response, 2), u16_at(response, 6)) else { return };
        let times = Times::within(response, base);
        let most = seconds(self.options(), Rcode(flags & flag::RCODE), answers, &times);
        if let (Some(most), Some(records)) = (most, response.get_mut(base..)) {
            lower(records, &times, most);
        }
    }
}

/// Has no record live for longer than so many seconds.
fn lower(records: &mut [u8], times: &Times, most: u32) {
    for &(at, _) in times.ttls.iter().filter(|&&(_, ttl)| ttl > most) {
        if let Some(place) = records.get_mut(usize::from(at)..usize::from(at) + 4) {
            place.copy_from_slice(&most.to_be_bytes());
        }
    }
}
