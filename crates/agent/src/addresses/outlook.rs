//! Whether the next pod would get an address, for those who ask before there is one.

use std::{sync::Arc, time::Duration};

use podnet_model::{Dual, Family, Namespace, PodKey};
use podnet_planner::ipam::{AllocationRequest, Decision, Handle, IpamError, NodeIpam, PoolList, PoolSource, Wish};
use tokio::time::timeout;

use super::{Addresses, AssignError, now};

/// A runtime asks for the status again and again, and waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

impl Addresses {
    /// Tries on a copy what a pod without wishes would get, and then what it would get from each pool: while one has an address, or can
    /// have one from the API server, there is one for some pod. Nothing is given, and nothing is claimed.
    ///
    /// # Errors
    ///
    /// Why no pod can get an address.
    pub fn outlook(&self) -> Result<(), AssignError> {
        let ipam = self.ipam().clone();
        let refusal = match try_out(&ipam, &Wish::default()) {
            Ok(decision) => return self.is_possible(&decision),
            Err(refusal) => refusal,
        };
        if !matches!(refusal, IpamError::Full { .. } | IpamError::NoPool { .. }) {
            return Ok(());
        }
        let pools: Vec<Arc<str>> = ipam.pool_names().map(|name| Arc::from(name.as_str())).collect();
        for (pool, of) in pools.iter().flat_map(|pool| Family::ALL.map(|family| (pool, family))) {
            let list = || PoolList { source: PoolSource::Runtime, names: vec![pool.clone()] };
            let wish = Wish { pools: Dual::from_fn(|family| (family == of).then(list)), ..Wish::default() };
            if let Ok(decision) = try_out(&ipam, &wish) {
                return self.is_possible(&decision);
            }
        }
        Err(refusal.into())
    }

    /// What no journal of this node can give needs the API server.
    fn is_possible(&self, decision: &Decision) -> Result<(), AssignError> {
        if matches!(decision, Decision::Assigned(_)) {
            return Ok(());
        }
        let answer = self.blocks.is_reached();
        match self.runtime.block_on(async { timeout(PATIENCE, answer).await }) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(AssignError::Silent),
        }
    }
}

/// Of the addresses of both families that a pod gets, the one that is the hardest to get.
fn try_out(ipam: &NodeIpam, wish: &Wish) -> Result<Decision, IpamError> {
    let pod = PodKey { namespace: Namespace::from("default"), name: "status".into() };
    // No container's id begins so.
    let request = AllocationRequest { handle: Handle::new(".status", "eth0"), pod, uid: "".into(), wish };
    let mut hardest = None;
    let mut ipam = ipam.clone();
    for family in ipam.families(wish) {
        let decision = ipam.allocate(&request, family, now())?;
        if !matches!(hardest, Some(Decision::NeedBlock(_) | Decision::Borrow(_))) {
            hardest = Some(decision);
        }
    }
    hardest.map_or_else(|| ipam.allocate(&request, Family::V4, now()), Ok)
}
