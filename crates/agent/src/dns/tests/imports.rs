//! What is imported of a cluster set, by an API server that may not have it, or not show it.

use std::sync::{Arc, Mutex};

use axum::{http::StatusCode, routing::MethodRouter};
use futures::StreamExt;
use tokio::sync::broadcast;

use super::*;

/// What the API server of a test has of ServiceImports.
#[derive(Clone)]
struct Played {
    /// How it answers when they are asked for.
    code: Arc<AtomicU16>,
    /// Those that there are.
    there: Arc<Mutex<Vec<Value>>>,
    /// What watches of them are told.
    told: broadcast::Sender<String>,
}

fn is_watch(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.contains("watch="))
}

impl Played {
    fn new(code: u16) -> Self {
        let there = vec![import("shared", "ClusterSetIP", &["10.42.42.42"]), import("pets", "Headless", &[])];
        Self {
            code: Arc::new(AtomicU16::new(code)),
            there: Arc::new(Mutex::new(there)),
            told: broadcast::channel(16).0,
        }
    }

    fn imports(&self) -> MethodRouter {
        let played = self.clone();
        get(async move |RawQuery(query): RawQuery| -> Response {
            let told = played.told.subscribe();
            let code = played.code.load(Ordering::SeqCst);
            if code != 200 {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
                return (StatusCode::from_u16(code).unwrap(), Json(status)).into_response();
            }
            if !is_watch(query.as_deref()) {
                let items = played.there.lock().unwrap().clone();
                return Json(json!({
                    "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImportList",
                    "metadata": {"resourceVersion": "1"}, "items": items,
                }))
                .into_response();
            }
            let next = async |mut told: broadcast::Receiver<String>| {
                let event = told.recv().await.ok()?;
                Some((event, told))
            };
            Body::from_stream(futures::stream::unfold(told, next).map(Ok::<_, std::io::Error>)).into_response()
        })
    }

    /// Serves them beside a headless Service and no pods.
    async fn serve(&self) -> SocketAddr {
        let meta = json!({"name": "db", "namespace": "web", "uid": "db", "resourceVersion": "1"});
        let spec = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": []});
        let namespace = json!({"metadata": {"name": "web", "resourceVersion": "1"}});
        let router = Router::new()
            .route("/api/v1/services", list("v1", "Service", vec![json!({"metadata": meta, "spec": spec})]))
            .route("/api/v1/namespaces", list("v1", "Namespace", vec![namespace]))
            .route("/api/v1/pods", list("v1", "Pod", vec![]))
            .route("/apis/discovery.k8s.io/v1/endpointslices", slices())
            .route("/apis/multicluster.x-k8s.io/v1alpha1/serviceimports", self.imports());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        api
    }
}

fn import(name: &str, kind: &str, ips: &[&str]) -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport",
        "metadata": {"name": name, "namespace": "web", "uid": name, "resourceVersion": "1"},
        "spec": {"type": kind, "ips": ips, "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
        "status": {"clusters": [{"cluster": "north"}]},
    })
}

/// Slices of the cluster's own Service for those who want all, beside one of another cluster's that who wants such ones gets alone.
fn slices() -> MethodRouter {
    let slice = |name: &str, labels: Value, addr: &str| {
        json!({
            "metadata": {
                "name": name, "namespace": "web", "uid": name, "resourceVersion": "1", "labels": labels,
            },
            "addressType": "IPv4", "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [{"addresses": [addr], "hostname": "cat", "conditions": {"ready": true}}],
        })
    };
    let own = slice("db-x", json!({"kubernetes.io/service-name": "db"}), "10.244.1.2");
    let labels = json!({
        "multicluster.kubernetes.io/service-name": "pets", "multicluster.kubernetes.io/source-cluster": "north",
    });
    let imported = slice("pets-x", labels, "10.3.0.100");
    get(async move |RawQuery(query): RawQuery| -> Response {
        if is_watch(query.as_deref()) {
            return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>()).into_response();
        }
        let selected = query.is_some_and(|query| query.contains("labelSelector=multicluster.kubernetes.io"));
        let items = if selected { vec![imported.clone()] } else { vec![own.clone(), imported.clone()] };
        Json(json!({"kind": "EndpointSliceList", "metadata": {"resourceVersion": "1"}, "items": items})).into_response()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_comes_and_goes_and_the_cluster_s_own_never_waits_for_it() {
    let directory = Directory::new("imports");
    let played = Played::new(403);
    let api = played.serve().await;
    let (port, ready) = (free_port().await, free_port().await);
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{port} {{\n ready 127.0.0.1:{ready}\n kubernetes cluster.local clusterset.local in-addr.arpa {{\n  \
             endpoint http://{api}\n  startup_timeout 10ms\n  multicluster clusterset.local\n }}\n}}\n"
        ),
    );
    let process = Process::start(&corefile, None);
    let shared = "shared.web.svc.clusterset.local A";
    dig_until(port, "none.web.svc.cluster.local A", "NXDOMAIN").await;
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 200"), "it does not wait for what is imported");
    assert!(dig(port, shared).await.contains("SERVFAIL"), "it is forbidden to know");
    assert_eq!(dig(port, "db.web.svc.cluster.local A +short").await, "10.244.1.2\n");
    played.code.store(404, Ordering::SeqCst);
    dig_until(port, shared, "NXDOMAIN").await;
    played.code.store(200, Ordering::SeqCst);
    dig_until(port, &format!("{shared} +short"), "10.42.42.42\n").await;
    assert_eq!(dig(port, "pets.web.svc.clusterset.local A +short").await, "10.3.0.100\n");
    assert_eq!(dig(port, "cat.north.pets.web.svc.clusterset.local A +short").await, "10.3.0.100\n");
    assert_eq!(dig(port, "-x 10.42.42.42 +short").await, "shared.web.svc.clusterset.local.\n");
    assert_eq!(dig(port, "db.web.svc.cluster.local A +short").await, "10.244.1.2\n");
    // The watch may not have begun yet.
    let start = Instant::now();
    let event = json!({"type": "DELETED", "object": import("shared", "ClusterSetIP", &["10.42.42.42"])});
    while !dig(port, shared).await.contains("NXDOMAIN") {
        assert!(start.elapsed() < DEADLINE);
        let _ = played.told.send(format!("{event}\n"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_goes_with_the_last_zone_that_shows_it_and_comes_anew() {
    let directory = Directory::new("unimported");
    let played = Played::new(200);
    let api = played.serve().await;
    let port = free_port().await;
    let corefile = |version: u32, zone: &str, options: &str| {
        let text = format!(
            ".:{port} {{\n reload 10h\n hosts /nowhere {{\n  10.0.1.{version} version.example.com\n  fallthrough\n }}\n \
             kubernetes cluster.local {zone} in-addr.arpa {{\n  endpoint http://{api}\n  startup_timeout 10ms\n  {options}\n \
             }}\n}}\n"
        );
        directory.write("Corefile", &text)
    };
    let in_force = async |version: u32| {
        dig_until(port, "version.example.com A +short", &format!("10.0.1.{version}\n")).await;
    };
    let shown = "multicluster clusterset.local";
    let (shared, reverse) = ("shared.web.svc.clusterset.local A", "-x 10.42.42.42");
    let process = Process::start(&corefile(0, "clusterset.local", shown), None);
    dig_until(port, &format!("{shared} +short"), "10.42.42.42\n").await;
    assert!(dig(port, reverse).await.contains("shared.web"));
    // The watches are others then, and what the old ones were not told of is not listed by the new ones.
    played.there.lock().unwrap().remove(0);
    corefile(1, "clusterset.local", &format!("{shown}\n  pods verified"));
    in_force(1).await;
    dig_until(port, shared, "NXDOMAIN").await;
    assert_eq!(dig(port, "pets.web.svc.clusterset.local A +short").await, "10.3.0.100\n");
    // Nothing shows it any more.
    corefile(2, "", "");
    in_force(2).await;
    dig_until(port, "-x 10.3.0.100", "NXDOMAIN").await;
    // Nobody may know it now: what was known before is not told.
    played.code.store(403, Ordering::SeqCst);
    corefile(3, "clusterset.local", shown);
    in_force(3).await;
    let pets = dig(port, "pets.web.svc.clusterset.local A").await;
    assert!(pets.contains("SERVFAIL") && !pets.contains("10.3.0.100"), "{pets}");
    assert!(!dig(port, "-x 10.3.0.100").await.contains("pets.web"));
    played.code.store(200, Ordering::SeqCst);
    dig_until(port, "pets.web.svc.clusterset.local A +short", "10.3.0.100\n").await;
    dig_until(port, shared, "NXDOMAIN").await;
    process.stop().await;
}
