use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::fixture::{Fixture, addresses};

#[tokio::test(flavor = "multi_thread")]
async fn another_agent_takes_over_from_one_that_was_killed_and_reassigns_nothing() {
    let cluster = Fixture::start().await;
    cluster.create_pool("pool", json!(["192.0.2.0/28"])).await;
    let first = cluster.agent("node1");
    cluster.until_leads("node1").await;
    let _second = cluster.agent("node2");
    for (name, wanted) in [("a", "192.0.2.0 VIP"), ("b", "192.0.2.1 VIP"), ("c", "192.0.2.2 VIP")] {
        cluster.balanced(name).await;
        cluster.until_it_has(name, &[wanted]).await;
    }
    let before = cluster.api::<Service>().get("c").await.unwrap();
    drop(first);
    cluster.api::<Service>().delete("a", &DeleteParams::default()).await.unwrap();
    cluster.balanced("d").await;
    cluster.until_leads("node2").await;
    cluster.until_it_has("d", &["192.0.2.0 VIP"]).await;
    let after = cluster.api::<Service>().get("c").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "it was not even written");
    assert_eq!(addresses(&cluster.api::<Service>().get("b").await.unwrap()), ["192.0.2.1 VIP"]);
    assert!(cluster.lease().await.lease_transitions >= Some(1));
    cluster.assert_nothing_refused();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_the_api_does_not_answer_leaves_the_work_to_others() {
    let cluster = Fixture::start().await;
    cluster.create_pool("pool", json!(["192.0.2.0/28"])).await;
    let first = cluster.agent("node1");
    cluster.until_leads("node1").await;
    let second = cluster.agent("node2");
    first.cut_off(true);
    cluster.until_leads("node2").await;
    cluster.balanced("a").await;
    cluster.until_it_has("a", &["192.0.2.0 VIP"]).await;
    first.cut_off(false);
    cluster.balanced("b").await;
    cluster.until_it_has("b", &["192.0.2.1 VIP"]).await;
    second.standing.end().await;
    cluster.until_leads("node1").await;
    cluster.balanced("c").await;
    cluster.until_it_has("c", &["192.0.2.2 VIP"]).await;
    first.standing.end().await;
    cluster.until_leads("").await;
    cluster.assert_nothing_refused();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_and_is_back_goes_on_at_once_and_services_keep_what_they_have() {
    let cluster = Fixture::start().await;
    cluster.create_pool("pool", json!(["192.0.2.0/28"])).await;
    let agent = cluster.agent("node1");
    for (name, wanted) in [("a", "192.0.2.0 VIP"), ("b", "192.0.2.1 VIP")] {
        cluster.balanced(name).await;
        cluster.until_it_has(name, &[wanted]).await;
    }
    let before = cluster.lease().await;
    drop(agent);
    cluster.api::<Service>().delete("a", &DeleteParams::default()).await.unwrap();
    // Broken while nobody looks: what is of it can be told from no pool's.
    let broken = Patch::Merge(json!({ "spec": { "addresses": ["nonsense"] } }));
    let pools = cluster.api::<podnet_model::crd::IPAddressPool>();
    pools.patch("pool", &PatchParams::default(), &broken).await.unwrap();
    let _agent = cluster.agent("node1");
    cluster.balanced("c").await;
    cluster
        .wait("node1 again", || async { (cluster.lease().await.acquire_time != before.acquire_time).then_some(()) })
        .await;
    super::addresses::until_event(&cluster, "c", "AllocationFailed", "apply an IPAddressPool").await;
    let mended = Patch::Merge(json!({ "spec": { "addresses": ["192.0.2.0/28"] } }));
    pools.patch("pool", &PatchParams::default(), &mended).await.unwrap();
    cluster.until_it_has("c", &["192.0.2.0 VIP"]).await;
    cluster.until_it_has("b", &["192.0.2.1 VIP"]).await;
    assert_eq!(cluster.lease().await.lease_transitions, Some(0), "it was its own all the time");
    cluster.assert_nothing_refused();
}

#[tokio::test]
async fn what_was_decided_by_an_old_state_of_a_service_is_not_written() {
    let cluster = Fixture::start().await;
    let old = cluster.balanced("a").await;
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    cluster.api::<Service>().patch("a", &PatchParams::default(), &label).await.unwrap();
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": old.metadata.resource_version },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } },
    }));
    let written = cluster.api::<Service>().patch_status("a", &PatchParams::default(), &patch).await;
    assert!(matches!(written, Err(kube::Error::Api(status)) if status.code == 409));
}
