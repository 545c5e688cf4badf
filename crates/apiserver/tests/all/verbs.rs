use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use podnet_apiserver::auth::Identity;
use serde_json::{Value, json};

use super::cluster::Cluster;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[allow(clippy::needless_pass_by_value, reason = "reads better")]
fn configmap(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

#[tokio::test]
async fn a_new_object_gets_uid_time_and_revision_and_is_found() {
    let cluster = Cluster::start().await;
    let created = cluster.create(CONFIGMAPS, configmap("a", json!({}))).await;
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(created["metadata"][field].is_string(), "{field}");
    }
    let (status, found) = cluster.get(&format!("{CONFIGMAPS}/a")).await;
    assert_eq!((status, &found), (StatusCode::OK, &created));
    let (status, refusal) = cluster.call(Method::POST, CONFIGMAPS, Some(configmap("a", json!({})))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(refusal["message"], "configmaps \"a\" already exists");
    assert_eq!(refusal["reason"], "AlreadyExists");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let cluster = Cluster::start().await;
    let (status, refusal) = cluster.get(&format!("{DEPLOYMENTS}/nope")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(refusal["message"], "deployments.apps \"nope\" not found");
    assert_eq!(refusal["details"], json!({"name": "nope", "group": "apps", "kind": "deployments"}));
    let (status, _) = cluster.get("/api/v1/namespaces/default/dinosaurs").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_generated_name_begins_with_its_prefix() {
    let cluster = Cluster::start().await;
    let object = json!({"metadata": {"generateName": "web-"}});
    let created = cluster.create(CONFIGMAPS, object).await;
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == "web-".len() + 5, "{name}");
}

#[tokio::test]
async fn an_object_needs_a_namespace_that_exists() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/nope/configmaps";
    let (status, refusal) = cluster.call(Method::POST, path, Some(configmap("a", json!({})))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(refusal["message"], "namespaces \"nope\" not found");
}

#[tokio::test]
async fn an_update_at_an_old_revision_is_refused() {
    let cluster = Cluster::start().await;
    let first = cluster.create(CONFIGMAPS, configmap("a", json!({}))).await;
    let path = format!("{CONFIGMAPS}/a");
    let mut changed = first.clone();
    changed["data"]["a"] = json!("2");
    let (status, _) = cluster.call(Method::PUT, &path, Some(changed)).await;
    assert_eq!(status, StatusCode::OK);
    let mut late = first.clone();
    late["data"]["a"] = json!("3");
    let (status, refusal) = cluster.call(Method::PUT, &path, Some(late)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(refusal["message"].as_str().unwrap().contains("the object has been modified"));
}

#[tokio::test]
async fn a_change_that_changes_nothing_keeps_the_revision() {
    let cluster = Cluster::start().await;
    let first = cluster.create(DEPLOYMENTS, deployment("web")).await;
    let (_, second) =
        cluster.call(Method::PATCH, &format!("{DEPLOYMENTS}/web"), Some(json!({"spec": {"replicas": 1}}))).await;
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["generation"], 1);
}

#[tokio::test]
async fn a_change_of_the_desired_state_counts_as_a_generation_and_a_status_does_not() {
    let cluster = Cluster::start().await;
    cluster.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let (_, changed) =
        cluster.call(Method::PATCH, &path, Some(json!({"spec": {"replicas": 2}, "status": {"replicas": 9}}))).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert!(changed["status"]["replicas"].is_null());
    let status_path = format!("{path}/status");
    let patch = json!({"spec": {"replicas": 5}, "status": {"replicas": 2}});
    let (_, changed) = cluster.call(Method::PATCH, &status_path, Some(patch)).await;
    assert_eq!(changed["spec"]["replicas"], 2);
    assert_eq!(changed["status"]["replicas"], 2);
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_deployment_is_scaled_through_its_scale() {
    let cluster = Cluster::start().await;
    cluster.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let (_, scale) = cluster.get(&path).await;
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"]["selector"], "app=web");
    let (status, scale) = cluster.call(Method::PATCH, &path, Some(json!({"spec": {"replicas": 3}}))).await;
    assert_eq!(status, StatusCode::OK, "{scale}");
    let (_, object) = cluster.get(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(object["spec"]["replicas"], 3);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let cluster = Cluster::start().await;
    cluster.create(&format!("{CONFIGMAPS}?dryRun=All"), configmap("a", json!({}))).await;
    let (status, _) = cluster.get(&format!("{CONFIGMAPS}/a")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_is_bound_to_a_node_once() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node1"}});
    cluster.create(&format!("{PODS}/p/binding"), binding.clone()).await;
    let (_, bound) = cluster.get(&format!("{PODS}/p")).await;
    assert_eq!(bound["spec"]["nodeName"], "node1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (status, _) = cluster.call(Method::POST, &format!("{PODS}/p/binding"), Some(binding)).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn services_get_addresses_and_give_them_back() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.233.7.7", "ports": [{"port": 80}]}});
    let created = cluster.create(path, service.clone()).await;
    assert!(created["spec"]["ports"][0]["nodePort"].is_u64());
    let mut other = service.clone();
    other["metadata"]["name"] = json!("t");
    let (status, refusal) = cluster.call(Method::POST, path, Some(other.clone())).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refusal["message"].as_str().unwrap().contains("spec.clusterIP"), "{refusal}");
    cluster.call(Method::DELETE, &format!("{path}/s"), None).await;
    cluster.create(path, other).await;
    let (_, kubernetes) = cluster.get(&format!("{path}/kubernetes")).await;
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.233.0.1");
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let cluster = Cluster::start().await;
    for n in 0..5 {
        let color = if n % 2 == 0 { "red" } else { "blue" };
        cluster.create(CONFIGMAPS, configmap(&format!("c{n}"), json!({"color": color}))).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, red) = cluster.get(&format!("{CONFIGMAPS}?labelSelector=color%3Dred")).await;
    assert_eq!(names(&red), ["c0", "c2", "c4"]);
    assert_eq!(red["kind"], "ConfigMapList");
    let (_, one) = cluster.get(&format!("{CONFIGMAPS}?fieldSelector=metadata.name%3Dc3")).await;
    assert_eq!(names(&one), ["c3"]);
    let (_, first) = cluster.get(&format!("{CONFIGMAPS}?limit=3")).await;
    assert_eq!(names(&first), ["c0", "c1", "c2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = cluster.get(&format!("{CONFIGMAPS}?limit=3&continue={token}")).await;
    assert_eq!(names(&second), ["c3", "c4"]);
    assert!(second["metadata"]["continue"].is_null());
}

async fn accepting(cluster: &Cluster, path: &str, accept: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header(header::ACCEPT, accept).extension(Identity::in_process());
    cluster.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn tables_and_metadata_are_served_to_those_who_ask() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIGMAPS, configmap("a", json!({}))).await;
    let (_, table) =
        accepting(&cluster, CONFIGMAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, list) = accepting(&cluster, CONFIGMAPS, accept).await;
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert!(list["items"][0]["data"].is_null());
    let (status, _) = accepting(&cluster, CONFIGMAPS, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn unknown_fields_are_never_stored_and_refused_when_strictness_is_asked_for() {
    let cluster = Cluster::start().await;
    let mut wrong = deployment("web");
    wrong["spec"]["replcas"] = json!(2);
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = json!("x");
    let strict = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let (status, refusal) = cluster.call(Method::POST, &strict, Some(wrong.clone())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refusal["message"].as_str().unwrap().contains("unknown field \"spec.replcas\""), "{refusal}");
    let created = cluster.create(DEPLOYMENTS, wrong).await;
    assert!(created["spec"]["replcas"].is_null());
    assert!(created["spec"]["template"]["spec"]["containers"][0]["imagee"].is_null());
}

#[tokio::test]
async fn a_body_may_be_yaml_but_not_protobuf_of_an_unknown_kind_nor_too_large() {
    let cluster = Cluster::start().await;
    let post = |content_type: &'static str, body: Body| {
        let request = Request::post(CONFIGMAPS).header(header::CONTENT_TYPE, content_type);
        request.extension(Identity::in_process()).body(body).unwrap()
    };
    let (status, _) = cluster.send(post("application/yaml", Body::from("metadata: {name: y}\ndata: {a: b}\n"))).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, _) = cluster.send(post("application/vnd.kubernetes.protobuf", Body::from("k8s\0"))).await;
    assert_ne!(status, StatusCode::CREATED);
    let (status, refusal) = cluster.send(post("application/json", Body::from(vec![b' '; 4 << 20]))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{refusal}");
}

#[tokio::test]
async fn both_kinds_of_events_are_one() {
    let cluster = Cluster::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Binding", "reason": "Scheduled",
        "reportingController": "podnet", "reportingInstance": "i", "type": "Normal", "note": "assigned",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    cluster.create("/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    let (_, core) = cluster.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp").await;
    assert_eq!(core["items"][0]["message"], "assigned");
    let (_, new) = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    assert_eq!(new["note"], "assigned");
    assert_eq!(new["apiVersion"], "events.k8s.io/v1");
}
