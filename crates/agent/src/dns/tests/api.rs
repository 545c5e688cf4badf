//! An API server that is away, comes, tells of changes and goes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::http::StatusCode;
use futures::StreamExt;
use tokio::sync::broadcast;

use super::*;

/// What the API server of a test does.
#[derive(Clone)]
pub(super) struct Played {
    away: Arc<AtomicBool>,
    /// What watches of EndpointSlices are told; none ends all watches.
    told: broadcast::Sender<Option<String>>,
}

impl Played {
    pub(super) fn new() -> Self {
        Self { away: Arc::default(), told: broadcast::channel(16).0 }
    }

    fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        if away {
            let _ = self.told.send(None);
        }
    }

    /// Tells all watches that the slice has this address now.
    pub(super) fn moves(&self, addr: &str) {
        let event = json!({"type": "MODIFIED", "object": slice(addr)}).to_string() + "\n";
        let _ = self.told.send(Some(event));
    }

    fn serves(&self, kind: &'static str, items: Vec<Value>) -> axum::routing::MethodRouter {
        let played = self.clone();
        get(async move |RawQuery(query): RawQuery| -> Response {
            // Asked for before it is looked whether the server is away: who comes too late for the end sees that.
            let told = played.told.subscribe();
            if played.away.load(Ordering::SeqCst) {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            if !query.is_some_and(|query| query.contains("watch=")) {
                return Json(json!({"kind": kind, "metadata": {"resourceVersion": "1"}, "items": items}))
                    .into_response();
            }
            let next = async |mut told: broadcast::Receiver<Option<String>>| {
                let event = told.recv().await.ok()??;
                Some((event, told))
            };
            let mine = kind == "EndpointSliceList";
            let events = futures::stream::unfold(told, next).filter(move |_| std::future::ready(mine));
            Body::from_stream(events.map(Ok::<_, std::io::Error>)).into_response()
        })
    }

    pub(super) async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let meta = |name: &str| json!({"name": name, "namespace": "web", "uid": name, "resourceVersion": "1"});
        let service = json!({
            "metadata": meta("db"),
            "spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": []},
        });
        let outside = json!({
            "metadata": meta("outside"), "spec": {"type": "ExternalName", "externalName": "harbor.example.com"},
        });
        let services = vec![service, web_service(), outside];
        let namespace = json!({"metadata": {"name": "web", "resourceVersion": "1"}});
        let router = Router::new()
            .route("/api/v1/services", self.serves("ServiceList", services))
            .route("/api/v1/namespaces", self.serves("NamespaceList", vec![namespace]))
            .route(
                "/apis/discovery.k8s.io/v1/endpointslices",
                self.serves("EndpointSliceList", vec![slice("10.244.1.2")]),
            );
        tokio::spawn(axum::serve(listener, router).into_future());
        address
    }
}

/// The one slice of the Service db.
fn slice(addr: &str) -> Value {
    json!({
        "metadata": {
            "name": "db-x", "namespace": "web", "uid": "db-x", "resourceVersion": "2",
            "labels": {"kubernetes.io/service-name": "db"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
        },
        "addressType": "IPv4", "ports": [],
        "endpoints": [{"addresses": [addr], "conditions": {"ready": true}}],
    })
}

async fn metric_until(port: u16, wanted: &str) {
    let start = Instant::now();
    loop {
        let text = fetch(port, "/metrics").await;
        if text.lines().any(|line| line == wanted) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "wanted {wanted:?}, got {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_known_last_is_served_while_the_api_server_is_away_and_a_metric_says_so() {
    let directory = Directory::new("away");
    let played = Played::new();
    played.away(true);
    let api = played.start().await;
    let (port, ready, metrics) = (free_port().await, free_port().await, free_port().await);
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{port} {{\n ready 127.0.0.1:{ready}\n prometheus 127.0.0.1:{metrics}\n kubernetes cluster.local {{\n  \
             endpoint http://{api}\n  startup_timeout 10ms\n  apiserver_qps 1000\n  apiserver_max_inflight 3\n }}\n}}\n"
        ),
    );
    let process = Process::start(&corefile, None);
    let (db, none) = ("db.web.svc.cluster.local A", "none.web.svc.cluster.local A");
    dig_until(port, none, "SERVFAIL").await;
    metric_until(metrics, "podnet_dns_kubernetes_connected 0").await;
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 503"), "not before the first sync");
    played.away(false);
    dig_until(port, none, "NXDOMAIN").await;
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 200"));
    assert_eq!(dig(port, &format!("{db} +short")).await, "10.244.1.2\n");
    metric_until(metrics, "podnet_dns_kubernetes_connected 1").await;
    played.away(true);
    metric_until(metrics, "podnet_dns_kubernetes_connected 0").await;
    assert_eq!(dig(port, &format!("{db} +short")).await, "10.244.1.2\n");
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 200"));
    let text = fetch(metrics, "/metrics").await;
    for wanted in [
        format!("coredns_kubernetes_rest_client_requests_total{{code=\"500\",host=\"{api}\",method=\"GET\"}} "),
        format!("coredns_kubernetes_rest_client_request_duration_seconds_count{{host=\"{api}\",verb=\"GET\"}} "),
    ] {
        assert!(text.contains(&wanted), "{wanted}: {text}");
    }
    played.away(false);
    metric_until(metrics, "podnet_dns_kubernetes_connected 1").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_event_is_answered_and_how_long_ago_it_happened_is_counted() {
    let directory = Directory::new("event");
    let played = Played::new();
    let api = played.start().await;
    let cluster = |name: &str, server: &str| json!({"name": name, "cluster": {"server": server}});
    let context = |name: &str| json!({"name": name, "context": {"cluster": name, "user": "u"}});
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "other", "users": [{"name": "u", "user": {}}],
        "clusters": [cluster("other", "http://127.0.0.1:1"), cluster("this", &format!("http://{api}"))],
        "contexts": [context("other"), context("this")],
    });
    let kubeconfig = directory.write("kubeconfig", &kubeconfig.to_string());
    let (port, metrics) = (free_port().await, free_port().await);
    let kubernetes = format!("kubernetes cluster.local {{\n  kubeconfig {} this\n }}", kubeconfig.display());
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{port} {{\n prometheus 127.0.0.1:{metrics}\n {kubernetes}\n}}\nother:{port} {{\n {kubernetes}\n}}\n"
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(port, "none.web.svc.cluster.local A", "NXDOMAIN").await;
    let counted = "coredns_kubernetes_dns_programming_duration_seconds_count{service_kind=\"headless_with_selector\"}";
    assert!(!fetch(metrics, "/metrics").await.contains(counted), "a list tells of no change");
    // The watch may not have begun yet.
    let start = Instant::now();
    while dig(port, "db.web.svc.cluster.local A +short").await != "10.244.9.9\n" {
        assert!(start.elapsed() < DEADLINE);
        played.moves("10.244.9.9");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    metric_until(metrics, &format!("{counted} 1")).await;
    // From here on the watch is there: how long a change takes from being told to being answered.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x02db\x03web\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    // All but one of nine: that may have met a busy machine. It may be busy for all of them, but hardly three times.
    let is_prompt = |took: &Vec<Duration>| took[took.len() - 2] < Duration::from_millis(100);
    let mut batches = Vec::new();
    for batch in 10..13 {
        let mut took = Vec::new();
        for last in 10..19 {
            let addr = format!("10.244.{batch}.{last}");
            let event = json!({"type": "MODIFIED", "object": slice(&addr)}).to_string() + "\n";
            let start = Instant::now();
            played.told.send(Some(event)).unwrap();
            let mut answer = [0; 512];
            let mut length = 0;
            while !answer[..length].ends_with(&[10, 244, batch, last]) {
                assert!(start.elapsed() < DEADLINE, "{addr} is never answered");
                socket.send(question).await.unwrap();
                length = tokio::time::timeout(DEADLINE, socket.recv(&mut answer)).await.unwrap().unwrap();
            }
            took.push(start.elapsed());
        }
        took.sort_unstable();
        batches.push(took);
        if batches.last().is_some_and(is_prompt) {
            break;
        }
    }
    assert!(batches.last().is_some_and(is_prompt), "{batches:?}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_endpoints_nobody_has_to_be_allowed_to_watch_them() {
    let directory = Directory::new("noendpoints");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    // It has no EndpointSlices to tell.
    let router = Router::new()
        .route("/api/v1/services", list("v1", "Service", Vec::new()))
        .route("/api/v1/namespaces", list("v1", "Namespace", Vec::new()));
    tokio::spawn(axum::serve(listener, router).into_future());
    let (port, ready) = (free_port().await, free_port().await);
    let kubernetes = format!("kubernetes cluster.local {{\n  endpoint http://{api}\n  noendpoints\n }}");
    let text = format!(".:{port} {{\n ready 127.0.0.1:{ready}\n {kubernetes}\n}}\n");
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(port, "none.web.svc.cluster.local A", "NXDOMAIN").await;
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 200"));
    process.stop().await;
}

#[tokio::test]
async fn several_api_servers_are_refused() {
    let directory = Directory::new("several");
    let text =
        "a:5300 {\n kubernetes {\n endpoint http://a\n }\n}\nb:5300 {\n kubernetes {\n endpoint http://b\n }\n}\n";
    let corefile = directory.write("Corefile", text);
    let error = Process::start(&corefile, None).task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("different API servers"), "{error}");
}
