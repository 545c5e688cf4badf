//! What the API server learns of this node's blocks, and what this node learns of them from it.

use std::{collections::BTreeSet, sync::PoisonError};

use podnet_client::blocks::BlockError;
use podnet_model::{BlockCidr, crd::IPAMBlockSpec};
use podnet_planner::ipam::{JournalRecord, Occupancy};
use tracing::{info, warn};

use super::{Addresses, now};
use crate::journal::JournalError;

impl Addresses {
    /// Waits until there is something to publish.
    pub async fn unpublished(&self) {
        while self.pending().is_empty() {
            self.publish.notified().await;
        }
    }

    /// Publishes which addresses are held, of each block where that changed. What fails is tried with the next call.
    pub async fn publish(&self) {
        let pending = std::mem::take(&mut *self.pending());
        for cidr in pending {
            if let Err(error) = self.publish_block(cidr).await {
                warn!(error = &error as &dyn std::error::Error, "block not published; it is tried again");
                self.pending().insert(cidr);
            }
        }
    }

    async fn publish_block(&self, cidr: BlockCidr) -> Result<(), BlockError> {
        let Some(occupancy) = self.ipam().occupancy_of(cidr) else { return Ok(()) };
        let node = self.node.clone();
        self.blocks.publish(cidr, move |spec| occupancy.publish(&node, spec)).await
    }

    /// Takes over what the API server says of this node's blocks: all of them as own, and, where the journal is damaged, who holds
    /// their addresses.
    ///
    /// # Errors
    ///
    /// When the API server cannot be asked.
    pub async fn adopt(&self) -> Result<(), kube::Error> {
        for (cidr, spec) in self.blocks.own().await? {
            if let Err(error) = self.adopt_block(cidr, &spec) {
                warn!(%cidr, error = &error as &dyn std::error::Error, "block of this node not taken over");
            }
        }
        Ok(())
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
        self.journal.sync(position)
    }

    /// Gives blocks back that no pod needs.
    pub async fn give_surplus_back(&self) {
        let surplus = self.ipam().surplus_blocks(now());
        for cidr in surplus {
            if let Err(error) = self.give_back(cidr).await {
                warn!(error = &*error, "block not given back; it is tried again");
            }
        }
    }

    async fn give_back(&self, cidr: BlockCidr) -> Result<(), Box<dyn std::error::Error>> {
        let position = {
            let mut ipam = self.ipam();
            let Some(records) = ipam.give_up(cidr, now()) else { return Ok(()) };
            self.append(&records)?
        };
        self.journal.sync(position)?;
        self.blocks.give_up(cidr).await?;
        self.ipam().block_deleted(cidr);
        info!(%cidr, "block given back");
        Ok(())
    }

    /// Rewrites the journal where most of it is history.
    ///
    /// # Errors
    ///
    /// When the new file cannot be written.
    pub fn compact(&self) -> Result<(), JournalError> {
        let ipam = self.ipam();
        self.journal.compact(|| ipam.snapshot().iter().map(JournalRecord::to_line).collect())
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeSet<BlockCidr>> {
        self.unpublished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
