//! Addresses that several objects bring into a set, and that stay until the last of them takes its own out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Plan;
use crate::ruleset::{Edit, RuleName, Set};

/// Addresses, and how many objects have each.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<IpAddr, u32>);

/// What a set gains and loses.
#[derive(Debug, Default)]
pub(super) struct Moved {
    more: BTreeSet<IpAddr>,
    fewer: BTreeSet<IpAddr>,
}

impl Counted {
    /// An object had some addresses and has others now.
    pub(super) fn replace(&mut self, before: &BTreeSet<IpAddr>, after: &BTreeSet<IpAddr>) -> Moved {
        let mut moved = Moved::default();
        for addr in after.difference(before) {
            let count = self.0.entry(*addr).or_insert(0);
            *count += 1;
            if *count == 1 {
                moved.more.insert(*addr);
            }
        }
        for addr in before.difference(after) {
            if let Some(count) = self.0.get_mut(addr) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(addr);
                    moved.fewer.insert(*addr);
                }
            }
        }
        moved
    }

    /// The set of addresses.
    pub(super) fn addresses(&self) -> Set {
        Set::Addresses(self.0.keys().copied().collect())
    }

    /// The set of pairs of each address with itself.
    pub(super) fn pairs(&self) -> Set {
        Set::Pairs(self.0.keys().map(|addr| (*addr, *addr)).collect())
    }
}

impl Moved {
    /// The edits of a set of addresses.
    pub(super) fn edit_addresses(self, set: &RuleName, plan: &mut Plan) {
        self.edit(set, Set::Addresses, plan);
    }

    /// The edits of a set of pairs of each address with itself.
    pub(super) fn edit_pairs(self, set: &RuleName, plan: &mut Plan) {
        self.edit(set, |addrs| Set::Pairs(addrs.into_iter().map(|addr| (addr, addr)).collect()), plan);
    }

    fn edit(self, set: &RuleName, elements: impl Fn(BTreeSet<IpAddr>) -> Set, plan: &mut Plan) {
        if !self.fewer.is_empty() {
            plan.edits.push(Edit::RemoveElements(set.clone(), elements(self.fewer)));
        }
        if !self.more.is_empty() {
            plan.edits.push(Edit::AddElements(set.clone(), elements(self.more)));
        }
    }
}
