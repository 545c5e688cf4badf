//! Which addresses a sandbox gets: `planner::ipam` decides, the journal remembers, the API server arbitrates blocks.

mod assign;
mod lending;
mod outlook;
mod publish;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use kube::Client;
use podnet_client::blocks::Blocks;
use podnet_kernel::sysctl;
use podnet_model::{BlockCidr, Change, Family, NodeName, PodKey};
use podnet_planner::ipam::{Handle, Holder, IpamConfig, JournalRecord, Moment, NodeIpam, Release};
use tokio::sync::Notify;
use tracing::warn;

use assign::One;
pub use assign::{AssignError, Given};

use crate::{
    journal::{Journal, JournalError, Position},
    turns::Turns,
};

/// Why the addresses cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The addresses of this node.
pub struct Addresses {
    ipam: Mutex<NodeIpam>,
    journal: Journal,
    /// What the journal did not take yet. Only releases wait here: an address that was not written down is not given.
    unsaved: Mutex<Vec<String>>,
    /// The journal did not say all that it once said.
    damaged: bool,
    node: NodeName,
    blocks: Blocks,
    /// One claim at a time: fifty pods that find the blocks full need one block, not fifty.
    claiming: Arc<Turns<()>>,
    /// Blocks whose occupancy the API does not know yet.
    unpublished: Mutex<BTreeSet<BlockCidr>>,
    publish: Notify,
    /// Own blocks of which other nodes ask for addresses.
    asked: Mutex<BTreeSet<BlockCidr>>,
    ask: Notify,
    /// A loan is asked for and returned in turns: a return that overtook the next request would take an address away from a pod.
    lending: Arc<Turns<Handle>>,
    /// One request of this node at a time is put to the owner of a block.
    asking: Arc<Turns<BlockCidr>>,
    loan_freed: Notify,
    broken: Notify,
    runtime: tokio::runtime::Handle,
}

impl Addresses {
    /// Restores what was given from the journal.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn open(node: NodeName, path: &Path, client: Client) -> Result<Self, OpenError> {
        let (journal, lines) = Journal::open(path)?;
        let config = IpamConfig { ipv6: sysctl::has_ipv6(), ..IpamConfig::default() };
        let mut ipam = NodeIpam::new(node.clone(), config);
        let replayed = ipam.replay(lines.iter().map(String::as_str));
        // A torn end was a record that nobody was answered on; only what is missing in the middle matters.
        let damaged = !replayed.damaged.is_empty();
        if damaged {
            let lines = &replayed.damaged;
            warn!(path = %path.display(), ?lines, "address journal is damaged; what the API server knows fills the gap");
        }
        let unpublished = ipam.blocks().collect();
        Ok(Self {
            ipam: Mutex::new(ipam),
            journal,
            unsaved: Mutex::default(),
            damaged,
            blocks: Blocks::new(client, node.clone()),
            node,
            claiming: Arc::default(),
            unpublished: Mutex::new(unpublished),
            publish: Notify::new(),
            asked: Mutex::default(),
            ask: Notify::new(),
            lending: Arc::default(),
            asking: Arc::default(),
            loan_freed: Notify::new(),
            broken: Notify::new(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Takes a change of pools, blocks and this node's labels in.
    pub fn learn(&self, change: &Change) {
        self.ipam().apply(change);
        self.note_block(change);
    }

    /// How many bytes IPv6 packets have room for on this node (see [`NodeIpam::set_room_for_ipv6`]).
    pub fn set_room_for_ipv6(&self, mtu: u32) {
        self.ipam().set_room_for_ipv6(mtu);
    }

    /// What the next pod of this name is to have, where its addresses are sticky (see [`NodeIpam::kept`]).
    #[must_use]
    pub fn kept(&self, pod: &PodKey, got: &[IpAddr], is_asked_for: bool) -> Vec<IpAddr> {
        self.ipam().kept(pod, got, is_asked_for)
    }

    /// Frees all that the handle holds, durable when this returns.
    ///
    /// # Errors
    ///
    /// When it cannot be remembered. It is freed in memory then, and the next call that writes tells the journal.
    pub fn release(&self, handle: &Handle) -> Result<Vec<IpAddr>, JournalError> {
        Ok(self.release_all(std::slice::from_ref(handle))?.pop().unwrap_or_default())
    }

    /// As [`Addresses::release`] for many, with one wait for the disk.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release_all(&self, handles: &[Handle]) -> Result<Vec<Vec<IpAddr>>, JournalError> {
        let free = |ipam: &mut NodeIpam, at| handles.iter().map(|handle| ipam.release(handle, at)).collect();
        self.freeing(free)
    }

    /// Frees some of the addresses that the handle holds: those of an ADD that failed, which no runtime was told. They need not rest.
    ///
    /// # Errors
    ///
    /// As for [`Addresses::release`].
    pub fn give_back(&self, handle: &Handle, addrs: &[IpAddr]) -> Result<(), JournalError> {
        if addrs.is_empty() {
            return Ok(());
        }
        let free = |ipam: &mut NodeIpam, _| {
            let families = addrs.iter().map(Family::of);
            vec![families.filter_map(|family| ipam.take_untold(handle, family)).collect()]
        };
        self.freeing(free).map(|_| ())
    }

    fn freeing(
        &self,
        free: impl FnOnce(&mut NodeIpam, Moment) -> Vec<Vec<Release>>,
    ) -> Result<Vec<Vec<IpAddr>>, JournalError> {
        let (position, released) = {
            let mut ipam = self.ipam();
            let released = free(&mut ipam, now());
            let records: Vec<_> = released.iter().flatten().flat_map(|release| release.records.clone()).collect();
            let position = self.append(&records).inspect_err(|_| {
                self.unsaved().extend(records.iter().map(JournalRecord::to_line));
            })?;
            (position, released)
        };
        self.sync(position)?;
        let blocks: BTreeSet<_> = released.iter().flatten().map(|release| release.block).collect();
        for block in blocks {
            self.changed(block);
            if block.is_none() {
                self.loan_freed.notify_one();
            }
        }
        let addrs = |releases: Vec<Release>| releases.iter().map(|release| release.addr.0).collect();
        Ok(released.into_iter().map(addrs).collect())
    }

    /// The addresses that the handle holds, that of IPv4 first.
    #[must_use]
    pub fn of(&self, handle: &Handle) -> Vec<IpAddr> {
        self.ipam().addresses_of(handle).into_iter().map(|addr| addr.0).collect()
    }

    /// The range of this node that an address is of, and the address that the node has in it, where it has one.
    #[must_use]
    pub fn own_range_of(&self, addr: IpAddr) -> Option<(IpNet, Option<IpAddr>)> {
        self.ipam().own_range_of(addr)
    }

    /// Everything on this node that holds an address.
    #[must_use]
    pub fn handles(&self) -> Vec<Handle> {
        // Once each, though it may hold two.
        let handles: BTreeSet<Handle> = self.holders().into_iter().map(|(_, holder)| holder.handle).collect();
        handles.into_iter().collect()
    }

    /// Every address that something on this node holds, and for whom.
    #[must_use]
    pub fn holders(&self) -> Vec<(IpAddr, Holder)> {
        let ipam = self.ipam();
        let here = ipam.holders().filter(|(_, holder)| holder.node.is_none());
        here.map(|(addr, holder)| (addr.0, holder.clone())).collect()
    }

    /// Waits until the journal takes nothing more; only a restart, which reads what is really there, helps then.
    pub async fn journal_broken(&self) {
        self.broken.notified().await;
    }

    /// Writes the records, after those that wait to be written. Call it under the lock of `ipam`, which orders them.
    fn append(&self, records: &[JournalRecord]) -> Result<Position, JournalError> {
        let mut unsaved = self.unsaved();
        let position = self.journal.append(unsaved.iter().cloned().chain(records.iter().map(JournalRecord::to_line)));
        match position {
            Ok(position) => {
                unsaved.clear();
                Ok(position)
            }
            Err(error) => Err(self.noting_broken(error)),
        }
    }

    fn sync(&self, position: Position) -> Result<(), JournalError> {
        self.journal.sync(position).map_err(|error| self.noting_broken(error))
    }

    fn noting_broken(&self, error: JournalError) -> JournalError {
        if self.journal.is_broken() {
            self.broken.notify_one();
        }
        error
    }

    fn changed(&self, block: Option<BlockCidr>) {
        if let Some(block) = block {
            self.unpublished.lock().unwrap_or_else(PoisonError::into_inner).insert(block);
            self.publish.notify_one();
        }
    }

    fn ipam(&self) -> MutexGuard<'_, NodeIpam> {
        // The state machine does not panic half-way through a change.
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsaved(&self) -> MutexGuard<'_, Vec<String>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn block_size(cidr: BlockCidr) -> u32 {
    let bits = cidr.0.max_prefix_len() - cidr.0.prefix_len();
    1_u32.checked_shl(bits.into()).unwrap_or(u32::MAX)
}

fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
