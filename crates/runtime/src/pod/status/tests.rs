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
fn times_of_conditions_change_only_with_the_condition_and_those_of_others_are_theirs() {
    let pod = pod("Always");
    let before: PodStatus = from_value(json!({ "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z" },
        { "type": "example.com/gate", "status": "True" } ] }))
    .unwrap();
    let status = view(&pod, run(Some(0)), run(None), run(None)).status(Some(&before));
    let conditions = status.conditions.unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.last_transition_time.as_ref().unwrap().0.as_second(), 5);
    assert!(!conditions.iter().any(|condition| condition.type_ == "example.com/gate"));
}

#[test]
fn a_readiness_gate_opens_by_the_condition_in_the_object() {
    let mut pod = pod("Always");
    pod.spec.as_mut().unwrap().readiness_gates = from_value(json!([{ "conditionType": "example.com/gate" }])).unwrap();
    let ready = |pod: &Pod| {
        let status = view(pod, run(Some(0)), run(None), run(None)).status(None);
        status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap().status
    };
    assert_eq!(ready(&pod), "False");
    pod.status = from_value(json!({ "conditions": [{ "type": "example.com/gate", "status": "True" }] })).unwrap();
    assert_eq!(ready(&pod), "True");
}

#[test]
fn a_shown_status_contradicts_where_somebody_else_wrote_what_only_the_node_knows() {
    let pod = pod("Always");
    let own = view(&pod, run(Some(0)), run(None), run(None)).status(None);
    let changed = |change: &dyn Fn(&mut PodStatus)| {
        let mut shown = own.clone();
        change(&mut shown);
        shown
    };
    let of = |status: &mut PodStatus, kind: &str, value: &str| {
        let conditions = status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) => condition.status = value.into(),
            None => {
                conditions.push(PodCondition { type_: kind.into(), status: value.into(), ..PodCondition::default() });
            }
        }
    };
    assert!(agrees(&own, &own));
    assert!(agrees(&own, &changed(&|status| of(status, "example.com/gate", "False"))));
    assert!(!agrees(&own, &changed(&|status| of(status, "Ready", "False"))));
    assert!(!agrees(&own, &changed(&|status| of(status, "ContainersReady", "Unknown"))));
    assert!(!agrees(&own, &changed(&|status| status.phase = Some("Unknown".into()))));
    assert!(!agrees(&own, &changed(&|status| status.pod_ip = None)));
    assert!(!agrees(&own, &PodStatus::default()));
}

#[test]
fn an_init_container_of_a_sandbox_that_is_no_more_counts_for_nothing() {
    let pod = pod("Always");
    let init = ContainerView { outdated: true, ..run(Some(0)) };
    let status = view(&pod, init, run(None), run(None)).status(None);
    let initialized =
        status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Initialized").unwrap();
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [i]"));
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
