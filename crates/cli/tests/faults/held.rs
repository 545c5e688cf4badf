//! What a cluster holds for its pods, counted, so that a difference names what was left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
};

use podnet_testnet::Cluster;
use serde_json::Value;

/// How many there are of each kind of thing.
pub(crate) type Counts = BTreeMap<String, usize>;

pub(crate) fn count(cluster: &Cluster) -> Counts {
    let mut counts = Counts::new();
    for node in nodes() {
        counts.extend(on_node(&node).into_iter().map(|(what, count)| (format!("{node} {what}"), count)));
    }
    counts.insert("namespaces".to_owned(), namespaces());
    counts.insert("pause processes".to_owned(), processes("pause").len());
    counts.insert("mounts of the machine below /var/lib/podnet".to_owned(), mounts());
    counts.insert("addresses given in IPAMBlocks".to_owned(), given(cluster).len());
    counts
}

/// The nodes of the cluster that is up, by their namespaces.
pub(crate) fn nodes() -> Vec<String> {
    let names = fs::read_dir("/run/netns").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut nodes: Vec<String> =
        names.filter_map(|name| name.strip_prefix("podnet-node").map(|number| format!("node{number}"))).collect();
    nodes.sort_unstable();
    assert!(!nodes.is_empty(), "no cluster is up");
    nodes
}

/// What `pods` more pods of the Deployment `many` on a node, and `all` more in the whole cluster, have to add.
pub(crate) fn with_many(before: &Counts, per_node: &BTreeMap<String, usize>) -> Counts {
    let all: usize = per_node.values().sum();
    let mut expected = before.clone();
    let mut add = |what: String, count: usize| *expected.get_mut(&what).unwrap_or_else(|| panic!("no {what}")) += count;
    for node in nodes() {
        let here = per_node.get(&node).copied().unwrap_or_default();
        let once_each = [
            "veths",
            "pod routes",
            "neighbours",
            "cgroups",
            "sandbox directories",
            "set local-pods of podnet-services",
            "set local-pairs of podnet-services",
        ];
        once_each.into_iter().for_each(|what| add(format!("{node} {what}"), here));
        add(format!("{node} map backends of podnet-services"), all);
        add(format!("{node} map frontends of podnet-services"), 1);
    }
    for what in ["namespaces", "pause processes", "addresses given in IPAMBlocks"] {
        add(what.to_owned(), all);
    }
    nodes()
        .iter()
        .for_each(|node| *expected.get_mut(&format!("{node} map no-endpoints of podnet-services")).unwrap() -= 1);
    expected
}

/// Where the two differ, in words.
pub(crate) fn differences(expected: &Counts, now: &Counts) -> Vec<String> {
    let keys: BTreeSet<&String> = expected.keys().chain(now.keys()).collect();
    let differing = keys.into_iter().filter(|key| expected.get(*key) != now.get(*key));
    differing.map(|key| format!("{key}: expected {:?}, there are {:?}", expected.get(key), now.get(key))).collect()
}

/// The addresses that the IPAMBlocks say are given.
pub(crate) fn given(cluster: &Cluster) -> BTreeSet<String> {
    let blocks = cluster.json(&["ipamblocks.crd.projectcalico.org"]);
    let of_block = |block: &Value| {
        let cidr = block["spec"]["cidr"].as_str().unwrap();
        let base: Ipv4Addr = cidr.split('/').next().unwrap().parse().unwrap();
        let allocations = block["spec"]["allocations"].as_array().unwrap().iter();
        let ordinals = allocations.enumerate().filter(|(_, entry)| !entry.is_null()).map(|(ordinal, _)| ordinal);
        ordinals.map(|ordinal| Ipv4Addr::from(u32::from(base) + ordinal as u32).to_string()).collect::<Vec<_>>()
    };
    let given: Vec<String> = blocks["items"].as_array().unwrap().iter().flat_map(of_block).collect();
    let different: BTreeSet<String> = given.iter().cloned().collect();
    assert_eq!(different.len(), given.len(), "two blocks overlap: {given:?}");
    different
}

/// The processes that were started as `podnet <command>`.
pub(crate) fn processes(command: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        let program = words.next().and_then(|program| Path::new(program).file_name()).and_then(|name| name.to_str());
        program == Some("podnet") && words.next() == Some(command)
    })
    .collect()
}

fn on_node(node: &str) -> Vec<(String, usize)> {
    let lines = |command: &[&str], of_pod: &dyn Fn(&str) -> bool| {
        inside(node, command).lines().filter(|line| of_pod(line)).count()
    };
    let on_veth = |line: &str| line.contains(" dev pn");
    let mut counts = vec![
        ("veths".to_owned(), lines(&["ip", "-o", "link", "show", "type", "veth"], &|line| !line.contains(": eth0"))),
        ("pod routes".to_owned(), lines(&["ip", "-o", "route", "show", "proto", "88"], &on_veth)),
        ("neighbours".to_owned(), lines(&["ip", "-o", "neigh", "show", "nud", "permanent"], &on_veth)),
        ("cgroups".to_owned(), cgroups(node)),
        ("sandbox directories".to_owned(), entries(&format!("/var/lib/podnet/nodes/{node}/runtime"))),
    ];
    for table in ["podnet", "podnet-services"] {
        let rules: Value = serde_json::from_str(&inside(node, &["nft", "-j", "list", "table", "ip", table])).unwrap();
        for object in rules["nftables"].as_array().unwrap() {
            for kind in ["map", "set"] {
                if let Some(set) = object.get(kind) {
                    let elements = set.get("elem").and_then(Value::as_array).map_or(0, Vec::len);
                    counts.push((format!("{kind} {} of {table}", set["name"].as_str().unwrap()), elements));
                }
            }
        }
    }
    counts
}

fn inside(node: &str, command: &[&str]) -> String {
    let output = Command::new("ip").args(["netns", "exec", &format!("podnet-{node}")]).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?} on {node}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The node's cgroup appears with its first pod.
fn cgroups(node: &str) -> usize {
    let roots = ["/sys/fs/cgroup/unified/podnet", "/sys/fs/cgroup/podnet"];
    let root = roots.into_iter().find(|root| Path::new(root).join("system").is_dir());
    let path = Path::new(root.expect("the cluster has a cgroup")).join(node);
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    inside.filter(|entry| entry.path().is_dir()).count()
}

/// Those of nodes and of pods: others on the machine may have namespaces of their own.
fn namespaces() -> usize {
    let entries = fs::read_dir("/run/netns").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("podnet-")).count()
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory}: {error}")).count()
}

/// Pods mount in namespaces of their own: none of it may show here, not even while they run.
fn mounts() -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with("/var/lib/podnet/"))).count()
}
