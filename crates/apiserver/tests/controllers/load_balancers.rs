use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use podnet_model::crd::IPAddressPool;
use serde_json::{Value, json};

use super::fixture::Fixture;

async fn create_pool(cluster: &Fixture, name: &str, addresses: Value) {
    cluster
        .wait("the definition of pools", || async {
            let pool = json!({ "metadata": { "name": name }, "spec": { "addresses": addresses } });
            let pool: IPAddressPool = serde_json::from_value(pool).unwrap();
            cluster.api::<IPAddressPool>("default").create(&Default::default(), &pool).await.ok()
        })
        .await;
}

async fn balanced(cluster: &Fixture, name: &str) -> Service {
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    cluster.create(json!({ "metadata": { "name": name }, "spec": spec })).await
}

fn addresses(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.iter().flat_map(|status| status.ingress.iter().flatten());
    ingress
        .map(|ingress| {
            format!("{} {}", ingress.ip.as_deref().unwrap_or_default(), ingress.ip_mode.as_deref().unwrap_or_default())
        })
        .collect()
}

async fn until_it_has(cluster: &Fixture, name: &str, wanted: &[&str]) {
    cluster.until::<Service>(name, &format!("{name} at {wanted:?}"), |service| addresses(service) == wanted).await;
}

async fn until_event(cluster: &Fixture, name: &str, reason: &str, part: &str) {
    let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
    cluster
        .wait(&format!("an event {reason}: {part}"), || async {
            let events = cluster.api::<Event>("default").list(&about).await.unwrap();
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
    let cluster = Fixture::with_nodes(0).await;
    balanced(&cluster, "one").await;
    until_event(&cluster, "one", "AllocationFailed", "Failed to allocate IP for \"default/one\": no IPAddressPool")
        .await;
    create_pool(&cluster, "first", json!(["192.0.2.1/32"])).await;
    until_it_has(&cluster, "one", &["192.0.2.1 VIP"]).await;
    until_event(&cluster, "one", "IPAllocated", "Assigned IP [\"192.0.2.1\"]").await;

    balanced(&cluster, "two").await;
    until_event(&cluster, "two", "AllocationFailed", "no available IPs").await;
    cluster.api::<Service>("default").delete("one", &DeleteParams::default()).await.unwrap();
    until_it_has(&cluster, "two", &["192.0.2.1 VIP"]).await;

    let plain = Patch::Merge(json!({ "spec": { "type": "ClusterIP" } }));
    let changed = cluster.api::<Service>("default").patch("two", &PatchParams::default(), &plain).await.unwrap();
    assert!(addresses(&changed).is_empty(), "with the type goes the address");
    balanced(&cluster, "three").await;
    until_it_has(&cluster, "three", &["192.0.2.1 VIP"]).await;

    create_pool(&cluster, "second", json!(["192.0.2.128/25", "2001:db8::/120"])).await;
    cluster.api::<IPAddressPool>("default").delete("first", &DeleteParams::default()).await.unwrap();
    until_it_has(&cluster, "three", &["192.0.2.128 VIP"]).await;
    let dual = Patch::Merge(json!({ "spec": { "ipFamilyPolicy": "RequireDualStack" } }));
    cluster.api::<Service>("default").patch("three", &PatchParams::default(), &dual).await.unwrap();
    until_it_has(&cluster, "three", &["192.0.2.128 VIP", "2001:db8:: VIP"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_its_way_out_keeps_its_address_until_it_is_gone() {
    let cluster = Fixture::with_nodes(0).await;
    create_pool(&cluster, "only", json!(["192.0.2.1/32"])).await;
    let metadata = json!({ "name": "one", "finalizers": ["example.com/wait"] });
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    cluster.create::<Service>(json!({ "metadata": metadata, "spec": spec })).await;
    until_it_has(&cluster, "one", &["192.0.2.1 VIP"]).await;
    cluster.api::<Service>("default").delete("one", &DeleteParams::default()).await.unwrap();

    balanced(&cluster, "two").await;
    until_event(&cluster, "two", "AllocationFailed", "no available IPs").await;
    let without = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    cluster.api::<Service>("default").patch("one", &PatchParams::default(), &without).await.unwrap();
    until_it_has(&cluster, "two", &["192.0.2.1 VIP"]).await;
}
