//! What is asked, and what is answered.

use std::sync::Arc;

use podnet_model::{BlockCidr, PodAddr, PodKey, PoolName};

use super::{Handle, JournalRecord, LoanCandidate, Wish};

/// Who asks for an address, and which.
#[derive(Clone, Debug)]
pub struct AllocationRequest<'a> {
    /// What the address is freed by.
    pub handle: Handle,
    /// The pod.
    pub pod: PodKey,
    /// The pod's `metadata.uid`.
    pub uid: Arc<str>,
    /// What it is to be given.
    pub wish: &'a Wish,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// An address, once the records are in the journal.
    Assigned(Assignment),
    /// None before this block is claimed.
    NeedBlock(ClaimCandidate),
    /// None of this node's own: another node is to be asked for one of its block.
    Borrow(LoanCandidate),
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The address.
    pub addr: PodAddr,
    /// The block that it is of; none where the block was lost since.
    pub block: Option<BlockCidr>,
    /// What to append to the journal before the address is used; nothing where the handle had the address already.
    pub records: Vec<JournalRecord>,
}

/// A block to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimCandidate {
    /// The block.
    pub cidr: BlockCidr,
    /// The pool that it is of.
    pub pool: PoolName,
}

/// An address that was freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The address.
    pub addr: PodAddr,
    /// The block that it is of; none where the block was lost since.
    pub block: Option<BlockCidr>,
    /// What to append to the journal.
    pub records: Vec<JournalRecord>,
}
