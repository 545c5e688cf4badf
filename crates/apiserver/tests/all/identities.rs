use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, Request, StatusCode, header};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use podnet_apiserver::auth::{Identity, NODES};
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
    cluster.call(Method::DELETE, &format!("{accounts}/robot"), None).await;
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

/// A request of a node.
async fn as_node(cluster: &Cluster, node: &str, method: Method, path: &str, body: Value) -> StatusCode {
    let identity = Identity::authenticated(format!("system:node:{node}"), vec![NODES.to_owned()]);
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    cluster.send(request.extension(identity).body(body).unwrap()).await.0
}

#[tokio::test]
async fn a_node_makes_its_own_node_and_lease_and_no_other() {
    let cluster = Cluster::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    for path in ["/api/v1/nodes", leases] {
        let named = |name: &str| json!({"metadata": {"name": name}});
        assert_eq!(as_node(&cluster, "node1", Method::POST, path, named("node2")).await, StatusCode::FORBIDDEN);
        let generated = json!({"metadata": {"generateName": "node"}});
        assert_eq!(as_node(&cluster, "node1", Method::POST, path, generated).await, StatusCode::FORBIDDEN);
        assert_eq!(as_node(&cluster, "node1", Method::POST, path, named("node1")).await, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn a_node_reads_the_secrets_of_its_own_pods_only() {
    let cluster = Cluster::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["mine", "theirs", "nobodys"] {
        cluster.create(secrets, json!({"metadata": {"name": name}})).await;
    }
    for (node, secret) in [("node1", "mine"), ("node2", "theirs")] {
        let pod = json!({"metadata": {"name": node}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}]}]}});
        cluster.create("/api/v1/namespaces/default/pods", pod).await;
    }
    for (name, wanted) in
        [("mine", StatusCode::OK), ("theirs", StatusCode::FORBIDDEN), ("nobodys", StatusCode::FORBIDDEN)]
    {
        let found = as_node(&cluster, "node1", Method::GET, &format!("{secrets}/{name}"), Value::Null).await;
        assert_eq!(found, wanted, "{name}");
    }
    for path in [secrets.to_owned(), "/api/v1/secrets".to_owned(), format!("{secrets}/mine?watch=true")] {
        assert_eq!(as_node(&cluster, "node1", Method::GET, &path, Value::Null).await, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_and_they_end_with_the_pod() {
    let cluster = Cluster::start().await;
    let token = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    cluster.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node1", "serviceAccountName": "robot",
        "containers": [{"name": "c", "image": "i"}]}});
    let uid = cluster.create(pods, pod).await["metadata"]["uid"].clone();
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let unbound = json!({"spec": {}});
    let nameless = json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    for (node, request, wanted) in [
        ("node1", &bound, StatusCode::CREATED),
        ("node1", &unbound, StatusCode::FORBIDDEN),
        ("node1", &nameless, StatusCode::FORBIDDEN),
        ("node2", &bound, StatusCode::FORBIDDEN),
    ] {
        assert_eq!(as_node(&cluster, node, Method::POST, token, request.clone()).await, wanted, "{node} {request}");
    }
    let answer = cluster.create(token, bound).await;
    let token = answer["status"]["token"].as_str().unwrap();
    assert_eq!(with_token(&cluster, "/apis", token).await.0, StatusCode::OK);
    cluster.call(Method::DELETE, &format!("{pods}/p?gracePeriodSeconds=0"), None).await;
    assert_eq!(with_token(&cluster, "/apis", token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_node_cannot_make_its_pods_belong_to_other_services() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "mine"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "i"}]}});
    let mut pod = cluster.create("/api/v1/namespaces/default/pods", pod).await;
    pod["metadata"]["labels"]["app"] = json!("bank");
    pod["metadata"]["annotations"] = json!({"cni.projectcalico.org/podIP": "10.0.0.1/32"});
    pod["status"]["podIP"] = json!("10.0.0.1");
    let path = "/api/v1/namespaces/default/pods/p";
    assert_eq!(as_node(&cluster, "node1", Method::PUT, &format!("{path}/status"), pod).await, StatusCode::OK);
    let (_, stored) = cluster.get(path).await;
    assert_eq!(stored["metadata"]["labels"], json!({"app": "mine"}));
    assert_eq!(stored["metadata"]["annotations"]["cni.projectcalico.org/podIP"], "10.0.0.1/32");
    assert_eq!(stored["status"]["podIP"], "10.0.0.1");
}

#[tokio::test]
async fn a_node_may_ask_whose_a_token_is_and_what_its_owner_may_see() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.create(accounts, json!({"metadata": {"name": "robot"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node1", "serviceAccountName": "robot",
        "containers": [{"name": "c", "image": "podnet.local/tools"}]}});
    let pod = cluster.create("/api/v1/namespaces/default/pods", pod).await;
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "p"}}});
    let claimed = |token: &Value| {
        let claims = URL_SAFE_NO_PAD.decode(token.as_str().unwrap().split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&claims).unwrap()["kubernetes.io"]["node"].clone()
    };
    let token = cluster.create(&format!("{accounts}/robot/token"), bound.clone()).await["status"]["token"].clone();
    assert_eq!(claimed(&token), Value::Null, "there is no such node");
    let node = cluster.create("/api/v1/nodes", json!({"metadata": {"name": "node1"}})).await;
    let token = cluster.create(&format!("{accounts}/robot/token"), bound).await["status"]["token"].clone();
    assert_eq!(claimed(&token), json!({"name": "node1", "uid": node["metadata"]["uid"]}));
    let (tokens, subjects) =
        ("/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    let review = |token: &Value, audience: &str| json!({"spec": {"token": token, "audiences": [audience]}});
    let own = "https://kubernetes.default.svc.cluster.local";
    let answer = cluster.create(tokens, review(&token, own)).await;
    let user = &answer["status"]["user"];
    assert_eq!(
        (&answer["status"]["authenticated"], &user["username"]),
        (&json!(true), &json!("system:serviceaccount:default:robot"))
    );
    let extra = |name: &str| user["extra"][format!("authentication.kubernetes.io/{name}")][0].clone();
    assert_eq!((extra("pod-name"), extra("node-name")), (json!("p"), json!("node1")));
    assert_eq!(extra("pod-uid"), pod["metadata"]["uid"]);
    for (token, audience) in [(&json!("nonsense"), own), (&token, "vault")] {
        let answer = cluster.create(tokens, review(token, audience)).await;
        assert_eq!((&answer["status"]["authenticated"], &answer["status"]["user"]), (&json!(false), &Value::Null));
    }
    let asked = |groups: Value| {
        json!({"spec": {"user": "somebody", "groups": groups,
            "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}})
    };
    for (groups, allowed) in [(json!(["system:masters"]), true), (json!([]), false)] {
        assert_eq!(cluster.create(subjects, asked(groups)).await["status"]["allowed"], allowed);
    }
    for path in [tokens, subjects] {
        assert_eq!(as_node(&cluster, "node1", Method::POST, path, json!({"spec": {}})).await, StatusCode::CREATED);
    }
    let token = token.as_str().unwrap();
    let request = Request::post(tokens).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from("{}")).unwrap();
    assert_eq!(cluster.send(request).await.0, StatusCode::FORBIDDEN, "a service account asks of nobody");
}
