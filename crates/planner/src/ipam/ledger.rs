//! What the journal says: own blocks, who holds which address, which addresses rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpAddrRange, IpNet, Ipv4AddrRange, Ipv6AddrRange};
use podnet_model::{Dual, Family, NodeName, PodKey};

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
    pub(super) fn record(&self, addr: IpAddr) -> JournalRecord {
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
    pub(super) own: BTreeSet<IpNet>,
    pub(super) held: BTreeMap<IpAddr, Holder>,
    pub(super) resting: BTreeMap<IpAddr, Rest>,
    /// At most one address of each family.
    by_handle: BTreeMap<Handle, Dual<Option<IpAddr>>>,
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
                if self.address_of(handle, Family::of(addr)) == Some(*addr) {
                    self.forget(handle, Family::of(addr));
                }
                // A borrowed address goes back to its owner, where it rests.
                if !self.held.contains_key(addr) && self.block_of(*addr).is_some() {
                    self.resting.insert(*addr, Rest { handle: handle.clone(), since: *at });
                }
            }
        }
    }

    fn hold(&mut self, addr: IpAddr, holder: Holder) {
        let family = Family::of(&addr);
        self.forget(&holder.handle, family);
        self.resting.remove(&addr);
        if let Some(before) = self.held.get(&addr).map(|before| before.handle.clone()) {
            self.forget(&before, family);
        }
        let handle = holder.handle.clone();
        self.held.insert(addr, holder);
        self.by_handle.entry(handle).or_default()[family] = Some(addr);
    }

    /// Nothing of the family is the handle's any more.
    fn forget(&mut self, handle: &Handle, family: Family) {
        let Some(of_handle) = self.by_handle.get_mut(handle) else { return };
        if let Some(addr) = of_handle[family].take() {
            self.held.remove(&addr);
        }
        if *of_handle == Dual::default() {
            self.by_handle.remove(handle);
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

    pub(super) fn address_of(&self, handle: &Handle, family: Family) -> Option<IpAddr> {
        self.by_handle.get(handle)?[family]
    }

    pub(super) fn addresses_of(&self, handle: &Handle) -> impl Iterator<Item = IpAddr> + use<> {
        let of_handle = self.by_handle.get(handle).copied().unwrap_or_default();
        of_handle.v4.into_iter().chain(of_handle.v6)
    }

    /// The own block around an address.
    pub(super) fn block_of(&self, addr: IpAddr) -> Option<IpNet> {
        // Own blocks never overlap, so that only the last one that begins at or before the address can hold it.
        self.own.range(..=IpNet::from(addr)).next_back().filter(|block| block.contains(&addr)).copied()
    }

    pub(super) fn held_in(&self, block: IpNet) -> impl Iterator<Item = (IpAddr, &Holder)> {
        self.held.range(block.network()..=block.broadcast()).map(|(addr, holder)| (*addr, holder))
    }

    pub(super) fn resting_in(&self, block: IpNet) -> impl Iterator<Item = (IpAddr, Moment)> {
        self.resting.range(block.network()..=block.broadcast()).map(|(addr, rest)| (*addr, rest.since))
    }
}

/// Every address of a block: pods' addresses are host routes, so that the first and the last are as good as any other.
pub(super) fn addresses(block: IpNet) -> IpAddrRange {
    match block {
        IpNet::V4(block) => IpAddrRange::V4(Ipv4AddrRange::new(block.network(), block.broadcast())),
        IpNet::V6(block) => IpAddrRange::V6(Ipv6AddrRange::new(block.network(), block.broadcast())),
    }
}
