//! What somebody else did to a pod's status, sandbox or volumes.

use k8s_openapi::{api::core::v1::PodStatus, serde_json::json};

use super::{
    LONG,
    fixture::{self, Fixture},
    shell,
};

/// As the node lifecycle controller leaves the pods of a node that was silent.
fn doubted(status: &PodStatus) -> PodStatus {
    let mut status = status.clone();
    let ready = status.conditions.iter_mut().flatten().find(|condition| condition.type_ == "Ready").unwrap();
    ready.status = "False".into();
    ready.reason = Some("NodeNotReady".into());
    status
}

fn is_ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_else_changed_is_written_again() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    let status = pod.status_where(is_ready).await;
    let written = fixture.cluster.writes();
    pod.show(doubted(&status), written + 1);
    fixture::eventually("it is written again", async || fixture.cluster.writes() > written).await;
    assert!(is_ready(&fixture.cluster.last_status().unwrap()));
    let moved = PodStatus { pod_ip: None, ..status.clone() };
    let written = fixture.cluster.writes();
    pod.show(moved, written + 2);
    fixture::eventually("it is written again", async || fixture.cluster.writes() > written).await;
    assert_eq!(fixture.cluster.last_status().unwrap().pod_ip, status.pod_ip);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_from_before_the_last_write_is_no_news() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    let status = pod.status_where(is_ready).await;
    let written = fixture.cluster.writes();
    pod.show(doubted(&status), written - 1);
    pod.show(status.clone(), written);
    // The news after it shows that the worker has looked at it.
    pod.show(doubted(&status), written + 1);
    fixture::eventually("it is written again", async || fixture.cluster.writes() > written).await;
    assert_eq!(fixture.cluster.writes(), written + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_again_in_a_sandbox_that_was_made_anew() {
    let fixture = Fixture::new();
    let with_volume = |name: &str, script: &str| {
        let mut container = shell(script);
        container["name"] = json!(name);
        container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
        container
    };
    let pod = fixture.start(json!({ "volumes": [{ "name": "v", "emptyDir": {} }],
        "initContainers": [with_volume("init", "echo done >> /v/log")], "containers": [with_volume("main", LONG)] }));
    pod.running().await;
    let log = pod.dir().join("volumes/v/log");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "done\n");
    pod.kill_pause();
    let status = pod
        .status_where(|status| {
            status.container_statuses.as_ref().is_some_and(|list| list[0].restart_count == 1 && list[0].ready)
        })
        .await;
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "done\ndone\n");
    assert_eq!(status.init_container_statuses.unwrap()[0].restart_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_from_the_api_are_read_only_and_a_token_is_asked_for_once() {
    let fixture = Fixture::new();
    fixture.cluster.put_config_map("settings", &[("key", "value")]);
    let mut container = shell(
        "cat /c/key /t/token; ! rm /c/..data 2>/dev/null && ! ln -s / /t/x 2>/dev/null && ! touch /sub 2>/dev/null && echo guarded; sleep 1000",
    );
    container["volumeMounts"] = json!([{ "name": "c", "mountPath": "/c" }, { "name": "t", "mountPath": "/t" },
        { "name": "c", "mountPath": "/sub", "subPath": "key" }]);
    let token = json!({ "serviceAccountToken": { "path": "token" } });
    let address =
        json!({ "downwardAPI": { "items": [{ "path": "ip", "fieldRef": { "fieldPath": "status.podIP" } }] } });
    let pod = fixture.start(json!({ "containers": [container], "volumes": [
        { "name": "c", "configMap": { "name": "settings" } }, { "name": "t", "projected": { "sources": [token, address] } }] }));
    pod.running().await;
    let log = pod.dir().join("logs/main/0.log");
    fixture::eventually("it has looked", async || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("guarded"))
    })
    .await;
    // The volumes were made twice: without the pod's address and with it.
    let ip = pod.dir().join("volumes/t/ip");
    assert_eq!(std::fs::read_to_string(ip).unwrap(), "10.99.0.5");
    assert_eq!(fixture.cluster.tokens(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_for_a_setting_of_the_machine_fails() {
    let fixture = Fixture::new();
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let sysctls = json!([{ "name": "kernel.core_pattern", "value": "stolen" }]);
    let pod = fixture.start(json!({ "securityContext": { "sysctls": sysctls }, "containers": [shell(LONG)] }));
    let status = pod.status_where(|status| status.phase.as_deref() == Some("Failed")).await;
    assert_eq!(status.reason.as_deref(), Some("SysctlForbidden"));
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_path_is_mounted_and_no_working_directory_leads_out_of_the_container() {
    let fixture = Fixture::new();
    let mut container = shell("echo new > /data/file && cat /data/file");
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/data", "subPath": "deep/er" }]);
    let volumes = json!([{ "name": "v", "emptyDir": {} }]);
    let pod = fixture.start(json!({ "restartPolicy": "Never", "containers": [container.clone()], "volumes": volumes }));
    let over = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    assert_eq!(pod.status_where(over).await.phase.as_deref(), Some("Succeeded"));
    assert_eq!(std::fs::read_to_string(pod.dir().join("volumes/v/deep/er/file")).unwrap(), "new\n");

    // With a descriptor of a directory outside, some of these would be entered.
    let probes: Vec<_> = (3..40)
        .map(|number| {
            let mut probe = container.clone();
            probe["name"] = json!(format!("probe-{number}"));
            probe["workingDir"] = json!(format!("/proc/self/fd/{number}"));
            probe["command"] =
                json!(["/bin/sh", "-c", "cat ../../../../../../../../etc/hostname && echo entered $PWD"]);
            probe
        })
        .collect();
    let other = Fixture::new();
    let pod = other.start(json!({ "restartPolicy": "Never", "containers": probes, "volumes": volumes }));
    let status = pod.status_where(over).await;
    for container in status.container_statuses.unwrap() {
        let ended = container.state.unwrap().terminated.unwrap();
        assert_eq!(ended.reason.as_deref(), Some("StartError"), "{}: {ended:?}", container.name);
    }
}
