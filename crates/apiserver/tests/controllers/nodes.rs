#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

use std::time::Duration;

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use podnet_apiserver::controllers::ControllersConfig;
use serde_json::{Value, json};

use super::fixture::Fixture;

fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
}

fn pod(name: &str, tolerations: Value) -> Value {
    // Its image keeps the pretended node from ending it: only force ends it.
    let containers = json!([{ "name": "c", "image": "broken" }]);
    json!({
        "metadata": { "name": name },
        "spec": { "nodeName": "node1", "tolerations": tolerations, "containers": containers },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn taints_follow_a_node_s_conditions_and_make_pods_leave() {
    let cluster = Fixture::with_nodes(2).await;
    let stays = json!([{ "operator": "Exists" }]);
    let hasty = json!([{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0 }]);
    cluster.create::<Pod>(pod("stays", stays)).await;
    cluster.create::<Pod>(pod("hasty", hasty)).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    let set_ready = async |status: &str| {
        let conditions = json!([{ "type": "Ready", "status": status }]);
        let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
        nodes.patch_status("node1", &PatchParams::default(), &patch).await.unwrap();
    };
    set_ready("False").await;
    let wanted = ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"];
    cluster.wait("the taints", || async { (taints(&nodes.get("node1").await.unwrap()) == wanted).then_some(()) }).await;
    cluster.until::<Pod>("hasty", "its deletion", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    set_ready("True").await;
    cluster.wait("their end", || async { taints(&nodes.get("node1").await.unwrap()).is_empty().then_some(()) }).await;
    let stays = cluster.api::<Pod>("default").get("stays").await.unwrap();
    assert!(stays.metadata.deletion_timestamp.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_deleted_node_are_deleted_by_force() {
    let cluster = Fixture::with_nodes(1).await;
    cluster.create::<Pod>(pod("left", json!([]))).await;
    cluster.create::<Pod>(pod("ending", json!([]))).await;
    cluster.api::<Pod>("default").delete("ending", &DeleteParams::default()).await.unwrap();
    Api::<Node>::all(cluster.client.clone()).delete("node1", &DeleteParams::default()).await.unwrap();
    cluster.until_gone::<Pod>("default", "left").await;
    cluster.until_gone::<Pod>("default", "ending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_renews_its_lease_no_more_is_lost_until_it_is_heard_again() {
    let mut cluster = Fixture::without_controllers().await;
    cluster.add_node("node1").await;
    cluster.add_node("node2").await;
    let config = ControllersConfig { node_grace: Duration::from_secs(1), ..ControllersConfig::new(&*cluster.ca_pem) };
    cluster.start_controllers(config);
    let mut web = pod("web", json!([{ "operator": "Exists" }]));
    web["spec"]["containers"][0]["image"] = json!("v1");
    cluster.create::<Pod>(web).await;
    let is_ready = |pod: &Pod, wanted: &str| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.filter(|one| one.type_ == "Ready").any(|one| one.status == wanted)
    };
    cluster.until::<Pod>("web", "a ready pod", |pod| is_ready(pod, "True")).await;

    let leases = cluster.api::<Lease>("kube-node-lease");
    let renew = async |node: &str| {
        let lease = json!({ "metadata": { "name": node }, "spec": { "renewTime": MicroTime(Timestamp::now()) } });
        match leases.get_opt(node).await.unwrap() {
            Some(_) => leases.patch(node, &PatchParams::default(), &Patch::Merge(lease)).await.unwrap(),
            None => leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap(),
        }
    };
    let nodes = Api::<Node>::all(cluster.client.clone());
    let wanted = ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    cluster
        .wait("the loss of node1", || async {
            renew("node2").await;
            (taints(&nodes.get("node1").await.unwrap()) == wanted).then_some(())
        })
        .await;
    cluster.until::<Pod>("web", "a pod that nobody vouches for", |pod| is_ready(pod, "False")).await;

    let conditions = json!([{ "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" }]);
    let status = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
    nodes.patch_status("node1", &PatchParams::default(), &status).await.unwrap();
    cluster
        .wait("its return", || async {
            renew("node1").await;
            renew("node2").await;
            let (first, second) = (nodes.get("node1").await.unwrap(), nodes.get("node2").await.unwrap());
            (taints(&first).is_empty() && taints(&second).is_empty()).then_some(())
        })
        .await;
}
