//! A node and an API server in memory, which has this one Node.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{channel::mpsc, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::serde_json::{Value, from_value, to_vec};
use kube::client::Body;

use super::*;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    node: Option<Value>,
    version: u64,
    lease: bool,
    watch: Option<mpsc::Sender<Bytes>>,
}

/// What of the API a registration needs.
#[derive(Clone, Default)]
struct Server {
    state: Arc<Mutex<State>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body: Value =
            k8s_openapi::serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let path = parts.uri.path();
        if path.starts_with("/apis/coordination.k8s.io/") {
            self.state.lock().unwrap().lease = true;
            return said(StatusCode::OK, &json!({ "metadata": { "name": "node1" } }));
        }
        let query = parts.uri.query().unwrap_or_default();
        match (parts.method, path) {
            (Method::GET, "/api/v1/nodes") if query.contains("watch=") => {
                let (sender, lines) = mpsc::channel(16);
                self.state.lock().unwrap().watch = Some(sender);
                let frames = futures::StreamExt::map(lines, |line| Ok(Frame::data(line)));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            (Method::GET, "/api/v1/nodes") => {
                let state = self.state.lock().unwrap();
                let items: Vec<&Value> = state.node.iter().collect();
                let version = state.version.to_string();
                said(StatusCode::OK, &json!({ "metadata": { "resourceVersion": version }, "items": items }))
            }
            (Method::GET, _) => match &self.state.lock().unwrap().node {
                Some(node) => said(StatusCode::OK, node),
                None => missing(),
            },
            (Method::POST, _) => {
                let uid = format!("uid-{}", self.state.lock().unwrap().version);
                self.change("ADDED", |node| {
                    *node = Some(body);
                    node.as_mut().unwrap()["metadata"]["uid"] = json!(uid);
                })
            }
            (Method::PATCH, _) => self.change("MODIFIED", |node| {
                if let (Some(node), Some(status)) = (node.as_mut(), body.get("status")) {
                    node["status"] = status.clone();
                }
            }),
            (method, path) => panic!("{method} {path} is not asked by a node"),
        }
    }

    fn change(&self, kind: &str, change: impl FnOnce(&mut Option<Value>)) -> Response<Answer> {
        let mut state = self.state.lock().unwrap();
        change(&mut state.node);
        state.version += 1;
        let version = state.version.to_string();
        let Some(node) = state.node.as_mut() else { return missing() };
        node["metadata"]["resourceVersion"] = json!(version);
        let node = node.clone();
        state.tell(kind, &node);
        said(StatusCode::OK, &node)
    }

    /// Deletes the Node object.
    fn delete(&self) {
        let mut state = self.state.lock().unwrap();
        let node = state.node.take().unwrap();
        state.version += 1;
        state.tell("DELETED", &node);
    }

    fn break_watch(&self) {
        self.state.lock().unwrap().watch = None;
    }

    fn node(&self) -> Option<Node> {
        self.state.lock().unwrap().node.clone().map(|node| from_value(node).unwrap())
    }

    fn is_ready(&self) -> bool {
        let ready = |status: NodeStatus| {
            status.conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
        };
        self.node().and_then(|node| node.status).is_some_and(ready)
    }

    /// As the node lifecycle controller does with a node that was silent.
    fn mark_as_lost(&self) {
        self.change("MODIFIED", |node| {
            for condition in node.as_mut().unwrap()["status"]["conditions"].as_array_mut().unwrap() {
                condition["status"] = json!("Unknown");
            }
        });
    }
}

impl State {
    fn tell(&mut self, kind: &str, node: &Value) {
        let line = to_vec(&json!({ "type": kind, "object": node })).unwrap();
        if let Some(watch) = &mut self.watch {
            let _ = watch.try_send([line, b"\n".to_vec()].concat().into());
        }
    }
}

fn said(status: StatusCode, value: &Value) -> Response<Answer> {
    let frame = Ok(Frame::data(Bytes::from(to_vec(value).unwrap())));
    let body = StreamBody::new(stream::iter([frame])).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn missing() -> Response<Answer> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404 });
    said(StatusCode::NOT_FOUND, &status)
}

async fn eventually(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct RunningNode {
    server: Server,
    task: tokio::task::JoinHandle<()>,
    _network: watch::Sender<NetworkState>,
}

impl RunningNode {
    async fn start() -> Self {
        let conflist = from_value(json!({ "cniVersion": "1.0.0", "name": "n", "plugins": [{ "type": "t" }] })).unwrap();
        let (sender, network) = watch::channel(NetworkState::Ready(Arc::new(conflist)));
        let server = Server::default();
        let task = tokio::spawn(keep(server.client(), config(), network));
        let node = Self { server, task, _network: sender };
        eventually("the node is ready", || node.server.is_ready()).await;
        node
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config() -> NodeConfig {
    let path = std::path::PathBuf::new;
    NodeConfig {
        node_name: "node1".into(),
        node_address: "172.29.0.11".parse().unwrap(),
        other_address: None,
        kubeconfig: path(),
        state_dir: path(),
        run_dir: path(),
        cni_bin_dirs: vec![],
        cgroup_root: path(),
        podnet_binary: path(),
        serving_certificate: path(),
        serving_key: path(),
        client_ca: path(),
        cluster_dns: "10.233.0.10".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        labels: std::collections::BTreeMap::new(),
        resolv_conf: path(),
        max_pods: 1,
        image_dir: path(),
    }
}

#[tokio::test]
async fn a_node_that_was_marked_as_lost_says_at_once_that_it_is_ready() {
    let node = RunningNode::start().await;
    eventually("the lease is there", || node.server.state.lock().unwrap().lease).await;
    eventually("the node is watched", || node.server.state.lock().unwrap().watch.is_some()).await;
    let since = Instant::now();
    node.server.mark_as_lost();
    eventually("it is ready again", || node.server.is_ready()).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_node_without_a_watch_sees_it_at_the_next_renewal() {
    let node = RunningNode::start().await;
    eventually("the node is watched", || node.server.state.lock().unwrap().watch.is_some()).await;
    node.server.break_watch();
    node.server.mark_as_lost();
    eventually("it is ready again", || node.server.is_ready()).await;
}

#[tokio::test]
async fn a_node_whose_object_was_deleted_registers_again() {
    let node = RunningNode::start().await;
    eventually("the node is watched", || node.server.state.lock().unwrap().watch.is_some()).await;
    let before = node.server.node().unwrap().metadata.uid;
    node.server.delete();
    eventually("it is ready again", || node.server.is_ready()).await;
    assert_ne!(node.server.node().unwrap().metadata.uid, before);
}

#[test]
fn a_node_tells_its_address_of_each_family_the_first_first() {
    let now = Timestamp::UNIX_EPOCH;
    let config = NodeConfig { other_address: "fd00:172:29::11".parse().ok(), ..config() };
    let status = status::status(&config, &NetworkState::NotReady("none".into()), now, now);
    let told: Vec<String> =
        status.addresses.unwrap().into_iter().map(|at| format!("{} {}", at.type_, at.address)).collect();
    assert_eq!(told[..2], ["InternalIP 172.29.0.11", "InternalIP fd00:172:29::11"]);
}

#[test]
fn only_what_the_node_says_itself_can_be_contradicted() {
    let now = Timestamp::UNIX_EPOCH;
    let own = status::status(&config(), &NetworkState::NotReady("none".into()), now, now);
    let changed = |change: &dyn Fn(&mut NodeStatus)| {
        let mut shown = own.clone();
        change(&mut shown);
        shown
    };
    let later = Timestamp::from_second(9).unwrap();
    assert!(!status::contradicts(&own, &status::status(&config(), &NetworkState::NotReady("none".into()), later, now)));
    let foreign = from_value(json!({ "type": "NetworkUnavailable", "status": "False" })).unwrap();
    let with_foreign = changed(&|shown| shown.conditions.as_mut().unwrap().push(Clone::clone(&foreign)));
    assert!(!status::contradicts(&own, &with_foreign));
    assert!(status::contradicts(&own, &changed(&|shown| shown.addresses = None)));
    assert!(status::contradicts(&own, &changed(&|shown| shown.conditions.as_mut().unwrap()[0].status = "True".into())));
    assert!(status::contradicts(&own, &NodeStatus::default()));
}

#[test]
fn versions_are_compared_as_numbers() {
    assert!(is_newer(Some("10"), Some("9")) && !is_newer(Some("9"), Some("10")) && !is_newer(Some("9"), Some("9")));
    assert!(is_newer(Some("9"), None));
    assert!(is_newer(Some("a"), Some("b")) && !is_newer(Some("a"), Some("a")));
}
