//! Whether the next pod would get an address, for those who ask before there is one.

use std::sync::Arc;

use podnet_model::{Dual, Family, Namespace, PodKey};
use podnet_planner::ipam::{AllocationRequest, Handle, IpamError, NodeIpam, PoolList, PoolSource, Wish};

use super::{Addresses, now};

impl Addresses {
    /// Tries on a copy what a pod without wishes would get, and then what it would get from each pool: while one has an address, or a
    /// block that could be claimed, there is one for some pod. Nothing is given, and nothing is claimed; the API server is not asked.
    ///
    /// # Errors
    ///
    /// Why no pod can get an address.
    pub fn outlook(&self) -> Result<(), IpamError> {
        let ipam = self.ipam().clone();
        let refusal = match try_out(&ipam, &Wish::default()) {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        };
        if !matches!(refusal, IpamError::Full { .. } | IpamError::NoPool { .. }) {
            return Ok(());
        }
        let pools: Vec<Arc<str>> = ipam.pool_names().map(|name| Arc::from(name.as_str())).collect();
        for (pool, of) in pools.iter().flat_map(|pool| Family::ALL.map(|family| (pool, family))) {
            let list = || PoolList { source: PoolSource::Runtime, names: vec![pool.clone()] };
            let wish = Wish { pools: Dual::from_fn(|family| (family == of).then(list)), ..Wish::default() };
            if try_out(&ipam, &wish).is_ok() {
                return Ok(());
            }
        }
        Err(refusal)
    }

    /// Whether the journal takes nothing more, so that no address can be given.
    #[must_use]
    pub fn is_journal_broken(&self) -> bool {
        self.journal.is_broken()
    }
}

/// Whether a pod would get an address of each family that it is to have.
fn try_out(ipam: &NodeIpam, wish: &Wish) -> Result<(), IpamError> {
    let pod = PodKey { namespace: Namespace::from("default"), name: "status".into() };
    // No container's id begins so.
    let request = AllocationRequest { handle: Handle::new(".status", "eth0"), pod, uid: "".into(), wish };
    let mut ipam = ipam.clone();
    let families = ipam.families(wish);
    // Where there is no family to give, IPv4 says why.
    let families = if families.is_empty() { vec![Family::V4] } else { families };
    families.into_iter().try_for_each(|family| ipam.allocate(&request, family, now()).map(drop))
}
