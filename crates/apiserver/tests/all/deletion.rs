use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::cluster::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod(name: &str, node: Option<&str>) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
}

async fn delete(cluster: &Cluster, path: &str, options: Option<Value>) -> (StatusCode, Value) {
    cluster.call(Method::DELETE, path, options).await
}

#[tokio::test]
async fn a_running_pod_gets_time_and_goes_when_its_node_says_so() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("p", Some("node1"))).await;
    let path = format!("{PODS}/p");
    let (status, marked) = delete(&cluster, &path, None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let (_, answer) = delete(&cluster, &path, Some(json!({"gracePeriodSeconds": 0}))).await;
    assert_eq!(answer["status"], "Success");
    assert_eq!(cluster.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_that_no_node_has_goes_at_once() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("p", None)).await;
    delete(&cluster, &format!("{PODS}/p"), None).await;
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_finalizer_keeps_an_object_until_it_is_removed() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "c", "finalizers": ["example.org/wait"]}})).await;
    let path = format!("{CONFIGMAPS}/c");
    let (_, marked) = delete(&cluster, &path, None).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["example.org/wait", "example.org/more"]}});
    let (status, _) = cluster.call(Method::PATCH, &path, Some(more)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    cluster.call(Method::PATCH, &path, Some(json!({"metadata": {"finalizers": null}}))).await;
    assert_eq!(cluster.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_propagation_policy_is_kept_for_the_garbage_collector() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "c"}})).await;
    let options = json!({"propagationPolicy": "Foreground"});
    let (_, marked) = delete(&cluster, &format!("{CONFIGMAPS}/c"), Some(options)).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_deletion_of_another_object_with_the_same_name_is_refused() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "c"}})).await;
    let options = json!({"preconditions": {"uid": "another"}});
    let (status, _) = delete(&cluster, &format!("{CONFIGMAPS}/c"), Some(options)).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let cluster = Cluster::start().await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        cluster.create(CONFIGMAPS, json!({"metadata": {"name": name, "labels": {"color": color}}})).await;
    }
    let (status, deleted) = delete(&cluster, &format!("{CONFIGMAPS}?labelSelector=color%3Dred"), None).await;
    assert_eq!((status, deleted["items"].as_array().unwrap().len()), (StatusCode::OK, 1));
    assert_eq!(cluster.get(&format!("{CONFIGMAPS}/b")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_namespace_terminates_refuses_content_and_goes_when_finalized() {
    let cluster = Cluster::start().await;
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    let (_, marked) = delete(&cluster, "/api/v1/namespaces/n", None).await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert_eq!(marked["spec"]["finalizers"], json!(["kubernetes"]));
    let object = json!({"metadata": {"name": "c"}});
    let (status, refusal) = cluster.call(Method::POST, "/api/v1/namespaces/n/configmaps", Some(object)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refusal["message"],
        "configmaps \"c\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    let mut finalized = marked.clone();
    finalized["spec"]["finalizers"] = json!([]);
    let (status, _) = cluster.call(Method::PUT, "/api/v1/namespaces/n/finalize", Some(finalized)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(cluster.get("/api/v1/namespaces/n").await.0, StatusCode::NOT_FOUND);
}
