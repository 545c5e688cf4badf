//! Giving addresses: from memory where a block has room, otherwise after a claim or a loan.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_client::blocks::{BlockError, Claim};
use podnet_model::{BlockCidr, Family, NodeName};
use podnet_planner::ipam::{AllocationRequest, ClaimCandidate, Decision, IpamError, LoanCandidate, Wish};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Addresses, block_size, now};
use crate::{
    fault,
    journal::{JournalError, Position},
};

/// How long a request may wait for a block, its own claim and others' before it: the API server is near, and the runtime waits.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pod may wait for an answer about the address that it had before.
const STICKY_PATIENCE: Duration = Duration::from_secs(3);
/// Of [`CLAIM_PATIENCE`], what is left for another address where that one is not to be had.
const FOR_ANOTHER: Duration = Duration::from_secs(3);
/// Between questions whether an address is free by now that is about to be: each costs writes to the API.
const RETURN_PAUSE: Duration = Duration::from_millis(200);
/// For the question who holds an address that cannot be given.
const HOLDER_PATIENCE: Duration = Duration::from_secs(3);
/// Claims for one assignment. Each lost one means that another node was faster.
const CLAIMS: usize = 16;

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
    /// Both families are turned off.
    #[error("the CNI configuration turns both assign_ipv4 and assign_ipv6 off")]
    NoFamily,
    /// Other nodes were faster, again and again.
    #[error("other nodes claimed {CLAIMS} blocks in a row before this one could; try again")]
    Outrun,
}

/// What an attachment got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Its addresses, one of each family that it gets, that of IPv4 first.
    pub addrs: Vec<IpAddr>,
    /// Those of them that were given by this call; the handle held the others already.
    pub anew: Vec<IpAddr>,
}

/// One address, which is durable only when the journal is up to `position`.
pub(super) struct One {
    pub(super) addr: IpAddr,
    pub(super) block: Option<BlockCidr>,
    pub(super) anew: bool,
    pub(super) position: Position,
}

impl Addresses {
    /// Gives an address of each family that the wish leads to, durable when this returns, or none at all. The same handle gets the same
    /// addresses again. It waits for the disk and, where a block is needed, for the API server: not for async code.
    ///
    /// # Errors
    ///
    /// When there is none of a family to give, or it cannot be remembered.
    pub fn assign(&self, request: &AllocationRequest<'_>) -> Result<Given, AssignError> {
        let families = self.ipam().families(request.wish);
        if families.is_empty() {
            return Err(AssignError::NoFamily);
        }
        // A wrong word about one family is no reason to give, or borrow, an address of the other at each retry.
        families.iter().try_for_each(|family| self.ipam().foresee(request, *family))?;
        let deadline = Instant::now() + CLAIM_PATIENCE;
        let mut all: Vec<One> = Vec::new();
        let assigned = families.into_iter().try_for_each(|family| {
            all.push(self.assign_one(request, family, deadline)?);
            fault::point("add-assigned-one");
            Ok(())
        });
        let anew: Vec<IpAddr> = all.iter().filter(|one| one.anew).map(|one| one.addr).collect();
        // One wait for the disk.
        let last = all.iter().map(|one| one.position).max();
        let kept = assigned.and_then(|()| Ok(last.map_or(Ok(()), |last| self.sync(last))?));
        if let Err(error) = kept {
            if let Err(error) = self.give_back(&request.handle, &anew) {
                warn!(error = &error as &dyn std::error::Error, "address not freed; the runtime's DEL frees it");
            }
            return Err(error);
        }
        all.iter().filter(|one| one.anew).for_each(|one| self.changed(one.block));
        Ok(Given { addrs: all.iter().map(|one| one.addr).collect(), anew })
    }

    fn assign_one(
        &self,
        request: &AllocationRequest<'_>,
        family: Family,
        deadline: Instant,
    ) -> Result<One, AssignError> {
        let kept = request.wish.sticky.as_ref().and_then(|_| self.ipam().sticky_address(&request.pod, family));
        let Some(kept) = kept.filter(|_| request.wish.addrs.is_empty()) else {
            return self.assign_by(request, family, deadline).map_err(|error| self.naming_holder(error));
        };
        let until = deadline.checked_sub(FOR_ANOTHER).unwrap_or(deadline);
        let ask = || self.assign_by(request, family, until.min(Instant::now() + STICKY_PATIENCE));
        let mut assigned = ask();
        // The pod's earlier life, on another node, is on its way out: its address is about to be free.
        while matches!(&assigned, Err(AssignError::Ipam(IpamError::Held { pod, .. })) if *pod == request.pod)
            && Instant::now() + RETURN_PAUSE < until
        {
            std::thread::sleep(RETURN_PAUSE);
            assigned = ask();
        }
        match assigned {
            Err(error) if !matches!(error, AssignError::Journal(_)) => {
                // Better another address than none: the node that has its block may be dead.
                let error = &error as &dyn std::error::Error;
                warn!(pod = %request.pod, %kept, error, "pod does not get the address that it had before, but another");
                let wish = Wish { sticky: None, ..request.wish.clone() };
                self.assign_one(&AllocationRequest { wish: &wish, ..request.clone() }, family, deadline)
            }
            assigned => assigned,
        }
    }

    /// Who has an address of another node's block only the API server knows; a pod's events are to say it.
    fn naming_holder(&self, error: AssignError) -> AssignError {
        let AssignError::Ipam(IpamError::OwnedElsewhere { addr, block, .. }) = &error else { return error };
        let found = self.blocks.holder(BlockCidr(*block), *addr);
        match self.runtime.block_on(async { timeout(HOLDER_PATIENCE, found).await }) {
            Ok(Ok(Some(pod))) => AssignError::Ipam(IpamError::Held { addr: *addr, pod }),
            _ => error,
        }
    }

    /// One deadline for all that this request waits for, so that a silent API server does not keep others from being served.
    fn assign_by(
        &self,
        request: &AllocationRequest<'_>,
        family: Family,
        deadline: Instant,
    ) -> Result<One, AssignError> {
        let mut unanswered = None;
        for _ in 0..CLAIMS {
            match self.try_assign(request, family) {
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
            match self.try_assign(request, family)? {
                Outcome::Assigned(given) => return Ok(given),
                Outcome::NeedBlock(candidate) => self.claim(candidate.cidr, deadline)?,
                // Asked without the turn: it may take long, and other requests may find room.
                Outcome::Borrow(_) => {}
            }
        }
        Err(AssignError::Outrun)
    }

    fn try_assign(&self, request: &AllocationRequest<'_>, family: Family) -> Result<Outcome, AssignError> {
        let mut ipam = self.ipam();
        let assignment = match ipam.allocate(request, family, now())? {
            Decision::NeedBlock(candidate) => return Ok(Outcome::NeedBlock(candidate)),
            Decision::Borrow(from) => return Ok(Outcome::Borrow(from)),
            Decision::Assigned(assignment) => assignment,
        };
        let anew = !assignment.records.is_empty();
        match self.append(&assignment.records) {
            Ok(position) => {
                let (addr, block) = (assignment.addr.0, assignment.block);
                Ok(Outcome::Assigned(One { addr, block, anew, position }))
            }
            Err(error) => {
                // Not written down, so never given: the memory must not hold what a restart would forget.
                if anew {
                    ipam.take_untold(&request.handle, family);
                }
                Err(error.into())
            }
        }
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
}

enum Outcome {
    Assigned(One),
    NeedBlock(ClaimCandidate),
    Borrow(LoanCandidate),
}
