//! When a secondary looks for a new version, and when it has to stop serving (RFC 1034 §4.3.5).

use std::time::{Duration, Instant};

use super::newer;
use crate::authority::Soa;

/// The shortest time between two looks, whatever the SOA record says.
const SHORTEST: Duration = Duration::from_secs(2);
/// The time to the second try of a zone that has never been there; it doubles from try to try.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest time between tries of such a zone.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// The timers of one zone.
#[derive(Clone, Debug)]
pub struct Secondary {
    due: Instant,
    /// The version that is there, and when the primary was last heard to have no newer one.
    held: Option<(Soa, Instant)>,
    tries: u32,
    /// What was said of a new version since the last look began; the version, where that was said, too.
    told: Option<Option<u32>>,
}

impl Secondary {
    /// A zone that is not there yet: a look is due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { due: now, held: None, tries: 0, told: None }
    }

    /// When to look next.
    #[must_use]
    pub fn next_due(&self) -> Instant {
        self.due
    }

    /// A look begins: it finds what was told before.
    pub fn begins(&mut self) {
        self.told = None;
    }

    /// The primary was reached and has this version, which is here now. `spread` is a random number that moves the next look
    /// forward by up to a tenth, so that secondaries do not all look at once.
    pub fn refreshed(&mut self, soa: Soa, now: Instant, spread: u16) {
        self.held = Some((soa, now));
        self.tries = 0;
        self.due = match self.told.take() {
            // It was told while it looked.
            Some(serial) if serial.is_none_or(|serial| newer(serial, soa.serial)) => now,
            _ => now + spaced(seconds(soa.refresh), spread),
        };
    }

    /// The primary was not reached, or the transfer failed.
    pub fn failed(&mut self, now: Instant, spread: u16) {
        let wait = match &self.held {
            Some((soa, _)) => seconds(soa.retry),
            None => FIRST_RETRY.saturating_mul(1 << self.tries.min(10)).min(LAST_RETRY),
        };
        self.tries = self.tries.saturating_add(1);
        self.due = if self.told.take().is_some() { now } else { now + spaced(wait, spread) };
    }

    /// A notification came. True, and a look is due at once, unless it tells of a version that is here (RFC 1996 §3.11).
    pub fn notified(&mut self, serial: Option<u32>, now: Instant) -> bool {
        let known = |soa: &Soa| serial.is_some_and(|serial| !newer(serial, soa.serial));
        if self.held.as_ref().is_some_and(|(soa, _)| known(soa)) {
            return false;
        }
        self.due = self.due.min(now);
        self.told = Some(serial);
        true
    }

    /// Whether the zone must not be served: it has never been here, or the primary has been away for too long.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires().is_none_or(|expires| now >= expires)
    }

    /// When the zone must not be served any more, unless the primary is heard before.
    #[must_use]
    pub fn expires(&self) -> Option<Instant> {
        self.held.as_ref().map(|(soa, heard)| *heard + seconds(soa.expire))
    }

    /// The version that was there is not served any more: the zone is as if it had never been here.
    pub fn gone(&mut self) {
        self.held = None;
    }
}

fn seconds(value: u32) -> Duration {
    Duration::from_secs(u64::from(value))
}

fn spaced(wait: Duration, spread: u16) -> Duration {
    let tenth = wait / 10;
    (wait - tenth.mul_f64(f64::from(spread) / f64::from(u16::MAX))).max(SHORTEST)
}
