//! The process as a whole, asked by dig over the loopback, with an upstream and an API server that these tests play.

mod api;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::RawQuery,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use load::Load;

use super::{DnsError, DnsOptions, run};

mod acme;
mod connected;
mod etcd;
mod files;
mod following;
mod imports;
mod load;
mod metrics;
mod peers;
mod ports;
mod refused;
mod replaced;
mod secure;
mod waiting;

const DEADLINE: Duration = Duration::from_secs(20);

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pntest-dns-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        // As kubelet does it: a complete file takes the place of the old one.
        std::fs::write(self.0.join("new"), text).unwrap();
        std::fs::rename(self.0.join("new"), &path).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running process.
struct Process {
    stop: oneshot::Sender<()>,
    /// Has the Corefile read again.
    reload: Arc<Notify>,
    task: JoinHandle<Result<(), DnsError>>,
}

impl Process {
    fn start(corefile: &Path, kubeconfig: Option<PathBuf>) -> Self {
        Self::following(corefile, kubeconfig, None)
    }

    /// One that takes over the sockets of another one with the same path.
    fn following(corefile: &Path, kubeconfig: Option<PathBuf>, handover: Option<PathBuf>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let reload = Arc::new(Notify::new());
        let options = DnsOptions {
            corefile: corefile.to_path_buf(),
            kubeconfig,
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            resolv_conf: "/nowhere".into(),
            handover,
        };
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(run(options, Arc::clone(&reload), shutdown));
        Self { stop, reload, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// A port that nobody listens on, of TCP or of UDP, and that the kernel gives to nobody who asks for any port (ip(7),
/// `ip_local_port_range`). Tests that run at the same time look in different places.
async fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() % 1_000) as u16 * 20 + next % 20;
        let taken = async |port| {
            TcpListener::bind(("127.0.0.1", port)).await.is_err() || UdpSocket::bind(("127.0.0.1", port)).await.is_err()
        };
        if !taken(port).await {
            return port;
        }
    }
}

async fn dig(port: u16, arguments: &str) -> String {
    dig_at("127.0.0.1", port, arguments).await
}

async fn dig_at(address: &str, port: u16, arguments: &str) -> String {
    let output = Command::new("dig")
        .args([&format!("@{address}"), "-p", &port.to_string(), "+tries=1", "+time=5"])
        .args(arguments.split_ascii_whitespace())
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Asks until the answer is the wanted one.
async fn dig_until(port: u16, arguments: &str, wanted: &str) {
    let start = Instant::now();
    loop {
        let answer = dig(port, arguments).await;
        if answer.contains(wanted) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{arguments}: wanted {wanted:?}, got {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until what is said is what is wanted: the first that is.
async fn until(ask: impl AsyncFn() -> String, wanted: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let said = ask().await;
        if wanted(&said) {
            return said;
        }
        assert!(start.elapsed() < DEADLINE, "at last it said {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn fetch(port: u16, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

/// Whether a query's name begins with a label, in letters of any case.
fn asks_for(query: &[u8], label: &[u8]) -> bool {
    query[12..12 + label.len()].eq_ignore_ascii_case(label)
}

/// What the upstream says: one address, or many for `big.…`, of which it tells none over UDP.
fn upstream_answer(query: &[u8], udp: bool) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let big = asks_for(query, b"\x03big");
    let count = match (big, udp) {
        (true, true) => 0_u8,
        (true, false) => 200,
        (false, _) => 1,
    };
    let mut message = query[..end].to_vec();
    message[2] = if big && udp { 0x83 } else { 0x81 };
    message[3] = 0x80;
    message[6..12].copy_from_slice(&[0, count, 0, 0, 0, 0]);
    for last in 0..count {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    }
    message
}

/// An upstream; it does not answer for `silent.…`.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut packet).await {
            if !asks_for(&packet, b"\x06silent") {
                socket.send_to(&upstream_answer(&packet[..len], true), from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut packet).await.unwrap();
            let answer = upstream_answer(&packet, false);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_gets_answers_from_hosts_and_upstreams_over_udp_and_tcp() {
    let directory = Directory::new("plain");
    let (port, health, ready, metrics) = (free_port().await, free_port().await, free_port().await, free_port().await);
    let upstream = upstream().await;
    // The first upstream is a port that nobody listens on: the second one answers.
    let dead = free_port().await;
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{port} {{\n errors\n health 127.0.0.1:{health}\n ready 127.0.0.1:{ready}\n prometheus 127.0.0.1:{metrics}\n \
             hosts /nowhere {{\n  10.0.0.20 harbor.example.com\n  fallthrough\n }}\n cache 30\n loop\n \
             forward . 127.0.0.1:{dead} {upstream} {{\n  policy sequential\n }}\n}}\n"
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(port, "harbor.example.com A +short", "10.0.0.20").await;
    assert_eq!(dig(port, "www.example.org A +short").await, "192.0.2.0\n");
    assert_eq!(dig(port, "www.example.org A +short +tcp").await, "192.0.2.0\n");
    assert_eq!(dig(port, "big.example.org A +short").await.lines().count(), 200);
    assert_eq!(dig(port, "big.example.org A +short +tcp +keepopen").await.lines().count(), 200);
    let silent = dig(port, "silent.example.org A +time=8").await;
    assert!(silent.contains("SERVFAIL"), "{silent}");
    assert!(fetch(health, "/health").await.starts_with("HTTP/1.1 200"));
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 200"));
    let text = fetch(metrics, "/metrics").await;
    assert!(text.contains("coredns_dns_responses_total{") && text.contains("rcode=\"SERVFAIL\""), "{text}");
    assert!(text.contains("coredns_cache_hits_total{type=\"success\""), "{text}");
    process.stop().await;
    // A question that another test asks meanwhile may go out from this very port.
    let mut is_free = false;
    for _ in 0..50 {
        is_free = UdpSocket::bind(("127.0.0.1", port)).await.is_ok();
        if is_free {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_free, "the port is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_corefile_is_taken_over_and_a_bad_one_is_not() {
    let directory = Directory::new("reload");
    let (port, other) = (free_port().await, free_port().await);
    let text = |port: u16, address: &str| {
        format!(".:{port} {{\n reload 2s 1s\n hosts /nowhere {{\n  {address} a.example.com\n }}\n}}\n")
    };
    let corefile = directory.write("Corefile", &text(port, "10.0.0.1"));
    let process = Process::start(&corefile, None);
    dig_until(port, "a.example.com A +short", "10.0.0.1").await;
    directory.write("Corefile", ".:53 {\n bogus\n}\n");
    directory.write("Corefile", &text(port, "10.0.0.2"));
    dig_until(port, "a.example.com A +short", "10.0.0.2").await;
    directory.write("Corefile", &text(other, "10.0.0.3"));
    dig_until(other, "a.example.com A +short", "10.0.0.3").await;
    directory.write("Corefile", ".:53 {\n bogus\n}\n");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert_eq!(dig(other, "a.example.com A +short").await, "10.0.0.3\n");
    }
    process.stop().await;
}

/// A mounted ConfigMap with a Corefile: kubelet writes a new directory and lets a link point to it.
fn mounted(directory: &Directory, version: u32, text: &str) -> PathBuf {
    let at = |name: &str| directory.0.join(name);
    let data = format!("..{version}");
    std::fs::create_dir(at(&data)).unwrap();
    std::fs::write(at(&data).join("Corefile"), text).unwrap();
    std::os::unix::fs::symlink(&data, at("..tmp")).unwrap();
    std::fs::rename(at("..tmp"), at("..data")).unwrap();
    if version == 0 {
        std::os::unix::fs::symlink("..data/Corefile", at("Corefile")).unwrap();
    }
    at("Corefile")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_lost_or_answered_wrongly_while_a_mounted_corefile_changes_twenty_times() {
    let directory = Directory::new("lossless");
    let (port, other, metrics) = (free_port().await, free_port().await, free_port().await);
    // Nothing but the file's change makes it be read so soon.
    let text = |version: u32| {
        let keys = if version.is_multiple_of(2) { format!(".:{port}") } else { format!(".:{port} .:{other}") };
        format!(
            "{keys} {{\n reload 10h\n prometheus 127.0.0.1:{metrics}\n hosts /nowhere {{\n  10.0.0.7 a.example.com\n  \
             10.0.1.{version} version.example.com\n }}\n}}\n"
        )
    };
    let process = Process::start(&mounted(&directory, 0, &text(0)), None);
    dig_until(port, "version.example.com A +short", "10.0.1.0").await;
    let load = Load::start(port, &directory, &["-l", "5", "-Q", "2000", "-q", "50"]);
    let changes = async {
        for version in 1..=20 {
            mounted(&directory, version, &text(version));
            dig_until(port, "version.example.com A +short", &format!("10.0.1.{version}\n")).await;
        }
        // One that cannot be loaded is not taken over, and that can be seen.
        mounted(&directory, 21, ".:53 {\n bogus\n}\n");
        while !fetch(metrics, "/metrics").await.contains("coredns_reload_failed_total 1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(dig(port, "version.example.com A +short").await, "10.0.1.20\n");
    };
    tokio::join!(load.finish(), changes);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_files_count_as_the_corefile_does() {
    let directory = Directory::new("import");
    let port = free_port().await;
    let name = |address: &str| format!("hosts /nowhere {{\n {address} a.example.com\n fallthrough\n}}\n");
    std::fs::create_dir(directory.0.join("conf.d")).unwrap();
    directory.write("conf.d/a.conf", &name("10.0.0.1"));
    let text = format!(".:{port} {{\n reload 2s 1s\n import conf.d/*.conf\n}}\n");
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(port, "a.example.com A +short", "10.0.0.1").await;
    directory.write("conf.d/a.conf", "import ../own\n");
    // What is missing may come later, after it was looked for; the Corefile itself does not change for it.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert_eq!(dig(port, "a.example.com A +short").await, "10.0.0.1\n");
    }
    directory.write("own", &name("10.0.0.2"));
    dig_until(port, "a.example.com A +short", "10.0.0.2").await;
    // A file that was not there, of a name that is imported.
    directory.write("conf.d/b.conf", "whoami\n");
    dig_until(port, "b.example.com A", "NOERROR").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_cluster_come_from_the_api_server() {
    let directory = Directory::new("cluster");
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", api.local_addr().unwrap());
    tokio::spawn(axum::serve(api, api_server()).into_future());
    let kubeconfig = directory.write(
        "kubeconfig",
        &json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string(),
    );
    let (port, ready) = (free_port().await, free_port().await);
    let corefile = directory.write(
        "Corefile",
        &format!(".:{port} {{\n ready 127.0.0.1:{ready}\n kubernetes cluster.local in-addr.arpa\n}}\n"),
    );
    let process = Process::start(&corefile, Some(kubeconfig));
    dig_until(port, "none.web.svc.cluster.local A", "NXDOMAIN").await;
    assert!(fetch(ready, "/ready").await.starts_with("HTTP/1.1 200"));
    assert_eq!(dig(port, "web.web.svc.cluster.local A +short").await, "10.233.0.7\n");
    assert_eq!(dig(port, "10-244-1-2.web.web.svc.cluster.local A +short").await, "10.244.1.2\n");
    assert_eq!(dig(port, "-x 10.233.0.7 +short").await, "web.web.svc.cluster.local.\n");
    let bare = dig(port, "bare.svc.cluster.local A").await;
    assert!(bare.contains("NOERROR") && bare.contains("ANSWER: 0"), "{bare}");
    process.stop().await;
}

#[tokio::test]
async fn what_cannot_be_loaded_or_read_is_said() {
    let directory = Directory::new("bad");
    let corefile = directory.write("Corefile", ".:53 {\n  bogus\n}\n");
    let error = Process::start(&corefile, None).task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("Corefile:2:3: unknown plugin \"bogus\""), "{error}");
    let corefile = directory.write("Corefile", ".:53 {\n forward . tls://192.0.2.1 {\n tls /nowhere/ca.pem\n }\n}\n");
    let error = Process::start(&corefile, None).task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca.pem: No such file"), "{error}");
    let error = Process::start(Path::new("/nowhere/Corefile"), None).task.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot read the Corefile /nowhere/Corefile");
    assert!(super::check(".:53 {\n whoami\n}\n", "Corefile").errors.is_empty());
    let all = super::check(".:53 {\n bogus\n hosts {\n  ttl 0\n }\n}\n", "x").errors;
    let places: Vec<String> = all.iter().map(|error| error.place.to_string()).collect();
    assert_eq!(places, ["x:2:2", "x:4:7"]);
}

/// An API server with one Service, its slice and two namespaces, where nothing ever changes.
fn api_server() -> Router {
    let namespace = |name: &str| json!({"metadata": {"name": name, "resourceVersion": "1"}});
    let slice = json!({
        "metadata": {
            "name": "web-x", "namespace": "web", "uid": "web-x", "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.1.2"], "conditions": {"ready": true}}],
    });
    Router::new()
        .route("/api/v1/services", list("v1", "Service", vec![web_service()]))
        .route("/api/v1/namespaces", list("v1", "Namespace", vec![namespace("web"), namespace("bare")]))
        .route("/apis/discovery.k8s.io/v1/endpointslices", list("discovery.k8s.io/v1", "EndpointSlice", vec![slice]))
}

/// The Service `web`, with an address and a port.
fn web_service() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "web", "uid": "web", "resourceVersion": "1"},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.233.0.7", "clusterIPs": ["10.233.0.7"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    })
}

fn list(version: &'static str, kind: &'static str, items: Vec<Value>) -> axum::routing::MethodRouter {
    get(async move |RawQuery(query): RawQuery| -> Response {
        if query.is_some_and(|query| query.contains("watch=")) {
            return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>()).into_response();
        }
        Json(json!({
            "apiVersion": version, "kind": format!("{kind}List"),
            "metadata": {"resourceVersion": "1"}, "items": items,
        }))
        .into_response()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_goes_from_its_file_to_a_secondary_version_after_version() {
    let directory = Directory::new("zones");
    let (first, second) = (free_port().await, free_port().await);
    let zone = |serial: u32, addr: &str| {
        format!("@ 300 IN SOA ns admin {serial} 3600 600 86400 60\n@ 300 NS ns\nns 300 A 192.0.2.1\nwww 300 A {addr}\n")
    };
    directory.write("db", &zone(1, "192.0.2.2"));
    let file = directory.0.join("db");
    let primary = directory.write(
        "Primary",
        &format!(
            "example.org:{first} {{\n file {} {{\n  reload 1s\n }}\n transfer {{\n  to 127.0.0.1:{second}\n }}\n}}\n",
            file.display()
        ),
    );
    let secondary = directory.write(
        "Secondary",
        &format!("example.org:{second} {{\n secondary {{\n  transfer from 127.0.0.1:{first}\n }}\n}}\n"),
    );
    let primary = Process::start(&primary, None);
    dig_until(first, "www.example.org A +short", "192.0.2.2\n").await;
    let whole = dig(first, "example.org AXFR").await;
    assert!(whole.contains("XFR size: 5 records"), "{whole}");
    let secondary = Process::start(&secondary, None);
    dig_until(second, "www.example.org A +short", "192.0.2.2\n").await;
    directory.write("db", &zone(2, "192.0.2.3"));
    // It is told of the change: by itself, it would look after an hour.
    dig_until(second, "www.example.org A +short", "192.0.2.3\n").await;
    let change = dig(first, "example.org IXFR=1").await;
    assert!(change.contains("XFR size: 6 records"), "{change}");
    primary.stop().await;
    secondary.stop().await;
}
