//! Which pods have to leave a tainted node, and when.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint},
    jiff::{SignedDuration, Timestamp},
};

use super::health;
use crate::controllers::{
    pods,
    scheduler::{Stay, tolerated_for},
};

/// Who goes.
#[derive(Debug)]
pub(super) struct Evictions {
    /// These go now.
    pub(super) due: Vec<Arc<Pod>>,
    /// The next one goes after this time.
    pub(super) next: Option<Duration>,
}

/// The node's taints that make pods leave.
pub(super) fn taints(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// Whether the node has such taints.
pub(super) fn may_evict(node: &Node) -> bool {
    !taints(node).is_empty()
}

/// What makes a taint the same one.
pub(super) fn identity(taint: &Taint) -> String {
    format!("{}={}", taint.key, taint.value.as_deref().unwrap_or_default())
}

/// Decides for the pods of a node with these taints and the times since when it has them. While no node is ready, pods are not made
/// to leave for a node's ill health: it is more likely that something ails the watcher, and there is nowhere to go.
pub(super) fn evictions(
    taints: &[(Timestamp, Taint)],
    on_node: &[Arc<Pod>],
    some_node_is_ready: bool,
    now: Timestamp,
) -> Evictions {
    let mut evictions = Evictions { due: Vec::new(), next: None };
    let effective: Vec<_> =
        taints.iter().filter(|(_, taint)| some_node_is_ready || !health::is_of_health(taint)).collect();
    for pod in on_node.iter().filter(|pod| pods::is_active(pod)) {
        let deadline = effective.iter().filter_map(|(since, taint)| leaves_at(pod, *since, taint)).min();
        match deadline.map(|deadline| Duration::try_from(deadline.duration_since(now)).unwrap_or_default()) {
            None => {}
            Some(left) if left.is_zero() => evictions.due.push(Arc::clone(pod)),
            Some(left) => evictions.next = Some(evictions.next.map_or(left, |next| next.min(left))),
        }
    }
    evictions
}

fn leaves_at(pod: &Pod, since: Timestamp, taint: &Taint) -> Option<Timestamp> {
    let Stay::Seconds(seconds) = tolerated_for(pod, taint) else { return None };
    let stay = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    Some(since.checked_add(stay).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

    use serde_json::{Value, json};

    use super::*;

    const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

    fn pod(name: &str, tolerations: Value) -> Arc<Pod> {
        let pod = json!({ "metadata": { "name": name }, "spec": { "containers": [], "tolerations": tolerations } });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn outcome(after: i64, some_node_is_ready: bool) -> (Vec<String>, Option<u64>) {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let taint: Taint = serde_json::from_value(json!({ "key": UNREACHABLE, "effect": "NoExecute" })).unwrap();
        let stays =
            |seconds: Value| json!([{ "key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": seconds }]);
        let pods =
            [pod("hasty", json!([])), pod("usual", stays(json!(300))), pod("agent", json!([{ "operator": "Exists" }]))];
        let now = since.checked_add(SignedDuration::from_secs(after)).unwrap();
        let evictions = evictions(&[(since, taint)], &pods, some_node_is_ready, now);
        let due = evictions.due.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        (due, evictions.next.map(|next| next.as_secs()))
    }

    #[test]
    fn a_pod_leaves_when_it_tolerates_the_taint_no_longer() {
        assert_eq!(outcome(0, true), (vec!["hasty".to_owned()], Some(300)));
        assert_eq!(outcome(299, true), (vec!["hasty".to_owned()], Some(1)));
        assert_eq!(outcome(300, true), (vec!["hasty".to_owned(), "usual".to_owned()], None));
    }

    #[test]
    fn nobody_leaves_while_no_node_is_ready() {
        assert_eq!(outcome(1000, false), (vec![], None));
    }
}
