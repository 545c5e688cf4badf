use axum::body::Body;
use http::{Request, StatusCode, header};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

async fn with_token(cluster: &Cluster, path: &str, token: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    cluster.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn nobody_is_anonymous() {
    let cluster = Cluster::start().await;
    for path in ["/version", "/readyz", "/api/v1/pods"] {
        let (status, refusal) = cluster.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((status, &refusal["reason"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")), "{path}");
    }
    assert_eq!(with_token(&cluster, "/version", "nonsense").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_service_account_has_a_token_while_it_exists_and_may_only_discover() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.create(accounts, json!({"metadata": {"name": "robot"}})).await;
    let request = json!({"spec": {"expirationSeconds": 600}});
    let answer = cluster.create(&format!("{accounts}/robot/token"), request).await;
    let token = answer["status"]["token"].as_str().unwrap();
    assert_eq!(with_token(&cluster, "/apis", token).await.0, StatusCode::OK);
    let (status, refusal) = with_token(&cluster, "/api/v1/namespaces/default/pods", token).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refusal["message"],
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" \
         in API group \"\" in the namespace \"default\""
    );
    cluster.call(http::Method::DELETE, &format!("{accounts}/robot"), None).await;
    cluster.create(accounts, json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(with_token(&cluster, "/apis", token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_node_with_its_certificate_writes_its_own_status_and_no_other() {
    let cluster = Cluster::start().await;
    for name in ["node1", "node2"] {
        cluster.create("/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    let client = cluster.client("system:node:node1", &["system:nodes"]).await;
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"status": {"phase": "Running"}}));
    nodes.patch_status("node1", &PatchParams::default(), &patch).await.unwrap();
    let refused = nodes.patch_status("node2", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    let pods: Api<Pod> = Api::all(client);
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let cluster = Cluster::start().await;
    let other = Cluster::start().await;
    let issued = other.pki.issue_client("admin", &["system:masters"]).unwrap();
    let url = format!("https://{}", cluster.address);
    let text = podnet_apiserver::kubeconfig(&url, cluster.pki.ca_pem(), &issued.cert_pem, &issued.key_pem);
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    assert!(client.apiserver_version().await.is_err());
}

#[tokio::test]
async fn people_may_ask_what_they_may_do() {
    let cluster = Cluster::start().await;
    let review = json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "nodes"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = cluster.create(path, review).await;
    assert_eq!(answer["status"]["allowed"], true);
}
