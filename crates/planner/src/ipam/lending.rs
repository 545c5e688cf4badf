//! Addresses of other nodes' blocks: a node whose own blocks are full, or whose pod asks for an address of another's block, borrows.
//!
//! The owner of a block gives its addresses from its own journal, so that the borrower cannot help itself: it asks, the owner writes
//! the loan into its journal ([`NodeIpam::lend`]) and then into the IPAMBlock, and the borrower, who reads it there, into its own
//! ([`NodeIpam::borrowed`]). What the API says of loans and what journals say may differ after a crash; each side mends its own part:
//! the borrower asks to return what it does not use ([`NodeIpam::unused_loans`]), and the owner takes back what a node had that is
//! gone ([`NodeIpam::orphaned_loans`]).

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use podnet_model::{BlockCidr, Family, Loan, NodeName, PodAddr, PodKey, Pool};

use super::{AllocationRequest, Assignment, Decision, Handle, Holder, IpamError, JournalRecord, Moment, NodeIpam};

/// How long a node that did not answer is not asked for any address: it may be down, and every pod would wait for it anew.
const SILENCE: Duration = Duration::from_secs(30);

/// A block of another node to borrow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoanCandidate {
    /// The block.
    pub block: BlockCidr,
    /// Its owner, who has to be asked.
    pub owner: NodeName,
    /// The address that is wanted; any where none.
    pub addr: Option<IpAddr>,
}

/// What another node asks of the owner of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoanRequest {
    /// Who asks.
    pub node: NodeName,
    /// What the address is freed by.
    pub handle: Handle,
    /// The pod.
    pub pod: PodKey,
    /// The pod's `metadata.uid`.
    pub uid: Arc<str>,
    /// The address that is wanted; any where none.
    pub addr: Option<IpAddr>,
}

impl NodeIpam {
    /// As the owner: gives an address of an own block to another node. The same handle gets the same address, so that a request that
    /// is read twice costs nothing. The records belong in the journal before the IPAMBlock tells the borrower.
    ///
    /// # Errors
    ///
    /// [`IpamError`] says why not.
    pub fn lend(
        &mut self,
        block: BlockCidr,
        asked: &LoanRequest,
        now: Moment,
    ) -> Result<(IpAddr, Vec<JournalRecord>), IpamError> {
        let refused = |why| IpamError::NotLent { block, node: self.node.clone(), why };
        let cidr = block.0;
        if let Some(addr) = self.ledger.address_of(&asked.handle, block.family()) {
            let is_wanted = cidr.contains(&addr) && asked.addr.is_none_or(|wanted| wanted == addr);
            // An earlier try of the same attachment got it; the borrower returns it when it finds that it does not use it.
            let other = || refused("the pod was lent another address, which is not returned yet");
            return if is_wanted { Ok((addr, Vec::new())) } else { Err(other()) };
        }
        if self.settings.strict_affinity {
            return Err(refused("strictAffinity of the IPAMConfig is set"));
        }
        let usable = self.usable_blocks(cidr).any(|own| own == cidr) && is_lendable(cidr);
        if !usable {
            return Err(refused("the block is not its own any more"));
        }
        let free = || self.free_in(cidr, now).or_else(|| self.longest_rested_in(cidr));
        let addr = match asked.addr {
            Some(addr) if !cidr.contains(&addr) => return Err(refused("the address is not of this block")),
            Some(addr) => {
                self.ensure_unheld(addr)?;
                addr
            }
            None => free().ok_or_else(|| refused("no address of it is free"))?,
        };
        let record = JournalRecord::Lent {
            addr,
            handle: asked.handle.clone(),
            pod: asked.pod.clone(),
            uid: Arc::clone(&asked.uid),
            node: asked.node.clone(),
        };
        self.ledger.record(&record);
        Ok((addr, vec![record]))
    }

    /// As the owner: a borrower does not need the address any more, or is gone itself. Nothing is done, and the answer is none, where
    /// the handle does not hold it as a loan.
    pub fn take_back(&mut self, handle: &Handle, addr: IpAddr, now: Moment) -> Option<Vec<JournalRecord>> {
        let holder = self.ledger.held.get(&addr)?;
        if holder.handle != *handle || holder.node.is_none() {
            return None;
        }
        self.release_one(handle, Family::of(&addr), now).map(|release| release.records)
    }

    /// As the borrower: the owner lent `addr`. The records belong in the journal before the address is used.
    pub fn borrowed(&mut self, addr: IpAddr, request: &AllocationRequest<'_>) -> Assignment {
        match self.assign(addr, request) {
            Decision::Assigned(assignment) => assignment,
            // `assign` always assigns.
            Decision::NeedBlock(_) | Decision::Borrow(_) => {
                Assignment { addr: PodAddr(addr), block: None, records: Vec::new() }
            }
        }
    }

    /// As the borrower: the owner of the block has nothing to lend. It is not asked again before it says more.
    pub fn not_lent(&mut self, block: BlockCidr) {
        if let Some(known) = self.known.get_mut(&block.0) {
            known.free = 0;
        }
    }

    /// As the borrower: the node was asked for any address and did not answer. Others are asked for the next 30 s.
    pub fn not_answered(&mut self, owner: &NodeName, now: Moment) {
        self.silent.retain(|_, since| now.since(*since) < SILENCE);
        self.silent.insert(owner.clone(), now);
    }

    /// As the borrower: what the API says this node has of others' blocks and nobody here uses. Each is to be returned, unless the
    /// request that it is for is still under way.
    #[must_use]
    pub fn unused_loans(&self) -> Vec<(BlockCidr, Loan)> {
        let ours = |loan: &&Loan| loan.node == self.node;
        let used_by = |loan: &Loan| self.ledger.address_of(&Handle::from(&*loan.handle), Family::of(&loan.addr));
        let unused = |loan: &&Loan| used_by(loan) != Some(loan.addr);
        let of_block = |(cidr, loans): (&IpNet, &Vec<Loan>)| -> Vec<(BlockCidr, Loan)> {
            let found = loans.iter().filter(ours).filter(unused);
            found.map(|loan| (BlockCidr(*cidr), loan.clone())).collect()
        };
        self.known.iter().map(|(cidr, known)| (cidr, &known.loans)).flat_map(of_block).collect()
    }

    /// As the owner: loans of nodes that are not known to be in the cluster. Sure they are gone only the API server knows.
    #[must_use]
    pub fn orphaned_loans(&self) -> Vec<(IpAddr, Handle, NodeName)> {
        let loan = |(addr, holder): (&IpAddr, &Holder)| {
            let node = holder.node.clone().filter(|node| !self.nodes.contains(node))?;
            Some((*addr, holder.handle.clone(), node))
        };
        self.ledger.held.iter().filter_map(loan).collect()
    }

    /// A block of the pools to borrow any address from: of those with room the one with most.
    pub(super) fn lender(&self, pools: &[Pool], now: Moment) -> Option<LoanCandidate> {
        if self.settings.strict_affinity {
            return None;
        }
        let inside = |cidr: &IpNet| pools.iter().any(|pool| pool.cidr.contains(cidr));
        let others = self.known.iter().filter(|(cidr, known)| known.free > 0 && inside(cidr));
        let (cidr, owner) = others
            .filter_map(|(cidr, known)| Some((cidr, known.free, self.can_lend(*cidr)?)))
            .filter(|(_, _, owner)| self.silent.get(owner).is_none_or(|since| now.since(*since) >= SILENCE))
            .max_by_key(|(cidr, free, _)| (*free, std::cmp::Reverse(**cidr)))
            .map(|(cidr, _, owner)| (*cidr, owner))?;
        Some(LoanCandidate { block: BlockCidr(cidr), owner, addr: None })
    }

    /// Exactly this address of another node's block, where that can be asked for.
    pub(super) fn lender_of(&self, addr: IpAddr, block: IpNet) -> Option<LoanCandidate> {
        let owner = self.can_lend(block).filter(|_| !self.settings.strict_affinity)?;
        Some(LoanCandidate { block: BlockCidr(block), owner, addr: Some(addr) })
    }

    /// The other node that may lend of this block: it has to exist, to be able to answer.
    fn can_lend(&self, block: IpNet) -> Option<NodeName> {
        let owner = self.known.get(&block)?.owner.as_ref()?;
        (*owner != self.node && self.nodes.contains(owner) && is_lendable(block)).then(|| owner.clone())
    }
}

/// The route to a borrowed address is longer than its block's; of a block of one address there is none.
fn is_lendable(block: IpNet) -> bool {
    block.prefix_len() < block.max_prefix_len()
}
