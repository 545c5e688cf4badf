//! Whether a pod can go to a node, and if not, why, in the words of Kubernetes' own scheduler.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Taint};

use super::{
    affinity::{self, Neighbours, Term},
    resources::Amounts,
    snapshot::{Place, Snapshot, Tenant},
    tolerations,
};
use crate::controllers::ownership;

/// A pod that looks for a place.
pub(super) struct Candidate<'a> {
    /// The pod.
    pub(super) pod: &'a Pod,
    requested: Amounts,
    neighbours: Neighbours,
    host_ports: BTreeSet<(String, i32)>,
}

impl<'a> Candidate<'a> {
    /// Reads once what is asked of every node.
    pub(super) fn new(pod: &'a Pod) -> Self {
        let (requested, neighbours) = (Amounts::requested(pod), Neighbours::of(pod));
        Self { pod, requested, neighbours, host_ports: host_ports(pod) }
    }

    /// Why the pod cannot go there; empty when it can.
    pub(super) fn refusals(&self, snapshot: &Snapshot, place: &Place) -> Vec<String> {
        // The first kind of refusal is told, as the usual scheduler does; only resources are told together.
        if let Some(taint) = tolerations::untolerated(self.pod, &place.taints) {
            return vec![taint_refusal(taint)];
        }
        if !affinity::admits(self.pod, &place.name, &place.labels) {
            return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
        }
        if self.ports_are_taken(place) {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
        let lacking = self.lacking(place);
        if !lacking.is_empty() {
            return lacking;
        }
        let refusal = self.refused_by_spread(snapshot, place).or_else(|| self.refused_by_neighbours(snapshot, place));
        refusal.into_iter().map(str::to_owned).collect()
    }

    fn ports_are_taken(&self, place: &Place) -> bool {
        !self.host_ports.is_empty()
            && place.pods.iter().any(|tenant| !host_ports(&tenant.pod).is_disjoint(&self.host_ports))
    }

    fn lacking(&self, place: &Place) -> Vec<String> {
        let (wanted, capacity) = (place.used.plus(self.requested), place.capacity.amounts);
        let mut lacking = Vec::new();
        if self.requested.cpu > 0 && wanted.cpu > capacity.cpu {
            lacking.push("Insufficient cpu".to_owned());
        }
        if self.requested.memory > 0 && wanted.memory > capacity.memory {
            lacking.push("Insufficient memory".to_owned());
        }
        if place.pods.len() >= place.capacity.pods {
            lacking.push("Too many pods".to_owned());
        }
        lacking
    }

    /// The constraints of `topologySpreadConstraints` that must hold.
    fn refused_by_spread(&self, snapshot: &Snapshot, place: &Place) -> Option<&'static str> {
        let constraints = self.pod.spec.as_ref()?.topology_spread_constraints.as_deref()?;
        for constraint in constraints.iter().filter(|one| one.when_unsatisfiable == "DoNotSchedule") {
            let Some(here) = place.labels.get(&constraint.topology_key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let selector = ownership::selector(constraint.label_selector.as_ref());
            let counts = |pod: &Pod| {
                pod.metadata.namespace == self.pod.metadata.namespace
                    && pod.metadata.deletion_timestamp.is_none()
                    && ownership::selects(selector.as_ref(), pod.metadata.labels.as_ref())
            };
            let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
            for node in snapshot.nodes.iter().filter(|node| affinity::admits(self.pod, &node.name, &node.labels)) {
                if let Some(domain) = node.labels.get(&constraint.topology_key) {
                    let there = node.pods.iter().filter(|tenant| counts(&tenant.pod)).count();
                    *domains.entry(domain).or_default() += there;
                }
            }
            let fewest = domains.values().min().copied().unwrap_or_default();
            let then = domains.get(here.as_str()).copied().unwrap_or_default() + usize::from(counts(self.pod));
            if then.saturating_sub(fewest) > usize::try_from(constraint.max_skew).unwrap_or_default() {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }

    fn refused_by_neighbours(&self, snapshot: &Snapshot, place: &Place) -> Option<&'static str> {
        let speaks_of = |term: &Term, pod: &Pod| term.speaks_of(pod, &snapshot.namespaces);
        for term in &self.neighbours.wanted {
            if !place.labels.contains_key(&term.topology_key) {
                return Some("node(s) didn't match pod affinity rules");
            }
            let found = near(snapshot, place, term).any(|tenant| speaks_of(term, &tenant.pod));
            // The first of a group that wants to be together has to begin somewhere.
            let is_first = || {
                let mut all = snapshot.nodes.iter().flat_map(|node| &node.pods);
                speaks_of(term, self.pod) && !all.any(|tenant| speaks_of(term, &tenant.pod))
            };
            if !found && !is_first() {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        if self
            .neighbours
            .shunned
            .iter()
            .any(|term| near(snapshot, place, term).any(|tenant| speaks_of(term, &tenant.pod)))
        {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        let shuns_this = |(node, neighbours): (&Place, &Neighbours)| {
            let shares = |term: &&Term| node.labels.get(&term.topology_key) == place.labels.get(&term.topology_key);
            let placed = |term: &&Term| place.labels.contains_key(&term.topology_key);
            neighbours.shunned.iter().filter(placed).filter(shares).any(|term| speaks_of(term, self.pod))
        };
        let mut tenants = snapshot.nodes.iter().flat_map(|node| {
            let particular = node.pods.iter().filter(|tenant| !tenant.neighbours.is_empty());
            particular.map(move |tenant| (node, &tenant.neighbours))
        });
        tenants.any(shuns_this).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }
}

/// The pods on nodes that share the value of the term's label with the place; none where it has no such label.
fn near<'a>(snapshot: &'a Snapshot, place: &'a Place, term: &'a Term) -> impl Iterator<Item = &'a Tenant> {
    let here = place.labels.get(&term.topology_key);
    let shares = move |node: &&Place| here.is_some() && node.labels.get(&term.topology_key) == here;
    snapshot.nodes.iter().filter(shares).flat_map(|node| &node.pods)
}

fn taint_refusal(taint: &Taint) -> String {
    if taint.key == "node.kubernetes.io/unschedulable" {
        return "node(s) were unschedulable".to_owned();
    }
    format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or_default())
}

fn host_ports(pod: &Pod) -> BTreeSet<(String, i32)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((protocol, port.host_port.filter(|port| *port > 0)?))
    });
    taken.collect()
}
