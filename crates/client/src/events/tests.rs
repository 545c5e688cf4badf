use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Service;
use kube::client::Body;
use serde_json::Value;

use super::*;

/// An API server that has every Service, and notes which events it was sent.
#[derive(Clone, Default)]
struct Server {
    events: Arc<Mutex<Vec<Value>>>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    version: Arc<AtomicUsize>,
}

impl Server {
    fn complaints(&self, node: &str) -> Complaints {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| server.clone().answer(request));
        Complaints::new(Client::new(service, "default"), node.into())
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, http::Error> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let (parts, body) = request.into_parts();
        let text = if parts.method == Method::POST {
            let event: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
            self.events.lock().unwrap().push(event.clone());
            event
        } else {
            let name = parts.uri.path().rsplit('/').next().unwrap();
            let version = self.version.fetch_add(1, Ordering::SeqCst).to_string();
            json!({"kind": "Service", "apiVersion": "v1", "metadata": {
                "name": name, "namespace": "shop", "uid": name, "resourceVersion": version}})
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Response::builder().status(200).body(Body::from(text.to_string().into_bytes()))
    }

    /// The names of the events, once there are so many.
    async fn names(&self, count: usize) -> Vec<String> {
        let names = || -> Vec<String> {
            self.events
                .lock()
                .unwrap()
                .iter()
                .map(|event| event["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let enough = async {
            while names().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), enough).await.expect("events");
        names()
    }
}

#[tokio::test]
async fn a_fact_of_the_cluster_is_one_event_whoever_tells_it() {
    let (server, shop) = (Server::default(), Namespace::from("shop"));
    for (node, message) in [("node1", "a has it"), ("node2", "a has it"), ("node1", "b has it")] {
        let fact = "192.0.2.1:80".to_owned();
        server.complaints(node).tell_fact::<Service>((&shop, "web"), "NotServed", message.to_owned(), fact);
    }
    let mut names = server.names(3).await;
    names.dedup();
    assert_eq!(names.len(), 1, "{names:?}");
    let other = "192.0.2.2:80".to_owned();
    server.complaints("node1").tell_fact::<Service>((&shop, "web"), "NotServed", String::new(), other);
    assert_ne!(server.names(4).await[3], names[0]);
}

#[tokio::test]
async fn few_events_are_written_at_once_and_not_all_of_very_many() {
    let (server, shop) = (Server::default(), Namespace::from("shop"));
    let complaints = server.complaints("node1");
    for number in 0..1000 {
        complaints.tell_of::<Service>(&shop, &format!("s{number}"), "NotServed", "no".to_owned());
    }
    assert_eq!(server.names(WAITING).await.len(), WAITING);
    let most = server.most.load(Ordering::SeqCst);
    assert!((1..=AT_ONCE).contains(&most), "{most}");
    let idle = async {
        while complaints.waiting.available_permits() < WAITING {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), idle).await.expect("room again");
    complaints.tell_of::<Service>(&shop, "later", "NotServed", "no".to_owned());
    assert!(server.names(WAITING + 1).await[WAITING].starts_with("later."));
}
