//! Which address a sandbox gets: `planner::ipam` decides, the journal remembers, the API server arbitrates blocks.

mod publish;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kube::Client;
use podnet_client::blocks::{BlockError, Blocks, Claim};
use podnet_model::{BlockCidr, Change, NodeName};
use podnet_planner::ipam::{
    AllocationRequest, ClaimCandidate, Decision, Handle, IpamConfig, IpamError, JournalRecord, Moment, NodeIpam,
};
use tokio::{sync::Notify, time::timeout};
use tracing::{info, warn};

use crate::journal::{Journal, JournalError, Position};

/// How long a claim may take: the API server is near, and the runtime waits.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
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
    /// Other nodes were faster, again and again.
    #[error("other nodes claimed {CLAIMS} blocks in a row before this one could; try again")]
    Outrun,
}

/// The addresses of this node.
pub struct Addresses {
    ipam: Mutex<NodeIpam>,
    journal: Journal,
    /// The journal did not say all that it once said.
    damaged: bool,
    node: NodeName,
    blocks: Blocks,
    /// One claim at a time: fifty pods that find the blocks full need one block, not fifty.
    claiming: Mutex<()>,
    /// Blocks whose occupancy the API does not know yet.
    unpublished: Mutex<BTreeSet<BlockCidr>>,
    publish: Notify,
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
        let mut ipam = NodeIpam::new(node.clone(), IpamConfig::default());
        let replayed = ipam.replay(lines.iter().map(String::as_str));
        // A torn end was a record that nobody was answered on; only what is missing in the middle matters.
        let damaged = !replayed.damaged.is_empty();
        if damaged {
            warn!(path = %path.display(), lines = ?replayed.damaged, "address journal is damaged; what the API server knows fills the gap");
        }
        let unpublished = ipam.blocks().collect();
        Ok(Self {
            ipam: Mutex::new(ipam),
            journal,
            damaged,
            blocks: Blocks::new(client, node.clone()),
            node,
            claiming: Mutex::new(()),
            unpublished: Mutex::new(unpublished),
            publish: Notify::new(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Takes a change of pools, blocks and this node's labels in.
    pub fn learn(&self, change: &Change) {
        self.ipam().apply(change);
    }

    /// Gives an address, durable when this returns. The same handle gets the same address again. It waits for the disk and, where a
    /// block is needed, for the API server: not for async code.
    ///
    /// # Errors
    ///
    /// When there is none to give, or it cannot be remembered.
    pub fn assign(&self, request: &AllocationRequest<'_>) -> Result<IpAddr, AssignError> {
        for _ in 0..CLAIMS {
            if let Some(addr) = self.try_assign(request)?.assigned() {
                return Ok(addr);
            }
            let _one_at_a_time = self.claiming.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever held the lock before may have claimed a block with room for this one.
            match self.try_assign(request)? {
                Outcome::Assigned(addr) => return Ok(addr),
                Outcome::NeedBlock(candidate) => self.claim(candidate.cidr)?,
            }
        }
        Err(AssignError::Outrun)
    }

    /// Frees what the handle holds, durable when this returns; none where it holds nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be remembered; it is then held on.
    pub fn release(&self, handle: &Handle) -> Result<Option<IpAddr>, JournalError> {
        let (position, addr, block) = {
            let mut ipam = self.ipam();
            let Some(release) = ipam.release(handle, now()) else { return Ok(None) };
            // Where the journal cannot say so, a restart holds the address again and the next DEL frees it: it is never given twice,
            // because this process goes on with what it has in memory, where the address rests.
            (self.append(&release.records)?, release.addr, release.block)
        };
        self.journal.sync(position)?;
        self.changed(block);
        Ok(Some(addr.0))
    }

    /// The address that the handle holds.
    #[must_use]
    pub fn of(&self, handle: &Handle) -> Option<IpAddr> {
        self.ipam().address_of(handle).map(|addr| addr.0)
    }

    /// Everything that holds an address.
    #[must_use]
    pub fn handles(&self) -> Vec<Handle> {
        self.ipam().holders().map(|(_, holder)| holder.handle.clone()).collect()
    }

    fn try_assign(&self, request: &AllocationRequest<'_>) -> Result<Outcome, AssignError> {
        let (position, assignment) = {
            let mut ipam = self.ipam();
            match ipam.allocate(request, now())? {
                Decision::NeedBlock(candidate) => return Ok(Outcome::NeedBlock(candidate)),
                Decision::Assigned(assignment) => match self.append(&assignment.records) {
                    Ok(position) => (position, assignment),
                    Err(error) => {
                        // Not written down, so never given: the memory must not hold what a restart would forget.
                        ipam.release(&request.handle, now());
                        return Err(error.into());
                    }
                },
            }
        };
        self.journal.sync(position)?;
        self.changed(assignment.block);
        Ok(Outcome::Assigned(assignment.addr.0))
    }

    fn claim(&self, cidr: BlockCidr) -> Result<(), AssignError> {
        let size = block_size(cidr);
        let claim = self.runtime.block_on(async { timeout(CLAIM_PATIENCE, self.blocks.claim(cidr, size)).await });
        match claim.map_err(|_| AssignError::Silent)?? {
            Claim::Ours => {
                info!(%cidr, "block claimed");
                let position = {
                    let mut ipam = self.ipam();
                    let records = ipam.block_claimed(cidr);
                    self.append(&records)?
                };
                self.journal.sync(position)?;
            }
            Claim::Theirs(owner) => {
                info!(%cidr, ?owner, "block is another node's");
                self.ipam().block_lost(cidr, owner);
            }
        }
        Ok(())
    }

    fn append(&self, records: &[JournalRecord]) -> Result<Position, JournalError> {
        self.journal.append(records.iter().map(JournalRecord::to_line))
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
}

enum Outcome {
    Assigned(IpAddr),
    NeedBlock(ClaimCandidate),
}

impl Outcome {
    fn assigned(self) -> Option<IpAddr> {
        match self {
            Self::Assigned(addr) => Some(addr),
            Self::NeedBlock(_) => None,
        }
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
