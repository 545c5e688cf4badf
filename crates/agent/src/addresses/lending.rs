//! Borrowing from other nodes' blocks, lending of own ones, and blocks of nodes that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use podnet_client::blocks::{Answer, BlockError};
use podnet_model::{
    BlockCidr, Change, Family, Loan, PodKey,
    crd::{Ask, IPAMBlockSpec, LendingRequest},
};
use podnet_planner::ipam::{AllocationRequest, Handle, IpamError, LoanCandidate, LoanRequest};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Addresses, AssignError, One, now};
use crate::journal::JournalError;

/// Between two looks at whether the owner answered.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For one owner to answer, where others could lend as well: it looks as soon as it hears of the request.
const OWNER_PATIENCE: Duration = Duration::from_millis(2500);
/// For one request to the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why other nodes were not answered.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Addresses {
    /// Asks the owner of a block for an address; none where it does not lend any, so that another may be asked.
    pub(super) fn borrow(
        &self,
        request: &AllocationRequest<'_>,
        from: &LoanCandidate,
        deadline: Instant,
    ) -> Result<Option<One>, AssignError> {
        let unanswered = || AssignError::Unanswered { owner: from.owner.clone(), block: from.block };
        let Some(_turn) = self.lending.take_until(request.handle.clone(), deadline) else { return Err(unanswered()) };
        let asked = LendingRequest {
            node: self.node.to_string(),
            handle: request.handle.to_string(),
            namespace: request.pod.namespace.to_string(),
            pod: request.pod.name.to_string(),
            uid: request.uid.to_string(),
            ask: Ask::Borrow(from.addr.map(|addr| addr.to_string())),
        };
        let mut answer = self.ask_and_wait(from, &asked, deadline);
        if from.addr.is_some() && matches!(answer, Ok(Some(Answer::Refused(None)))) {
            // Who had the address when the owner answered has it no more.
            answer = self.ask_and_wait(from, &asked, deadline);
        }
        if !matches!(answer, Ok(Some(_))) {
            // Nobody waits for the answer any more; one that comes all the same is returned by the housekeeping.
            let withdrawn = self.blocks.withdraw(from.block, &asked);
            let _ = self.runtime.block_on(async { timeout(LOOK_EVERY * 20, withdrawn).await });
        }
        match (answer?, from.addr) {
            (Some(Answer::Lent(addr)), _) => self.keep_loan(addr, request).map(Some),
            (Some(Answer::Refused(Some(pod))), Some(addr)) => Err(IpamError::Held { addr, pod }.into()),
            (Some(_), Some(addr)) => {
                Err(IpamError::OwnedElsewhere { addr, block: from.block.0, owner: from.owner.clone() }.into())
            }
            (Some(_), None) => {
                self.ipam().not_lent(from.block);
                Ok(None)
            }
            (None, _) => {
                warn!(owner = %from.owner, block = %from.block, "a node that was asked for an address does not answer");
                self.ipam().not_answered(&from.owner, now());
                Err(unanswered())
            }
        }
    }

    /// The owner's answer; none when it did not come in time.
    fn ask_and_wait(
        &self,
        from: &LoanCandidate,
        asked: &LendingRequest,
        deadline: Instant,
    ) -> Result<Option<Answer>, AssignError> {
        let left = || deadline.saturating_duration_since(Instant::now());
        // One request after the other changes the block's object, or this node's pods would run into each other.
        let Some(turn) = self.asking.take_until(from.block, deadline) else { return Err(AssignError::Silent) };
        let ask = self.blocks.ask(from.block, asked);
        let put = self.runtime.block_on(async { timeout(left(), ask).await });
        drop(turn);
        match put {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(Some(Answer::Refused(None))),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(AssignError::Silent),
        }
        let patience = from.addr.map_or(OWNER_PATIENCE, |_| left());
        let deadline = deadline.min(Instant::now() + patience);
        let left = || deadline.saturating_duration_since(Instant::now());
        while !left().is_zero() {
            let answer = self.blocks.answer(from.block, asked, from.addr);
            match self.runtime.block_on(async { timeout(left(), answer).await }) {
                Ok(Ok(Answer::Waiting)) => thread::sleep(LOOK_EVERY),
                Ok(Ok(answer)) => return Ok(Some(answer)),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(None)
    }

    fn keep_loan(&self, addr: IpAddr, request: &AllocationRequest<'_>) -> Result<One, AssignError> {
        let position = {
            let mut ipam = self.ipam();
            let assignment = ipam.borrowed(addr, request);
            match self.append(&assignment.records) {
                Ok(position) => position,
                Err(error) => {
                    ipam.take_untold(&request.handle, Family::of(&addr));
                    return Err(error.into());
                }
            }
        };
        info!(%addr, pod = %request.pod, "address borrowed");
        Ok(One { addr, block: None, anew: true, position })
    }

    /// Notes that other nodes ask for addresses of an own block; and that the block's object says other than the journal, or is gone,
    /// so that it is written anew.
    pub(super) fn note_block(&self, change: &Change) {
        let Change::Block(cidr, block) = change else { return };
        if block.as_ref().is_some_and(|block| block.owner.as_ref() != Some(&self.node)) {
            return;
        }
        if block.as_ref().is_some_and(|block| block.is_asked) {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(*cidr);
            self.ask.notify_one();
        }
        let free = self.ipam().occupancy_of(*cidr).map(|occupancy| occupancy.free.len());
        if free.is_some_and(|free| block.as_ref().is_none_or(|block| block.free != free)) {
            self.changed(Some(*cidr));
        }
    }

    /// Waits until another node asks for an address.
    pub async fn asked(&self) {
        while self.asked.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.ask.notified().await;
        }
    }

    /// Answers other nodes; whether all went well. What failed is tried with the next call.
    pub async fn answer_others(&self) -> bool {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all = true;
        for cidr in asked {
            let served = self.blocks.serve(cidr, |requests, spec| self.settle(cidr, requests, spec));
            let error: Box<dyn std::error::Error + Send + Sync> = match timeout(PATIENCE, served).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.into(),
                Err(elapsed) => elapsed.into(),
            };
            warn!(%cidr, error = &*error as &dyn std::error::Error, "other nodes not answered; it is tried again");
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(cidr);
            all = false;
        }
        all
    }

    fn settle(&self, cidr: BlockCidr, requests: &[LendingRequest], spec: &mut IPAMBlockSpec) -> Result<(), ServeError> {
        let (position, occupancy) = {
            let mut ipam = self.ipam();
            let mut records = Vec::new();
            for request in requests {
                let handle = Handle::from(&*request.handle);
                match &request.ask {
                    Ask::Borrow(wanted) => match ipam.lend(cidr, &loan_request(request, wanted.as_deref()), now()) {
                        Ok((addr, lent)) => {
                            info!(%addr, node = request.node, pod = request.pod, "address lent");
                            records.extend(lent);
                        }
                        Err(error) => info!(%cidr, node = request.node, %error, "address not lent"),
                    },
                    Ask::Return(addr) => {
                        let back = addr.parse().ok().and_then(|addr| ipam.take_back(&handle, addr, now()));
                        records.extend(back.unwrap_or_default());
                    }
                }
            }
            (self.append(&records)?, ipam.occupancy_of(cidr))
        };
        tokio::task::block_in_place(|| self.sync(position))?;
        if let Some(occupancy) = occupancy {
            occupancy.publish(&self.node, spec);
        }
        Ok(())
    }

    /// Waits until an address that may be borrowed is freed.
    pub async fn loan_freed(&self) {
        self.loan_freed.notified().await;
    }

    /// Asks the owners to take back what nobody here uses: an ADD was given up, or a DEL freed it.
    pub async fn return_loans(&self) {
        let unused = self.ipam().unused_loans();
        for (cidr, loan) in unused {
            // An ADD that is under way may be waiting for just this one.
            let handle = Handle::from(&*loan.handle);
            let Some(_turn) = self.lending.take_until(handle.clone(), Instant::now()) else { continue };
            if self.of(&handle).contains(&loan.addr) {
                continue;
            }
            match timeout(PATIENCE, self.blocks.ask(cidr, &self.returning(&loan))).await {
                Ok(Ok(_)) => info!(addr = %loan.addr, %cidr, "borrowed address returned"),
                Ok(Err(error)) => {
                    warn!(error = &error as &dyn std::error::Error, "borrowed address not returned; it is tried again");
                }
                Err(_) => warn!(%cidr, "borrowed address not returned: the API server is silent; it is tried again"),
            }
        }
    }

    fn returning(&self, loan: &Loan) -> LendingRequest {
        LendingRequest {
            node: self.node.to_string(),
            handle: loan.handle.to_string(),
            namespace: String::new(),
            pod: String::new(),
            uid: String::new(),
            ask: Ask::Return(loan.addr.to_string()),
        }
    }

    /// Takes back what nodes had that the cluster does not have any more. `suspects` are those that looked so before, and how many
    /// looks had passed by then; the answer is those that do now: an object that was just made anew gets the time of a round to be
    /// seen.
    pub async fn reclaim(&self, suspects: &BTreeMap<BlockCidr, usize>) -> BTreeMap<BlockCidr, usize> {
        let abandoned = self.ipam().abandoned();
        let looks = |cidr: &BlockCidr| suspects.get(cidr).copied();
        let ours = |cidr: &&BlockCidr| looks(cidr).is_some_and(|looks| self.ipam().reclaims(looks));
        for cidr in abandoned.iter().filter(ours) {
            match timeout(PATIENCE, self.blocks.reclaim(*cidr)).await {
                Ok(Ok(true)) => info!(%cidr, "block of a node that is gone reclaimed"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    warn!(error = &error as &dyn std::error::Error, "block not reclaimed; it is tried again");
                }
                Err(_) => warn!(%cidr, "block not reclaimed: the API server is silent; it is tried again"),
            }
        }
        abandoned.into_iter().map(|cidr| (cidr, looks(&cidr).map_or(0, |looks| looks.wrapping_add(1)))).collect()
    }

    /// Frees what was lent to nodes that are gone. `suspects` are those that looked so before, and the answer those that do now.
    pub async fn free_orphans(&self, suspects: &BTreeSet<Handle>) -> BTreeSet<Handle> {
        let orphans = self.ipam().orphaned_loans();
        for (addr, handle, node) in orphans.iter().filter(|(_, handle, _)| suspects.contains(handle)) {
            // A node whose object cannot be read is unknown here, and its pods run all the same.
            let gone = matches!(timeout(PATIENCE, self.blocks.exists(node)).await, Ok(Ok(false)));
            if !gone {
                continue;
            }
            match tokio::task::block_in_place(|| self.release(handle)) {
                Ok(_) => info!(%addr, %node, "address that was lent to a node that is gone freed"),
                Err(error) => warn!(%addr, error = &error as &dyn std::error::Error, "lent address not freed"),
            }
        }
        orphans.into_iter().map(|(_, handle, _)| handle).collect()
    }
}

fn loan_request(request: &LendingRequest, wanted: Option<&str>) -> LoanRequest {
    LoanRequest {
        node: request.node.as_str().into(),
        handle: Handle::from(&*request.handle),
        pod: PodKey::new(&request.namespace, &request.pod),
        uid: Arc::from(request.uid.as_str()),
        addr: wanted.and_then(|addr| addr.parse().ok()),
    }
}

#[cfg(test)]
mod tests;
