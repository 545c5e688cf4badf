use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::fixture::{Fixture, deployment};

async fn slices(cluster: &Fixture, service: &str) -> Vec<EndpointSlice> {
    let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    cluster.api::<EndpointSlice>("default").list(&selector).await.unwrap().items
}

async fn ready_addresses(cluster: &Fixture, service: &str) -> usize {
    let slices = slices(cluster, service).await;
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_to_its_pods_and_to_nothing_when_they_are_gone() {
    let cluster = Fixture::with_nodes(2).await;
    cluster
        .create::<Service>(json!({
            "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 8080, "targetPort": "web" }] },
        }))
        .await;
    cluster.wait("an empty slice", || async { (slices(&cluster, "web").await.len() == 1).then_some(()) }).await;
    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    cluster.wait("three addresses", || async { (ready_addresses(&cluster, "web").await == 3).then_some(()) }).await;
    let all = slices(&cluster, "web").await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].ports.as_ref().unwrap()[0].port, Some(80));
    cluster
        .until::<Endpoints>("web", "the endpoints object", |endpoints| {
            let subsets = endpoints.subsets.as_deref().unwrap_or_default();
            subsets.first().and_then(|subset| subset.addresses.as_ref()).is_some_and(|all| all.len() == 3)
        })
        .await;

    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    cluster.api::<Deployment>("default").patch("web", &PatchParams::default(), &none).await.unwrap();
    cluster.wait("no addresses", || async { (ready_addresses(&cluster, "web").await == 0).then_some(()) }).await;

    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    cluster.wait("no slices", || async { slices(&cluster, "web").await.is_empty().then_some(()) }).await;
    cluster.until_gone::<Endpoints>("default", "web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_written_by_hand_are_mirrored_and_the_api_s_own_are_left_alone() {
    let cluster = Fixture::with_nodes(0).await;
    cluster.create::<Service>(json!({ "metadata": { "name": "db" }, "spec": { "ports": [{ "port": 5432 }] } })).await;
    cluster
        .create::<Endpoints>(json!({
            "metadata": { "name": "db" },
            "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }], "ports": [{ "port": 5432 }] }],
        }))
        .await;
    cluster.wait("the mirror", || async { (ready_addresses(&cluster, "db").await == 1).then_some(()) }).await;
    cluster.api::<Endpoints>("default").delete("db", &DeleteParams::default()).await.unwrap();
    cluster.wait("its end", || async { slices(&cluster, "db").await.is_empty().then_some(()) }).await;
    let own: Vec<_> = slices(&cluster, "kubernetes").await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(own, ["kubernetes"]);
}
