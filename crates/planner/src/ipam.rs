//! Addresses of one node's pods: a state machine that decides, and neither reads a clock nor writes a file.
//!
//! A node owns *blocks* of the pools, exclusively, and gives the addresses of its blocks from memory; each decision comes with the
//! [`JournalRecord`]s that make it durable. When there is no room, the answer is a block to claim ([`Decision::NeedBlock`]): the
//! caller creates the IPAMBlock object of that name, which only one node can, says how it went
//! ([`NodeIpam::block_claimed`], [`NodeIpam::block_lost`]) and asks again.
//!
//! The order that keeps addresses unique over crashes:
//!
//! - claim: create the object, append [`JournalRecord::Claimed`], then give addresses;
//! - assign: append [`JournalRecord::Assigned`], then answer the runtime;
//! - give up: append [`JournalRecord::Unclaimed`], then delete the object.
//!
//! A crash between two of these leaves a block that the API says is ours and the journal does not know: nothing was given from
//! it, and it is the first candidate when a block is needed.

pub mod audit;
mod claims;
mod decision;
mod error;
mod flannel;
mod handle;
mod journal;
mod ledger;
mod lending;
mod occupancy;
mod places;
mod pools;
mod sticky;
mod wish;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use podnet_model::{
    Block, BlockCidr, Change, Dual, Family, IpamSettings, Loan, Namespace, NetConf, NodeName, PodAddr, Pool, PoolName,
    labels::Labels,
};

pub use decision::{AllocationRequest, Assignment, ClaimCandidate, Decision, Release};
pub use error::IpamError;
pub use handle::Handle;
pub use journal::{Damage, JournalRecord, Replayed};
pub use ledger::Holder;
pub use lending::{LoanCandidate, LoanRequest};
pub use occupancy::{Occupancy, OccupancyError};
pub use wish::{NetworkWish, PoolList, PoolSource, Wish};

use ledger::Ledger;
use sticky::Sticky;

/// A moment of the wall clock, since freed addresses rest over restarts: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// How long ago `earlier` was; nothing where it lies in the future, as after a clock that was set back.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Settings of a node's IPAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConfig {
    /// How long a freed address rests before another pod gets it, unless there is no other: 30 s, in which peers' connections to
    /// the pod that had it, and names that still resolve to it, have had time to fail.
    pub cool_down: Duration,
    /// The node's kernel has IPv6. Without it pods get IPv6 addresses only where somebody asks for one, and then fail for it.
    pub ipv6: bool,
}

impl Default for IpamConfig {
    fn default() -> Self {
        Self { cool_down: Duration::from_secs(30), ipv6: true }
    }
}

/// The IPAM of one node.
#[derive(Clone, Debug)]
pub struct NodeIpam {
    node: NodeName,
    config: IpamConfig,
    /// This node's labels.
    labels: Labels,
    /// All nodes, whose order spreads their claims.
    nodes: BTreeSet<NodeName>,
    pools: BTreeMap<PoolName, Pool>,
    /// By IPReservation: ranges that only pods get who ask for an address of them.
    reserved: BTreeMap<Arc<str>, Vec<IpNet>>,
    /// Addresses that pods of these names get again, and others only when they ask for them.
    sticky: Sticky,
    settings: IpamSettings,
    /// flannel's configurations by namespace, this node's `spec.podCIDRs`, and the pools that come of them.
    net_confs: BTreeMap<Namespace, NetConf>,
    pod_cidrs: Vec<IpNet>,
    parts: Dual<Option<PoolName>>,
    /// All blocks of the cluster and their owners, as far as the API told; this node's own are always among them.
    known: BTreeMap<IpNet, Known>,
    /// Blocks that were given up here and may still be in the API.
    leaving: BTreeSet<IpNet>,
    /// Nodes that did not answer when they were asked for an address, and when that was.
    silent: BTreeMap<NodeName, Moment>,
    ledger: Ledger,
    /// Bytes that IPv6 packets have room for on this node.
    room_for_ipv6: u32,
}

/// What the API says of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    owner: Option<NodeName>,
    /// Addresses that the owner could lend.
    free: usize,
    loans: Vec<Loan>,
}

impl Known {
    const fn of(owner: Option<NodeName>) -> Self {
        Self { owner, free: 0, loans: Vec::new() }
    }
}

impl NodeIpam {
    /// The IPAM of `node`, which owns nothing yet.
    #[must_use]
    pub fn new(node: NodeName, config: IpamConfig) -> Self {
        Self {
            node,
            config,
            labels: Labels::default(),
            nodes: BTreeSet::new(),
            pools: BTreeMap::new(),
            reserved: BTreeMap::new(),
            sticky: Sticky::default(),
            settings: IpamSettings::default(),
            net_confs: BTreeMap::new(),
            pod_cidrs: Vec::new(),
            parts: Dual::default(),
            known: BTreeMap::new(),
            leaving: BTreeSet::new(),
            silent: BTreeMap::new(),
            ledger: Ledger::default(),
            room_for_ipv6: u32::MAX,
        }
    }

    /// Takes over a change of a node, pool or block.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Node(name, node) => {
                if *name == self.node {
                    self.labels = node.as_ref().map(|node| Arc::clone(&node.labels)).unwrap_or_default();
                    self.pod_cidrs = node.as_ref().map(|node| node.pod_cidrs.clone()).unwrap_or_default();
                    self.follow_flannel();
                }
                if node.is_some() {
                    self.nodes.insert(name.clone());
                } else {
                    self.nodes.remove(name);
                }
            }
            Change::Pool(name, Some(pool)) => drop(self.pools.insert(name.clone(), pool.clone())),
            Change::Pool(name, None) => drop(self.pools.remove(name)),
            Change::Block(BlockCidr(cidr), block) => {
                let known =
                    |block: &Block| Known { owner: block.owner.clone(), free: block.free, loans: block.loans.clone() };
                self.take_block(*cidr, block.as_ref().map(known));
            }
            Change::Reservation(name, Some(reservation)) => {
                self.reserved.insert(Arc::clone(name), reservation.ranges.clone());
            }
            Change::Reservation(name, None) => drop(self.reserved.remove(name)),
            Change::Sticky(pod, addrs) => self.sticky.set(pod, addrs),
            Change::NetConf(namespace, conf) => {
                match conf {
                    Some(conf) => drop(self.net_confs.insert(namespace.clone(), *conf)),
                    None => drop(self.net_confs.remove(namespace)),
                }
                self.follow_flannel();
            }
            Change::IpamSettings(settings) => self.settings = settings.unwrap_or_default(),
            Change::Pod(..)
            | Change::Service(..)
            | Change::Slice(..)
            | Change::Namespace(..)
            | Change::AddressPool(..)
            | Change::Felix(..)
            | Change::Proxy(..) => {}
        }
    }

    /// Decides about a request for an address of a family, one of [`NodeIpam::families`]. The same handle gets the same address of it,
    /// however often it asks.
    ///
    /// # Errors
    ///
    /// [`IpamError`] says why there is no address for this pod, in words for the pod's events.
    pub fn allocate(
        &mut self,
        request: &AllocationRequest<'_>,
        family: Family,
        now: Moment,
    ) -> Result<Decision, IpamError> {
        if let Some(addr) = self.ledger.address_of(&request.handle, family) {
            return Ok(Decision::Assigned(self.assignment(addr, Vec::new())));
        }
        if let Some(addr) = wanted(&request.wish.addrs_no_ipam, family) {
            self.ensure_unheld(addr)?;
            return Ok(self.assign(addr, request));
        }
        let before = request.wish.sticky.as_ref().and_then(|_| self.sticky.of(&request.pod, family));
        if let Some(addr) = wanted(&request.wish.addrs, family).or(before) {
            return match self.room_for(addr) {
                Ok(Some(candidate)) => Ok(Decision::NeedBlock(candidate)),
                Ok(None) => Ok(self.assign(addr, request)),
                Err(IpamError::OwnedElsewhere { addr, block, owner }) => match self.lender_of(addr, block) {
                    Some(candidate) => Ok(Decision::Borrow(candidate)),
                    None => Err(IpamError::OwnedElsewhere { addr, block, owner }),
                },
                Err(error) => Err(error),
            };
        }
        let pools = self.pools_for(request.wish, family)?;
        for pool in &pools {
            if let Some(addr) = self.free_in(pool.cidr, now) {
                return Ok(self.assign(addr, request));
            }
            if let Some(cidr) = self.candidate(pool) {
                return Ok(Decision::NeedBlock(ClaimCandidate { cidr, pool: pool.name.clone() }));
            }
        }
        if let Some(addr) = pools.iter().find_map(|pool| self.longest_rested_in(pool.cidr)) {
            return Ok(self.assign(addr, request));
        }
        self.lender(&pools, now).map(Decision::Borrow).ok_or_else(|| self.full(&pools))
    }

    /// Frees the handle's addresses, if it has any; they then rest.
    pub fn release(&mut self, handle: &Handle, now: Moment) -> Vec<Release> {
        Family::ALL.into_iter().filter_map(|family| self.release_one(handle, family, now)).collect()
    }

    /// Frees the handle's address of one family, if it has one.
    pub fn release_one(&mut self, handle: &Handle, family: Family, now: Moment) -> Option<Release> {
        let addr = self.ledger.address_of(handle, family)?;
        let record = JournalRecord::Released { addr, handle: handle.clone(), at: now };
        self.ledger.record(&record);
        Some(Release { addr: PodAddr(addr), block: self.block_of(addr), records: vec![record] })
    }

    /// Takes back the handle's address of one family that nobody was told: nobody knows of it, so it need not rest. Otherwise each retry of
    /// a pod that cannot have all of its addresses would lay one to rest, and soon claim further blocks.
    pub fn take_untold(&mut self, handle: &Handle, family: Family) -> Option<Release> {
        self.release_one(handle, family, Moment(0))
    }

    /// The pools that there are.
    pub fn pool_names(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.keys()
    }

    /// The addresses that a handle holds, that of IPv4 first.
    #[must_use]
    pub fn addresses_of(&self, handle: &Handle) -> Vec<PodAddr> {
        self.ledger.addresses_of(handle).map(PodAddr).collect()
    }

    /// Who holds an address.
    #[must_use]
    pub fn holder(&self, addr: PodAddr) -> Option<&Holder> {
        self.ledger.held.get(&addr.0)
    }

    /// Everything that is held, in the order of addresses.
    pub fn holders(&self) -> impl Iterator<Item = (PodAddr, &Holder)> {
        self.ledger.held.iter().map(|(addr, holder)| (PodAddr(*addr), holder))
    }

    /// Takes over the lines of a journal, oldest first, before anything else.
    pub fn replay<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) -> Replayed {
        let replayed = journal::replay(lines, |record| self.ledger.record(&record));
        for cidr in &self.ledger.own {
            self.known.entry(*cidr).or_insert_with(|| Known::of(Some(self.node.clone())));
        }
        replayed
    }

    /// The records of a new journal that says the same in fewest lines.
    #[must_use]
    pub fn snapshot(&self) -> Vec<JournalRecord> {
        self.ledger.snapshot()
    }

    /// Who owns a block, as far as is known.
    fn owner_of(&self, block: IpNet) -> Option<&NodeName> {
        self.known.get(&block)?.owner.as_ref()
    }

    fn assign(&mut self, addr: IpAddr, request: &AllocationRequest<'_>) -> Decision {
        let record = JournalRecord::Assigned {
            addr,
            handle: request.handle.clone(),
            pod: request.pod.clone(),
            uid: Arc::clone(&request.uid),
        };
        self.ledger.record(&record);
        Decision::Assigned(self.assignment(addr, vec![record]))
    }

    fn assignment(&self, addr: IpAddr, records: Vec<JournalRecord>) -> Assignment {
        Assignment { addr: PodAddr(addr), block: self.block_of(addr), records }
    }

    fn block_of(&self, addr: IpAddr) -> Option<BlockCidr> {
        self.ledger.block_of(addr).map(BlockCidr)
    }

    /// An address of an own block in `range` that nobody holds and that has rested.
    fn free_in(&self, range: IpNet, now: Moment) -> Option<IpAddr> {
        let addrs = self.usable_blocks(range).flat_map(ledger::addresses);
        let mut free = addrs.filter(|addr| !self.ledger.held.contains_key(addr) && !self.is_reserved(*addr));
        free.find(|addr| match self.ledger.resting.get(addr) {
            Some(rest) => now.since(rest.since) >= self.config.cool_down,
            None => true,
        })
    }

    /// The address of an own block in `range` that has rested longest.
    fn longest_rested_in(&self, range: IpNet) -> Option<IpAddr> {
        let resting = self.usable_blocks(range).flat_map(|block| self.ledger.resting_in(block));
        resting
            .filter(|(addr, _)| !self.is_reserved(*addr))
            .min_by_key(|(addr, since)| (*since, *addr))
            .map(|(addr, _)| addr)
    }

    /// Own blocks in `range`, but those that the API says are another's.
    fn usable_blocks(&self, range: IpNet) -> impl Iterator<Item = IpNet> {
        let own = self.ledger.own.iter().filter(move |block| range.contains(*block));
        own.filter(|block| self.owner_of(**block) == Some(&self.node)).copied()
    }
}

/// The address of a family among those asked for.
fn wanted(addrs: &[IpAddr], family: Family) -> Option<IpAddr> {
    addrs.iter().find(|addr| Family::of(addr) == family).copied()
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
