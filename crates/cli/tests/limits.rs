//! Limits of pods' traffic, with real kubectl and real clients.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{process::Command, time::Duration};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";

/// A cluster with the scenario's pods, and one more on another node than the limited one.
struct Scenario {
    cluster: Cluster,
    /// Where the limited pod is.
    node: String,
}

impl Scenario {
    fn up(more: &[&str]) -> Self {
        let cluster = Cluster::up(PODNET, &[&["--nodes", "3", "--ip-family", "dual"], more].concat());
        cluster.apply_file("crates/cli/tests/manifests/06-bandwidth.yaml");
        cluster.await_ready(&["limited", "free"], SOON);
        let node = cluster.json(&["pod", "limited"])["spec"]["nodeName"].as_str().unwrap().to_owned();
        let other = ["node1", "node2"].into_iter().find(|name| *name != node).unwrap();
        cluster.apply(&pod("far", other, ""));
        cluster.await_ready(&["far"], SOON);
        cluster.exec("default", "far", &["iperf3", "-s", "-D"]).unwrap();
        Self { cluster, node }
    }

    /// The addresses of `far`: of IPv4, and of IPv6.
    fn far(&self) -> [String; 2] {
        let status = self.cluster.json(&["pod", "far"])["status"]["podIPs"].clone();
        [0, 1].map(|place| status[place]["ip"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned())
    }

    /// Megabits per second that arrive of a TCP transfer from a pod to `far`, or back.
    fn rate(&self, pod: &str, back: bool, seconds: u32) -> f64 {
        self.rate_to(&self.far()[0], pod, back, seconds)
    }

    fn rate_to(&self, far: &str, pod: &str, back: bool, seconds: u32) -> f64 {
        let seconds = seconds.to_string();
        let mut command = vec!["iperf3", "-J", "-t", &seconds, "-c", far];
        command.extend(back.then_some("-R"));
        // The server serves one client after the other.
        let report = eventually("iperf3", SOON, || self.cluster.exec("default", pod, &command));
        let report: Value = serde_json::from_str(&report).unwrap();
        report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
    }

    fn annotate(&self, pod: &str, annotations: &[&str]) {
        self.cluster.kubectl(&[&["annotate", "--overwrite", "pod", pod], annotations].concat());
    }

    /// What shapes traffic on the limited pod's node: token buckets and the devices that traffic from pods is led through.
    fn shaping(&self) -> Vec<String> {
        let on_node = |arguments: &[&str]| {
            let output =
                Command::new("ip").args(["netns", "exec", &format!("podnet-{}", self.node)]).args(arguments).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let qdiscs = on_node(&["tc", "qdisc", "show"]);
        let devices = on_node(&["ip", "-o", "link", "show", "type", "ifb"]);
        // Every pod's device has a clsact, for the fast path.
        let ours = qdiscs.lines().filter(|line| line.contains("tbf"));
        ours.chain(devices.lines()).map(str::to_owned).collect()
    }

    fn await_shaping(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        eventually(what, SOON, || {
            let shaping = self.shaping();
            if holds(&shaping) { Ok(()) } else { Err(format!("{shaping:#?}\n{}", self.cluster.logs())) }
        });
    }

    /// Whether `podnet flows` tells that packets to a pod were beyond its limits.
    fn is_told_as_refused(&self, pod: &str) -> Result<(), String> {
        self.tells(&[], |told| told["type"] == "drops" && told["pod"]["name"] == pod && told["direction"] == "ingress")
    }

    /// Whether `podnet flows` tells of a flow of TCP from a pod that it was refused by a limit.
    fn has_flow_beyond(&self, pod: &str) -> Result<(), String> {
        self.tells(&["--verdict", "refused"], |told| {
            told["type"] == "flow" && told["protocol"] == "TCP" && told["source"]["pod"]["name"] == pod
        })
    }

    /// Whether such a record is among those that have a limit for their cause.
    fn tells(&self, more: &[&str], is_it: impl Fn(&Value) -> bool) -> Result<(), String> {
        let output = self.cluster.podnet(&[&["flows", "-o", "jsonl", "--cause", "limit"], more].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let is_told = text.lines().any(|line| is_it(&serde_json::from_str(line).unwrap()));
        if is_told { Ok(()) } else { Err(text) }
    }

    /// Whether a trace from `free` to `far` passes this limit, and the kernels have all on its way.
    fn assert_traced(&self, limit: &str) {
        let output = self.cluster.podnet(&["trace", "pod/free", "pod/far:5201", "--compare"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(limit) && text.contains("the kernels have it so"), "{limit}: {text}");
    }

    fn await_event(&self, pod: &str, part: &str) {
        eventually(&format!("event of {pod} with {part}"), SOON, || {
            let events = self.cluster.kubectl(&["events", "--for", &format!("pod/{pod}")]);
            if events.contains(part) { Ok(()) } else { Err(events) }
        });
    }
}

fn pod(name: &str, node: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: t, image: podnet.local/tools, command: [sleep, infinity]}}]}}"
    )
}

/// Whether a limit lets through what it should, as `measure` finds in megabits per second. More is wrong at once. Less may be the machine's
/// doing, that had something else to do than to fill the bucket: the best of three counts.
fn assert_limit(what: &str, asked: f64, of: f64, measure: impl Fn() -> f64) {
    let mut rates = Vec::new();
    while rates.len() < 3 {
        let rate = measure();
        assert!(rate <= asked * (1.0 + of), "{what}: {rate} Mbit/s, and not {asked}");
        if rate >= asked * (1.0 - of) {
            return;
        }
        rates.push(rate);
    }
    panic!("{what}: {rates:?} Mbit/s, and not {asked}");
}

/// `tc` prints rates with the header of each frame counted in: 1450 bytes become 1464.
fn has_buckets(shaping: &[String], rate: &str, count: usize) -> bool {
    shaping.iter().filter(|line| line.starts_with("qdisc tbf") && line.contains(&format!("rate {rate}"))).count()
        == count
}

#[test]
fn limits_hold_in_both_directions_change_live_and_go_with_the_pod() {
    let scenario = Scenario::up(&[]);
    for (what, back) in [("from the pod", false), ("to the pod", true)] {
        assert_limit(what, 10.0, 0.05, || scenario.rate("limited", back, 6));
    }
    // A bucket is of the link and not of an address; here a short look has to do.
    assert_limit("by IPv6", 10.0, 0.1, || scenario.rate_to(&scenario.far()[1], "limited", false, 4));
    let rate = scenario.rate("free", false, 1);
    assert!(rate > 100.0, "free: {rate} Mbit/s");

    // Changed while it runs; a wrong value changes nothing and is told.
    scenario.annotate("limited", &[&format!("{EGRESS}=40M"), &format!("{INGRESS}-")]);
    scenario.await_shaping("the changed limits", |shaping| {
        has_buckets(shaping, "40386Kbit", 1) && shaping.iter().filter(|line| line.starts_with("qdisc tbf")).count() == 1
    });
    assert_limit("after the change", 40.0, 0.06, || scenario.rate("limited", false, 4));
    scenario.annotate("limited", &[&format!("{EGRESS}=10Q")]);
    scenario.await_event("limited", "the annotation kubernetes.io/egress-bandwidth is \"10Q\"");
    assert!(has_buckets(&scenario.shaping(), "40386Kbit", 1));

    scenario.cluster.kubectl(&["delete", "pod", "limited", "--now"]);
    scenario.await_shaping("nothing left", <[String]>::is_empty);
}

#[test]
fn a_wrong_limit_keeps_the_pod_from_running_and_harms_nothing_else() {
    let scenario = Scenario::up(&[]);
    let node = scenario.node.clone();
    let before = scenario.shaping();
    scenario.cluster.apply(&pod("wrong", &node, &format!("{INGRESS}: 10Q")));
    scenario.await_event("wrong", "the annotation kubernetes.io/ingress-bandwidth is \"10Q\"; it must be a quantity");
    assert_eq!(scenario.shaping(), before);
    // Mended, it runs.
    scenario.annotate("wrong", &[&format!("{INGRESS}=5M")]);
    scenario.cluster.await_ready(&["wrong"], SOON);
    assert!(has_buckets(&scenario.shaping(), "5048Kbit", 1));

    // While the agent is down a pod goes and another one's limits change; others break what is there.
    let agent = scenario.cluster.pid(&format!("{node}-agent"));
    let _ = Command::new("kill").args(["-STOP", &agent.to_string()]).status().unwrap();
    scenario.annotate("wrong", &[&format!("{EGRESS}=7M")]);
    let tc = |arguments: &[&str]| {
        let namespace = format!("podnet-{node}");
        let done = Command::new("ip").args(["netns", "exec", &namespace, "tc"]).args(arguments).status().unwrap();
        assert!(done.success(), "tc {arguments:?}");
    };
    let limited = scenario.shaping().iter().find(|line| line.contains("10096Kbit")).cloned().unwrap();
    let device = limited.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned();
    tc(&["qdisc", "del", "dev", &device, "root"]);
    let _ = Command::new("kill").args(["-KILL", &agent.to_string()]).status().unwrap();
    scenario.await_shaping("what was broken and what changed meanwhile", |shaping| {
        has_buckets(shaping, "10096Kbit", 2)
            && has_buckets(shaping, "7067Kbit", 1)
            && has_buckets(shaping, "5048Kbit", 1)
    });
    // The running agent hears of it and need not wait for its next round.
    let broken = std::time::Instant::now();
    tc(&["qdisc", "del", "dev", &device, "root"]);
    scenario.await_shaping("what was broken again", |shaping| has_buckets(shaping, "10096Kbit", 2));
    assert!(broken.elapsed() < Duration::from_secs(5), "{:?}", broken.elapsed());
    scenario.cluster.kubectl(&["delete", "pod", "limited", "wrong", "--now"]);
    scenario.await_shaping("nothing left", <[String]>::is_empty);
}

#[test]
fn packets_and_connections_are_limited_live_and_go_with_the_pod() {
    let scenario = Scenario::up(&["--flows"]);
    let far = scenario.cluster.json(&["pod", "far"]);
    let (addrs, node) = (scenario.far(), far["spec"]["nodeName"].as_str().unwrap());
    let tables = || {
        let namespace = format!("podnet-{node}");
        let output = Command::new("ip").args(["netns", "exec", &namespace, "nft", "list", "tables"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!tables().contains("podnet-limits"));
    // Ten a second and five at once: of 200 within 0.4 s no more than a tenth comes back.
    let pings = |addr: &str| {
        let report = scenario.cluster.exec(
            "default",
            "free",
            &["sh", "-c", &format!("ping -q -i 0.002 -c 200 -W 1 {addr} || true")],
        )?;
        let received = report.split(',').nth(1).and_then(|part| part.split_whitespace().next()?.parse::<u32>().ok());
        received.ok_or(report)
    };
    assert_eq!(addrs.each_ref().map(|addr| pings(addr)), [Ok(200), Ok(200)]);
    scenario.annotate("far", &["qos.projectcalico.org/ingressMaxConnections=1"]);
    let two_connections = |addr: &str| {
        let two = format!("exec 3<>/dev/tcp/{addr}/5201 && exec 4<>/dev/tcp/{addr}/5201");
        scenario.cluster.exec("default", "free", &["bash", "-c", &two])
    };
    for addr in &addrs {
        eventually("the second connection is refused", SOON, || match two_connections(addr) {
            Err(output) if output.contains("refused") => Ok(()),
            other => Err(format!("{addr}: {other:?}")),
        });
    }
    assert!(["ip", "ip6"].iter().all(|family| tables().contains(&format!("{family} podnet-limits"))), "{}", tables());
    eventually("what was refused is told as the limit's", SOON, || scenario.is_told_as_refused("far"));
    // By the asking pod's node, which asks the limited one's.
    eventually("a flow is told that a limit refused", SOON, || {
        let _ = two_connections(&addrs[0]);
        scenario.has_flow_beyond("free")
    });
    scenario.annotate("far", &["qos.projectcalico.org/ingressMaxConnections=2"]);
    for addr in &addrs {
        eventually("two connections are not too many", SOON, || two_connections(addr));
    }
    scenario.assert_traced("at most 2 connections to the pod at once: more are refused");
    scenario.annotate(
        "far",
        &["qos.projectcalico.org/ingressMaxConnections-", "qos.projectcalico.org/ingressPacketRate=10"],
    );
    for addr in &addrs {
        eventually("packets are lost", SOON, || match pings(addr)? {
            received @ 1..=40 => Ok(received),
            received => Err(format!("{received} of 200 to {addr}")),
        });
    }
    scenario.assert_traced("at most 10 packets/s to the pod, 5 at once: more are dropped");
    scenario.annotate("far", &["qos.projectcalico.org/ingressMaxConnections=0"]);
    scenario.await_event("far", "the annotation qos.projectcalico.org/ingressMaxConnections is \"0\"");
    scenario.cluster.kubectl(&["delete", "pod", "far", "--now"]);
    eventually("the table goes with the last limited pod", SOON, || {
        let tables = tables();
        if tables.contains("podnet-limits") { Err(tables) } else { Ok(()) }
    });
}
