//! Which address a sandbox gets: `planner::ipam` decides, the journal remembers, the API server arbitrates blocks.

mod lending;
mod publish;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kube::Client;
use podnet_client::blocks::{BlockError, Blocks, Claim};
use podnet_model::{BlockCidr, Change, NodeName, PodKey};
use podnet_planner::ipam::{
    AllocationRequest, ClaimCandidate, Decision, Handle, Holder, IpamConfig, IpamError, JournalRecord, LoanCandidate,
    Moment, NodeIpam, Wish,
};
use tokio::{sync::Notify, time::timeout};
use tracing::{info, warn};

use crate::{
    journal::{Journal, JournalError, Position},
    turns::Turns,
};

/// How long a request may wait for a block, its own claim and others' before it: the API server is near, and the runtime waits.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pod may wait for the address that it had before.
const STICKY_PATIENCE: Duration = Duration::from_secs(3);
/// For the question who holds an address that cannot be given.
const HOLDER_PATIENCE: Duration = Duration::from_secs(3);
/// Claims for one assignment. Each lost one means that another node was faster.
const CLAIMS: usize = 16;

/// Why the addresses cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// The rules say no.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A block is needed, and the API server cannot be asked for one.
    #[error("the blocks of this node are used up and no further one can be claimed")]
    Claim(#[from] BlockError),
    /// A block is needed, and the API server does not answer.
    #[error("the blocks of this node are used up, and the API server did not answer within {} s", CLAIM_PATIENCE.as_secs())]
    Silent,
    /// An address is to be borrowed, and the owner of the block says nothing.
    #[error("node {owner} was asked for an address of its block {block}, and did not answer in time")]
    Unanswered {
        /// Whose block it is.
        owner: NodeName,
        /// The block.
        block: BlockCidr,
    },
    /// Other nodes were faster, again and again.
    #[error("other nodes claimed {CLAIMS} blocks in a row before this one could; try again")]
    Outrun,
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

/// An address that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The address.
    pub addr: IpAddr,
    /// It was given by this call; otherwise the handle held it already.
    pub anew: bool,
}

impl Addresses {
    /// Restores what was given from the journal.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn open(node: NodeName, path: &Path, client: Client) -> Result<Self, OpenError> {
        let (journal, lines) = Journal::open(path)?;
        let mut ipam = NodeIpam::new(node.clone(), IpamConfig::default());
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

    /// Gives an address, durable when this returns. The same handle gets the same address again. It waits for the disk and, where a
    /// block is needed, for the API server: not for async code.
    ///
    /// # Errors
    ///
    /// When there is none to give, or it cannot be remembered.
    pub fn assign(&self, request: &AllocationRequest<'_>) -> Result<Given, AssignError> {
        let kept = request.wish.sticky.as_ref().and_then(|_| self.ipam().sticky_address(&request.pod));
        let Some(kept) = kept.filter(|_| request.wish.addrs.is_empty()) else {
            return self.assign_by(request, Instant::now() + CLAIM_PATIENCE).map_err(|error| self.naming_holder(error));
        };
        match self.assign_by(request, Instant::now() + STICKY_PATIENCE) {
            Err(error) if !matches!(error, AssignError::Journal(_)) => {
                // Better another address than none: the node that has its block may be dead.
                let error = &error as &dyn std::error::Error;
                warn!(pod = %request.pod, %kept, error, "pod does not get the address that it had before, but another");
                let wish = Wish { sticky: None, ..request.wish.clone() };
                self.assign(&AllocationRequest { wish: &wish, ..request.clone() })
            }
            assigned => assigned,
        }
    }

    /// Whether the next pod of this name is to have `addr` again, where it is sticky.
    #[must_use]
    pub fn keeps(&self, pod: &PodKey, addr: IpAddr) -> bool {
        self.ipam().keeps(pod, addr)
    }

    /// Who has an address of another node's block only the API server knows; a pod's events are to say it.
    fn naming_holder(&self, error: AssignError) -> AssignError {
        let AssignError::Ipam(IpamError::OwnedElsewhere { addr, block, .. }) = &error else { return error };
        let found = self.blocks.holder(BlockCidr((*block).into()), *addr);
        match self.runtime.block_on(async { timeout(HOLDER_PATIENCE, found).await }) {
            Ok(Ok(Some(pod))) => AssignError::Ipam(IpamError::Held { addr: *addr, pod }),
            _ => error,
        }
    }

    /// One deadline for all that this request waits for, so that a silent API server does not keep others from being served.
    fn assign_by(&self, request: &AllocationRequest<'_>, deadline: Instant) -> Result<Given, AssignError> {
        let mut unanswered = None;
        for _ in 0..CLAIMS {
            match self.try_assign(request) {
                Ok(Outcome::Assigned(given)) => return Ok(given),
                Ok(Outcome::Borrow(from)) => match self.borrow(request, &from, deadline) {
                    Ok(Some(given)) => return Ok(given),
                    Ok(None) => continue,
                    // Another node may have an address, and is asked next.
                    Err(error @ AssignError::Unanswered { .. }) if from.addr.is_none() && Instant::now() < deadline => {
                        unanswered = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                Ok(Outcome::NeedBlock(_)) => {}
                Err(error @ AssignError::Ipam(IpamError::Full { .. })) => return Err(unanswered.unwrap_or(error)),
                Err(error) => return Err(error),
            }
            let Some(_turn) = self.claiming.take_until((), deadline) else { return Err(AssignError::Silent) };
            // Whoever had the turn before may have claimed a block with room for this one.
            match self.try_assign(request)? {
                Outcome::Assigned(given) => return Ok(given),
                Outcome::NeedBlock(candidate) => self.claim(candidate.cidr, deadline)?,
                // Asked without the turn: it may take long, and other requests may find room.
                Outcome::Borrow(_) => {}
            }
        }
        Err(AssignError::Outrun)
    }

    /// Frees what the handle holds, durable when this returns; none where it holds nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be remembered. It is freed in memory then, and the next call that writes tells the journal.
    pub fn release(&self, handle: &Handle) -> Result<Option<IpAddr>, JournalError> {
        Ok(self.release_all(std::slice::from_ref(handle))?.into_iter().next().flatten())
    }

    /// As [`Addresses::release`] for many, with one wait for the disk.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release_all(&self, handles: &[Handle]) -> Result<Vec<Option<IpAddr>>, JournalError> {
        let (position, released) = {
            let mut ipam = self.ipam();
            let at = now();
            let released: Vec<_> = handles.iter().map(|handle| ipam.release(handle, at)).collect();
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
        Ok(released.into_iter().map(|release| release.map(|release| release.addr.0)).collect())
    }

    /// The address that the handle holds.
    #[must_use]
    pub fn of(&self, handle: &Handle) -> Option<IpAddr> {
        self.ipam().address_of(handle).map(|addr| addr.0)
    }

    /// Everything on this node that holds an address.
    #[must_use]
    pub fn handles(&self) -> Vec<Handle> {
        self.holders().into_iter().map(|(_, holder)| holder.handle).collect()
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

    fn try_assign(&self, request: &AllocationRequest<'_>) -> Result<Outcome, AssignError> {
        let (position, assignment) = {
            let mut ipam = self.ipam();
            match ipam.allocate(request, now())? {
                Decision::NeedBlock(candidate) => return Ok(Outcome::NeedBlock(candidate)),
                Decision::Borrow(from) => return Ok(Outcome::Borrow(from)),
                Decision::Assigned(assignment) => match self.append(&assignment.records) {
                    Ok(position) => (position, assignment),
                    Err(error) => {
                        // Not written down, so never given: the memory must not hold what a restart would forget.
                        if !assignment.records.is_empty() {
                            ipam.release(&request.handle, now());
                        }
                        return Err(error.into());
                    }
                },
            }
        };
        self.sync(position)?;
        let anew = !assignment.records.is_empty();
        if anew {
            self.changed(assignment.block);
        }
        Ok(Outcome::Assigned(Given { addr: assignment.addr.0, anew }))
    }

    fn claim(&self, cidr: BlockCidr, deadline: Instant) -> Result<(), AssignError> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let claim = self.blocks.claim(cidr, block_size(cidr));
        let claim = self.runtime.block_on(async { timeout(patience, claim).await });
        match claim.map_err(|_| AssignError::Silent)?? {
            Claim::Ours => {
                info!(%cidr, "block claimed");
                let position = {
                    let mut ipam = self.ipam();
                    let records = ipam.block_claimed(cidr);
                    self.append(&records)?
                };
                self.sync(position)?;
            }
            Claim::Theirs(owner) => {
                info!(%cidr, ?owner, "block is another node's");
                self.ipam().block_lost(cidr, owner);
            }
        }
        Ok(())
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

enum Outcome {
    Assigned(Given),
    NeedBlock(ClaimCandidate),
    Borrow(LoanCandidate),
}

fn block_size(cidr: BlockCidr) -> u32 {
    let bits = cidr.0.max_prefix_len() - cidr.0.prefix_len();
    1_u32.checked_shl(bits.into()).unwrap_or(u32::MAX)
}

fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
