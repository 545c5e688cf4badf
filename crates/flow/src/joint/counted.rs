//! Of which flows something came to this node's pods from other nodes, and since when all of that is known.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::question::{Answer, Inquiry, Sought};
use crate::record::{Gap, Key, Record, Report, Reporter};

/// So many flows are kept at most; where there are more it is known anew from then on what came.
const MOST: usize = 65_536;
/// So long a flow is kept that has ended: the other end waits for as long for its own (60 s of UDP, 30 s of others).
const KEPT: SignedDuration = SignedDuration::from_mins(3);
/// What came less long ago may not be told yet: the map is read every second, a connection that is over so soon is told at the second reading a second
/// later, and a question is on its way.
const UNREAD: SignedDuration = SignedDuration::from_secs(4);
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
}

impl Counted {
    /// From a time on all is counted.
    pub(super) fn since(now: Timestamp) -> Self {
        Self { flows: HashMap::new(), whole: now.saturating_add(UNSURE).unwrap_or(now), read: now }
    }

    /// What came until then was read.
    pub(super) fn read(&mut self, until: Timestamp) {
        self.read = self.read.max(until);
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
        // One that ended before this one was sent is an earlier one from the same port.
        let is_it = |(at, goes_on): &(Timestamp, bool)| {
            *goes_on || at.saturating_add(UNREAD).unwrap_or(*at) >= here(sought.start)
        };
        if self.flows.get(&sought.key()).is_some_and(is_it) {
            Answer::Came
        } else if here(sought.start) < self.whole {
            Answer::Unknown
        } else if self.read.duration_since(here(sought.end)) < UNREAD {
            Answer::Later
        } else {
            Answer::Never
        }
    }
}
