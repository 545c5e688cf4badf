//! Requests that are meant to do harm.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::Cluster;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn numbers_beyond_all_bounds_are_bounded_or_refused() {
    let cluster = Cluster::start().await;
    let (max, over) = (u64::MAX, "18446744073709551616");
    let (_, line) = cluster.get(&format!("{CONFIGMAPS}?watch=true&timeoutSeconds={max}&resourceVersion={max}")).await;
    assert_eq!(line["object"]["code"], 410);
    assert_eq!(cluster.get(&format!("{CONFIGMAPS}?limit={max}")).await.0, StatusCode::OK);
    for wrong in [format!("limit={over}"), "limit=-1".to_owned(), format!("resourceVersion={over}")] {
        assert_eq!(cluster.get(&format!("{CONFIGMAPS}?{wrong}")).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(cluster.get(&format!("{CONFIGMAPS}?resourceVersion={max}")).await.0, StatusCode::GONE);
    for token in ["", "%00", "e30", "bm90IGpzb24", "eyJydiI6LTEsIm5zIjoiIiwibmFtZSI6IiJ9"] {
        let (status, _) = cluster.get(&format!("{CONFIGMAPS}?limit=1&continue={token}")).await;
        let wanted = if token.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(status, wanted, "{token}");
    }
}

#[tokio::test]
async fn names_that_are_paths_name_nothing() {
    let cluster = Cluster::start().await;
    for name in ["..", "a/b", "../../etc/passwd", "a%2Fb", "A", "a\u{0}b"] {
        let (status, _) = cluster.call(Method::POST, CONFIGMAPS, Some(json!({"metadata": {"name": name}}))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name:?}");
    }
    for path in ["%2e%2e", "..%2f..%2fsecrets", "a%00b", "%ff", "%"] {
        assert_eq!(cluster.get(&format!("{CONFIGMAPS}/{path}")).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(cluster.get("/api/v1/namespaces//configmaps").await.1["items"], json!([]));
}

#[tokio::test]
async fn values_of_the_wrong_kind_are_refused_wherever_they_are() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "robot"}});
    cluster.create("/api/v1/namespaces/default/serviceaccounts", account).await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "c"}})).await;
    let wrong = [json!("text"), json!(1), json!(["list"]), json!(true)];
    for value in &wrong {
        for (method, path, body) in [
            (Method::POST, "/api/v1/namespaces/default/serviceaccounts/robot/token", json!({"spec": value})),
            (Method::POST, CONFIGMAPS, json!({"metadata": value})),
            (Method::POST, CONFIGMAPS, json!({"metadata": {"name": "x", "labels": value}})),
            (Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "x"}, "spec": value})),
            (Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "x", "labels": value}})),
            (Method::POST, "/api/v1/namespaces/default/pods", json!({"metadata": {"name": "x"}, "spec": value})),
            (Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "x"}, "status": value})),
            (Method::PATCH, &*format!("{CONFIGMAPS}/c"), json!({"metadata": value})),
            (Method::PATCH, &*format!("{CONFIGMAPS}/c"), json!({"metadata": {"finalizers": [value, 2]}})),
        ] {
            let (status, answer) = cluster.call(method, path, Some(body.clone())).await;
            assert!(status.is_client_error(), "{path} {body}: {status} {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_nested_without_end_is_refused() {
    let cluster = Cluster::start().await;
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    for content_type in ["application/json", "application/yaml"] {
        let request = http::Request::post(CONFIGMAPS)
            .header("content-type", content_type)
            .extension(podnet_apiserver::auth::Identity::in_process())
            .body(axum::body::Body::from(format!("{{\"metadata\": {deep}}}")));
        assert_eq!(cluster.send(request.unwrap()).await.0, StatusCode::BAD_REQUEST, "{content_type}");
    }
}

#[tokio::test]
async fn an_object_that_grows_by_patches_stops_at_the_limit() {
    let cluster = Cluster::start().await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "c"}})).await;
    let mut refused = 0;
    for n in 0..4 {
        let patch: Value = json!({"data": {format!("k{n}"): "x".repeat(900 << 10)}});
        let (status, _) = cluster.call(Method::PATCH, &format!("{CONFIGMAPS}/c"), Some(patch)).await;
        refused += usize::from(status.is_client_error());
    }
    assert!(refused > 0, "a ConfigMap grew to 3.6 MiB");
}

#[tokio::test]
async fn an_address_has_a_limited_number_of_silent_connections_and_clients_with_certificates_stay() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    admin.apiserver_version().await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(cluster.address).await.unwrap());
    }
    // Those beyond the limit are closed at once, the others when they did not shake hands in time.
    let closed = async {
        let mut last = silent.pop().unwrap();
        let _ = last.write_all(b"x").await;
        last.read(&mut [0; 1]).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the last one is closed");
    assert!(matches!(ended, Ok(0) | Err(_)));
    admin.apiserver_version().await.unwrap();
    drop(silent);
    let newcomer = async {
        while cluster.admin().await.apiserver_version().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), newcomer).await.expect("others are served again");
}
