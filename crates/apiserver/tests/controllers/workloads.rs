use std::{collections::BTreeMap, time::Instant};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Event, Pod},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use podnet_apiserver::controllers::ControllersConfig;
use serde_json::json;

use super::fixture::{Fixture, deployment};

fn is_complete(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let replicas = deployment.spec.as_ref().unwrap().replicas.filter(|replicas| *replicas != 0);
    let observed = status.observed_generation == deployment.metadata.generation;
    observed && [status.replicas, status.updated_replicas, status.available_replicas] == [replicas; 3]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_are_bound_soon_and_spread_evenly() {
    let cluster = Fixture::with_nodes(3).await;
    cluster.until::<k8s_openapi::api::core::v1::ServiceAccount>("default", "the default account", |_| true).await;
    let start = Instant::now();
    cluster.create::<Deployment>(deployment("web", 100, "v1")).await;
    let bound = cluster
        .wait("100 bound pods", || async {
            let pods = cluster.pods("app=web").await;
            let nodes: Vec<_> = pods.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
            (nodes.len() == 100).then_some(nodes)
        })
        .await;
    eprintln!("100 pods bound after {:?}", start.elapsed());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    bound.into_iter().for_each(|node| *counts.entry(node).or_default() += 1);
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [33, 33, 34]);
    cluster.until::<Deployment>("web", "a complete rollout", is_complete).await;
    eprintln!("and complete after {:?}", start.elapsed());
    assert_eq!(cluster.pods("app=web").await.len(), 100, "none was made twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_replaces_the_pods_and_can_be_scaled_and_undone() {
    let cluster = Fixture::with_nodes(2).await;
    let api = cluster.api::<Deployment>("default");
    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    cluster.until::<Deployment>("web", "the first rollout", is_complete).await;
    let image = |image: &str| {
        let containers = json!([{ "name": "c", "image": image }]);
        Patch::Strategic(json!({ "spec": { "template": { "spec": { "containers": containers } } } }))
    };
    api.patch("web", &PatchParams::default(), &image("v2")).await.unwrap();
    let rolled = cluster.until::<Deployment>("web", "the second rollout", is_complete).await;
    assert_eq!(rolled.annotations()["deployment.kubernetes.io/revision"], "2");
    let sets = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items;
    let mut sizes: Vec<_> = sets.iter().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 3]);

    let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    api.patch("web", &PatchParams::default(), &scale).await.unwrap();
    cluster.until::<Deployment>("web", "one pod", is_complete).await;
    api.patch("web", &PatchParams::default(), &image("v1")).await.unwrap();
    let undone = cluster.until::<Deployment>("web", "the rollback", is_complete).await;
    assert_eq!(undone.annotations()["deployment.kubernetes.io/revision"], "3");
    let count = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(count, 2, "the old set is used again");

    let events = cluster.api::<Event>("default");
    cluster
        .wait("events of scaling", || async {
            let fields = ListParams::default().fields("reason=ScalingReplicaSet");
            (events.list(&fields).await.unwrap().items.len() >= 4).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced_and_a_foreign_one_is_adopted() {
    let cluster = Fixture::with_nodes(1).await;
    cluster.create::<Deployment>(deployment("web", 1, "v1")).await;
    cluster.until::<Deployment>("web", "the rollout", is_complete).await;
    let first = cluster.pods("app=web").await.remove(0);
    cluster.api::<Pod>("default").delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    let second = cluster
        .wait("another pod", || async {
            let pods = cluster.pods("app=web").await;
            pods.into_iter().find(|pod| pod.name_any() != first.name_any())
        })
        .await;
    cluster.until_gone::<Pod>("default", &first.name_any()).await;
    cluster
        .create::<Pod>(json!({
            "metadata": { "name": "stray", "labels": second.labels() },
            "spec": { "containers": [{ "name": "c", "image": "v1" }] },
        }))
        .await;
    cluster.wait("one pod", || async { (cluster.pods("app=web").await.len() == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_goes_where_it_fits_later() {
    let cluster = Fixture::with_nodes(2).await;
    cluster
        .create::<Pod>(json!({
            "metadata": { "name": "picky" },
            "spec": { "nodeSelector": { "disk": "ssd" }, "containers": [{ "name": "c", "image": "v1" }] },
        }))
        .await;
    let message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    cluster
        .until::<Pod>("picky", "the reason", |pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
                .any(|condition| condition.message.as_deref() == Some(message))
        })
        .await;
    let labels = Patch::Merge(json!({ "metadata": { "labels": { "disk": "ssd" } } }));
    let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(cluster.client.clone());
    nodes.patch("node2", &PatchParams::default(), &labels).await.unwrap();
    cluster
        .until::<Pod>("picky", "its node", |pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node2"))
        .await;
    let events = cluster.api::<Event>("default");
    for (reason, wanted) in
        [("FailedScheduling", message), ("Scheduled", "Successfully assigned default/picky to node2")]
    {
        let fields = ListParams::default().fields(&format!("involvedObject.name=picky,reason={reason}"));
        cluster
            .wait(reason, || async {
                let events = events.list(&fields).await.unwrap().items;
                events.iter().any(|event| event.message.as_deref() == Some(wanted)).then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_start_late_find_everything() {
    let mut cluster = Fixture::without_controllers().await;
    cluster.add_node("node1").await;
    cluster.create::<Deployment>(deployment("web", 5, "v1")).await;
    cluster.start_controllers(ControllersConfig::new(&*cluster.ca_pem));
    cluster.until::<Deployment>("web", "the rollout", is_complete).await;
}
