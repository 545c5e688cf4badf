use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use podnet_model::crd::IPAddressPool;
use serde_json::json;

use super::fixture::{Fixture, addresses};

pub(crate) async fn until_event(cluster: &Fixture, name: &str, reason: &str, part: &str) {
    let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
    cluster
        .wait(&format!("an event {reason}: {part}"), || async {
            let events = cluster.api::<Event>().list(&about).await.unwrap();
            let said = |event: &Event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_ref().is_some_and(|text| text.contains(part))
            };
            events.items.iter().any(said).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_waits_for_an_address_gets_it_and_gives_it_back() {
    let cluster = Fixture::start().await;
    let _agent = cluster.agent("node1");
    cluster.balanced("one").await;
    until_event(&cluster, "one", "AllocationFailed", "Failed to allocate IP for \"default/one\": no IPAddressPool")
        .await;
    cluster.create_pool("first", json!(["192.0.2.1/32"])).await;
    cluster.until_it_has("one", &["192.0.2.1 VIP"]).await;
    until_event(&cluster, "one", "IPAllocated", "Assigned IP [\"192.0.2.1\"]").await;

    cluster.balanced("two").await;
    until_event(&cluster, "two", "AllocationFailed", "no available IPs").await;
    cluster.api::<Service>().delete("one", &DeleteParams::default()).await.unwrap();
    cluster.until_it_has("two", &["192.0.2.1 VIP"]).await;

    let plain = Patch::Merge(json!({ "spec": { "type": "ClusterIP" } }));
    let changed = cluster.api::<Service>().patch("two", &PatchParams::default(), &plain).await.unwrap();
    assert!(addresses(&changed).is_empty(), "with the type goes the address");
    cluster.balanced("three").await;
    cluster.until_it_has("three", &["192.0.2.1 VIP"]).await;

    cluster.create_pool("second", json!(["192.0.2.128/25", "2001:db8::/120"])).await;
    cluster.api::<IPAddressPool>().delete("first", &DeleteParams::default()).await.unwrap();
    cluster.until_it_has("three", &["192.0.2.128 VIP"]).await;
    let dual = Patch::Merge(json!({ "spec": { "ipFamilyPolicy": "RequireDualStack" } }));
    cluster.api::<Service>().patch("three", &PatchParams::default(), &dual).await.unwrap();
    cluster.until_it_has("three", &["192.0.2.128 VIP", "2001:db8:: VIP"]).await;
    cluster
        .until::<IPAddressPool>("second", "a pool that counts what is given", |pool| {
            let status = pool.status.unwrap_or_default();
            let counted = (status.assigned_ipv4, status.available_ipv4, status.assigned_ipv6, status.available_ipv6);
            counted == (1, 127, 1, 255)
        })
        .await;
    cluster.assert_nothing_refused();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_its_way_out_keeps_its_address_until_it_is_gone() {
    let cluster = Fixture::start().await;
    let _agent = cluster.agent("node1");
    cluster.create_pool("only", json!(["192.0.2.1/32"])).await;
    let metadata = json!({ "name": "one", "finalizers": ["example.com/wait"] });
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    cluster.create::<Service>(json!({ "metadata": metadata, "spec": spec })).await;
    cluster.until_it_has("one", &["192.0.2.1 VIP"]).await;
    cluster.api::<Service>().delete("one", &DeleteParams::default()).await.unwrap();

    cluster.balanced("two").await;
    until_event(&cluster, "two", "AllocationFailed", "no available IPs").await;
    let without = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    cluster.api::<Service>().patch("one", &PatchParams::default(), &without).await.unwrap();
    cluster.until_it_has("two", &["192.0.2.1 VIP"]).await;
}
