//! What of Services is not served.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_model::{Family, ServiceKey};

use super::{ClusterRules, contested};
use crate::proxy::mode::Unserved;

impl ClusterRules {
    /// What of Services is not served: the mode cannot, another Service has the same address and port, or nobody is to be served.
    pub(in crate::network) fn unserved(&self) -> BTreeSet<Unserved> {
        let of_family = |family: Family| {
            let own = &self.families[family];
            let strange = own.services.strangers().map(stranger);
            own.rules.unserved().into_iter().chain(contested::unserved(&own.services.conflicts())).chain(strange)
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }
}

fn stranger((service, addr): (&ServiceKey, IpAddr)) -> Unserved {
    let message = format!(
        "status.loadBalancer.ingress has {addr}, which lies in no IPAddressPool: nodes do not serve it. Make a pool that contains it, or name \
         the controller that gave it in spec.loadBalancerClass"
    );
    Unserved { service: service.clone(), message, fact: Some(format!("stranger {addr}")) }
}
