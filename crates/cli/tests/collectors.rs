//! `podnet agent --flow-collector`: what collectors are sent of a cluster's flows.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  nodeName: node1
  containers: [{name: web, image: "podnet.local/demoapp"}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec:
  nodeName: node1
  containers: [{name: client, image: "podnet.local/tools", command: [sleep, infinity]}]
"#;

/// What came, by the ids of items; what came again has to be the same.
#[derive(Clone, Default)]
struct Came(Arc<Mutex<BTreeMap<String, Value>>>);

impl Came {
    fn add(&self, message: &str) {
        let item: Value = serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap();
        let before = self.0.lock().unwrap().insert(item["record"].as_str().unwrap().to_owned(), item.clone());
        assert!(before.is_none_or(|before| before == item));
    }

    /// Bytes that the client got in each of its connections to port 80 that have ended, by the flows' ids.
    fn answers(&self) -> BTreeMap<String, u64> {
        let came = self.0.lock().unwrap();
        let ended = came.values().filter(|item| item["report"] == "end" && is_asked_by_client(item));
        ended
            .map(|item| (item["id"].as_str().unwrap().to_owned(), item["received"]["bytes"].as_u64().unwrap()))
            .collect()
    }

    /// How many ends, and parts of such, of these connections came from which node, counted at whose end; and whether the other end's counts are
    /// in them.
    fn ends(&self) -> BTreeMap<([String; 3], bool), usize> {
        let came = self.0.lock().unwrap();
        let is_end = |item: &&Value| item["report"] == "end" || item["report"] == "part";
        let mut ends = BTreeMap::new();
        for item in came.values().filter(|item| is_asked_by_client(item)).filter(is_end) {
            let key = ["report", "node", "reporter"].map(|name| item[name].as_str().unwrap().to_owned());
            *ends.entry((key, item["destinationCounts"].is_object())).or_default() += 1;
        }
        ends
    }
}

fn is_asked_by_client(item: &Value) -> bool {
    item["source"]["pod"]["name"] == "client"
        && item["destination"]["pod"]["name"] == "web"
        && item["destination"]["port"] == 80
}

/// Reads what comes to a port, in a stream with lengths, at one connection after the other.
fn listen(listener: TcpListener, came: Came) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, came) = (BufReader::new(stream.unwrap()), came.clone());
            thread::spawn(move || {
                loop {
                    let mut length = Vec::new();
                    if stream.read_until(b' ', &mut length).unwrap_or(0) == 0 {
                        return;
                    }
                    let mut message = vec![0; std::str::from_utf8(&length).unwrap().trim().parse().unwrap()];
                    if stream.read_exact(&mut message).is_err() {
                        return;
                    }
                    came.add(&String::from_utf8(message).unwrap());
                }
            });
        }
    });
}

/// Reads what comes to a socket.
fn hear(path: &Path) -> Came {
    let (socket, came) = (UnixDatagram::bind(path).unwrap(), Came::default());
    thread::spawn({
        let came = came.clone();
        move || {
            let mut buffer = vec![0; 65536];
            while let Ok(length) = socket.recv(&mut buffer) {
                came.add(std::str::from_utf8(&buffer[..length]).unwrap());
            }
        }
    });
    came
}

/// Makes a cluster whose agents send to collectors.
fn up(nodes: &str, collectors: &str) {
    up_with(nodes, &[("PODNET_FLOW_COLLECTORS", collectors)]);
}

/// Makes a cluster whose agents have these options more.
fn up_with(nodes: &str, options: &[(&str, &str)]) {
    let up = Command::new(PODNET)
        .args(["up", "--nodes", nodes])
        .envs(options.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
}

/// Has the client ask the server, with a connection for each time.
fn ask(cluster: &Cluster, times: usize) {
    let address = cluster.kubectl(&["-n", "default", "get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let url = format!("http://{}/hostname?[1-{times}]", address.trim());
    cluster.exec("default", "client", &["curl", "-sS", "--max-time", "10", "-H", "connection: close", &url]).unwrap();
}

/// What the first node's agent says of itself.
fn metrics() -> String {
    let ask = ["netns", "exec", "podnet-node1", "curl", "-sS", "http://127.0.0.1:9099/metrics"];
    String::from_utf8(Command::new("ip").args(ask).output().unwrap().stdout).unwrap()
}

/// Tells the node's agent to end, and waits for the one that the supervisor starts then.
fn end_agent(cluster: &Cluster) {
    let pid = cluster.pid("node1-agent");
    let ended = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
    assert!(ended.success());
    eventually("another agent is ready", SOON, || {
        let status = String::from_utf8(cluster.podnet(&["status"]).stdout).unwrap();
        let line = status.lines().find(|line| line.starts_with("node1-agent")).unwrap_or_default();
        let now = line.split_whitespace().nth(1).and_then(|pid| pid.parse::<i32>().ok());
        if now.is_some_and(|now| now != pid) { Ok(()) } else { Err(status) }
    });
}

#[test]
fn collectors_are_sent_each_flow_once_also_those_of_the_time_when_one_was_away_and_the_agent_began_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let steady = hear(&path);
    let cluster = Cluster::none(PODNET);
    // Agents reach this machine at the underlay's address; nobody listens there yet.
    let away = "172.29.240.254:6010";
    let collectors = format!("syslog+unix://{} syslog+tcp://{away}", path.display());
    up("1", &collectors);
    cluster.apply(PODS);
    cluster.await_ready(&["-n", "default", "web", "client"], SOON);
    let ask = |times| ask(&cluster, times);
    ask(20);
    eventually("the flows come to who is there", SOON, || match steady.answers().len() {
        20 => Ok(()),
        number => Err(format!("{number} of 20")),
    });
    end_agent(&cluster);
    ask(10);
    let late = Came::default();
    listen(TcpListener::bind(away).unwrap(), late.clone());
    for came in [&steady, &late] {
        eventually("all come", SOON, || match came.answers().len() {
            30 => Ok(()),
            number => Err(format!("{number} of 30")),
        });
    }
    assert_eq!(steady.answers(), late.answers());
    let metrics = metrics();
    for counted in ["sent_records_total{collector=\"syslog+unix", "sent_records_total{collector=\"syslog+tcp"] {
        let line =
            metrics.lines().find(|line| line.contains(counted)).unwrap_or_else(|| panic!("{counted}: {metrics}"));
        assert!(!line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn the_agents_options_have_flows_between_pods_logged_within_bounds_and_workloads_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let log = path.display().to_string();
    let cluster = Cluster::none(PODNET);
    up_with(
        "1",
        &[
            ("PODNET_FLOW_LOG", log.as_str()),
            ("PODNET_FLOW_LOG_BYTES", "65536"),
            ("PODNET_FLOW_METRICS_PAIRS", "1000"),
            ("PODNET_FLOW_POD_TO_POD", "true"),
        ],
    );
    cluster.apply(PODS);
    cluster.await_ready(&["-n", "default", "web", "client"], SOON);
    // Not between pods: the node's own port.
    let node = cluster.kubectl(&["-n", "default", "get", "pod", "web", "-o", "jsonpath={.status.hostIP}"]);
    let strange = format!("curl -sk -o /dev/null https://{}:10250/ || true", node.trim());
    ask(&cluster, 20);
    let of_workloads = |metrics: &str, name: &str| -> Vec<String> {
        let is_it = |line: &&str| line.starts_with(name) && line.contains("client") && line.contains("web");
        metrics.lines().filter(is_it).map(str::to_owned).collect()
    };
    let counted = |connections: usize| {
        eventually("the connections are counted", SOON, || {
            match &of_workloads(&metrics(), "podnet_flow_connections_total{")[..] {
                [line] if line.ends_with(&format!(" {connections}")) => Ok(()),
                lines => Err(format!("{lines:?}")),
            }
        });
    };
    counted(20);
    assert!(!of_workloads(&metrics(), "podnet_flow_bytes_total{").is_empty());
    let logged = || std::fs::read_to_string(&path).unwrap_or_default();
    // Each has a record of about 1 kB at its beginning and one at its end.
    ask(&cluster, 400);
    let aside = directory.path().join("flows.jsonl.1.gz");
    eventually("what is full is set aside", SOON, || if aside.exists() { Ok(()) } else { Err(logged().len()) });
    cluster.exec("default", "client", &["sh", "-c", &strange]).unwrap();
    ask(&cluster, 1);
    counted(421);
    let has = |word: &str| logged().contains(word);
    assert!(has("\"name\":\"client\"") && !has(":10250,") && !has("pod-node"), "{}", logged());
    // One may be set aside meanwhile.
    let bytes = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.metadata().ok().map(|file| file.len());
    let all: u64 = std::fs::read_dir(directory.path()).unwrap().filter_map(bytes).sum();
    assert!(all <= 65536, "{all}");
}

#[test]
fn a_flow_between_two_nodes_is_one_record_of_the_sources_node_with_what_both_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let came = hear(&path);
    let cluster = Cluster::none(PODNET);
    up("2", &format!("syslog+unix://{}", path.display()));
    cluster.apply(&PODS.replacen("nodeName: node1", "nodeName: node2", 1));
    cluster.await_ready(&["-n", "default", "web", "client"], SOON);
    eventually("both nodes say where their records go", SOON, || {
        let nodes: Value = serde_json::from_str(&cluster.kubectl(&["get", "nodes", "-o", "json"])).unwrap();
        let nodes = nodes["items"].as_array().unwrap();
        let said: Vec<&Value> =
            nodes.iter().map(|node| &node["metadata"]["annotations"]["flows.podnet.io/recorded-to"]).collect();
        let is_same = said.len() == 2 && said[0].is_string() && said[0] == said[1];
        if is_same { Ok(()) } else { Err(format!("{said:?}")) }
    });
    ask(&cluster, 20);
    let expected = BTreeMap::from([((["end", "node1", "both"].map(str::to_owned), true), 20)]);
    eventually("each flow comes once", SOON, || {
        let ends = came.ends();
        if ends == expected { Ok(()) } else { Err(format!("{ends:?}")) }
    });
}
