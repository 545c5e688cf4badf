//! Claiming, publishing and giving up IPAM blocks.
//!
//! A block's name is a function of its range, so creating the IPAMBlock object is the compare-and-swap that claims it: of two nodes
//! that try, the API server refuses one.

mod loans;

use std::net::IpAddr;

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use podnet_model::{
    BlockCidr, NodeName, PodKey,
    crd::{AllocationAttribute, BlockAffinity, IPAMBlock, IPAMBlockSpec, block_name},
};
use tracing::warn;

pub use loans::Answer;

/// How often a publication that met a concurrent change is tried again at once.
const CONFLICT_RETRIES: usize = 5;

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The block is this node's.
    Ours,
    /// Another node has it, or nobody (`None`) while it is being given up.
    Theirs(Option<NodeName>),
}

/// Why a block could not be claimed, published or given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} block {cidr}")]
pub struct BlockError {
    /// What was tried.
    pub action: &'static str,
    /// The block.
    pub cidr: BlockCidr,
    /// What the API server said.
    #[source]
    pub source: Box<kube::Error>,
}

/// The blocks of the cluster, as one node deals with them.
#[derive(Clone)]
pub struct Blocks {
    node: NodeName,
    client: Client,
    blocks: Api<IPAMBlock>,
    affinities: Api<BlockAffinity>,
}

impl Blocks {
    /// The blocks for `node`.
    #[must_use]
    pub fn new(client: Client, node: NodeName) -> Self {
        Self { node, blocks: Api::all(client.clone()), affinities: Api::all(client.clone()), client }
    }

    /// Claims a block of `size` addresses.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or refuses for another reason than that the block is taken.
    pub async fn claim(&self, cidr: BlockCidr, size: u32) -> Result<Claim, BlockError> {
        let failed = |source| BlockError { action: "claim", cidr, source: Box::new(source) };
        match self.blocks.create(&PostParams::default(), &IPAMBlock::claim(cidr, size, &self.node)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let owner = self.blocks.get_opt(&block_name(cidr)).await.map_err(failed)?.as_ref().and_then(owner);
                if owner.as_ref() != Some(&self.node) {
                    return Ok(Claim::Theirs(owner));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        // The affinity is an index by node; the block itself says whose it is, so a failure here costs nobody an address.
        match self.affinities.create(&PostParams::default(), &BlockAffinity::confirmed(cidr, &self.node)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => {
                warn!(%cidr, error = &error as &dyn std::error::Error, "block claimed, but its affinity not recorded");
            }
        }
        Ok(Claim::Ours)
    }

    /// Of these blocks, those that the API server says are this node's, and those of others in which this node has addresses.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached.
    pub async fn own_and_others(
        &self,
        cidrs: impl IntoIterator<Item = BlockCidr>,
    ) -> Result<[Vec<(BlockCidr, IPAMBlockSpec)>; 2], kube::Error> {
        let [mut own, mut others] = [Vec::new(), Vec::new()];
        for cidr in cidrs {
            let Some(block) = self.blocks.get_opt(&block_name(cidr)).await? else { continue };
            if self.is_ours(&block) {
                own.push((cidr, block.spec));
            } else if self.is_borrower(&block.spec) {
                others.push((cidr, block.spec));
            }
        }
        Ok([own, others])
    }

    /// Which pod the API server says has an address; none where nobody has it or it is no pod.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached.
    pub async fn holder(&self, cidr: BlockCidr, addr: IpAddr) -> Result<Option<PodKey>, kube::Error> {
        let block = self.blocks.get_opt(&block_name(cidr)).await?;
        Ok(block.and_then(|block| loans::holder(&block.spec, addr)))
    }

    /// Publishes which addresses of an own block are given. `occupancy` writes them into the object, and says whether it changed
    /// anything. Where the object is gone, the block is claimed again first: its addresses are in use.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or the object changes too fast.
    pub async fn publish(
        &self,
        cidr: BlockCidr,
        size: u32,
        occupancy: impl Fn(&mut IPAMBlockSpec) -> bool,
    ) -> Result<Claim, BlockError> {
        let failed = |source| BlockError { action: "publish", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        let mut attempts = 0..CONFLICT_RETRIES;
        loop {
            let Some(mut block) = self.blocks.get_opt(&name).await.map_err(failed)? else {
                warn!(%cidr, "the object of a block in use is gone; the block is claimed again");
                match self.claim(cidr, size).await? {
                    Claim::Ours => continue,
                    theirs => return Ok(theirs),
                }
            };
            if !self.is_ours(&block) {
                return Ok(Claim::Theirs(owner(&block)));
            }
            if !occupancy(&mut block.spec) {
                return Ok(Claim::Ours);
            }
            match self.blocks.replace(&name, &PostParams::default(), &block).await {
                Ok(_) => return Ok(Claim::Ours),
                Err(kube::Error::Api(status)) if status.is_conflict() && attempts.next().is_some() => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Gives a block up. One that is another node's by now stays as it is, and so does one that somebody changes meanwhile.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or refuses.
    pub async fn give_up(&self, cidr: BlockCidr) -> Result<(), BlockError> {
        let failed = |source| BlockError { action: "give up", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        let block = self.blocks.get_opt(&name).await.map_err(failed)?;
        if let Some(block) = block.filter(|block| self.is_ours(block)) {
            let unchanged = Preconditions { uid: block.uid(), resource_version: block.resource_version() };
            let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
            absent_is_fine(self.blocks.delete(&name, &params).await.map(|_| ())).map_err(failed)?;
        }
        let affinity = format!("{}-{name}", self.node);
        absent_is_fine(self.affinities.delete(&affinity, &DeleteParams::default()).await.map(|_| ())).map_err(failed)
    }

    fn is_borrower(&self, spec: &IPAMBlockSpec) -> bool {
        let node = |attribute: &AllocationAttribute| {
            attribute.secondary.get("node").is_some_and(|node| node == self.node.as_str())
        };
        spec.attributes.iter().any(node)
    }

    fn is_ours(&self, block: &IPAMBlock) -> bool {
        owner(block).as_ref() == Some(&self.node)
    }
}

/// The node that a block's object names (`host:NAME`).
fn owner(block: &IPAMBlock) -> Option<NodeName> {
    block.spec.affinity.as_deref()?.strip_prefix("host:").map(NodeName::from)
}

fn absent_is_fine(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}
