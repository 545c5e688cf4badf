//! What of Services virtual servers cannot do: real servers that the kernel does not take, and affinity that has no timeout.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::ServiceKey;
use podnet_planner::{
    ipvs::{Edit, ServerKey, State},
    ruleset::BackendAddress,
    services::{Services, ipvs::Ipvs as Renderer},
};

use super::super::mode::{NOT_SERVED, Unserved};

/// What is told of a Service of whose affinity the timeout does not count for the node and its pods.
pub(super) fn without_timeout(service: &ServiceKey) -> Unserved {
    let message = "sessionAffinity and a traffic policy Local: in mode ipvs the node itself and its pods come to one endpoint by their address at \
                   NodePorts and at addresses of load balancers, with the scheduler mh instead of the configured one and without a timeout; \
                   clients from outside, and all at the ClusterIP, have both";
    Unserved { service: service.clone(), reason: "AffinityWithoutTimeout", message: message.into(), fact: None }
}

/// Those that are wanted, and whose they are. They are tried again whenever all is compared.
#[derive(Debug, Default)]
pub(super) struct Refused {
    reals: BTreeMap<(ServerKey, BackendAddress), ServiceKey>,
}

impl Refused {
    /// Of these edits some were not done.
    pub(super) fn take(
        &mut self,
        reals: Vec<(ServerKey, BackendAddress)>,
        edits: &mut Vec<Edit>,
        renderer: &Renderer,
        services: &Services,
    ) {
        if reals.is_empty() {
            return;
        }
        edits.retain(|edit| !matches!(edit, Edit::AddReal(key, at, _) if reals.contains(&(*key, *at))));
        for (key, at) in reals {
            let serving = renderer.frontend(&key).and_then(|frontend| services.serving(frontend));
            self.reals.extend(serving.map(|serving| ((key, at), serving.service.clone())));
        }
    }

    /// Forgets those that are wanted no more, and those that were taken.
    pub(super) fn forget(&mut self, wanted: &State, there: &State) {
        let has = |state: &State, (key, at): &(ServerKey, BackendAddress)| {
            state.servers.get(key).is_some_and(|server| server.reals.contains_key(at))
        };
        self.reals.retain(|real, _| has(wanted, real) && !has(there, real));
    }

    /// What is told of these and of those that were not even tried.
    pub(super) fn told_with<'a>(
        &'a self,
        left_out: impl Iterator<Item = (&'a ServiceKey, &'a BackendAddress)>,
    ) -> BTreeSet<Unserved> {
        let refused = self.reals.iter().map(|((_, at), service)| (service, at));
        let told = left_out.chain(refused).map(|(service, at)| Unserved {
            service: service.clone(),
            reason: NOT_SERVED,
            message: format!("its endpoint {at} gets no connections: mode ipvs takes unicast addresses alone").into(),
            fact: None,
        });
        told.collect()
    }
}
