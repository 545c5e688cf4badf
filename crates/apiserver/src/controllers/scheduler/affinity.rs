//! Which nodes a pod names by their labels, and which other pods it wants or shuns.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm};
use kube::{ResourceExt, core::Selector};

use crate::controllers::ownership;

type Labels = BTreeMap<String, String>;

/// Whether the pod's nodeSelector and required node affinity admit the node.
pub(super) fn admits(pod: &Pod, node: &str, labels: &Labels) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    // Terms are alternatives; what a term lists has to hold together.
    selected
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node, labels)))
}

/// The weights of the preferences that the node meets.
pub(super) fn preference(pod: &Pod, node: &str, labels: &Labels) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred =
        affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref());
    let met = preferred.unwrap_or_default().iter().filter(|preferred| holds(&preferred.preference, node, labels));
    met.map(|preferred| i64::from(preferred.weight)).sum()
}

fn holds(term: &NodeSelectorTerm, node: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without any requirement selects nothing.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| meets(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields.iter().all(|requirement| meets(requirement, (requirement.key == "metadata.name").then_some(node)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(value, bound)| value > bound),
        "Lt" => compared().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Other pods, and how near: within the nodes that share the value of a label.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// The label whose values are the places.
    pub(super) topology_key: String,
    selector: Option<Selector>,
    namespaces: Namespaces,
}

#[derive(Clone, Debug)]
enum Namespaces {
    Named(Vec<String>),
    Selected(Vec<String>, Option<Selector>),
}

impl Term {
    /// Whether the pod is one that the term speaks of.
    pub(super) fn speaks_of(&self, pod: &Pod, namespace_labels: &BTreeMap<String, Labels>) -> bool {
        let namespace = pod.namespace().unwrap_or_default();
        let within = match &self.namespaces {
            Namespaces::Named(names) => names.contains(&namespace),
            Namespaces::Selected(names, selector) => {
                names.contains(&namespace) || ownership::selects(selector.as_ref(), namespace_labels.get(&namespace))
            }
        };
        within && ownership::selects(self.selector.as_ref(), pod.metadata.labels.as_ref())
    }
}

/// What a pod requires of its neighbours.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    /// These have to be near.
    pub(super) wanted: Vec<Term>,
    /// These must not be near.
    pub(super) shunned: Vec<Term>,
}

impl Neighbours {
    /// The pod's required affinity and anti-affinity.
    pub(super) fn of(pod: &Pod) -> Self {
        let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return Self::default() };
        let near = affinity.pod_affinity.as_ref();
        let far = affinity.pod_anti_affinity.as_ref();
        let terms =
            |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(|one| term(pod, one)).collect();
        Self {
            wanted: terms(near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref())),
            shunned: terms(far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref())),
        }
    }

    /// Whether anything is required at all.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.shunned.is_empty()
    }
}

fn term(pod: &Pod, term: &PodAffinityTerm) -> Term {
    let named = term.namespaces.clone().unwrap_or_default();
    let namespaces = match &term.namespace_selector {
        Some(selector) => Namespaces::Selected(named, ownership::selector(Some(selector))),
        None if named.is_empty() => Namespaces::Named(vec![pod.namespace().unwrap_or_default()]),
        None => Namespaces::Named(named),
    };
    Term {
        topology_key: term.topology_key.clone(),
        selector: ownership::selector(term.label_selector.as_ref()),
        namespaces,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn node_affinity_operators_hold_as_documented() {
        let labels = Labels::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let table: [(Value, bool); 12] = [
            (json!({ "key": "zone", "operator": "In", "values": ["a", "b"] }), true),
            (json!({ "key": "zone", "operator": "In", "values": ["b"] }), false),
            (json!({ "key": "zone", "operator": "NotIn", "values": ["b"] }), true),
            (json!({ "key": "zone", "operator": "NotIn", "values": ["a"] }), false),
            (json!({ "key": "rack", "operator": "NotIn", "values": ["a"] }), true),
            (json!({ "key": "zone", "operator": "Exists" }), true),
            (json!({ "key": "rack", "operator": "Exists" }), false),
            (json!({ "key": "rack", "operator": "DoesNotExist" }), true),
            (json!({ "key": "cores", "operator": "Gt", "values": ["7"] }), true),
            (json!({ "key": "cores", "operator": "Gt", "values": ["8"] }), false),
            (json!({ "key": "cores", "operator": "Lt", "values": ["9"] }), true),
            (json!({ "key": "zone", "operator": "Lt", "values": ["9"] }), false),
        ];
        for (requirement, wanted) in table {
            let pod = json!({ "spec": { "containers": [], "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchExpressions": [requirement] }] },
            } } } });
            assert_eq!(admits(&serde_json::from_value(pod).unwrap(), "n", &labels), wanted, "{requirement}");
        }
    }
}
