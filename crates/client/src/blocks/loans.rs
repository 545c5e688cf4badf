//! Asking another node for an address of its block, and answering; and taking away the blocks of nodes that are gone.
//!
//! See `podnet_model::crd::LendingRequest`: a request waits in an annotation of the block's object until the owner removes it, in the
//! same update that says what it gave.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use podnet_model::{
    BlockCidr, NodeName, PodKey,
    crd::{AllocationAttribute, Ask, IPAMBlock, IPAMBlockSpec, LendingRequest, block_name, requests, set_requests},
};

use super::{BlockError, Blocks, absent_is_fine, owner};

/// How often a request or an answer that met another one is tried again: many nodes may ask of one block at once.
const ASK_RETRIES: usize = 12;

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The owner has not looked yet.
    Waiting,
    /// The address is this node's to use.
    Lent(IpAddr),
    /// The owner does not lend; of an address that was asked for, who has it.
    Refused(Option<PodKey>),
}

impl Blocks {
    /// Puts a request where the block's owner sees it; false where the block is gone or nobody's or this node's own.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or the object changes too fast.
    pub async fn ask(&self, cidr: BlockCidr, request: &LendingRequest) -> Result<bool, BlockError> {
        self.change_requests(cidr, |waiting| {
            if waiting.contains(request) {
                return false;
            }
            waiting.push(request.clone());
            true
        })
        .await
    }

    /// Takes a request back that nobody waits for any more. The owner may have answered it meanwhile.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or the object changes too fast.
    pub async fn withdraw(&self, cidr: BlockCidr, request: &LendingRequest) -> Result<(), BlockError> {
        let removed = self.change_requests(cidr, |waiting| {
            let before = waiting.len();
            waiting.retain(|one| one != request);
            waiting.len() != before
        });
        removed.await.map(|_| ())
    }

    /// What the owner said to a request; `wanted` is the address that it asks for.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached.
    pub async fn answer(
        &self,
        cidr: BlockCidr,
        request: &LendingRequest,
        wanted: Option<IpAddr>,
    ) -> Result<Answer, BlockError> {
        let failed = |source| BlockError { action: "read the answer about", cidr, source: Box::new(source) };
        let Some(block) = self.blocks.get_opt(&block_name(cidr)).await.map_err(failed)? else {
            return Ok(Answer::Refused(None));
        };
        if requests(&block).contains(request) {
            return Ok(Answer::Waiting);
        }
        let lent = lent(&block.spec, request).filter(|addr| wanted.is_none_or(|wanted| wanted == *addr));
        Ok(lent.map_or_else(|| Answer::Refused(wanted.and_then(|addr| holder(&block.spec, addr))), Answer::Lent))
    }

    /// Answers what other nodes ask of an own block. `settle` decides about the requests, in their order, and writes what is held then
    /// into the specification; it is called again where the object changed meanwhile, so that it has to give the same answer.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or the object changes too fast, and those of `settle`.
    pub async fn serve<E: From<BlockError>>(
        &self,
        cidr: BlockCidr,
        settle: impl Fn(&[LendingRequest], &mut IPAMBlockSpec) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |source| BlockError { action: "answer what is asked of", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        let mut attempts = 0..ASK_RETRIES;
        loop {
            let block = self.blocks.get_opt(&name).await.map_err(failed)?.filter(|block| self.is_ours(block));
            let Some(mut block) = block else { return Ok(()) };
            let waiting = requests(&block);
            if waiting.is_empty() {
                return Ok(());
            }
            settle(&waiting, &mut block.spec)?;
            set_requests(&mut block, &[]);
            match self.blocks.replace(&name, &PostParams::default(), &block).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.is_conflict() => match attempts.next() {
                    Some(attempt) => pause(attempt).await,
                    None => return Err(failed(kube::Error::Api(status)).into()),
                },
                Err(error) => return Err(failed(error).into()),
            }
        }
    }

    /// Deletes the block of a node that the cluster does not have any more, once it has no pods there either, and none of the nodes
    /// that borrowed of it uses what it was lent: a block that is claimed anew would give those addresses a second time. True where
    /// it did.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or refuses.
    pub async fn reclaim(&self, cidr: BlockCidr) -> Result<bool, BlockError> {
        let failed = |source| BlockError { action: "reclaim", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        let Some(block) = self.blocks.get_opt(&name).await.map_err(failed)? else { return Ok(false) };
        let Some(owner) = owner(&block) else { return Ok(false) };
        for node in std::iter::once(owner.clone()).chain(borrowers(&block, &owner)) {
            if self.exists(&node).await.map_err(failed)? {
                return Ok(false);
            }
        }
        // Whoever changes the object meanwhile has plans for it.
        let unchanged = Preconditions { uid: block.uid(), resource_version: block.resource_version() };
        let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        absent_is_fine(self.blocks.delete(&name, &params).await.map(|_| ())).map_err(failed)?;
        let affinity = format!("{owner}-{name}");
        absent_is_fine(self.affinities.delete(&affinity, &DeleteParams::default()).await.map(|_| ()))
            .map_err(failed)?;
        Ok(true)
    }

    /// Whether the cluster has a node of this name, or pods of it.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached.
    pub async fn exists(&self, node: &NodeName) -> Result<bool, kube::Error> {
        if Api::<Node>::all(self.client.clone()).get_opt(node.as_str()).await?.is_some() {
            return Ok(true);
        }
        let of_node = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1);
        Ok(!Api::<Pod>::all(self.client.clone()).list(&of_node).await?.items.is_empty())
    }

    async fn change_requests(
        &self,
        cidr: BlockCidr,
        change: impl Fn(&mut Vec<LendingRequest>) -> bool,
    ) -> Result<bool, BlockError> {
        let failed = |source| BlockError { action: "ask for an address of", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        let mut attempts = 0..ASK_RETRIES;
        loop {
            let Some(mut block) = self.blocks.get_opt(&name).await.map_err(failed)? else { return Ok(false) };
            if owner(&block).is_none_or(|owner| owner == self.node) {
                return Ok(false);
            }
            let mut waiting = requests(&block);
            if !change(&mut waiting) {
                return Ok(true);
            }
            set_requests(&mut block, &waiting);
            match self.blocks.replace(&name, &PostParams::default(), &block).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.is_conflict() => match attempts.next() {
                    Some(attempt) => pause(attempt).await,
                    None => return Err(failed(kube::Error::Api(status))),
                },
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// Before an update that met another is tried again: longer each time, and not the same on all nodes, which would meet again.
async fn pause(attempt: usize) {
    let longest = 10 << attempt.min(5);
    let chosen = RandomState::new().hash_one(attempt) % longest;
    tokio::time::sleep(Duration::from_millis(1 + chosen)).await;
}

/// The other nodes that have addresses of a block, and did not ask to return them.
fn borrowers(block: &IPAMBlock, owner: &NodeName) -> BTreeSet<NodeName> {
    let returned = requests(block);
    let is_returned = |node: &str, handle: Option<&str>| {
        returned.iter().any(|request| {
            matches!(request.ask, Ask::Return(_)) && request.node == node && Some(&*request.handle) == handle
        })
    };
    let given = block.spec.allocations.iter().flatten();
    let attributes = given.filter_map(|index| block.spec.attributes.get(usize::try_from(*index).ok()?));
    let node = |attribute: &AllocationAttribute| {
        let node = attribute.secondary.get("node")?;
        let is_lent = node != owner.as_str() && !is_returned(node, attribute.handle_id.as_deref());
        is_lent.then(|| NodeName::from(node))
    };
    attributes.filter_map(node).collect()
}

/// The address that a block's object says a request was answered with.
fn lent(spec: &IPAMBlockSpec, request: &LendingRequest) -> Option<IpAddr> {
    let block = BlockCidr(spec.cidr.parse().ok()?);
    let is_it = |slot: &Option<i64>| {
        let attribute = slot.and_then(|index| spec.attributes.get(usize::try_from(index).ok()?));
        attribute.is_some_and(|attribute| {
            attribute.handle_id.as_ref() == Some(&request.handle)
                && attribute.secondary.get("node") == Some(&request.node)
        })
    };
    let offset = spec.allocations.iter().position(is_it)?;
    block.nth(offset)
}

/// The pod that a block's object says has an address.
pub(super) fn holder(spec: &IPAMBlockSpec, addr: IpAddr) -> Option<PodKey> {
    let attribute = spec.attribute_of(addr)?;
    let text = |key: &str| attribute.secondary.get(key).filter(|text| !text.is_empty());
    Some(PodKey::new(text("namespace")?, text("pod")?))
}

#[cfg(test)]
mod tests;
