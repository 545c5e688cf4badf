use k8s_openapi::serde_json::{from_value, json};

use super::*;

fn pod(policy: &str) -> Pod {
    from_value(json!({ "metadata": { "name": "p" }, "spec": { "restartPolicy": policy, "containers": [{ "name": "a" }, { "name": "b" }],
        "initContainers": [{ "name": "i" }] } }))
    .unwrap()
}

fn run(code: Option<i32>) -> ContainerView {
    let exit = code.map(|code| Exit { code, signal: None, start_error: None, started_ms: 1000, finished_ms: 2000 });
    let ready = exit.is_none();
    ContainerView {
        run: Some(RunView { id: "1".into(), started_ms: 1000, exit, message: String::new() }),
        ready,
        started: true,
        ..ContainerView::default()
    }
}

fn view(pod: &Pod, init: ContainerView, a: ContainerView, b: ContainerView) -> PodView<'_> {
    let spec = pod.spec.as_ref().unwrap();
    PodView {
        pod,
        containers: spec.containers.iter().zip([a, b]).collect(),
        init_containers: spec.init_containers.iter().flatten().zip([init]).collect(),
        has_sandbox: true,
        addresses: vec!["10.1.2.3".parse().unwrap()],
        node_addresses: vec!["172.29.0.11".parse().unwrap()],
        start_time: Timestamp::UNIX_EPOCH,
        now: Timestamp::from_second(100).unwrap(),
        failure: None,
    }
}

#[test]
fn the_phase_follows_containers_and_restart_policy() {
    let (none, running) = (ContainerView::default, || run(None));
    for (policy, init, a, b, phase) in [
        ("Always", none(), none(), none(), "Pending"),
        ("Always", run(Some(0)), running(), none(), "Pending"),
        ("Always", run(Some(0)), running(), running(), "Running"),
        ("Always", run(Some(0)), run(Some(0)), run(Some(0)), "Running"),
        ("OnFailure", run(Some(0)), run(Some(0)), run(Some(0)), "Succeeded"),
        ("OnFailure", run(Some(0)), run(Some(0)), run(Some(1)), "Running"),
        ("Never", run(Some(0)), run(Some(0)), run(Some(1)), "Failed"),
        ("Never", run(Some(0)), running(), run(Some(1)), "Running"),
        ("Never", run(Some(1)), none(), none(), "Failed"),
    ] {
        let pod = pod(policy);
        assert_eq!(view(&pod, init, a, b).phase(), phase, "{policy}");
    }
}

#[test]
fn a_pod_is_ready_when_all_its_containers_are() {
    let pod = pod("Always");
    let of = |status: &PodStatus, kind: &str| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == kind).unwrap();
        (found.status.clone(), found.message.clone().unwrap_or_default())
    };
    let half = view(&pod, run(Some(0)), run(None), ContainerView::default()).status(None);
    assert_eq!(of(&half, "Ready"), ("False".into(), "containers with unready status: [b]".into()));
    assert_eq!(of(&half, "Initialized").0, "True");
    let whole = view(&pod, run(Some(0)), run(None), run(None)).status(None);
    assert_eq!(of(&whole, "Ready").0, "True");
}

#[test]
fn times_of_conditions_change_only_with_the_condition_and_foreign_conditions_stay() {
    let pod = pod("Always");
    let before: PodStatus = from_value(json!({ "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z" },
        { "type": "example.com/gate", "status": "True" } ] }))
    .unwrap();
    let status = view(&pod, run(Some(0)), run(None), run(None)).status(Some(&before));
    let conditions = status.conditions.unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.last_transition_time.as_ref().unwrap().0.as_second(), 5);
    assert!(conditions.iter().any(|condition| condition.type_ == "example.com/gate"));
}

#[test]
fn a_waiting_container_shows_the_run_that_ended_as_its_last_state() {
    let pod = pod("Always");
    let mut crashed = run(Some(1));
    crashed.waiting = Some(("CrashLoopBackOff".into(), "back-off 10s".into()));
    let status = view(&pod, run(Some(0)), crashed, run(None)).status(None);
    let shown = &status.container_statuses.unwrap()[0];
    assert_eq!(shown.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(shown.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: k8s_openapi::serde_json::Value| {
        qos_class(&from_value(json!({ "containers": [{ "name": "a", "resources": resources }] })).unwrap())
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({ "requests": { "cpu": "1" } })), "Burstable");
    assert_eq!(class(json!({ "limits": { "cpu": "1", "memory": "1Gi" } })), "Guaranteed");
}
