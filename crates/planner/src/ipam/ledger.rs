//! What the journal says: own blocks, who holds which address, which addresses rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::{Ipv4AddrRange, Ipv4Net};
use podnet_model::{NodeName, PodKey};

use super::{Handle, JournalRecord, Moment};

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What the address is freed by.
    pub handle: Handle,
    /// The pod.
    pub pod: PodKey,
    /// The pod's `metadata.uid`.
    pub uid: Arc<str>,
    /// The node that the pod is on, where it is another one that borrowed the address.
    pub node: Option<NodeName>,
}

impl Holder {
    /// The record that it holds `addr`.
    pub(super) fn record(&self, addr: Ipv4Addr) -> JournalRecord {
        let (handle, pod, uid) = (self.handle.clone(), self.pod.clone(), Arc::clone(&self.uid));
        match self.node.clone() {
            Some(node) => JournalRecord::Lent { addr, handle, pod, uid, node },
            None => JournalRecord::Assigned { addr, handle, pod, uid },
        }
    }
}

/// An address that was freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Who had it.
    pub(super) handle: Handle,
    /// When it was freed.
    pub(super) since: Moment,
}

/// The sum of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) own: BTreeSet<Ipv4Net>,
    pub(super) held: BTreeMap<Ipv4Addr, Holder>,
    pub(super) resting: BTreeMap<Ipv4Addr, Rest>,
    by_handle: BTreeMap<Handle, Ipv4Addr>,
}

impl Ledger {
    /// Adds one record, live and in replay alike.
    pub(super) fn record(&mut self, record: &JournalRecord) {
        match record {
            JournalRecord::Claimed { block } => drop(self.own.insert(*block)),
            JournalRecord::Unclaimed { block } => {
                self.own.remove(block);
                self.resting.retain(|addr, _| !block.contains(addr));
            }
            JournalRecord::Assigned { addr, handle, pod, uid } => {
                let (pod, uid) = (pod.clone(), Arc::clone(uid));
                self.hold(*addr, Holder { handle: handle.clone(), pod, uid, node: None });
            }
            JournalRecord::Lent { addr, handle, pod, uid, node } => {
                let (pod, uid, node) = (pod.clone(), Arc::clone(uid), Some(node.clone()));
                self.hold(*addr, Holder { handle: handle.clone(), pod, uid, node });
            }
            JournalRecord::Released { addr, handle, at } => {
                if self.by_handle.get(handle) == Some(addr) {
                    self.forget(handle);
                }
                // A borrowed address goes back to its owner, where it rests.
                if !self.held.contains_key(addr) && self.block_of(*addr).is_some() {
                    self.resting.insert(*addr, Rest { handle: handle.clone(), since: *at });
                }
            }
        }
    }

    fn hold(&mut self, addr: Ipv4Addr, holder: Holder) {
        self.forget(&holder.handle);
        self.resting.remove(&addr);
        let handle = holder.handle.clone();
        if let Some(before) = self.held.insert(addr, holder) {
            self.by_handle.remove(&before.handle);
        }
        self.by_handle.insert(handle, addr);
    }

    fn forget(&mut self, handle: &Handle) {
        if let Some(addr) = self.by_handle.remove(handle) {
            self.held.remove(&addr);
        }
    }

    pub(super) fn snapshot(&self) -> Vec<JournalRecord> {
        let claimed = self.own.iter().map(|block| JournalRecord::Claimed { block: *block });
        let released = self.resting.iter().map(|(addr, rest)| JournalRecord::Released {
            addr: *addr,
            handle: rest.handle.clone(),
            at: rest.since,
        });
        let assigned = self.held.iter().map(|(addr, holder)| holder.record(*addr));
        claimed.chain(released).chain(assigned).collect()
    }

    pub(super) fn address_of(&self, handle: &Handle) -> Option<Ipv4Addr> {
        self.by_handle.get(handle).copied()
    }

    /// The own block around an address.
    pub(super) fn block_of(&self, addr: Ipv4Addr) -> Option<Ipv4Net> {
        // Own blocks never overlap, so that only the last one that begins at or before the address can hold it.
        self.own.range(..=Ipv4Net::from(addr)).next_back().filter(|block| block.contains(&addr)).copied()
    }

    pub(super) fn held_in(&self, block: Ipv4Net) -> impl Iterator<Item = (Ipv4Addr, &Holder)> {
        self.held.range(block.network()..=block.broadcast()).map(|(addr, holder)| (*addr, holder))
    }

    pub(super) fn resting_in(&self, block: Ipv4Net) -> impl Iterator<Item = (Ipv4Addr, Moment)> {
        self.resting.range(block.network()..=block.broadcast()).map(|(addr, rest)| (*addr, rest.since))
    }
}

/// Every address of a block: pods' addresses are host routes, so that the first and the last are as good as any other.
pub(super) fn addresses(block: Ipv4Net) -> Ipv4AddrRange {
    Ipv4AddrRange::new(block.network(), block.broadcast())
}

/// How many addresses a block has.
pub(super) fn size(block: Ipv4Net) -> usize {
    1_usize.checked_shl(u32::from(32 - block.prefix_len())).unwrap_or(usize::MAX)
}
