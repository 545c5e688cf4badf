//! Services of type LoadBalancer: this machine, which is no node, reaches them without more set-up, and goes on to when the node that
//! answers for the address falls silent.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use podnet_testnet::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

/// The same pods by IPv6.
const BY_IPV6: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-lb6", "namespace": "web"}, "spec": {
    "type": "LoadBalancer", "ipFamilies": ["IPv6"], "selector": {"app": "web"}, "ports": [{"port": 80}]}}"#;

/// What this machine hears there, from which address it seems to come and who served it.
fn fetch(addr: &str) -> Result<String, String> {
    let host = if addr.contains(':') { format!("[{addr}]") } else { addr.to_owned() };
    let output =
        Command::new("curl").args(["-sS", "-g", "--max-time", "3", &format!("http://{host}/")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The Ethernet address that this machine knows of an address on the underlay.
fn neighbour(addr: &str) -> String {
    let output = Command::new("ip").args(["neigh", "show", addr, "dev", "pn-host"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or_default().to_owned()
}

/// The node with that Ethernet address.
fn node_of(mac: &str) -> Option<String> {
    let nodes = ["node1", "node2", "node3"].into_iter();
    let of = |node: &&str| {
        let namespace = format!("podnet-{node}");
        let path = "/sys/class/net/eth0/address";
        let output = Command::new("ip").args(["netns", "exec", &namespace, "cat", path]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim() == mac
    };
    nodes.clone().find(of).map(str::to_owned)
}

fn address(cluster: &Cluster, service: &str) -> Result<String, String> {
    let service = cluster.json(&["-n", "web", "service", service]);
    let ingress = &service["status"]["loadBalancer"]["ingress"][0];
    assert!(ingress.is_null() || ingress["ipMode"] == "VIP", "{ingress}");
    ingress["ip"].as_str().map(str::to_owned).ok_or_else(|| "no address".to_owned())
}

fn eventually_address(cluster: &Cluster, service: &str, wanted: &str) {
    eventually(&format!("{service} at {wanted}"), SOON, || match address(cluster, service)? {
        addr if addr == wanted => Ok(()),
        addr => Err(addr),
    });
}

#[test]
fn a_load_balancer_answers_this_machine_moves_within_2_seconds_and_gives_its_address_back() {
    let cluster = Cluster::up(PODNET, &["--nodes", "3", "--ip-family", "dual"]);
    cluster.apply_file("crates/cli/tests/manifests/04-services.yaml");
    eventually_address(&cluster, "web-lb", "172.29.240.200");
    let addr = "172.29.240.200";
    eventually("an answer", SOON, || fetch(addr).map(drop));
    let listed = cluster.kubectl(&["-n", "web", "get", "service", "web-lb"]);
    assert!(listed.contains(addr) && !listed.contains("<pending>"), "{listed}");

    cluster.apply(BY_IPV6);
    let by_ipv6 = "fd00:172:29:240::200";
    eventually_address(&cluster, "web-lb6", by_ipv6);
    eventually("an answer by IPv6", SOON, || fetch(by_ipv6).map(drop));
    for addr in [addr, by_ipv6] {
        moves_in_time(addr, |node| when_the_agent_falls_silent(&cluster, addr, node));
    }
    moves_in_time(addr, |node| when_the_uplink_is_cut(addr, node));
    stays_with_the_endpoints_where_it_is_local(&cluster, addr);

    cluster.kubectl(&["-n", "web", "expose", "deployment", "web", "--name=second", "--port=80", "--type=LoadBalancer"]);
    eventually_address(&cluster, "second", "172.29.240.201");
    cluster.kubectl(&["-n", "web", "delete", "service", "web-lb"]);
    cluster.kubectl(&["-n", "web", "annotate", "service", "second", "metallb.io/loadBalancerIPs=172.29.240.200"]);
    eventually_address(&cluster, "second", addr);
    eventually("an answer of the other Service", SOON, || fetch(addr).map(drop));
    are_given_after_the_death_of_who_gave_them(&cluster, addr);
    a_cluster_knows_what_the_manifests_define(&cluster);
}

/// One of the agents gives addresses, as its Lease says. When it is killed, whoever is next gives new ones and leaves the others alone.
fn are_given_after_the_death_of_who_gave_them(cluster: &Cluster, given: &str) {
    let lease = cluster.json(&["-n", "podnet-system", "lease", "podnet-load-balancers"]);
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap();
    let agent = Pid::from_raw(cluster.pid(&format!("{holder}-agent"))).unwrap();
    kill_process(agent, Signal::KILL).unwrap();
    cluster.kubectl(&["-n", "web", "expose", "deployment", "web", "--name=third", "--port=80", "--type=LoadBalancer"]);
    eventually_address(cluster, "third", "172.29.240.201");
    assert_eq!(address(cluster, "second").as_deref(), Ok(given));
    eventually("the pool counts what is given of it", SOON, || {
        let pool = cluster.json(&["-n", "kube-system", "ipaddresspool", "default"]);
        let status = &pool["status"];
        let counted = ["assignedIPv4", "availableIPv4", "assignedIPv6"].map(|field| status[field].as_u64());
        if counted == [Some(2), Some(49), Some(1)] { Ok(()) } else { Err(status.to_string()) }
    });
}

/// `podnet manifests` and `podnet up` define the same.
fn a_cluster_knows_what_the_manifests_define(cluster: &Cluster) {
    let printed = cluster.podnet(&["manifests", "--image", "i", "--api-server", "192.0.2.1:6443"]);
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).unwrap();
    let definitions: Vec<_> =
        text.split("---\n").filter(|document| document.contains("kind: CustomResourceDefinition\n")).collect();
    assert!(definitions.len() > 8, "{text}");
    cluster.apply(&definitions.join("---\n"));
    let pools = cluster.kubectl(&["-n", "kube-system", "get", "ipaddresspool", "default"]);
    assert!(pools.contains("172.29.240.200-172.29.240.250"), "{pools}");
}

/// To another node within 2 s of something that happens to the one that answers.
fn moves_in_time(addr: &str, happens: impl Fn(&str) -> Duration) {
    // A machine that does other things as well may have a slow moment.
    let mut took = Vec::new();
    while took.iter().all(|after| *after >= Duration::from_secs(2)) {
        assert!(took.len() < 3, "it took {took:?}");
        let before = neighbour(addr);
        let node = node_of(&before).unwrap_or_else(|| panic!("{before:?} is no node's"));
        took.push(happens(&node));
        eventually("an answer", SOON, || fetch(addr).map(drop));
    }
}

/// How long nobody answered. Who is stopped leaves all in force that there is, and is the first again as it goes on.
fn when_the_agent_falls_silent(cluster: &Cluster, addr: &str, node: &str) -> Duration {
    let agent = Pid::from_raw(cluster.pid(&format!("{node}-agent"))).unwrap();
    kill_process(agent, Signal::STOP).unwrap();
    let after = another_answers(addr, node);
    let fetched = fetch(addr);
    kill_process(agent, Signal::CONT).unwrap();
    fetched.unwrap();
    eventually("the first node again", SOON, || match node_of(&neighbour(addr)) {
        Some(now) if now == node => Ok(()),
        other => Err(format!("{other:?}")),
    });
    after
}

/// How long nobody answered. With the node its pods are cut off, too, so that some requests would wait.
fn when_the_uplink_is_cut(addr: &str, node: &str) -> Duration {
    let set = |state: &str| {
        let command = ["-n", "podnet-fabric", "link", "set", node, state];
        assert!(Command::new("ip").args(command).status().unwrap().success(), "{command:?}");
    };
    set("down");
    let after = another_answers(addr, node);
    set("up");
    after
}

/// How long it takes until another node's Ethernet address is known.
fn another_answers(addr: &str, node: &str) -> Duration {
    let silent = Instant::now();
    eventually("another node's Ethernet address", SOON, || {
        let now = neighbour(addr);
        match node_of(&now) {
            Some(other) if other != node => Ok(()),
            _ => Err(now),
        }
    });
    silent.elapsed()
}

/// With `externalTrafficPolicy: Local` the node that answers is the pod's own, and the pod sees who asks.
fn stays_with_the_endpoints_where_it_is_local(cluster: &Cluster, addr: &str) {
    cluster.kubectl(&["-n", "web", "scale", "deployment", "web", "--replicas=1"]);
    cluster.kubectl(&[
        "-n",
        "web",
        "patch",
        "service",
        "web-lb",
        "-p",
        r#"{"spec":{"externalTrafficPolicy":"Local"}}"#,
    ]);
    eventually("the pod's own node, and this machine's address", SOON, || {
        let pods = cluster.json(&["-n", "web", "pods", "-l", "app=web"]);
        let nodes: Vec<&str> =
            pods["items"].as_array().unwrap().iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        let page = fetch(addr)?;
        let node = node_of(&neighbour(addr)).unwrap_or_default();
        let own = page.contains("ClientIP: 172.29.240.254,");
        if nodes == [node.as_str()] && own { Ok(()) } else { Err(format!("{nodes:?} {node} {page}")) }
    });
    let service: Value = cluster.json(&["-n", "web", "service", "web-lb"]);
    assert!(service["spec"]["healthCheckNodePort"].as_u64().is_some_and(|port| port >= 30000), "{service}");
}
