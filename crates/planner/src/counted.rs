//! Addresses that several objects bring into a set, and that stay until the last of them takes its own out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::ruleset::{Edit, RuleName, Set};

/// Addresses, and how many objects have each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted(BTreeMap<IpAddr, u32>);

/// Addresses that a set gains and loses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Those that are new.
    pub more: BTreeSet<IpAddr>,
    /// Those that are gone.
    pub fewer: BTreeSet<IpAddr>,
}

impl Counted {
    /// An object had some addresses and has others now.
    pub(crate) fn replace(&mut self, before: &BTreeSet<IpAddr>, after: &BTreeSet<IpAddr>) -> Moved {
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

    /// Whether an object has the address.
    pub(crate) fn has(&self, addr: &IpAddr) -> bool {
        self.0.contains_key(addr)
    }

    /// Those of them that are among these.
    pub(crate) fn only(&self, addrs: &BTreeSet<IpAddr>) -> Self {
        Self(self.0.iter().filter(|(addr, _)| addrs.contains(*addr)).map(|(addr, count)| (*addr, *count)).collect())
    }

    /// The set of addresses.
    pub(crate) fn addresses(&self) -> Set {
        Set::Addresses(self.0.keys().copied().collect())
    }

    /// The set of pairs of each address with itself.
    pub(crate) fn pairs(&self) -> Set {
        Set::Pairs(self.0.keys().map(|addr| (*addr, *addr)).collect())
    }

    /// Each address once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.0.keys().copied()
    }
}

impl Moved {
    /// Nothing comes or goes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.more.is_empty() && self.fewer.is_empty()
    }

    /// What of it is among these.
    pub(crate) fn only(&self, addrs: &BTreeSet<IpAddr>) -> Self {
        let among = |moved: &BTreeSet<IpAddr>| moved.intersection(addrs).copied().collect();
        Self { more: among(&self.more), fewer: among(&self.fewer) }
    }

    /// This change and then that one, in one.
    pub(crate) fn then(&mut self, later: Self) {
        for addr in later.fewer {
            if !self.more.remove(&addr) {
                self.fewer.insert(addr);
            }
        }
        for addr in later.more {
            if !self.fewer.remove(&addr) {
                self.more.insert(addr);
            }
        }
    }

    /// The edits of a set of addresses.
    pub(crate) fn edit_addresses(&self, set: &RuleName) -> Vec<Edit> {
        edits(set, self, |addrs| Set::Addresses(addrs.clone()))
    }

    /// The edits of a set of pairs of each address with itself.
    pub(crate) fn edit_pairs(&self, set: &RuleName) -> Vec<Edit> {
        edits(set, self, |addrs| Set::Pairs(addrs.iter().map(|addr| (*addr, *addr)).collect()))
    }
}

fn edits(set: &RuleName, moved: &Moved, elements: impl Fn(&BTreeSet<IpAddr>) -> Set) -> Vec<Edit> {
    let mut edits = Vec::new();
    if !moved.fewer.is_empty() {
        edits.push(Edit::RemoveElements(set.clone(), elements(&moved.fewer)));
    }
    if !moved.more.is_empty() {
        edits.push(Edit::AddElements(set.clone(), elements(&moved.more)));
    }
    edits
}
