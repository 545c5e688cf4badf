//! Claiming, publishing and giving up IPAM blocks.
//!
//! A block's name is a function of its range, so creating the IPAMBlock object is the compare-and-swap that claims it: of two nodes
//! that try, the API server refuses one.

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use podnet_model::{
    BlockCidr, NodeName,
    crd::{BlockAffinity, IPAMBlock, IPAMBlockSpec, block_name},
};
use tracing::warn;

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
    blocks: Api<IPAMBlock>,
    affinities: Api<BlockAffinity>,
}

impl Blocks {
    /// The blocks for `node`.
    #[must_use]
    pub fn new(client: Client, node: NodeName) -> Self {
        Self { node, blocks: Api::all(client.clone()), affinities: Api::all(client) }
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
                let owner = self.owner(cidr).await.map_err(failed)?;
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

    /// The blocks that the API server says are this node's.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached.
    pub async fn own(&self) -> Result<Vec<(BlockCidr, IPAMBlockSpec)>, kube::Error> {
        let ours = format!("host:{}", self.node);
        let blocks = self.blocks.list(&ListParams::default()).await?.items.into_iter();
        Ok(blocks
            .filter(|block| block.spec.affinity.as_ref() == Some(&ours))
            .filter_map(|block| Some((BlockCidr(block.spec.cidr.parse().ok()?), block.spec)))
            .collect())
    }

    async fn owner(&self, cidr: BlockCidr) -> Result<Option<NodeName>, kube::Error> {
        let block = self.blocks.get_opt(&block_name(cidr)).await?;
        let affinity = block.and_then(|block| block.spec.affinity);
        Ok(affinity.as_deref().and_then(|affinity| affinity.strip_prefix("host:")).map(NodeName::from))
    }

    /// Publishes which addresses of an own block are given. `occupancy` writes them into the object, and says whether it changed
    /// anything.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached, or the block is gone or no longer this node's.
    pub async fn publish(
        &self,
        cidr: BlockCidr,
        occupancy: impl Fn(&mut IPAMBlockSpec) -> bool,
    ) -> Result<(), BlockError> {
        let failed = |source| BlockError { action: "publish", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        for _ in 0..CONFLICT_RETRIES {
            let mut block = self.blocks.get(&name).await.map_err(failed)?;
            if !occupancy(&mut block.spec) {
                return Ok(());
            }
            match self.blocks.replace(&name, &PostParams::default(), &block).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let block = self.blocks.get(&name).await.map_err(failed)?;
        warn!(%cidr, version = ?block.resource_version(), "block changes too fast to be published now; the next change publishes it");
        Ok(())
    }

    /// Gives a block up, if it is still this node's and nobody changed it meanwhile.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or refuses.
    pub async fn give_up(&self, cidr: BlockCidr) -> Result<(), BlockError> {
        let failed = |source| BlockError { action: "give up", cidr, source: Box::new(source) };
        let name = block_name(cidr);
        let affinity = format!("{}-{name}", self.node);
        if let Some(block) = self.blocks.get_opt(&name).await.map_err(failed)? {
            let unchanged = Preconditions { uid: block.uid(), resource_version: block.meta().resource_version.clone() };
            let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
            absent_is_fine(self.blocks.delete(&name, &params).await.map(|_| ())).map_err(failed)?;
        }
        absent_is_fine(self.affinities.delete(&affinity, &DeleteParams::default()).await.map(|_| ())).map_err(failed)
    }
}

fn absent_is_fine(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}
