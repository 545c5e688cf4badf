//! What is shown of a pod that ends.

use k8s_openapi::serde_json::json;

use super::{
    LONG,
    fixture::{self, Fixture},
    shell,
};

/// Of a container that ends when it is told by a file, and of no signal.
const UNTIL_TOLD: &str = "until [ -e /tmp/end ]; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_is_ready_for_as_long_as_its_probe_says_so() {
    let fixture = Fixture::new();
    // Told to end it answers on, until it is told by a file.
    let script = "trap : TERM; touch /tmp/ready; until [ -e /tmp/end ]; do sleep 0.05; done";
    let mut container = shell(script);
    let test = json!({ "command": ["test", "-e", "/tmp/ready"] });
    container["readinessProbe"] =
        json!({ "exec": test, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20 });
    let pod = fixture.start(json!({ "containers": [container] }));
    pod.running().await;
    pod.delete(300);
    // What the pod's status is then has been published before.
    fixture::eventually("it is told to end", async || fixture.cluster.reasons().contains(&"Killing")).await;
    assert!(fixture.cluster.last_status().unwrap().container_statuses.unwrap()[0].ready);
    assert!(fixture.try_exec(&["rm", "/tmp/ready"]).await);
    let status = pod.status_where(|status| status.container_statuses.as_ref().is_some_and(|list| !list[0].ready)).await;
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
    assert!(state.running.is_some(), "its probe alone says that it is ready no more");
    assert!(fixture.try_exec(&["touch", "/tmp/end"]).await);
    fixture::eventually("the object is removed", async || fixture.cluster.removed() == ["web"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_container_is_shown_while_another_one_still_runs() {
    let fixture = Fixture::new();
    let mut side = shell(LONG);
    side["name"] = json!("side");
    let pod = fixture.start(json!({ "containers": [shell(UNTIL_TOLD), side] }));
    pod.running().await;
    let log = pod.dir().join("logs/side/0.log");
    fixture::eventually("the trap is set", async || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("up")))
        .await;
    pod.delete(300);
    let status = pod.status_where(|status| status.container_statuses.as_ref().is_some_and(|list| !list[1].ready)).await;
    let list = status.container_statuses.unwrap();
    assert!(list[0].ready && list[0].state.as_ref().unwrap().running.is_some());
    assert_eq!(list[1].state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
    let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "False");
    assert!(fixture.try_exec(&["touch", "/tmp/end"]).await);
    fixture::eventually("the object is removed", async || fixture.cluster.removed() == ["web"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_pause_is_killed_while_it_ends_is_ready_no_more() {
    let fixture = Fixture::new();
    let pod = fixture.start(json!({ "containers": [shell(UNTIL_TOLD)] }));
    pod.running().await;
    pod.delete(300);
    fixture::eventually("it is told to end", async || fixture.cluster.reasons().contains(&"Killing")).await;
    pod.kill_pause();
    fixture::eventually("the object is removed", async || fixture.cluster.removed() == ["web"]).await;
    let last = &fixture.cluster.last_status().unwrap().container_statuses.unwrap()[0];
    assert!(!last.ready);
    assert_eq!(last.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_killed_after_its_grace_though_the_api_server_does_not_answer() {
    let fixture = Fixture::new();
    let mut side = shell("sleep 1000");
    side["name"] = json!("side");
    let pod = fixture.start(json!({ "containers": [shell(UNTIL_TOLD), side] }));
    pod.running().await;
    pod.delete(1);
    fixture::eventually("it is told to end", async || fixture.cluster.reasons().contains(&"Killing")).await;
    fixture.cluster.fall_silent();
    // Its end is what is written meanwhile; it may be that its grace is over before.
    fixture.try_exec(&["touch", "/tmp/end"]).await;
    let killed = pod.dir().join("containers/side/0.exit.json");
    let has_ended = || killed.exists() || fixture.cluster.removed() == ["web"];
    fixture::eventually("the other one is killed", async || has_ended()).await;
}
