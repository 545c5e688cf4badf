//! What a node's conditions say, and which taints follow from them (Kubernetes documentation, "Taint nodes by condition").

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that are bad when true, with their taints.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that only the node itself can know.
const OWN: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The node's condition Ready.
pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

/// Whether the node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "True")
}

/// Whether a taint says that the node itself is in trouble.
pub(super) fn is_of_health(taint: &Taint) -> bool {
    taint.key == NOT_READY || taint.key == UNREACHABLE
}

/// The conditions of a node that is silent; none where they say so already.
pub(super) fn conditions_of_a_lost_node(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let before = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = before.clone();
    for condition in conditions.iter_mut().filter(|one| OWN.contains(&one.type_.as_str()) && one.status != "Unknown") {
        condition.status = "Unknown".to_owned();
        condition.reason = Some("NodeStatusUnknown".to_owned());
        condition.message = Some("Kubelet stopped posting node status.".to_owned());
        condition.last_transition_time = Some(Time(now));
    }
    if ready(node).is_none() {
        conditions.push(NodeCondition {
            type_: "Ready".to_owned(),
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusNeverUpdated".to_owned()),
            message: Some("Kubelet never posted node status.".to_owned()),
            last_transition_time: Some(Time(now)),
            ..NodeCondition::default()
        });
    }
    (conditions != before).then_some(conditions)
}

/// The node's taints as its conditions want them; none where they are so already. Taints of others stay.
pub(super) fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let before = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = wanted(node);
    let is_managed = |taint: &Taint| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
            || PRESSURES.iter().any(|(_, key)| taint.key == *key)
    };
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let stays = |taint: &&Taint| !is_managed(taint) || wanted.iter().any(|one| is(taint, *one));
    let mut taints: Vec<_> = before.iter().filter(stays).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, (key, effect))) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (taints != before).then_some(taints)
}

fn wanted(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    match ready(node).map(|ready| ready.status.as_str()) {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    for (type_, key) in PRESSURES {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    wanted
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn node(ready: Value, spec: Value) -> Node {
        let mut conditions = vec![
            json!({ "type": "MemoryPressure", "status": "False" }),
            json!({ "type": "NetworkUnavailable", "status": "False" }),
        ];
        if !ready.is_null() {
            conditions.push(json!({ "type": "Ready", "status": ready }));
        }
        let node = json!({ "metadata": { "name": "n1" }, "spec": spec, "status": { "conditions": conditions } });
        serde_json::from_value(node).unwrap()
    }

    fn keys(taints: &[Taint]) -> Vec<(String, String)> {
        taints.iter().map(|taint| (taint.key.clone(), taint.effect.clone())).collect()
    }

    #[test]
    fn a_silent_node_is_unknown_in_all_that_only_it_can_know() {
        let mut node = node(json!("True"), json!({}));
        let conditions = conditions_of_a_lost_node(&node, now()).unwrap();
        let statuses: Vec<_> = conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
        assert_eq!(statuses, [("MemoryPressure", "Unknown"), ("NetworkUnavailable", "False"), ("Ready", "Unknown")]);
        assert_eq!(conditions[2].message.as_deref(), Some("Kubelet stopped posting node status."));
        node.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(conditions_of_a_lost_node(&node, now()), None, "once is enough");
    }

    #[test]
    fn taints_follow_the_conditions_and_those_of_others_stay() {
        let gpu = json!({ "key": "gpu", "effect": "NoSchedule" });
        let unreachable = taints(&node(json!("Unknown"), json!({ "taints": [gpu] })), now()).unwrap();
        let pair = |key: &str, effect: &str| (key.to_owned(), effect.to_owned());
        assert_eq!(
            keys(&unreachable),
            [pair("gpu", "NoSchedule"), pair(UNREACHABLE, "NoSchedule"), pair(UNREACHABLE, "NoExecute")]
        );
        let back = node(json!("True"), json!({ "taints": unreachable }));
        assert_eq!(keys(&taints(&back, now()).unwrap()), [pair("gpu", "NoSchedule")]);
        assert_eq!(taints(&node(json!("True"), json!({})), now()), None);
        let new = taints(&node(Value::Null, json!({ "unschedulable": true })), now()).unwrap();
        assert_eq!(
            keys(&new),
            [pair(NOT_READY, "NoSchedule"), pair(NOT_READY, "NoExecute"), pair(UNSCHEDULABLE, "NoSchedule")]
        );
    }
}
