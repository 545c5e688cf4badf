//! `podnet agent --flow-collector`: what collectors are sent of a cluster's flows.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::net::UnixDatagram,
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
        let is_meant = |item: &&Value| {
            item["report"] == "end"
                && item["source"]["pod"]["name"] == "client"
                && item["destination"]["pod"]["name"] == "web"
                && item["destination"]["port"] == 80
        };
        let ended = came.values().filter(is_meant);
        ended
            .map(|item| (item["id"].as_str().unwrap().to_owned(), item["received"]["bytes"].as_u64().unwrap()))
            .collect()
    }
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
    let socket = UnixDatagram::bind(&path).unwrap();
    let steady = Came::default();
    thread::spawn({
        let steady = steady.clone();
        move || {
            let mut buffer = vec![0; 65536];
            while let Ok(length) = socket.recv(&mut buffer) {
                steady.add(std::str::from_utf8(&buffer[..length]).unwrap());
            }
        }
    });
    let cluster = Cluster::none(PODNET);
    // Agents reach this machine at the underlay's address; nobody listens there yet.
    let away = "172.29.240.254:6010";
    let collectors = format!("syslog+unix://{} syslog+tcp://{away}", path.display());
    let up = Command::new(PODNET)
        .args(["up", "--nodes", "1"])
        .env("PODNET_FLOW_COLLECTORS", collectors)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    cluster.apply(PODS);
    cluster.await_ready(&["-n", "default", "web", "client"], SOON);
    let address = cluster.kubectl(&["-n", "default", "get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let ask = |times: usize| {
        let url = format!("http://{}/hostname?[1-{times}]", address.trim());
        cluster
            .exec("default", "client", &["curl", "-sS", "--max-time", "10", "-H", "connection: close", &url])
            .unwrap();
    };
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
    let ask = ["netns", "exec", "podnet-node1", "curl", "-sS", "http://127.0.0.1:9099/metrics"];
    let metrics = String::from_utf8(Command::new("ip").args(ask).output().unwrap().stdout).unwrap();
    for counted in ["sent_records_total{collector=\"syslog+unix", "sent_records_total{collector=\"syslog+tcp"] {
        let line =
            metrics.lines().find(|line| line.contains(counted)).unwrap_or_else(|| panic!("{counted}: {metrics}"));
        assert!(!line.ends_with(" 0"), "{line}");
    }
}
