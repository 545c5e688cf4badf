use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use podnet_apiserver::api::{DeleteOptions, Part, Place, WriteOptions};
use podnet_apiserver::patch::PatchKind;
use serde_json::{Value, json};

use super::cluster::Cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn node_port(name: &str, number: u16) -> Value {
    let ports = json!([{ "port": 80, "nodePort": number }]);
    json!({ "metadata": { "name": name }, "spec": { "type": "NodePort", "ports": ports } })
}

/// Waits until a Service can have the node port.
async fn until_free(cluster: &Cluster, number: u16) {
    let began = Instant::now();
    let body = node_port(&format!("port-{number}"), number);
    loop {
        let (status, answer) = cluster.call(Method::POST, SERVICES, Some(body.clone())).await;
        if status == StatusCode::CREATED {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_request_frees_is_free_though_its_client_goes_away() {
    let cluster = Cluster::start().await;
    cluster.create(SERVICES, node_port("one", 30080)).await;
    let resource = cluster.api.registry().builtin("", "services");
    let at = Place { resource: &resource, namespace: "default", name: "one" };

    // A client goes as soon as the write is under way.
    let patch = json!({ "spec": { "ports": [{ "port": 80, "nodePort": 30081 }] } });
    let mut change = Box::pin(cluster.api.patch(&at, Part::Main, PatchKind::JsonMerge, patch, WriteOptions::default()));
    assert!(futures::poll!(&mut change).is_pending());
    drop(change);
    until_free(&cluster, 30080).await;

    let options = DeleteOptions::default();
    let mut deletion = Box::pin(cluster.api.delete(&at, &options));
    assert!(futures::poll!(&mut deletion).is_pending());
    drop(deletion);
    until_free(&cluster, 30081).await;
}
