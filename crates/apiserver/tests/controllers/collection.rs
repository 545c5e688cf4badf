use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::ConfigMap,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;

use super::fixture::{Fixture, deployment};

async fn sets(cluster: &Fixture) -> Vec<ReplicaSet> {
    cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items
}

async fn rolled_out(cluster: &Fixture) {
    cluster.create::<Deployment>(deployment("web", 2, "v1")).await;
    cluster
        .until::<Deployment>("web", "the rollout", |web| {
            web.status.as_ref().is_some_and(|status| status.available_replicas == Some(2))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_deleted_in_the_background_takes_its_sets_and_pods_along() {
    let cluster = Fixture::with_nodes(1).await;
    rolled_out(&cluster).await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::background()).await.unwrap();
    cluster
        .wait("the end of all", || async {
            (sets(&cluster).await.is_empty() && cluster.pods("app=web").await.is_empty()).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_deleted_in_the_foreground_goes_last() {
    let cluster = Fixture::with_nodes(1).await;
    rolled_out(&cluster).await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster.until_gone::<Deployment>("default", "web").await;
    assert!(sets(&cluster).await.is_empty() && cluster.pods("app=web").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_live_on_without_their_owner() {
    let cluster = Fixture::with_nodes(1).await;
    rolled_out(&cluster).await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::orphan()).await.unwrap();
    cluster.until_gone::<Deployment>("default", "web").await;
    let sets = sets(&cluster).await;
    assert_eq!((sets.len(), sets[0].owner_references().len()), (1, 0));
    assert_eq!(cluster.pods("app=web").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_custom_kinds_own_and_are_owned() {
    let cluster = Fixture::with_nodes(0).await;
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": { "name": "gadgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "gadgets", "kind": "Gadget" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }],
        },
    }))
    .unwrap();
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let kind = GroupVersionKind::gvk("example.com", "v1", "Gadget");
    let resource = ApiResource::from_gvk_with_plural(&kind, "gadgets");
    let gadgets = Api::<DynamicObject>::namespaced_with(cluster.client.clone(), "default", &resource);
    let create = |name: &'static str, owners: serde_json::Value| {
        let (gadgets, resource) = (gadgets.clone(), resource.clone());
        async move {
            let mut gadget = DynamicObject::new(name, &resource);
            gadget.metadata.owner_references = serde_json::from_value(owners).unwrap();
            gadgets.create(&PostParams::default(), &gadget).await.unwrap()
        }
    };
    cluster.wait("the kind", || async { gadgets.list(&ListParams::default()).await.is_ok().then_some(()) }).await;
    let owner = create("owner", json!([])).await;
    let owned_by = json!([{ "apiVersion": "example.com/v1", "kind": "Gadget", "name": "owner", "uid": owner.uid() }]);
    create("owned", owned_by.clone()).await;
    let map = json!({ "metadata": { "name": "settings", "ownerReferences": owned_by } });
    cluster.create::<ConfigMap>(map).await;
    gadgets.delete("owner", &DeleteParams::background()).await.unwrap();
    cluster.until_gone::<ConfigMap>("default", "settings").await;
    cluster
        .wait("the end of the owned", || async { gadgets.get_opt("owned").await.unwrap().is_none().then_some(()) })
        .await;
    let stray = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "never-was" }]);
    create("stray", stray).await;
    cluster
        .wait("the end of the stray", || async { gadgets.get_opt("stray").await.unwrap().is_none().then_some(()) })
        .await;
}
