//! IPAddressPools: which can be understood, and what their status counts.

use std::time::Duration;

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use podnet_client::controller::{
    cache::Change,
    key::Key,
    recorder::Tone,
    worker::{During, Failure, Outcome, absent_is_fine},
};
use podnet_model::{balancer::AddressPool, crd};
use podnet_planner::loadbalancer::Usage;
use serde_json::json;

use super::addresses::{Giver, UNSURE};

/// Changes of what is given are counted together.
const GATHER: Duration = Duration::from_millis(200);

impl Giver {
    pub(super) fn pool_changed(&self, change: &Change<'_, crd::IPAddressPool>) {
        if let Change::Set { old: Some(old), new } = change {
            let meant = |pool: &crd::IPAddressPool| {
                (pool.spec.clone(), pool.metadata.labels.clone(), pool.metadata.deletion_timestamp.is_some())
            };
            // Its status is written from here.
            if meant(old) == meant(new) {
                return;
            }
        }
        if change.states().next().is_some() {
            self.pools_changed();
        }
    }

    /// The pools that say what they mean, and whether there are others: those are told of and left out.
    pub(super) fn known_pools(&self) -> (Vec<AddressPool>, bool) {
        let (mut pools, mut unsure) = (Vec::new(), false);
        for pool in self.pools.all().iter().filter(|pool| pool.metadata.deletion_timestamp.is_none()) {
            match AddressPool::try_from(&**pool) {
                Ok(pool) => pools.push(pool),
                Err(error) => {
                    unsure = true;
                    self.recorder.tell(&**pool, Tone::Warning, "InvalidPool", error.to_string());
                }
            }
        }
        (pools, unsure)
    }

    /// Has every pool's status looked at, a little later.
    pub(super) fn count_all(&self) {
        for pool in self.pools.all() {
            self.counted.add_after(Key::of(&pool.metadata), GATHER);
        }
    }

    /// Writes a pool's status where it says something else.
    pub(super) async fn count(&self, key: Key) -> Result<Outcome, Failure> {
        let Some(pool) = self.pools.find(&key) else { return Ok(Outcome::Done) };
        let Ok(meant) = AddressPool::try_from(&*pool) else { return Ok(Outcome::Done) };
        let status = status(self.lock().balancers.usage(&meant));
        if pool.status != Some(status) {
            if !self.may_write() {
                return Ok(Outcome::After(UNSURE));
            }
            let api = Api::<crd::IPAddressPool>::namespaced(self.client.clone(), &key.namespace);
            let patch = Patch::Merge(json!({ "status": status }));
            let written = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
            // Definitions of before 2025 have no status.
            absent_is_fine(written.during(|| format!("writing the status of IPAddressPool {key}")))?;
        }
        Ok(Outcome::Done)
    }
}

fn status(Usage { assigned, available }: Usage) -> crd::IPAddressPoolStatus {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    crd::IPAddressPoolStatus {
        assigned_ipv4: number(assigned.v4),
        assigned_ipv6: number(assigned.v6),
        available_ipv4: number(available.v4),
        available_ipv6: number(available.v6),
    }
}
