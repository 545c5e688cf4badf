//! Where pods are, and where nodes' tunnels may be.

use podnet_model::{Pool, PoolName};

use super::{Plan, Services};
use crate::ruleset::{BackendAddress, Set};

impl Services {
    pub(super) fn apply_pool(&mut self, name: &PoolName, pool: Option<&Pool>, plan: &mut Plan) {
        let moved = self.ranges.set_pool(name, pool);
        if let (Set::Ranges(before), Set::Ranges(after)) = (&moved.before.pods, &moved.after.pods) {
            plan.pods_more = after - before;
            plan.pods_fewer = before - after;
        }
    }

    /// Whether a UDP backend may be a node's tunnel that believes whoever sends: no pod is to send there, and what is no pod may be a node.
    /// Where other modes translate a pod's packets, the border drops them.
    pub(super) fn may_be_tunnel(&self, at: BackendAddress) -> bool {
        let Set::Ranges(pods) = &self.ranges.sets().pods else { return true };
        self.tunnels.is_open(at.port) && !pods.iter().any(|range| range.contains(&at.addr))
    }
}
