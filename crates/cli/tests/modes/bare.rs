//! A kernel without netfilter: the agent serves Services itself, tells what it cannot have, and has it when the modules come.

use std::{collections::BTreeSet, path::Path};

use podnet_testnet::{Cluster, eventually, vm};

use crate::{NODES, PODNET, SOON, Scene, on_node, progress};

/// It takes 200 s of a processor.
#[test]
fn services_of_a_whole_cluster_in_a_virtual_machine_without_netfilter_hold_too() {
    vm::run_bare_cluster_tests("inside_bare", PODNET);
}

/// It takes as long again for the agents to ask the kernel once more.
#[test]
#[ignore = "takes ten minutes of a processor"]
fn what_a_whole_cluster_in_a_virtual_machine_without_netfilter_lacks_comes_with_the_modules() {
    vm::run_bare_cluster_tests("inside_late_modules", PODNET);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn inside_bare_services_are_served_over_an_agent_that_is_killed() {
    let cluster = without_netfilter();
    let scene = is_served(&cluster);
    let agent = cluster.pid("node1-agent").to_string();
    on_node("node1", &format!("kill -9 {agent}")).unwrap();
    serves_in(&cluster, "userspace");
    scene.holds("userspace");
    measures("podnet_nftables_lacking 1");
    measures("podnet_network_failing 0");
    progress("another agent goes on");
}

#[test]
#[ignore = "runs in the virtual machine"]
fn inside_late_modules_bring_what_was_lacking() {
    let cluster = without_netfilter();
    let scene = is_served(&cluster);
    vm::load_netfilter();
    serves_in(&cluster, "nftables");
    for table in ["ip podnet", "ip podnet-pods", "ip podnet-services"] {
        for node in NODES {
            eventually(&format!("{node} has table {table}"), SOON, || {
                let tables = on_node(node, "nft list tables")?;
                if tables.lines().any(|line| line == format!("table {table}")) { Ok(()) } else { Err(tables) }
            });
        }
    }
    senders_are_checked_by_the_path_filter("0");
    scene.holds("nftables");
    measures("podnet_nftables_lacking 0");
    progress("all is in force that was lacking");
}

fn without_netfilter() -> Cluster {
    assert!(!Path::new("/sys/module/nfnetlink").exists(), "this kernel has netfilter");
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    progress("the cluster is up");
    cluster
}

/// Its agents serve Services themselves, and say what is lacking.
fn is_served(cluster: &Cluster) -> Scene<'_> {
    let scene = Scene::set(cluster);
    serves_in(cluster, "userspace");
    scene.holds("userspace");
    scene.answers_by_name();
    progress("Services are served");
    senders_are_checked_by_the_path_filter("1");
    told_of(cluster);
    scene
}

fn serves_in(cluster: &Cluster, mode: &str) {
    for node in NODES {
        eventually(&format!("{node} is in mode {mode}"), SOON * 2, || {
            let told = on_node(node, "curl -s http://127.0.0.1:10249/proxyMode")?;
            if told.trim() == mode { Ok(()) } else { Err(format!("{told}\n{}", cluster.logs())) }
        });
    }
}

/// Of all pods' devices.
fn senders_are_checked_by_the_path_filter(setting: &str) {
    eventually(&format!("pods' devices have rp_filter {setting}"), SOON, || {
        let found = on_node("node1", "cat /proc/sys/net/ipv4/conf/pn*/rp_filter")?;
        let all: BTreeSet<&str> = found.lines().collect();
        if all == BTreeSet::from([setting]) { Ok(()) } else { Err(found) }
    });
}

/// Once for each node, by its name.
fn told_of(cluster: &Cluster) {
    for node in NODES {
        eventually(&format!("there is one event of {node}"), SOON, || {
            let events =
                cluster.kubectl(&["get", "events", "-A", "--field-selector", &format!("involvedObject.name={node}")]);
            let told = events.lines().filter(|line| line.contains("NoNfTables")).count();
            if told == 1 { Ok(()) } else { Err(events) }
        });
    }
}

fn measures(line: &str) {
    eventually(line, SOON, || {
        let metrics = on_node("node1", "curl -s http://127.0.0.1:9099/metrics")?;
        if metrics.lines().any(|one| one == line) { Ok(()) } else { Err("not so".to_owned()) }
    });
}
