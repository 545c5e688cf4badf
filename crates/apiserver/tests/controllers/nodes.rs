use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
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
