//! Everything that an agent asks of the API server, done by the account of `podnet manifests`.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Event, Node, Pod, Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use podnet_client::{
    apply,
    blocks::{Blocks, Claim},
    events::{Complaints, warn_of_pod},
    node,
    watch::{Interest, PodInterest, ProxySource, Update, watch},
};
use podnet_model::{BlockCidr, Change, Dual, Namespace, NodeName, PodKey, crd, pod::StickyOwner};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_roles_allow_all_that_an_agent_does() {
    let cluster = Fixture::start().await;
    for definition in crd::definitions() {
        apply::create_or_replace_definition(&cluster.client, definition).await.unwrap();
    }
    let name = NodeName::from("node1");
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": "node1" }, "status": {
        "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }] } }))
    .unwrap();
    Api::all(cluster.client.clone()).create(&PostParams::default(), &node).await.unwrap();
    cluster
        .create::<Pod>(json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "node1",
            "containers": [{ "name": "c", "image": "i" }] } }))
        .await;
    let client = cluster.restricted(std::sync::Arc::default());

    let complaints = Complaints::new(client.clone(), name.clone());
    let interest = Interest {
        proxy: ProxySource::ConfigMap,
        complaints: Some(complaints.clone()),
        nodes: true,
        pods: PodInterest::OnNode(name.clone()),
        services: true,
        slices: true,
        pools: true,
        address_pools: true,
        blocks: true,
        ipam: true,
        ways: true,
        ..Interest::default()
    };
    let mut updates = watch(client.clone(), interest);
    let synced = async { while updates.recv().await.is_some_and(|update| update != Update::Synced) {} };
    if timeout(Duration::from_secs(60), synced).await.is_err() {
        cluster.assert_nothing_refused();
        panic!("not everything can be listed");
    }

    assert!(node::internal_ips(&client, &name).await.v4.is_some());
    node::publish_network(&client, &name, Dual::default()).await.unwrap();
    node::publish_annotations(&client, &name, &BTreeMap::from([("a", Some("b".to_owned()))])).await.unwrap();
    let (pod, addr) = (PodKey::new("default", "p"), "10.244.0.1".parse().unwrap());
    node::publish_pod_address(&client, &pod, "", &[addr]).await.unwrap();
    for uid in ["one", "other"] {
        let owner = StickyOwner { name: "s".into(), uid: uid.into() };
        node::publish_sticky_address(&client, &pod, &owner, &[addr]).await.unwrap();
    }
    warn_of_pod(&client, &name, (&pod, "u"), "Test", "a pod").await.unwrap();

    let (blocks, cidr) = (Blocks::new(client.clone(), name.clone()), BlockCidr("10.244.0.0/26".parse().unwrap()));
    assert_eq!(blocks.claim(cidr, 64).await.unwrap(), Claim::Ours);
    let touched = blocks.publish(cidr, 64, |spec| !std::mem::replace(&mut spec.strict_affinity, true));
    assert_eq!(touched.await.unwrap(), Claim::Ours);
    assert!(blocks.exists(&name).await.unwrap() && !blocks.exists(&"node7".into()).await.unwrap());
    blocks.give_up(cidr).await.unwrap();

    cluster.create::<Service>(json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80 }] } })).await;
    complaints.tell_of::<Service>(&Namespace::from("default"), "s", "Test", "a Service".to_owned());
    cluster
        .wait("events", || async {
            let events = cluster.api::<Event>().list(&ListParams::default()).await.unwrap();
            let about =
                |kind: &str| events.items.iter().any(|event| event.involved_object.kind.as_deref() == Some(kind));
            (about("Service") && about("Pod")).then_some(())
        })
        .await;
    cluster.assert_nothing_refused();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_roles_allow_nothing_else() {
    let cluster = Fixture::start().await;
    let client = cluster.restricted(std::sync::Arc::default());
    let list = |path: &str| client.request::<Value>(http::Request::get(path).body(Vec::new()).unwrap());
    for path in [
        "/api/v1/secrets",
        "/api/v1/configmaps",
        "/api/v1/namespaces/kube-system/configmaps/another",
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases/podnet-load-balancers",
    ] {
        let refused = list(path).await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_address_pools_is_complete_and_hears_of_them_once_they_are_defined() {
    let cluster = Fixture::start().await;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let name = "ipaddresspools.metallb.io";
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    cluster
        .wait("the definition to be gone", || async {
            let listed = cluster.api::<crd::IPAddressPool>().list(&ListParams::default()).await;
            matches!(listed, Err(kube::Error::Api(status)) if status.code == 404).then_some(())
        })
        .await;
    let interest = Interest { address_pools: true, services: true, ..Interest::default() };
    let mut updates = watch(cluster.restricted(std::sync::Arc::default()), interest);
    let mut next = async |wanted: fn(&Update) -> bool, what: &str| {
        let heard = async { while updates.recv().await.is_some_and(|update| !wanted(&update)) {} };
        timeout(Duration::from_secs(60), heard).await.expect(what);
    };
    next(|update| *update == Update::Synced, "the state is complete without them").await;
    let mut definition = crd::balancer_definitions();
    definition.retain(|definition| definition.metadata.name.as_deref() == Some(name));
    apply::create_or_replace_definition(&cluster.client, definition.remove(0)).await.unwrap();
    cluster.create_pool("late", json!(["192.0.2.0/28"])).await;
    next(|update| matches!(update, Update::Change(Change::AddressPool(_, Some(_)))), "the pool").await;
}
