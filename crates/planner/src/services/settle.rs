//! Replanning one Service: from what is known of it to what is done for its frontends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use podnet_model::{PortName, Protocol, Service, ServiceKey, service::TrafficPolicy};

use super::{
    Backends, FrontendChange, FrontendKind, Known, Plan, Services, Serving,
    claims::{self, Claim},
    endpoints::Chosen,
    serving::Backend,
    slots::reslot,
};
use crate::{
    border::outermost,
    ruleset::{BackendAddress, FrontendKey},
};

/// A plan in the making: a frontend that is settled twice is one change.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) plan: Plan,
    places: HashMap<FrontendKey, usize>,
}

impl Draft {
    pub(super) fn done(mut self) -> Plan {
        self.plan.frontends.retain(|change| change.before != change.after);
        for change in &self.plan.frontends {
            vanished(change, &mut self.plan.vanished);
        }
        self.plan
    }

    fn note(&mut self, key: FrontendKey, before: Option<Arc<Serving>>, after: Option<Arc<Serving>>) {
        let place = *self.places.entry(key).or_insert(self.plan.frontends.len());
        match self.plan.frontends.get_mut(place) {
            Some(change) => change.after = after,
            None => self.plan.frontends.push(FrontendChange { key, before, after }),
        }
    }
}

/// The backends of a Service's ports, each worked out once.
type Ports = BTreeMap<(PortName, Protocol), Chosen>;

impl Services {
    pub(super) fn replan_all(&mut self, draft: &mut Draft) {
        let keys: Vec<ServiceKey> = self.services.keys().cloned().collect();
        for key in keys {
            self.replan(&key, draft);
        }
    }

    /// Works out anew what a Service asks for, and settles the frontends that it claims or claimed.
    pub(super) fn replan(&mut self, key: &ServiceKey, draft: &mut Draft) {
        let Some(known) = self.services.get_mut(key) else { return };
        let family = self.config.family;
        let given = known.service.as_ref().map(|service| self.given.look(service)).unwrap_or_default();
        let asks = |service: &Service| claims::claims(service, family, &self.node_port_addrs, &given);
        let claims = known.service.as_ref().map(asks).unwrap_or_default();
        let mut ports = Ports::new();
        for (_, claim) in &claims {
            let port = (claim.port.clone(), claim.protocol);
            ports.entry(port).or_insert_with(|| known.choose(&claim.port, claim.protocol, &self.zones));
        }
        let local = ports.values().flat_map(Chosen::on_this_node).collect();
        draft.plan.local_backends.then(self.local_backends.replace(&known.local_backends, &local));
        known.local_backends = local;

        let before = std::mem::replace(&mut known.claims, claims.clone());
        let cluster_ips = |claims: &[(FrontendKey, Claim)]| -> BTreeSet<_> {
            let of_cluster = claims.iter().filter(|(_, claim)| claim.kind == FrontendKind::ClusterIp);
            of_cluster.map(|(frontend, _)| frontend.addr).collect()
        };
        draft.plan.cluster_ips.then(self.cluster_ips.replace(&cluster_ips(&before), &cluster_ips(&claims)));
        self.claim_all(key, before, claims, |services, frontend| services.settle(frontend, key, &ports, draft));
        if self.services.get(key).is_some_and(Known::is_nothing) {
            self.services.remove(key);
        }
    }

    /// Registers what a Service claims now in place of what it claimed, then settles all of it.
    fn claim_all(
        &mut self,
        key: &ServiceKey,
        before: Vec<(FrontendKey, Claim)>,
        claims: Vec<(FrontendKey, Claim)>,
        mut settle: impl FnMut(&mut Self, FrontendKey),
    ) {
        let mut affected: BTreeSet<FrontendKey> = claims.iter().map(|(frontend, _)| *frontend).collect();
        for (frontend, _) in before {
            if affected.insert(frontend) {
                self.claim(frontend, key, None);
            }
        }
        for (frontend, claim) in claims {
            self.claim(frontend, key, Some(claim));
        }
        for frontend in affected {
            settle(self, frontend);
        }
    }

    fn claim(&mut self, key: FrontendKey, service: &ServiceKey, claim: Option<Claim>) {
        let frontend = self.frontends.entry(key).or_default();
        let was_contested = frontend.claims.len() > 1;
        frontend.claim(service, claim);
        let is_contested = frontend.claims.len() > 1;
        if is_contested {
            self.contested.insert(key);
        } else {
            self.contested.remove(&key);
        }
        self.contested_moved += u64::from(was_contested || is_contested);
    }

    /// Brings a frontend to what the first of its claimants asks for; `ports` are those of the Service `own`.
    fn settle(&mut self, key: FrontendKey, own: &ServiceKey, ports: &Ports, draft: &mut Draft) {
        let Some(frontend) = self.frontends.get_mut(&key) else { return };
        let before = frontend.serving.clone();
        let after = frontend.claims.first().and_then(|(name, claim)| {
            let known = self.services.get(name)?;
            let service = known.service.as_ref()?;
            let port = (claim.port.clone(), claim.protocol);
            let elsewhere;
            let chosen = match ports.get(&port).filter(|_| name == own) {
                Some(chosen) => chosen,
                None => {
                    elsewhere = known.choose(&claim.port, claim.protocol, &self.zones);
                    &elsewhere
                }
            };
            Some(serve(key, service, claim, chosen, before.as_deref()))
        });
        let after = match (after, &before) {
            // What is equal is kept: it may be shared.
            (Some(after), Some(before)) if after == **before => Some(before.clone()),
            (after, _) => after.map(Arc::new),
        };
        frontend.serving.clone_from(&after);
        if frontend.claims.is_empty() {
            self.frontends.remove(&key);
        }
        draft.note(key, before, after);
    }
}

/// What is done for a frontend that a Service has.
fn serve(key: FrontendKey, service: &Service, claim: &Claim, chosen: &Chosen, before: Option<&Serving>) -> Serving {
    let (inside_policy, outside_policy) = claims::policies(service, claim.kind);
    let inside = backends(inside_policy, chosen, before.map(|before| &before.inside));
    let outside = if chosen.of(inside_policy) == chosen.of(outside_policy) {
        inside.clone()
    } else {
        backends(outside_policy, chosen, before.map(|before| &before.outside))
    };
    let lasting = chosen.lasting(inside_policy, outside_policy);
    // What is equal is kept, as it is shared.
    let former = before.map(|before| &before.lasting).filter(|former| **former == lasting);
    let lasting = former.cloned().unwrap_or(lasting);
    let is_load_balancer = claim.kind == FrontendKind::LoadBalancer;
    Serving {
        service: service.key.clone(),
        port: claim.port.clone(),
        kind: claim.kind,
        inside,
        outside,
        keeps_source: claim.kind != FrontendKind::ClusterIp && outside_policy == TrafficPolicy::Local,
        affinity: service.affinity,
        lasting,
        sources: if is_load_balancer { sources(key, service) } else { None },
    }
}

fn backends(policy: TrafficPolicy, chosen: &Chosen, before: Option<&Backends>) -> Backends {
    let wanted = chosen.of(policy);
    if !wanted.is_empty() {
        let slots = reslot(before.map_or(&[], Backends::slots), wanted);
        return match before {
            Some(Backends::Of(before)) if *before == slots => Backends::Of(before.clone()),
            _ => Backends::Of(slots),
        };
    }
    if chosen.anybody_serves() { Backends::Drop } else { Backends::Reject }
}

/// Who may come. Where only ranges of the other family are named, nobody of this one may; kube-proxy lets everybody, which is not what
/// such a list says.
fn sources(key: FrontendKey, service: &Service) -> Option<Arc<BTreeSet<ipnet::IpNet>>> {
    if service.source_ranges.is_empty() {
        return None;
    }
    let own = service.source_ranges.iter().copied().filter(|range| range.addr().is_ipv4() == key.addr.is_ipv4());
    let ranges = outermost(own);
    let everybody = ranges.iter().any(|range| range.prefix_len() == 0);
    (!everybody).then(|| Arc::new(ranges))
}

/// What connections of UDP must not lead to any more: what was a backend or answered still, and is nothing of that now. Who ends and answers
/// still is not among it, since a question that is under way would lose its answer. Where backends come to a frontend that had none, packets
/// to it may have gone to the address itself before.
fn vanished(change: &FrontendChange, vanished: &mut Vec<(FrontendKey, BackendAddress)>) {
    if change.key.protocol != Protocol::Udp {
        return;
    }
    let all = |serving: &Option<Arc<Serving>>| -> BTreeSet<BackendAddress> {
        serving.iter().flat_map(|serving| serving.answering()).map(|backend: &Backend| backend.at).collect()
    };
    let (before, after) = (all(&change.before), all(&change.after));
    vanished.extend(before.difference(&after).map(|gone| (change.key, *gone)));
    let has_backends =
        |serving: &Option<Arc<Serving>>| serving.iter().any(|serving| serving.backends().next().is_some());
    if !has_backends(&change.before) && has_backends(&change.after) {
        vanished.push((change.key, BackendAddress { addr: change.key.addr, port: change.key.port }));
    }
}

impl Known {
    fn is_nothing(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }
}
