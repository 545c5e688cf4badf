//! What of Services is not served: by this node, and by any.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_model::{Dual, Family, ServiceKey};

use super::{ClusterRules, contested};
use crate::proxy::mode::{NOT_SERVED, Unserved};

impl ClusterRules {
    /// What of Services the mode cannot serve on this node.
    pub(in crate::network) fn unserved(&self) -> BTreeSet<Unserved> {
        Family::ALL.into_iter().flat_map(|family| self.families[family].rules.unserved()).collect()
    }

    /// What of Services no node serves, as another Service has the same address and port, or nobody is to be served; none where that is as
    /// it was the last time.
    pub(in crate::network) fn faults(&mut self) -> Option<BTreeSet<Unserved>> {
        let moved = Dual::from_fn(|family| Some(self.families[family].services.faults_moved()));
        if std::mem::replace(&mut self.faults_told, moved) == moved {
            return None;
        }
        let of_family = |family: Family| {
            let services = &self.families[family].services;
            contested::unserved(&services.conflicts()).into_iter().chain(services.strangers().map(stranger))
        };
        Some(Family::ALL.into_iter().flat_map(of_family).collect())
    }
}

fn stranger((service, addr): (&ServiceKey, IpAddr)) -> Unserved {
    let message = format!(
        "status.loadBalancer.ingress has {addr}, which lies in no IPAddressPool: nodes do not serve it. Make a pool that contains it, or name \
         the controller that gave it in spec.loadBalancerClass"
    );
    let fact = Some(format!("stranger {addr}"));
    Unserved { service: service.clone(), reason: NOT_SERVED, message: message.into(), fact }
}
