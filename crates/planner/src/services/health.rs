//! What a load balancer hears that asks this node for a Service (`spec.healthCheckNodePort`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{NodePort, ServiceKey, service::TrafficPolicy};

use super::Services;

/// A Service at its port for health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ServiceKey,
    /// The addresses of its endpoints that are ready and on this node; where there is none, the load balancer must not send here.
    pub local: BTreeSet<IpAddr>,
}

impl Services {
    /// The ports at which somebody may ask. Where two Services ask for the same one, the first by name has it.
    #[must_use]
    pub fn health_checks(&self) -> BTreeMap<NodePort, HealthCheck> {
        let mut checks = BTreeMap::new();
        for key in &self.health_checked {
            let Some(known) = self.services.get(key) else { continue };
            let Some(service) = known.service.as_ref().filter(|one| one.external_policy == TrafficPolicy::Local) else {
                continue;
            };
            let Some(port) = service.health_check else { continue };
            let local = known.local_ready().collect();
            checks.entry(port).or_insert(HealthCheck { service: key.clone(), local });
        }
        checks
    }
}
