//! Which pods go first when there are too many.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use crate::controllers::pods;

/// A pod with a lower number goes before one with a higher (Kubernetes documentation, "ReplicaSet: pod deletion cost").
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Orders pods so that those that are missed least come first: without a node; pending; not ready; cheap; sharing their node with
/// many of the same; ready for a short time; restarted often; young.
pub(super) fn sort(pods: &mut [Arc<Pod>]) {
    let mut on_node: HashMap<String, usize> = HashMap::new();
    for node in pods.iter().filter_map(|pod| pods::node(pod)) {
        *on_node.entry(node.to_owned()).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| worth(pod, &on_node));
}

type Worth = (bool, u8, bool, i32, Reverse<usize>, Reverse<Timestamp>, Reverse<i32>, Reverse<Timestamp>, String);

fn worth(pod: &Pod, on_node: &HashMap<String, usize>) -> Worth {
    let node = pods::node(pod);
    let phase = match pods::phase(pod) {
        "" | "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let annotations = pod.metadata.annotations.as_ref();
    let cost =
        annotations.and_then(|all| all.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or_default();
    let neighbours = node.and_then(|node| on_node.get(node)).copied().unwrap_or_default();
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    (
        node.is_some(),
        phase,
        pods::is_ready(pod),
        cost,
        Reverse(neighbours),
        Reverse(pods::ready_since(pod).unwrap_or(Timestamp::MIN)),
        Reverse(restarts(pod)),
        Reverse(created),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|container| container.restart_count).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_pod_that_is_missed_least_goes_first() {
        let ready = |since: &str| json!([{ "type": "Ready", "status": "True", "lastTransitionTime": since }]);
        let (long, short) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let order: [(&str, Value); 7] = [
            ("unscheduled", json!({ "spec": { "containers": [] } })),
            ("pending", json!({ "spec": { "nodeName": "n1", "containers": [] }, "status": { "phase": "Pending" } })),
            ("unready", json!({ "spec": { "nodeName": "n1", "containers": [] }, "status": { "phase": "Running" } })),
            (
                "cheap",
                json!({ "metadata": { "annotations": { DELETION_COST: "-5" } }, "spec": { "nodeName": "n1", "containers": [] },
                    "status": { "phase": "Running", "conditions": ready(long) } }),
            ),
            (
                "crowded",
                json!({ "spec": { "nodeName": "n1", "containers": [] },
                    "status": { "phase": "Running", "conditions": ready(long) } }),
            ),
            (
                "fresh",
                json!({ "spec": { "nodeName": "n2", "containers": [] },
                    "status": { "phase": "Running", "conditions": ready(short) } }),
            ),
            (
                "proven",
                json!({ "spec": { "nodeName": "n3", "containers": [] },
                    "status": { "phase": "Running", "conditions": ready(long) } }),
            ),
        ];
        let mut pods: Vec<_> = order
            .iter()
            .rev()
            .map(|(name, pod)| {
                let mut pod: Pod = serde_json::from_value(pod.clone()).unwrap();
                pod.metadata.name = Some((*name).to_owned());
                Arc::new(pod)
            })
            .collect();
        sort(&mut pods);
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, order.map(|(name, _)| name));
    }
}
