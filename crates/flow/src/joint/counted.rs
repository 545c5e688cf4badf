//! Of which flows something came to this node's pods from other nodes, and since when all of that is known.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::question::{Answer, Inquiry, Sought};
use crate::{
    beyond::Beyond,
    record::{Gap, Key, Record, Report, Reporter},
};

/// So many flows are kept at most; where there are more it is known anew from then on what came.
const MOST: usize = 65_536;
/// So long a flow is kept that has ended: the other end waits for as long for its own (60 s of UDP, 30 s of others).
const KEPT: SignedDuration = SignedDuration::from_mins(3);
/// What came less long ago may not be told yet: the map is read every second, a connection that is over so soon is told at the second reading a second
/// later, and a question is on its way.
const UNREAD: SignedDuration = SignedDuration::from_secs(4);
/// Clocks of two nodes differ by that much at most, as far as is known.
const SOONER: SignedDuration = SignedDuration::from_secs(1);
/// After the beginning, and after a gap, until all is counted.
const UNSURE: SignedDuration = SignedDuration::from_secs(2);

/// What came to one node.
#[derive(Debug)]
pub(super) struct Counted {
    /// When something was told of each, and whether it goes on.
    flows: HashMap<Key, (Timestamp, bool)>,
    /// All that began since then is known.
    whole: Timestamp,
    /// All that came until then was read.
    read: Timestamp,
    /// What limits of this node's pods lost or refused, for as long as flows are kept that have ended.
    beyond: Beyond,
    /// What the kernel knew of that at the last reading.
    latest: Arc<Beyond>,
}

impl Counted {
    /// From a time on all is counted.
    pub(super) fn since(now: Timestamp) -> Self {
        let whole = now.saturating_add(UNSURE).unwrap_or(now);
        Self { flows: HashMap::new(), whole, read: now, beyond: Beyond::default(), latest: Arc::default() }
    }

    /// What came until then was read.
    pub(super) fn read(&mut self, until: Timestamp) {
        self.read = self.read.max(until);
    }

    /// What limits lost or refused just now, beside what was before: the kernel forgets it before a flow ends by being idle, and is asked about.
    pub(super) fn limits(&mut self, latest: Arc<Beyond>, now: Timestamp) {
        if Arc::ptr_eq(&latest, &self.latest) {
            return;
        }
        self.beyond.keep(&latest, now.checked_sub(KEPT).unwrap_or(Timestamp::MIN), MOST);
        self.latest = latest;
    }

    /// A record of this node's. It may be of another node's pod that has no name here yet.
    pub(super) fn note(&mut self, record: &Record, now: Timestamp) {
        if record.reporter != Reporter::Destination {
            return;
        }
        if self.flows.len() >= MOST {
            self.flows.retain(|_, (at, goes_on)| *goes_on || now.duration_since(*at) < KEPT);
        }
        if self.flows.len() >= MOST {
            self.flows.clear();
            self.whole = now;
        }
        self.flows.insert(record.key(), (now, record.report != Report::End));
    }

    /// Something is missing.
    pub(super) fn miss(&mut self, gap: &Gap) {
        self.whole = self.whole.max(gap.end.saturating_add(UNSURE).unwrap_or(gap.end));
    }

    /// Whether something came of a flow that was sent from another node.
    pub(super) fn answer(&self, sought: &Sought, inquiry: &Inquiry, now: Timestamp) -> Answer {
        let here = |at| inquiry.here(at, now);
        let sooner = here(sought.start).checked_sub(SOONER).unwrap_or(Timestamp::MIN);
        let is_limited = inquiry.limits && self.beyond.has_packet(&sought.key(), sooner);
        // One that ended before this one was sent is an earlier one from the same port.
        let is_it = |(at, goes_on): &(Timestamp, bool)| {
            *goes_on || at.saturating_add(UNREAD).unwrap_or(*at) >= here(sought.start)
        };
        if self.flows.get(&sought.key()).is_some_and(is_it) {
            Answer::Came
        } else if here(sought.start) < self.whole && !is_limited {
            Answer::Unknown
        } else if self.read.duration_since(here(sought.end)) < UNREAD {
            // Also where something was beyond a limit: what was sent again may have come.
            Answer::Later
        } else if is_limited {
            Answer::Limited
        } else {
            Answer::Never
        }
    }
}
