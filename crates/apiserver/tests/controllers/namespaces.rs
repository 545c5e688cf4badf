use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::fixture::{Fixture, deployment};

async fn create_namespace(cluster: &Fixture, name: &str) -> Api<Namespace> {
    let api = Api::<Namespace>::all(cluster.client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    api.create(&PostParams::default(), &namespace).await.unwrap();
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_an_account_and_the_certificate_and_keeps_them() {
    let cluster = Fixture::with_nodes(0).await;
    create_namespace(&cluster, "shop").await;
    let (accounts, maps) = (cluster.api::<ServiceAccount>("shop"), cluster.api::<ConfigMap>("shop"));
    let has_both = || async {
        let map = maps.get_opt("kube-root-ca.crt").await.unwrap()?;
        accounts.get_opt("default").await.unwrap()?;
        (map.data?.get("ca.crt") == Some(&cluster.ca_pem)).then_some(())
    };
    cluster.wait("both", has_both).await;
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    let wrong = Patch::Merge(json!({ "data": { "ca.crt": "wrong" } }));
    maps.patch("kube-root-ca.crt", &PatchParams::default(), &wrong).await.unwrap();
    cluster.wait("both again", has_both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_takes_everything_with_it() {
    let cluster = Fixture::with_nodes(1).await;
    let namespaces = create_namespace(&cluster, "shop").await;
    let accounts = cluster.api::<ServiceAccount>("shop");
    cluster.wait("the account", || async { accounts.get_opt("default").await.unwrap() }).await;
    let web: Deployment = serde_json::from_value(deployment("web", 3, "v1")).unwrap();
    let deployments = cluster.api::<Deployment>("shop");
    deployments.create(&PostParams::default(), &web).await.unwrap();
    let is_available =
        |web: &Deployment| web.status.as_ref().is_some_and(|status| status.available_replicas == Some(3));
    cluster.wait("its pods", || async { deployments.get_opt("web").await.unwrap().filter(is_available) }).await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    cluster.wait("its end", || async { namespaces.get_opt("shop").await.unwrap().is_none().then_some(()) }).await;
    assert!(deployments.get_opt("web").await.unwrap().is_none());
}
