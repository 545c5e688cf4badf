#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

use serde_json::json;

use super::*;

const NOW: &str = "2026-01-01T00:01:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn set(replicas: i32, min_ready_seconds: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": { "name": "web-abc", "namespace": "shop", "uid": "set", "generation": 3 },
        "spec": {
            "replicas": replicas, "minReadySeconds": min_ready_seconds,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web", "tier": "front" } },
                          "spec": { "containers": [{ "name": "c", "image": "i" }] } },
        },
    }))
    .unwrap()
}

fn pod(name: &str, phase: &str, ready_since: Option<&str>) -> Arc<Pod> {
    let conditions: Vec<_> =
        ready_since.iter().map(|at| json!({ "type": "Ready", "status": "True", "lastTransitionTime": at })).collect();
    let pod = json!({
        "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "app": "web" } },
        "spec": { "containers": [], "nodeName": "n1" },
        "status": { "phase": phase, "conditions": conditions },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

#[test]
fn missing_pods_are_created_and_finished_ones_are_replaced() {
    let owned = [pod("a", "Running", None), pod("b", "Failed", None), pod("c", "Succeeded", None)];
    let plan = plan(&set(3, 0), &owned, &Intended::default(), now());
    assert_eq!((plan.create, plan.delete.len()), (2, 0));
}

#[test]
fn pods_that_were_asked_for_count_as_there_whether_seen_or_not() {
    let mut intended = Intended::default();
    intended.creating.insert("a".to_owned(), None);
    intended.creating.insert("b".to_owned(), None);
    let owned = [pod("a", "Pending", None)];
    assert_eq!(plan(&set(2, 0), &owned, &intended, now()).create, 0);
    assert_eq!(plan(&set(3, 0), &owned, &intended, now()).create, 1);
}

#[test]
fn pods_whose_deletion_was_asked_for_count_as_gone_and_no_other_is_chosen_for_them() {
    let mut intended = Intended::default();
    intended.deleting.insert("uid-a".to_owned(), None);
    let owned = [pod("a", "Running", None), pod("b", "Running", None), pod("c", "Running", None)];
    assert!(plan(&set(2, 0), &owned, &intended, now()).delete.is_empty());
    assert_eq!(names(&plan(&set(1, 0), &owned, &intended, now()).delete).len(), 1);
}

#[test]
fn surplus_pods_go_the_least_missed_first() {
    let owned = [pod("ready", "Running", Some(NOW)), pod("pending", "Pending", None)];
    assert_eq!(names(&plan(&set(1, 0), &owned, &Intended::default(), now()).delete), ["pending"]);
}

#[test]
fn the_status_counts_what_is_active_ready_and_long_enough_ready() {
    let owned = [
        pod("old", "Running", Some("2026-01-01T00:00:00Z")),
        pod("fresh", "Running", Some("2026-01-01T00:00:55Z")),
        pod("starting", "Pending", None),
        pod("failed", "Failed", None),
    ];
    let status = status(&set(4, 30), &owned, None, now());
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (3, Some(2), Some(1)));
    assert_eq!((status.fully_labeled_replicas, status.observed_generation), (None, Some(3)));
    let wake = plan(&set(3, 30), &owned, &Intended::default(), now()).wake;
    assert_eq!(wake, Some(Duration::from_secs(25)), "the fresh pod counts from then on");
}

#[test]
fn a_failure_is_a_condition_until_it_is_overcome() {
    let mut set = set(1, 0);
    let failed = status(&set, &[], Some((true, "quota exceeded".to_owned())), now());
    let condition = &failed.conditions.clone().unwrap()[0];
    assert_eq!((condition.type_.as_str(), condition.reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
    set.status = Some(failed);
    assert_eq!(status(&set, &[], None, now()).conditions, None);
}

#[test]
fn a_pod_is_the_template_under_a_name_with_its_controller() {
    let pod = super::pod(&set(1, 0), "web-abc-x");
    assert_eq!(pod.metadata.name.as_deref(), Some("web-abc-x"));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["tier"], "front");
    assert!(ownership::is_controlled_by(&pod, "set"));
}
