//! Whether something of a connection may still come that has ended.

use jiff::{SignedDuration, Timestamp};

use super::{Counted, Flow, Side};
use crate::entry::Entry;

/// How far the end of a connection is whose entries may be taken out between two readings of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::aggregate) enum Rest {
    /// A reading decides: nothing of it is open, something did not ring, or an entry is missing.
    Unknown,
    /// Something may come yet, as far as is known.
    Awaited,
    /// Nothing passed for long enough, and nothing is due.
    Over,
}

impl Flow {
    /// An entry rang for its end. As it was read before may be newer.
    pub(in crate::aggregate) fn ring(&mut self, side: Side, entry: &Entry) {
        if let Some(counted) = self.counted_mut(side) {
            counted.rang = entry.packets();
        }
    }

    /// How far its end is: whether each entry in the kernel rang, was acknowledged or reset, and saw nothing for so long.
    pub(in crate::aggregate) fn rest(&self, now: Timestamp, quiet: SignedDuration) -> Rest {
        let is_missing =
            self.at_source.is_none() && self.expects[0] || self.at_destination.is_none() && self.expects[1];
        if is_missing || !self.is_open() {
            return Rest::Unknown;
        }
        let mut rest = Rest::Over;
        let all = [&self.at_source, &self.at_destination].into_iter().flatten();
        for counted in all.filter(|counted| counted.is_open) {
            if counted.rang == 0 {
                return Rest::Unknown;
            }
            if !counted.is_acknowledged() || now.duration_since(counted.entry.last) < quiet {
                rest = Rest::Awaited;
            }
        }
        rest
    }
}

impl Counted {
    /// Something came behind what rang: who closed the connection last was answered, and does not say so again (RFC 9293, section 3.6). Behind a
    /// reset nothing is due.
    const fn is_acknowledged(&self) -> bool {
        self.entry.out.resets > 0 || self.entry.into.resets > 0 || self.entry.packets() > self.rang
    }
}
