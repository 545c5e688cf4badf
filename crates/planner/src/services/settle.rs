//! Replanning one Service: from what is known of it to edits.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_model::{Protocol, ServiceKey};

use super::{
    Known, Plan, Services, chains,
    frontends::{self, Claim, Made},
    of_family,
    slots::reslot,
};
use crate::ruleset::{BackendAddress, BackendKey, Edit, FrontendKey, RuleName, RuleSet, VerdictMap};

impl Services {
    /// Works out anew what a Service asks for, and settles the frontends that it claims or claimed.
    pub(super) fn replan(&mut self, key: &ServiceKey, plan: &mut Plan) {
        let Some(known) = self.services.get_mut(key) else { return };
        let family = self.config.family;
        let node_addrs: Vec<IpAddr> = of_family(family, &self.config.node_addrs).into_iter().collect();
        let claims = known.service.as_ref().map(|service| frontends::claims(service, family, &node_addrs));
        let claims = claims.unwrap_or_default();
        let cluster_ips = known.service.iter().flat_map(|service| frontends::cluster_ips(service, family)).collect();
        let local = if claims.is_empty() { BTreeSet::new() } else { known.backends_on(family, &self.config.node) };

        let moved = self.cluster_ips.replace(&known.cluster_ips, &cluster_ips);
        moved.edit_addresses(&self.names.cluster_ips, plan);
        let moved = self.local_endpoints.replace(&known.local_endpoints, &local);
        moved.edit_pairs(&self.names.local_pairs, plan);
        known.cluster_ips = cluster_ips;
        known.local_endpoints = local;

        let before = std::mem::replace(&mut known.claims, claims.clone());
        for frontend in before.keys().filter(|frontend| !claims.contains_key(frontend)) {
            self.claim(*frontend, key, None);
        }
        let mut affected: BTreeSet<FrontendKey> = before.into_keys().collect();
        for (frontend, claim) in claims {
            affected.insert(frontend);
            self.claim(frontend, key, Some(claim));
        }
        for frontend in affected {
            self.settle(frontend, plan);
        }
        if self.services.get(key).is_some_and(Known::is_nothing) {
            self.services.remove(key);
        }
    }

    fn claim(&mut self, frontend: FrontendKey, service: &ServiceKey, claim: Option<Claim>) {
        let claims = &mut self.frontends.entry(frontend).or_default().claims;
        match claim {
            Some(claim) => claims.insert(service.clone(), claim),
            None => claims.remove(service),
        };
        if claims.len() > 1 {
            self.contested.insert(frontend);
        } else {
            self.contested.remove(&frontend);
        }
    }

    /// Brings the rules of one frontend to what the first of its claimants asks for.
    fn settle(&mut self, key: FrontendKey, plan: &mut Plan) {
        let family = self.config.family;
        let Some(frontend) = self.frontends.get_mut(&key) else { return };
        let after = match frontend.claims.first_key_value() {
            None => Made::Nothing,
            Some((service, claim)) => {
                let known = self.services.get(service);
                let backends =
                    known.map(|known| known.backends(family, &claim.port, claim.protocol)).unwrap_or_default();
                let slots = reslot(frontend.made.slots(), &backends);
                if slots.is_empty() { Made::Refused } else { Made::Translated { node_port: claim.node_port, slots } }
            }
        };
        let before = std::mem::replace(&mut frontend.made, after.clone());
        if after == Made::Nothing {
            self.frontends.remove(&key);
        }
        if before != after {
            self.edit_frontend(key, &before, &after, plan);
        }
    }

    fn edit_frontend(&mut self, key: FrontendKey, before: &Made, after: &Made, plan: &mut Plan) {
        self.edit_slots(key, before.slots(), after.slots(), plan);
        let chain = self.chain(before, plan);
        let next = self.chain(after, plan);
        let frontends = self.names.frontends.clone();
        point(&frontends, key, chain.as_ref(), next.as_ref(), plan);
        let refusal = |made: &Made| (*made == Made::Refused).then(|| self.names.reject.clone());
        point(&self.names.no_endpoints, key, refusal(before).as_ref(), refusal(after).as_ref(), plan);

        if key.protocol == Protocol::Udp {
            let stays: BTreeSet<_> = after.slots().iter().collect();
            let gone = before.slots().iter().filter(|backend| !stays.contains(backend));
            plan.vanished.extend(gone.map(|backend| (key, *backend)));
        }
    }

    fn edit_slots(&self, frontend: FrontendKey, before: &[BackendAddress], after: &[BackendAddress], plan: &mut Plan) {
        let map = &self.names.backends;
        for slot in 0..before.len().max(after.len()) {
            let key = BackendKey { frontend, slot: number(slot) };
            match (before.get(slot), after.get(slot)) {
                (old, Some(to)) if old != Some(to) => {
                    plan.edits.push(Edit::SetBackend { map: map.clone(), key, to: *to, replaces: old.is_some() });
                }
                (Some(_), None) => plan.edits.push(Edit::RemoveBackend { map: map.clone(), key }),
                _ => {}
            }
        }
    }

    /// The chain that a frontend goes to, made where it is the first of its kind.
    fn chain(&mut self, made: &Made, plan: &mut Plan) -> Option<RuleName> {
        let Made::Translated { node_port, slots } = made else { return None };
        let slots = number(slots.len());
        let name = chains::backend_chain_name(*node_port, slots);
        if self.chains.insert((*node_port, slots)) {
            let chain = chains::backend_chain(&self.names, *node_port, slots, self.config.masquerade_mark);
            plan.edits.push(Edit::SetChain(name.clone(), chain));
        }
        Some(name)
    }

    /// The rules as they have to be, from nothing: what a restart compares with what it finds.
    #[must_use]
    pub fn desired(&self) -> RuleSet {
        let mut rules = chains::constant(&self.names, &self.config);
        for (node_port, slots) in &self.chains {
            let chain = chains::backend_chain(&self.names, *node_port, *slots, self.config.masquerade_mark);
            rules.chains.insert(chains::backend_chain_name(*node_port, *slots), chain);
        }
        let (mut served, mut refused) = (VerdictMap::default(), VerdictMap::default());
        let backends = rules.backend_maps.entry(self.names.backends.clone()).or_default();
        for (key, frontend) in &self.frontends {
            match &frontend.made {
                Made::Nothing => {}
                Made::Refused => drop(refused.elements.insert(*key, self.names.reject.clone())),
                Made::Translated { node_port, slots } => {
                    served.elements.insert(*key, chains::backend_chain_name(*node_port, number(slots.len())));
                    let keys = (0..).map(|slot| BackendKey { frontend: *key, slot });
                    backends.elements.extend(keys.zip(slots.iter().copied()));
                }
            }
        }
        rules.verdict_maps.extend([(self.names.frontends.clone(), served), (self.names.no_endpoints.clone(), refused)]);
        let ranges = self.ranges.sets();
        let tunnels = self.tunnels.sets();
        rules.sets.extend([
            (self.names.cluster_ips.clone(), self.cluster_ips.addresses()),
            (self.names.local_pairs.clone(), self.local_endpoints.pairs()),
            (self.names.local_pods.clone(), self.local_pods.addresses()),
            (self.names.nodes.clone(), self.node_addrs.addresses()),
            (self.names.pods.clone(), ranges.pods.clone()),
            (self.names.tunnels.clone(), tunnels.all),
            (self.names.open_tunnels.clone(), tunnels.open),
            (self.names.nat_sources.clone(), ranges.nat_sources.clone()),
            (self.names.no_nat_destinations.clone(), ranges.no_nat_destinations.clone()),
        ]);
        rules
    }
}

impl Known {
    fn is_nothing(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }
}

/// Points a frontend from one chain to another in a verdict map.
fn point(map: &RuleName, key: FrontendKey, from: Option<&RuleName>, to: Option<&RuleName>, plan: &mut Plan) {
    match (from, to) {
        (from, Some(chain)) if from != Some(chain) => {
            let replaces = from.is_some();
            plan.edits.push(Edit::SetVerdict { map: map.clone(), key, chain: chain.clone(), replaces });
        }
        (Some(_), None) => plan.edits.push(Edit::RemoveVerdict { map: map.clone(), key }),
        _ => {}
    }
}

/// A slot's number; memory ends before the numbers do.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
