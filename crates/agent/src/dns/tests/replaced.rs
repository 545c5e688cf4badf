//! A changed Corefile that replaces the watches of the cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tokio::sync::watch;

use super::*;

/// An API server with headless Services and their endpoints; what it has is told by lists alone.
#[derive(Clone)]
struct Played {
    /// The objects of each kind.
    there: Arc<Mutex<BTreeMap<&'static str, Vec<Value>>>>,
    /// Whether lists are answered; until then who asks for one waits.
    open: Arc<watch::Sender<bool>>,
}

impl Played {
    /// One with Services of these names, each with an EndpointSlice and a pod for each of the addresses behind it.
    fn new(services: &[(&str, &str)]) -> Self {
        let played = Self { there: Arc::default(), open: Arc::new(watch::Sender::new(true)) };
        played.has(services);
        played
    }

    /// From here on it has these.
    fn has(&self, services: &[(&str, &str)]) {
        let meta = |name: &str| json!({"name": name, "namespace": "web", "uid": name, "resourceVersion": "1"});
        let spec = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": []});
        let mut there =
            BTreeMap::from([("Namespace", vec![json!({"metadata": {"name": "web", "resourceVersion": "1"}})])]);
        let mut put = |kind, object: Value| there.entry(kind).or_default().push(object);
        for (service, addrs) in services {
            put("Service", json!({"metadata": meta(service), "spec": spec}));
            for addr in addrs.split(' ') {
                let mut labelled = meta(&format!("{service}-{}", addr.replace('.', "-")));
                labelled["labels"] = json!({"kubernetes.io/service-name": service});
                put("Pod", json!({"metadata": labelled, "status": {"phase": "Running", "podIPs": [{"ip": addr}]}}));
                let endpoints = json!([{"addresses": [addr], "conditions": {"ready": true}}]);
                put(
                    "EndpointSlice",
                    json!({"metadata": labelled, "addressType": "IPv4", "ports": [], "endpoints": endpoints}),
                );
            }
        }
        *self.there.lock().unwrap() = there;
    }

    fn serves(&self, kind: &'static str) -> axum::routing::MethodRouter {
        let played = self.clone();
        get(async move |RawQuery(query): RawQuery| -> Response {
            if query.is_some_and(|query| query.contains("watch=")) {
                return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())
                    .into_response();
            }
            let mut open = played.open.subscribe();
            while !*open.borrow_and_update() {
                open.changed().await.unwrap();
            }
            let items = played.there.lock().unwrap().get(kind).cloned().unwrap_or_default();
            Json(json!({"kind": format!("{kind}List"), "metadata": {"resourceVersion": "1"}, "items": items}))
                .into_response()
        })
    }

    async fn start(&self) -> SocketAddr {
        let router = Router::new()
            .route("/api/v1/services", self.serves("Service"))
            .route("/api/v1/namespaces", self.serves("Namespace"))
            .route("/api/v1/pods", self.serves("Pod"))
            .route("/apis/discovery.k8s.io/v1/endpointslices", self.serves("EndpointSlice"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        address
    }

    fn opens(&self, open: bool) {
        self.open.send_replace(open);
    }
}

/// A Corefile that says its version, and of which the cluster is asked at an API server.
fn text(port: u16, version: u32, api: SocketAddr, options: &str) -> String {
    format!(
        ".:{port} {{\n reload 10h\n hosts /nowhere {{\n  10.0.1.{version} version.example.com\n  fallthrough\n }}\n \
         kubernetes cluster.local in-addr.arpa {{\n  endpoint http://{api}\n  startup_timeout 10ms\n  {options}\n }}\n}}\n"
    )
}

async fn in_force(port: u16, version: u32) {
    dig_until(port, "version.example.com A +short", &format!("10.0.1.{version}\n")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_watches_were_replaced_goes_and_what_stayed_is_answered_all_the_time() {
    let directory = Directory::new("replaced");
    let played = Played::new(&[("gone", "10.244.1.3"), ("kept", "10.244.1.4 10.244.1.5")]);
    let api = played.start().await;
    let port = free_port().await;
    let (gone, none) = ("gone.web.svc.cluster.local A", "none.web.svc.cluster.local A");
    let kept = "kept.web.svc.cluster.local A +short";
    let process = Process::start(&directory.write("Corefile", &text(port, 0, api, "")), None);
    dig_until(port, none, "NXDOMAIN").await;
    assert_eq!(dig(port, kept).await.lines().count(), 2);
    let ended = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ended);
    let always = tokio::spawn(async move {
        let mut times = 0;
        while !asked.load(Ordering::SeqCst) {
            let answer = dig(port, kept).await;
            assert!(answer.contains("10.244.1.4\n"), "{answer}");
            times += 1;
        }
        times
    });
    // A Service goes, and a slice of another one; the new watches do not get their lists yet.
    played.opens(false);
    played.has(&[("kept", "10.244.1.4")]);
    directory.write("Corefile", &text(port, 1, api, "pods verified"));
    in_force(port, 1).await;
    assert_eq!(dig(port, &format!("{gone} +short")).await, "10.244.1.3\n");
    assert_eq!(dig(port, kept).await.lines().count(), 2);
    assert!(dig(port, none).await.contains("NXDOMAIN"), "the cluster's Services are known as before");
    let pod = "10-244-1-4.web.pod.cluster.local A";
    assert!(dig(port, pod).await.contains("SERVFAIL"), "of pods nothing is known yet");
    played.opens(true);
    dig_until(port, gone, "NXDOMAIN").await;
    // It goes in one step.
    assert_eq!(dig(port, kept).await, "10.244.1.4\n");
    assert!(dig(port, "-x 10.244.1.3").await.contains("NXDOMAIN"));
    assert!(dig(port, "-x 10.244.1.5").await.contains("NXDOMAIN"));
    assert_eq!(dig(port, &format!("{pod} +short")).await, "10.244.1.4\n");
    assert!(dig(port, "10-244-1-5.web.pod.cluster.local A").await.contains("NXDOMAIN"));
    ended.store(true, Ordering::SeqCst);
    assert!(always.await.unwrap() > 0);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corefile_that_begins_to_ask_for_labels_of_pods_is_in_force_when_they_are_listed_anew() {
    let directory = Directory::new("labels");
    // Its pod is who asks here.
    let played = Played::new(&[("own", "127.0.0.1")]);
    let api = played.start().await;
    let port = free_port().await;
    let process = Process::start(&directory.write("Corefile", &text(port, 0, api, "pods verified")), None);
    dig_until(port, "127-0-0-1.web.pod.cluster.local A +short", "127.0.0.1\n").await;
    let asks = " reload 10h\n metadata\n template IN TXT label.test {\n  \
                answer \"{{ .Name }} 0 IN TXT of-{{ .Meta \\\"kubernetes/client-label/kubernetes.io/service-name\\\" }}\"\n }\n";
    let next = text(port, 1, api, "pods verified").replacen(" reload 10h\n", asks, 1);
    played.opens(false);
    directory.write("Corefile", &next.replacen("startup_timeout 10ms", "startup_timeout 30s", 1));
    let start = Instant::now();
    while played.open.receiver_count() == 0 {
        assert!(start.elapsed() < DEADLINE, "nobody asks for lists");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The one before answers meanwhile.
    in_force(port, 0).await;
    assert!(!dig(port, "label.test TXT +short").await.contains("of-"));
    played.opens(true);
    let first = until(async || dig(port, "label.test TXT +short").await, |answer| answer.contains("of-")).await;
    assert_eq!(first, "\"of-own\"\n");
    // Not for ever: it is in force without those that it asks for besides.
    played.opens(false);
    let more = next.replacen("kubernetes.io/service-name", "none", 1).replacen(" of-", " now-", 1);
    directory.write("Corefile", &more);
    dig_until(port, "label.test TXT +short", "\"now-\"\n").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_api_server_takes_the_place_of_the_first_when_it_has_listed_what_it_has() {
    let directory = Directory::new("another");
    let first = Played::new(&[("first", "10.244.1.1"), ("both", "10.244.1.2")]);
    let second = Played::new(&[("second", "10.244.2.1"), ("both", "10.244.2.2")]);
    let (first, second_api) = (first.start().await, second.start().await);
    let port = free_port().await;
    let process = Process::start(&directory.write("Corefile", &text(port, 0, first, "")), None);
    let asked = |service: &str| format!("{service}.web.svc.cluster.local A");
    dig_until(port, &asked("second"), "NXDOMAIN").await;
    second.opens(false);
    directory.write("Corefile", &text(port, 1, second_api, ""));
    in_force(port, 1).await;
    // The first one's names are served on, and the second one's are not denied.
    assert_eq!(dig(port, &(asked("first") + " +short")).await, "10.244.1.1\n");
    assert_eq!(dig(port, &(asked("both") + " +short")).await, "10.244.1.2\n");
    assert!(dig(port, &asked("second")).await.contains("SERVFAIL"));
    second.opens(true);
    dig_until(port, &asked("first"), "NXDOMAIN").await;
    assert_eq!(dig(port, &(asked("second") + " +short")).await, "10.244.2.1\n");
    assert_eq!(dig(port, &(asked("both") + " +short")).await, "10.244.2.2\n");
    assert!(dig(port, "-x 10.244.1.2").await.contains("NXDOMAIN"));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corefile_that_brings_the_cluster_denies_none_of_its_names_before_it_is_known() {
    let directory = Directory::new("brought");
    let played = Played::new(&[("db", "10.244.1.1")]);
    played.opens(false);
    let api = played.start().await;
    let port = free_port().await;
    let without = text(port, 0, api, "").split(" kubernetes").next().unwrap().to_owned() + "}\n";
    let process = Process::start(&directory.write("Corefile", &without), None);
    in_force(port, 0).await;
    directory.write("Corefile", &text(port, 1, api, ""));
    in_force(port, 1).await;
    let db = "db.web.svc.cluster.local A";
    assert!(dig(port, db).await.contains("SERVFAIL"));
    played.opens(true);
    dig_until(port, &format!("{db} +short"), "10.244.1.1\n").await;
    dig_until(port, "none.web.svc.cluster.local A", "NXDOMAIN").await;
    process.stop().await;
}
