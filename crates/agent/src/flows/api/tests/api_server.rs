//! An API server of a few lines: whose a token is, and who may what.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::http::{Request, Response};
use kube::client::Body as Answer;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Who has which token: `here` and `elsewhere` are pods of a service account that may list nothing, `lister` may list the pods of `shop`, and
/// capture one of them, `web`, and run programs in it. `watcher` may see what passes devices of nodes, and what their kernels have. `agent` is another
/// node's, of node2.
/// What is asked of a token that begins with `slow` is not answered while the gate is closed.
#[derive(Debug)]
pub(super) struct ApiServer {
    pub(super) reviews: AtomicUsize,
    pub(super) gate: Semaphore,
    pub(super) is_away: AtomicBool,
    pub(super) forbids: AtomicBool,
}

impl ApiServer {
    pub(super) fn new() -> Self {
        Self {
            reviews: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            is_away: AtomicBool::new(false),
            forbids: AtomicBool::new(false),
        }
    }

    pub(super) async fn answer(&self, request: Request<Answer>) -> Response<Answer> {
        if self.is_away.load(Ordering::SeqCst) {
            return Response::builder().status(503).body(Answer::empty()).unwrap();
        }
        let is_token = request.uri().path().ends_with("/tokenreviews");
        let body = request.into_body().collect_bytes().await.unwrap();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        review["status"] = if is_token { self.owner(&review["spec"]).await } else { self.may(&review["spec"]) };
        Response::builder().status(201).body(Answer::from(review.to_string().into_bytes())).unwrap()
    }

    async fn owner(&self, spec: &Value) -> Value {
        self.reviews.fetch_add(1, Ordering::SeqCst);
        let token = spec["token"].as_str().unwrap();
        if token.starts_with("slow") {
            self.gate.acquire().await.unwrap().forget();
        }
        match token {
            "here" | "elsewhere" => json!({"authenticated": true, "user": {
                "username": "system:serviceaccount:web:default",
                "extra": {"authentication.kubernetes.io/pod-uid": [token]}}}),
            "agent" => json!({"authenticated": true, "user": {"username": token,
                "extra": {"authentication.kubernetes.io/node-name": ["node2"]}}}),
            "lister" | "watcher" => json!({"authenticated": true, "user": {"username": token}}),
            _ => json!({"authenticated": false}),
        }
    }

    fn may(&self, spec: &Value) -> Value {
        if self.forbids.load(Ordering::SeqCst) {
            return json!({"allowed": false});
        }
        let asked = &spec["resourceAttributes"];
        let is_meant = match asked["subresource"].as_str() {
            Some(subresource) => {
                [&asked["verb"], &asked["name"]] == ["create", "web"] && ["capture", "exec"].contains(&subresource)
            }
            None => asked["verb"] == "list",
        };
        let is_of_nodes = [("create", "capture"), ("get", "forwarding")]
            .iter()
            .any(|(verb, subresource)| asked["verb"] == *verb && asked["subresource"] == *subresource);
        let of_nodes = spec["user"] == "watcher" && asked["resource"] == "nodes" && is_of_nodes;
        let of_agents = spec["user"] == "agent"
            && [&asked["verb"], &asked["resource"], &asked["subresource"], &asked["name"]]
                == ["create", "nodes", "flows", "node1"];
        let of_pods = spec["user"] == "lister" && asked["namespace"] == "shop" && is_meant;
        json!({"allowed": of_pods || of_nodes || of_agents})
    }
}
