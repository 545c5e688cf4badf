//! What the API server learns of this node's blocks, and what this node learns of them from it.

use std::{collections::BTreeSet, sync::PoisonError, time::Duration};

use podnet_client::blocks::{BlockError, Claim};
use podnet_model::{BlockCidr, crd::IPAMBlockSpec};
use podnet_planner::ipam::{JournalRecord, Occupancy};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Addresses, block_size, now};
use crate::journal::JournalError;

/// How long the API server may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);

impl Addresses {
    /// Waits until there is something to publish.
    pub async fn unpublished(&self) {
        while self.pending().is_empty() {
            self.publish.notified().await;
        }
    }

    /// Publishes which addresses are held, of each block where that changed; whether all went well. What failed is tried with the
    /// next call.
    pub async fn publish(&self) -> bool {
        let pending = std::mem::take(&mut *self.pending());
        let mut all = true;
        for cidr in pending {
            let error: Box<dyn std::error::Error + Send + Sync> =
                match timeout(PATIENCE, self.publish_block(cidr)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.into(),
                    Err(elapsed) => elapsed.into(),
                };
            warn!(%cidr, error = &*error as &dyn std::error::Error, "block not published; it is tried again");
            self.pending().insert(cidr);
            all = false;
        }
        all
    }

    async fn publish_block(&self, cidr: BlockCidr) -> Result<(), BlockError> {
        let Some(occupancy) = self.ipam().occupancy_of(cidr) else { return Ok(()) };
        let node = self.node.clone();
        let published = self.blocks.publish(cidr, block_size(cidr), move |spec| occupancy.publish(&node, spec)).await?;
        if let Claim::Theirs(owner) = published {
            // Its pods go on; no address is given from it any more.
            warn!(%cidr, ?owner, "a block that pods of this node use is another node's by now");
            self.ipam().block_lost(cidr, owner);
        }
        Ok(())
    }

    /// Takes over what the API server says of this node's blocks: all of them as own, and, where the journal is damaged, who holds
    /// their addresses.
    ///
    /// # Errors
    ///
    /// When the API server cannot be asked.
    pub async fn adopt(&self) -> Result<(), kube::Error> {
        // Of thousands of blocks the watches told whose they are; what exactly each says is asked of these few.
        let concerned = self.ipam().concerned();
        let [own, others] = self.blocks.own_and_others(concerned).await?;
        for (cidr, spec) in own {
            if let Err(error) = self.adopt_block(cidr, &spec) {
                warn!(%cidr, error = &error as &dyn std::error::Error, "block of this node not taken over");
            }
        }
        for (cidr, spec) in others {
            if let Err(error) = self.adopt_loans(&spec) {
                warn!(%cidr, error = &error as &dyn std::error::Error, "addresses of another's block not taken over");
            }
        }
        Ok(())
    }

    /// What was borrowed: the sweep that follows frees what has no interface.
    fn adopt_loans(&self, spec: &IPAMBlockSpec) -> Result<(), JournalError> {
        let Ok(occupancy) = Occupancy::from_spec(spec) else { return Ok(()) };
        let position = {
            let mut ipam = self.ipam();
            let records = ipam.adopt_loans(&occupancy);
            if records.is_empty() {
                return Ok(());
            }
            self.append(&records)?
        };
        self.sync(position)
    }

    fn adopt_block(&self, cidr: BlockCidr, spec: &IPAMBlockSpec) -> Result<(), JournalError> {
        let mut ipam = self.ipam();
        let known = ipam.blocks().any(|own| own == cidr);
        let mut records = if known { Vec::new() } else { ipam.block_claimed(cidr) };
        if self.damaged || !known {
            match Occupancy::from_spec(spec) {
                Ok(occupancy) => records.extend(ipam.adopt(&occupancy)),
                Err(error) => {
                    warn!(%cidr, error = &error as &dyn std::error::Error, "block's object contradicts itself");
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        info!(%cidr, records = records.len(), "block taken over from the API server");
        let position = self.append(&records)?;
        drop(ipam);
        self.sync(position)
    }

    /// Gives blocks back that no pod needs, also those where that failed before.
    pub async fn give_surplus_back(&self) {
        let surplus = self.ipam().surplus_blocks(now());
        for cidr in surplus {
            if let Err(error) = self.take_out_of_use(cidr) {
                warn!(%cidr, error = &error as &dyn std::error::Error, "block not given back; it is tried again");
            }
        }
        let leaving: Vec<BlockCidr> = self.ipam().leaving().collect();
        for cidr in leaving {
            match timeout(PATIENCE, self.blocks.give_up(cidr)).await {
                Ok(Ok(())) => {
                    self.ipam().block_deleted(cidr);
                    info!(%cidr, "block given back");
                }
                Ok(Err(error)) => {
                    warn!(error = &error as &dyn std::error::Error, "block not given back; it is tried again");
                }
                Err(_) => warn!(%cidr, "block not given back: the API server is silent; it is tried again"),
            }
        }
    }

    fn take_out_of_use(&self, cidr: BlockCidr) -> Result<(), JournalError> {
        let position = {
            let mut ipam = self.ipam();
            let Some(records) = ipam.give_up(cidr, now()) else { return Ok(()) };
            self.append(&records)?
        };
        self.sync(position)
    }

    /// Rewrites the journal where most of it is history.
    ///
    /// # Errors
    ///
    /// When the new file cannot be written.
    pub fn compact(&self) -> Result<(), JournalError> {
        let ipam = self.ipam();
        let compacted = self.journal.compact(|| ipam.snapshot().iter().map(JournalRecord::to_line).collect());
        compacted.map_err(|error| self.noting_broken(error))
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeSet<BlockCidr>> {
        self.unpublished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
