//! Crashes in mid-work, and pods that come and go: nothing acknowledged is lost, nothing is given twice, nothing is left.
#![allow(clippy::unwrap_used, missing_docs)]

mod daemons;
mod held;
mod pods;

use std::{collections::BTreeSet, time::Duration};

use podnet_testnet::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(90);

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// A Deployment `many` and its Service.
fn many(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: many}}}}\n  template:\n    metadata: {{labels: {{app: many}}}}\n    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: d, image: podnet.local/demoapp}}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: many}}\nspec: {{selector: {{app: many}}, ports: [{{port: 80}}]}}"
    )
}

fn await_all_available(cluster: &Cluster) {
    cluster.kubectl(&["wait", "--for=condition=Available", "deployment/many", "--timeout=180s"]);
    cluster.kubectl(&["rollout", "status", "deployment/many", "--timeout=180s"]);
}

fn pods(cluster: &Cluster, selection: &[&str]) -> Vec<Value> {
    cluster.json(&[&["pods"], selection].concat())["items"].as_array().unwrap().clone()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {object}"))
}

/// The addresses that the API knows pods by, each of them once.
fn pod_addresses(cluster: &Cluster) -> BTreeSet<String> {
    let pods = pods(cluster, &["-A"]);
    let addresses: Vec<&str> = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    let different: BTreeSet<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    assert_eq!(different.len(), addresses.len(), "an address is given twice: {addresses:?}");
    different
}

/// The `podnet <command>` processes of the pod with this uid, by their pids.
fn processes_of(command: &str, uid: &str) -> Vec<i32> {
    let pids = held::processes(command).into_iter();
    pids.filter(|pid| {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroup.lines().any(|line| line.split('/').any(|part| part == uid))
    })
    .collect()
}

/// Waits until what is held is what is expected, and shows only the differences where it does not become so.
fn await_held(cluster: &Cluster, what: &str, expected: &held::Counts) {
    eventually(what, SOON, || match held::differences(expected, &held::count(cluster)) {
        differences if differences.is_empty() => Ok(()),
        differences => Err(differences.join("\n")),
    });
}

/// A cluster that holds nothing but its DNS pods and an empty Service `many`, and what it holds.
fn at_rest(arguments: &[&str]) -> (Cluster, held::Counts) {
    let cluster = Cluster::up(PODNET, arguments);
    // The Service itself costs elements of its own: it is there before the count and after it.
    cluster.apply(&many(0));
    let counts = eventually("the empty cluster comes to rest", SOON, || {
        let counts = held::count(&cluster);
        let nodes = held::nodes();
        let pods: usize = nodes.iter().map(|node| counts[&format!("{node} veths")]).sum();
        let refuses = |node: &String| counts[&format!("{node} map no-endpoints of podnet-services")] == 1;
        // Two pods of the cluster DNS, each with three endpoints, and the API server.
        let knows = |node: &String| counts[&format!("{node} map backends of podnet-services")] == 7;
        match pods == 2 && counts["addresses given in IPAMBlocks"] == 2 && nodes.iter().all(|n| refuses(n) && knows(n))
        {
            true => Ok(counts),
            false => Err(format!("{counts:#?}")),
        }
    });
    (cluster, counts)
}
