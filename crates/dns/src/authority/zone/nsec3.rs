//! Proofs by NSEC3 records (RFC 5155 §7.2).

use super::{
    chain::Chain,
    lookup::{Search, labels},
};
use crate::authority::order::Labels;

impl<'z> Search<'z> {
    /// The closest encloser proof: the closest name above that has a record, and the span that the next name down falls into.
    /// `from` is where to start: what is known to exist.
    pub(super) fn nsec3_encloser(&mut self, chain: &'z Chain, name: &[u8], from: &[u8]) {
        let all = Labels::of(name);
        let origin = self.zone.origin.labels();
        // A record for the name itself proves something else; below an opt-out span a name above may have none either.
        let mut count = labels(from).min(all.count().saturating_sub(1));
        while count > origin && chain.matching(all.last(count)).is_none() {
            count -= 1;
        }
        self.nsec3_matching(chain, all.last(count));
        self.nsec3_covering(chain, all.last(count + 1));
    }

    /// The record of a name; false when it has none.
    pub(super) fn nsec3_matching(&mut self, chain: &'z Chain, name: &[u8]) -> bool {
        let Some(index) = chain.matching(name) else { return false };
        let (owner, set) = &self.zone.hashed[index];
        self.proof(owner.wire(), set);
        true
    }

    /// The record whose span a name falls into.
    pub(super) fn nsec3_covering(&mut self, chain: &'z Chain, name: &[u8]) {
        if let Some(index) = chain.covering(name) {
            let (owner, set) = &self.zone.hashed[index];
            self.proof(owner.wire(), set);
        }
    }
}
