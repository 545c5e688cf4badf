//! Services in every mode: what people apply holds in each, a change of the mode under a constant load of new and of lasting connections
//! loses none, and what somebody damages meanwhile is mended without a connection noticing that needed no mending. On this machine in the
//! modes that are there on every one; with virtual servers in a cluster that is up in a virtual machine.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../shared/asking.rs"]
mod asking;
mod bare;
mod damage;
mod load;
#[path = "../shared/mending.rs"]
mod mending;
mod place;
mod servers;

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use podnet_testnet::{Cluster, eventually, vm};
use serde_json::Value;

use load::Load;
use place::Place;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
/// Seconds that one answer may take; fewer are too few where the processor is emulated.
const ONE_ANSWER: u32 = 10;
const NODES: [&str; 2] = ["node1", "node2"];

const CLIENTS: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: web}
spec: {nodeName: node1, terminationGracePeriodSeconds: 0, containers: [{name: t, image: podnet.local/tools, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

#[test]
fn what_people_apply_holds_in_every_mode_and_no_connection_is_lost_by_a_change_of_the_mode() {
    // Mode `nftables` is the first and the last, so that each is entered and left.
    let journey = Journey {
        modes: &["nftables", "iptables", "ebpf", "userspace", "nftables"],
        damaged: &["nftables", "iptables", "ebpf", "userspace"],
        rate: 50,
    };
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    let scene = Scene::set(&cluster);
    journey.is_made(&scene);
    for mode in ["nftables", "iptables", "ebpf", "userspace"] {
        cluster.take_proxy_mode(mode, &NODES, SOON);
        damage::all_is_mended(&scene, mode);
    }
}

/// It takes 200 s of a processor.
#[test]
fn virtual_servers_hold_too_for_a_whole_cluster_in_a_virtual_machine() {
    podnet_testnet::vm::run_cluster_tests("inside_virtual_servers", PODNET);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn inside_virtual_servers_hold_and_are_mended() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--proxy-mode", "ipvs"]);
    progress("the cluster is up");
    let mut scene = Scene::set(&cluster);
    let modes = &["ipvs", "nftables", "iptables", "ebpf", "ipvs", "userspace"];
    Journey { modes, damaged: &["ipvs"], rate: 4 }.is_made(&scene);
    // Nobody came through virtual servers to the other Service, so the program has that.
    scene.service.clone_from(&scene.other);
    Journey { modes: &["userspace", "ipvs"], damaged: &[], rate: 4 }.is_made(&scene);
    // What connections needed comes when these are over.
    servers::read_as_people_expect(&scene);
    progress("virtual servers serve again");
    scene.holds("ipvs");
    damage::virtual_servers_are_mended(&scene);
    progress("all are mended");
}

/// Through modes, under a load that begins in the first of them.
struct Journey {
    modes: &'static [&'static str],
    /// Where it is damaged at the first visit under load.
    damaged: &'static [&'static str],
    /// Requests a second of each of three clients.
    rate: u32,
}

impl Journey {
    fn is_made(&self, scene: &Scene<'_>) {
        let mut damaged = BTreeSet::new();
        let (first, rest) = self.modes.split_first().unwrap();
        is_visited(scene, first);
        scene.answers_by_name();
        if *first == "ipvs" {
            servers::read_as_people_expect(scene);
            scene.is_traced();
        }
        let load = Load::begin(scene, self.rate);
        for mode in rest {
            is_visited(scene, mode);
            // In the virtual machine some addresses are another mode's, and the processor is slow.
            if !vm::is_here() {
                scene.is_traced();
            }
            match (*first, *mode) {
                ("userspace", "ipvs") => servers::leave_alone(scene),
                ("ipvs", "userspace") => servers::stay_beside_the_program(scene),
                (_, "ipvs") => servers::read_as_people_expect(scene),
                _ => {}
            }
            if self.damaged.contains(mode) && damaged.insert(*mode) {
                damage::is_mended(scene, mode);
            }
            load.goes_on();
            progress("requests went on");
        }
        load.end();
    }
}

fn is_visited(scene: &Scene<'_>, mode: &str) {
    let began = Instant::now();
    scene.cluster.take_proxy_mode(mode, &NODES, SOON);
    progress(&format!("mode {mode} was taken in {:?}", began.elapsed()));
    scene.holds(mode);
    scene.knows_names();
    progress(&format!("mode {mode} was looked at for {:?}", began.elapsed()));
}

/// The objects of the scenario.
struct Scene<'a> {
    cluster: &'a Cluster,
    client: Place,
    /// The pods that serve.
    names: BTreeSet<String>,
    /// The ClusterIP of the Service whose names are asked.
    named: String,
    /// The one that the load goes to, and one of another Service of the same pods.
    service: String,
    other: String,
    balanced: String,
    /// The pods' addresses.
    pods: BTreeSet<String>,
    /// The nodes' addresses.
    nodes: Vec<String>,
}

impl<'a> Scene<'a> {
    fn set(cluster: &'a Cluster) -> Self {
        cluster.apply(&[include_str!("../manifests/04-services.yaml"), CLIENTS].concat());
        cluster.await_ready(&["-n", "web", "--all"], SOON);
        progress("the pods are ready");
        // All by one call: where the processor is emulated, each takes seconds.
        let (objects, balanced) = eventually("the load balancer's address", SOON, || {
            let objects = cluster.json(&["-n", "web", "pods,services,nodes"])["items"].as_array().unwrap().clone();
            let balancer = objects.iter().find(|object| object["metadata"]["name"] == "web-lb");
            let ip = balancer.and_then(|service| service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str());
            ip.map(str::to_owned).map(|ip| (objects, ip)).ok_or("none yet")
        });
        let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
        let pods = || of_kind("Pod").filter(|pod| pod["metadata"]["labels"]["app"] == "web");
        let names = pods().map(|pod| text_of(&pod["metadata"]["name"])).collect();
        let pods = pods().map(|pod| text_of(&pod["status"]["podIP"])).collect();
        let ip = |name: &str| {
            let service = of_kind("Service").find(|service| service["metadata"]["name"] == name);
            text_of(&service.unwrap_or_else(|| panic!("there is no Service {name}"))["spec"]["clusterIP"])
        };
        let nodes = of_kind("Node").map(|node| text_of(&node["status"]["addresses"][0]["address"])).collect();
        let client = Place::of(cluster, "node1", "web", "client");
        let (named, other) = (ip("web"), ip("other"));
        Self { cluster, client, names, service: named.clone(), named, other, balanced, pods, nodes }
    }

    /// From a pod, from each node and from outside; pings of the ClusterIP, and a port that it has not.
    fn holds(&self, mode: &str) {
        let pod = |command: &str| self.client.run(command);
        for at in [&self.service, &self.balanced, &format!("{}:30080", self.nodes[0])] {
            self.answers(&pod, at);
        }
        for node in NODES {
            self.answers(&|command| on_node(node, command), &self.service);
            if mode != "ipvs" {
                // The kernel lets virtual servers send nothing from a loopback address to elsewhere.
                self.answers(&|command| on_node(node, command), "127.0.0.1:30080");
            }
        }
        for node in &self.nodes {
            self.answers(&shell, &format!("{node}:30080"));
        }
        self.answers(&shell, &self.balanced);
        let ping = format!("ping -c 1 -W {ONE_ANSWER} {}", self.service);
        pod(&ping).unwrap();
        on_node("node2", &ping).unwrap();
        let refused = pod(&format!("curl -sS --max-time {ONE_ANSWER} http://{}:81", self.service)).unwrap_err();
        // curl says so of what is refused; what takes too long is 28.
        assert!(refused.contains("curl: (7)"), "{refused}");
    }

    /// What the kernels have on the way to a Service is what the trace says.
    fn is_traced(&self) {
        eventually("the kernels have what is traced", SOON, || {
            let told = self.cluster.podnet(&["trace", "web/client", "svc/web/web", "--compare"]);
            let text = String::from_utf8_lossy(&told.stdout).into_owned();
            if text.contains("the kernels have it so") { Ok(()) } else { Err(text) }
        });
    }

    /// The pod is told the Services' names and what they are, by cluster DNS, which it reaches through a Service itself.
    fn knows_names(&self) {
        let in_pod = |command: &str| self.client.run(command);
        eventually("names are answered", SOON, || asking::names_are_answered(in_pod, &self.named, &self.pods));
    }

    /// To who asks as people do.
    fn answers_by_name(&self) {
        self.answers(&|command| self.cluster.exec("web", "client", &["sh", "-c", command]), "web");
    }

    /// From somewhere all pods are heard.
    fn answers(&self, from: &dyn Fn(&str) -> Result<String, String>, at: &str) {
        let mut seen = BTreeSet::new();
        eventually(&format!("all pods answer at {at}"), SOON, || {
            let url = format!("http://{at}/hostname?[1-12]");
            let answers = from(&format!("curl -sS --max-time {ONE_ANSWER} -H 'Connection: close' '{url}'"))?;
            seen.extend(answers.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
            if seen == self.names { Ok(()) } else { Err(format!("{seen:?} of {:?}", self.names)) }
        });
    }
}

/// Says how far it came, and when.
fn progress(what: &str) {
    let time = std::fs::read_to_string("/proc/uptime").unwrap();
    println!("up for {} s: {what}", time.split(' ').next().unwrap());
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn on_node(node: &str, command: &str) -> Result<String, String> {
    run(Command::new("ip").args(["netns", "exec", &format!("podnet-{node}"), "sh", "-c", command]))
}

fn shell(command: &str) -> Result<String, String> {
    run(Command::new("sh").args(["-c", command]))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(format!("{command:?}: {text}")) }
}
