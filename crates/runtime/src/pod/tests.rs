//! The lifecycle with real namespaces and processes and a cluster in memory. Needs root; fails without.

use std::path::Path;

use k8s_openapi::serde_json::json;

use crate::access::{ContainerAccess, ContainerRef, ExecRequest};

mod fixture;
mod memory_cluster;
mod readiness;
mod recovery;

use fixture::Fixture;

const LONG: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 1 & wait; done";

fn shell(script: &str) -> k8s_openapi::serde_json::Value {
    json!({ "name": "main", "image": "podnet.local/tools", "command": ["/bin/sh", "-c", script] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_prints_and_exits_and_the_pod_succeeds() {
    let fixture = Fixture::new();
    let pod =
        fixture.start(json!({ "restartPolicy": "Never", "containers": [shell("echo hello; echo oops >&2; exit 0")] }));
    let status = pod.status_where(|status| status.phase.as_deref() == Some("Succeeded")).await;
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
    let log = std::fs::read_to_string(pod.dir().join("logs/main/0.log")).unwrap();
    assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F oops\n"), "{log}");
    assert_eq!(fixture.cluster.reasons(), ["Pulled", "Created", "Started"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_fails_is_started_again_after_a_back_off() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "restartPolicy": "Always", "containers": [shell("exit 3")] }));
    let status = pod
        .status_where(|status| {
            let state = status.container_statuses.as_ref().and_then(|list| list[0].state.as_ref()?.waiting.clone());
            state.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
        })
        .await;
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let again = pod
        .status_where(|status| status.container_statuses.as_ref().is_some_and(|list| list[0].restart_count == 1))
        .await;
    assert_eq!(again.container_statuses.unwrap()[0].restart_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_own_file_system_processes_and_names() {
    let fixture = Fixture::new();
    let script = "echo pid=$$$$ host=$(hostname) && cat /etc/resolv.conf && ls -A /root /home && test ! -e /etc/shadow \
        && ls /proc | grep -c '^[0-9]' && echo x > /dev/null && head -c1 /dev/urandom > /tmp/f && ! touch /usr/x 2>/dev/null \
        && cat /data/deep/key && echo $GREETING && grep CapEff /proc/self/status && test -x /opt/podnet/bin/podnet && echo all";
    fixture.cluster.put_config_map("settings", &[("key", "from a config map\n"), ("greeting", "hello")]);
    let mut container = shell(script);
    container["volumeMounts"] = json!([{ "name": "settings", "mountPath": "/data" }]);
    container["env"] = json!([{ "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "WORD", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "greeting" } } },
        { "name": "GREETING", "value": "$(WORD), $(NAME)" }]);
    let volumes = json!([{ "name": "settings", "configMap": { "name": "settings", "items": [{ "key": "key", "path": "deep/key" }] } }]);
    let pod = fixture.start(json!({ "restartPolicy": "Never", "containers": [container], "volumes": volumes }));
    let status = pod.status_where(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))).await;
    let log = std::fs::read_to_string(pod.dir().join("logs/main/0.log")).unwrap();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "{log}");
    for expected in
        ["pid=1 host=web", "nameserver 10.233.0.10", "from a config map", "hello, web", "CapEff:\t00000000a80425fb"]
    {
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_container_with_its_streams_and_exit_code() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    let (code, out, err) =
        fixture.exec(&["/bin/sh", "-c", "cat; hostname; echo bad >&2; exit 7"], Some("typed\n")).await;
    assert_eq!((code, out.as_str(), err.as_str()), (7, "typed\nweb\n", "bad\n"));
    let (code, out, _) = fixture.exec(&["/bin/sh", "-c", "echo $$ $(cat /proc/1/comm)"], None).await;
    assert_eq!(code, 0);
    assert!(out.trim().ends_with(" sh") && !out.starts_with("1 "), "{out}");
    let target = ContainerRef { namespace: "shop".into(), pod: "web".into(), container: None };
    let request = ExecRequest { command: vec!["/no/such".into()], tty: false, stdin: false };
    let Err(error) = fixture.containers().exec(target, request).await else { panic!("it cannot have started") };
    assert!(error.to_string().contains("executable file not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_have_a_terminal() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    let (code, out) = fixture
        .exec_terminal(
            &["/bin/sh", "-c", "tty; read line; echo got $line; until stty size | grep '40 100'; do sleep 0.02; done"],
            "word\n",
        )
        .await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("/dev/pts/0") && out.contains("40 100") && out.contains("got word"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_dropped_kills_its_process() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    let target = ContainerRef { namespace: "shop".into(), pod: "web".into(), container: None };
    let request = ExecRequest { command: vec!["sleep".into(), "4711".into()], tty: false, stdin: false };
    let session = fixture.containers().exec(target, request).await.unwrap();
    let runs = || async {
        fixture.exec(&["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], None).await.1.contains("sleep 4711")
    };
    assert!(runs().await);
    drop(session);
    fixture::eventually("the process is gone", async || !runs().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_the_runtime_and_are_adopted_by_the_next() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    let before = pod.running().await;
    let pod = pod.restart_runtime().await;
    let after = pod.running().await;
    let id = |status: &k8s_openapi::api::core::v1::PodStatus| {
        status.container_statuses.as_ref().unwrap()[0].container_id.clone()
    };
    assert_eq!(id(&before), id(&after));
    assert_eq!(after.container_statuses.unwrap()[0].restart_count, 0);
    assert_eq!(fixture.exec(&["true"], None).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_the_runtime_was_away_is_known_with_its_code() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "restartPolicy": "Never", "containers": [shell("while ! test -e /data/go; do sleep 0.05; done; exit 5")
        .as_object().map(|fields| { let mut fields = fields.clone(); fields.insert("volumeMounts".into(), json!([{ "name": "v", "mountPath": "/data" }])); fields }).unwrap()],
        "volumes": [{ "name": "v", "emptyDir": {} }] }));
    pod.running().await;
    let dir = pod.dir();
    let stopped = pod.stop_runtime().await;
    std::fs::write(dir.join("volumes/v/go"), "").unwrap();
    fixture::eventually("the exit code is on disk", async || dir.join("containers/main/0.exit.json").exists()).await;
    let pod = stopped.start_runtime();
    let status = pod.status_where(|status| status.phase.as_deref() == Some("Failed")).await;
    assert_eq!(status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap().exit_code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_pause_was_killed_is_made_anew() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    pod.kill_pause();
    let status = pod
        .status_where(|status| {
            status.container_statuses.as_ref().is_some_and(|list| list[0].restart_count == 1 && list[0].ready)
        })
        .await;
    assert_eq!(status.container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap().exit_code, 137);
    assert!(fixture.cluster.reasons().contains(&"SandboxChanged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_asked_to_stop_and_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    let (dir, cgroup) = (pod.dir(), pod.cgroup());
    assert_eq!(fixture.namespaces(), 1);
    // Process 1 is not reached by signals before it has set its trap.
    let log = dir.join("logs/main/0.log");
    fixture::eventually("the trap is set", async || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("up")))
        .await;
    pod.delete(30);
    fixture::eventually("the object is removed", async || fixture.cluster.removed() == ["web"]).await;
    assert!(!dir.exists() && !cgroup.exists());
    assert_eq!(fixture.namespaces(), 0);
    let last = fixture.cluster.last_status().unwrap().container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(last.terminated.unwrap().exit_code, 0, "SIGTERM was handled");
    assert_eq!(fixture.plugin_log(), ["ADD", "DEL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_object_changes_while_it_ends_does_end() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell("sleep 1000")] }));
    pod.running().await;
    pod.delete(2);
    // What the node itself writes comes back as a change, and the deletion may be asked for again.
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        pod.delete(2);
    }
    fixture::eventually("the object is removed", async || fixture.cluster.removed() == ["web"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ignores_sigterm_is_killed_after_its_grace() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell("sleep 1000")] }));
    pod.running().await;
    pod.delete(1);
    fixture::eventually("the object is removed", async || fixture.cluster.removed() == ["web"]).await;
    let last = fixture.cluster.last_status().unwrap().container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(last.terminated.unwrap().exit_code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_plugin_is_told_in_an_event_and_tried_again() {
    let fixture = Fixture::new();
    fixture.break_plugin();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    let wanted = "Failed to create pod sandbox: plugin type=\"fake\" name=\"testnet\" failed (add): no address left";
    fixture::eventually("the event", async || fixture.cluster.messages().iter().any(|message| message == wanted)).await;
    fixture.mend_plugin();
    pod.running().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_one_after_the_other_before_all_others() {
    let fixture = Fixture::new();
    let step = |name: &str, script: &str| {
        json!({ "name": name, "image": "podnet.local/tools", "command": ["/bin/sh", "-c", script],
            "volumeMounts": [{ "name": "v", "mountPath": "/v" }] })
    };
    let pod = fixture.start(
        json!({ "restartPolicy": "Never", "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory" } }],
        "initContainers": [step("one", "echo 1 >> /v/f"), step("two", "echo 2 >> /v/f")],
        "containers": [step("main", "test \"$(echo $(cat /v/f))\" = '1 2' && mount | grep -q ' /v type tmpfs'")] }),
    );
    let status = pod.status_where(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))).await;
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_image_and_a_missing_program_are_said() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [{ "name": "main", "image": "example.com/none:1" }] }));
    let reason = |status: &k8s_openapi::api::core::v1::PodStatus, wanted: &str| {
        let state = status.container_statuses.as_ref().and_then(|list| list[0].state.as_ref()?.waiting.clone());
        state.is_some_and(|waiting| waiting.reason.as_deref() == Some(wanted))
    };
    pod.status_where(|status| reason(status, "ErrImagePull")).await;
    pod.status_where(|status| reason(status, "ImagePullBackOff")).await;

    let other = Fixture::new();
    let pod = other.start(json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "podnet.local/tools", "command": ["/no/such"] }] }));
    let status = pod.status_where(|status| status.phase.as_deref() == Some("Failed")).await;
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (128, Some("StartError")));
    assert!(ended.message.unwrap().contains("executable file not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_over_readiness_and_life() {
    let fixture = Fixture::new();
    let mut container = shell(LONG);
    container["readinessProbe"] = json!({ "exec": { "command": ["test", "-e", "/tmp/ready"] }, "periodSeconds": 1 });
    container["livenessProbe"] =
        json!({ "exec": { "command": ["test", "!", "-e", "/tmp/sick"] }, "periodSeconds": 1, "failureThreshold": 1 });
    let pod = fixture.start(json!({ "containers": [container] }));
    let status = pod.status_where(|status| status.phase.as_deref() == Some("Running")).await;
    assert!(!status.container_statuses.unwrap()[0].ready);
    fixture::eventually("a command runs", async || fixture.try_exec(&["touch", "/tmp/ready"]).await).await;
    pod.running().await;
    fixture.exec(&["touch", "/tmp/sick"], None).await;
    pod.status_where(|status| status.container_statuses.as_ref().is_some_and(|list| list[0].restart_count == 1)).await;
    assert!(fixture.cluster.reasons().contains(&"Unhealthy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_is_small() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    let status = std::fs::read_to_string(Path::new("/proc").join(pod.pause_pid().to_string()).join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // Pages of the executable are shared by all pauses; what each costs is the anonymous part.
    assert!(field("RssAnon") < 1024, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_sandbox_is_ended_before_a_new_one_is_made() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    pod.running().await;
    let dir = pod.dir();
    let stopped = pod.stop_runtime().await;
    // As after a crash between the plugin's work and the note of it.
    let mut attachment: k8s_openapi::serde_json::Value =
        k8s_openapi::serde_json::from_slice(&std::fs::read(dir.join("cni.json")).unwrap()).unwrap();
    attachment["result"] = json!(null);
    std::fs::write(dir.join("cni.json"), attachment.to_string()).unwrap();
    let pod = stopped.start_runtime();
    pod.status_where(|status| {
        status.container_statuses.as_ref().is_some_and(|list| list[0].ready && list[0].restart_count == 1)
    })
    .await;
    assert_eq!(fixture.plugin_log(), ["ADD", "DEL", "ADD"]);
    assert_eq!(fixture.namespaces(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_without_its_etc_files_gets_them_when_it_is_adopted() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(LONG)] }));
    let status = pod.running().await;
    let etc = pod.dir().join("etc");
    let stopped = pod.stop_runtime().await;
    // As after a crash between the sandbox and its files; the one that is there is its containers' own by now.
    std::fs::remove_file(etc.join("hosts")).unwrap();
    std::fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    let pod = stopped.start_runtime();
    pod.running().await;
    let hosts = std::fs::read_to_string(etc.join("hosts")).unwrap();
    assert!(hosts.contains(&status.pod_ip.unwrap()), "{hosts}");
    assert_eq!(std::fs::read_to_string(etc.join("resolv.conf")).unwrap(), "nameserver 192.0.2.1\n");
    assert_eq!(fixture.plugin_log(), ["ADD"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_the_hosts_network_needs_no_plugin_and_a_privileged_container_sees_its_devices() {
    let fixture = Fixture::new();
    let mut container = shell("test $(readlink /proc/self/ns/net) = $WANTED && test -w /proc/sys/kernel/hostname");
    container["env"] = json!([{ "name": "WANTED", "value": std::fs::read_link("/proc/self/ns/net").unwrap() }]);
    container["securityContext"] = json!({ "privileged": true });
    let pod = fixture.start(json!({ "restartPolicy": "Never", "hostNetwork": true, "containers": [container] }));
    let status = pod.status_where(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))).await;
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Succeeded"), Some("172.29.0.11")));
    assert!(fixture.plugin_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_root_has_its_user_groups_and_no_capabilities() {
    let fixture = Fixture::new();
    let mut container =
        shell("id -u; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x; ls -ld /v; touch /v/f");
    container["securityContext"] = json!({ "runAsUser": 1000, "runAsGroup": 1001, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true });
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    let pod = fixture
        .start(json!({ "restartPolicy": "Never", "securityContext": { "fsGroup": 2000 }, "containers": [container],
        "volumes": [{ "name": "v", "emptyDir": {} }] }));
    let status = pod.status_where(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))).await;
    let log = std::fs::read_to_string(pod.dir().join("logs/main/0.log")).unwrap();
    for expected in
        ["F 1000\n", "F 1001 2000\n", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Read-only file system"]
    {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "{log}");
}
