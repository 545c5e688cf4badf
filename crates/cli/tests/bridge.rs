//! Pods on a bridge of their node (`--pod-link bridge`), with real kubectl.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, process::Command, time::Duration};

use podnet_testnet::{Cluster, cni::Conflist, eventually};
use serde_json::{Value, json};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

#[test]
fn pods_on_a_bridge_have_all_that_others_have() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--ip-family", "dual", "--pod-link", "bridge"]);
    let pods = [("a", "node1"), ("b", "node1"), ("c", "node2")].map(|(name, node)| pod(name, node));
    cluster.apply(&[&pods[..], &[SERVICE.to_owned()]].concat().join("\n---\n"));
    cluster.await_ready(&["a", "b", "c"], SOON);
    neighbours_within_a_node_and_ways_between_nodes(&cluster);
    services_and_ports_of_the_node(&cluster);
    probes_pass_where_traces_say(&cluster);
    limits_hold(&cluster);
    what_others_do_is_mended(&cluster);
    they_outlive_the_agent(&cluster);
    a_runtime_may_ask_for_it(&cluster);
    cluster.kubectl(&["delete", "pod", "a", "b", "--now"]);
    eventually("nothing is left of what is gone", SOON, || {
        let left = on_node("node1", &["ip", "route", "show", "dev", "cni0"])
            + &on_node("node1", &["ip", "-4", "neigh", "show", "dev", "cni0", "nud", "permanent"]);
        let pods = cluster.kubectl(&["get", "pods", "-A", "-o", "jsonpath={.items[*].status.podIP}"]);
        let strays: Vec<&str> = left
            .lines()
            .filter(|line| !pods.split(' ').any(|pod| line.split(' ').next() == Some(pod)))
            .filter(|line| !line.is_empty())
            .collect();
        if strays.is_empty() { Ok(()) } else { Err(format!("{strays:?} beside {pods}")) }
    });
    let check = cluster.podnet(&["ipam", "check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

fn pod(name: &str, node: &str) -> String {
    let port = if name == "b" { ", ports: [{containerPort: 80, hostPort: 8080}]" } else { "" };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: t, image: podnet.local/tools, command: [sleep, infinity]}}\n  \
         - {{name: web, image: podnet.local/demoapp{port}}}"
    )
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {selector: {app: b}, ports: [{port: 80}]}";

fn exec(cluster: &Cluster, pod: &str, command: &[&str]) -> Result<String, String> {
    cluster.exec("default", pod, command)
}

fn in_pod(cluster: &Cluster, pod: &str, command: &[&str]) -> String {
    exec(cluster, pod, command).unwrap_or_else(|error| panic!("{pod}: {command:?}: {error}\n{}", cluster.logs()))
}

fn on_node(node: &str, command: &[&str]) -> String {
    let output = Command::new("ip").args(["netns", "exec", &format!("podnet-{node}")]).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A pod's addresses, that of IPv4 first.
fn addresses(cluster: &Cluster, pod: &str) -> Vec<String> {
    let status = &cluster.json(&["pod", pod])["status"]["podIPs"];
    status.as_array().unwrap().iter().map(|ip| ip["ip"].as_str().unwrap().to_owned()).collect()
}

fn ping(cluster: &Cluster, from: &str, to: &str) -> Result<String, String> {
    exec(cluster, from, &["ping", "-c1", "-W2", to])
}

/// One after the other, as far as they answer.
fn ping_all<'a>(cluster: &Cluster, from: &str, to: impl IntoIterator<Item = &'a String>) -> Result<String, String> {
    const EACH: &str = "for to; do ping -c1 -W2 $to || exit; done";
    let command: Vec<&str> = ["sh", "-c", EACH, "sh"].into_iter().chain(to.into_iter().map(String::as_str)).collect();
    exec(cluster, from, &command)
}

fn neighbours_within_a_node_and_ways_between_nodes(cluster: &Cluster) {
    let [b, c] = ["b", "c"].map(|pod| addresses(cluster, pod));
    ping_all(cluster, "a", b.iter().chain(&c)).unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
    let (b, c) = (&b[0], &c[0]);
    assert!(!in_pod(cluster, "a", &["ip", "route", "get", b]).contains("via"));
    assert!(in_pod(cluster, "a", &["ip", "route", "get", c]).contains("via 169.254.1.1"));
    in_pod(cluster, "a", &["ping", "-c1", "-W2", "169.254.1.1"]);
    // Found by asking, as on a wire.
    let knows = in_pod(cluster, "a", &["ip", "neigh", "show", b]);
    assert!(knows.contains("lladdr") && !knows.contains("PERMANENT"), "{knows}");
    let master = on_node("node1", &["ip", "-o", "link", "show", "master", "cni0"]);
    assert!(master.lines().count() >= 2, "{master}");
}

fn http(cluster: &Cluster, pod: &str, url: &str) -> Result<String, String> {
    exec(cluster, pod, &["curl", "-sS", "--max-time", "3", url])
}

fn services_and_ports_of_the_node(cluster: &Cluster) {
    let service = cluster.json(&["service", "b"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let node = cluster.json(&["node", "node1"])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
    // A neighbour, the pod itself (hairpin), and another node's pod.
    for pod in ["a", "b", "c"] {
        for url in [format!("http://{service}/hostname"), format!("http://{node}:8080/hostname")] {
            let answer =
                eventually("an answer", SOON, || http(cluster, pod, &url).map_err(|error| format!("{pod}: {error}")));
            assert!(answer.contains('b'), "{pod} {url}: {answer}");
        }
    }
    on_node("node1", &["curl", "-sS", "--max-time", "3", "http://127.0.0.1:8080/hostname"]);
    in_pod(cluster, "a", &["getent", "hosts", "b.default.svc.cluster.local"]);
}

/// To a neighbour neither the bridge's own device nor the node is passed; by a Service both are, unless rules translate at the port what is shown
/// to them there: then, as soon as the kernel has cached the neighbour's Ethernet header, not the bridge's own device.
fn probes_pass_where_traces_say(cluster: &Cluster) {
    const SHOWN: &str = "/proc/sys/net/bridge/bridge-nf-call-ip*tables";
    let [own, near] = ["pod default/a eth0", "pod default/b eth0"];
    let [port, bridge] = ["node node1 port", "node node1 cni0"];
    // A kernel without br_netfilter has no such settings.
    let former = on_node("node1", &["sh", "-c", &format!("cat {SHOWN} || true")]);
    let former = former.lines().next();
    let show = |value: &str| drop(on_node("node1", &["sh", "-c", &format!("echo {value} | tee {SHOWN} || true")]));
    for (shown, to, expected) in [
        ("0", "pod/b:80", vec![own, port, port, near]),
        ("0", "svc/b", vec![own, port, bridge, bridge, port, near]),
        ("1", "svc/b", vec![own, port, port, near]),
    ] {
        if shown == "1" && former.is_none() {
            continue;
        }
        show(shown);
        let output = cluster.podnet(&["trace", "default/a", to, "--live", "-o", "json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let told: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{to}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let (hops, live) = (told["paths"][0]["hops"].as_array().unwrap(), &told["live"]);
        let seen = hops.iter().zip(live["hops"].as_array().unwrap()).filter(|(_, live)| live["seen"] == true);
        let passed = seen.map(|(hop, live)| {
            let device = live["device"].as_str().unwrap();
            let device = if device.starts_with("pn") { "port" } else { device };
            format!("{} {device}", hop["place"].as_str().unwrap())
        });
        assert_eq!(passed.collect::<Vec<_>>(), expected, "{to}: {told:#}");
        assert!(output.status.success() && live["arrived"] == true, "{to}: {told:#}");
    }
    former.into_iter().for_each(show);
}

/// `sandbox` has one of the bridge's addresses, and takes another one for its own.
fn nobody_sends_as_another(cluster: &Cluster, sandbox: &str) {
    let b = addresses(cluster, "b")[0].clone();
    let other = format!("{}.61/32", b.rsplit_once('.').unwrap().0);
    let inside = |command: &[&str]| Command::new("ip").args(["netns", "exec", sandbox]).args(command).output().unwrap();
    assert!(inside(&["ping", "-c1", "-W2", &b]).status.success());
    assert!(inside(&["ip", "addr", "add", &other, "dev", "eth0"]).status.success());
    let from = other.trim_end_matches("/32");
    assert!(!inside(&["ping", "-c1", "-W1", "-I", from, &b]).status.success());
    let table = on_node("node1", &["nft", "list", "table", "bridge", "podnet-pods"]);
    assert!(table.lines().any(|line| line.contains("not its own") && !line.contains("packets 0 ")), "{table}");
}

fn limits_hold(cluster: &Cluster) {
    exec(cluster, "b", &["iperf3", "-s", "-D"]).unwrap();
    let b = addresses(cluster, "b")[0].clone();
    let rate = |back: bool| {
        let mut command = vec!["iperf3", "-J", "-t", "3", "-c", &b];
        command.extend(back.then_some("-R"));
        let report = eventually("iperf3", SOON, || exec(cluster, "a", &command));
        let report: Value = serde_json::from_str(&report).unwrap();
        report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
    };
    let limits = ["kubernetes.io/ingress-bandwidth=20M", "kubernetes.io/egress-bandwidth=10M"];
    cluster.kubectl(&[&["annotate", "pod", "a"], &limits[..]].concat());
    eventually("it is limited in both directions", SOON, || {
        let found = (rate(false), rate(true));
        let holds = (found.0 / 10.0 - 1.0).abs() < 0.1 && (found.1 / 20.0 - 1.0).abs() < 0.1;
        if holds { Ok(()) } else { Err(format!("{found:?} Mbit/s\n{}", on_node("node1", &["tc", "qdisc", "show"]))) }
    });
    // The fast path keeps away from ports.
    let filters = on_node(
        "node1",
        &[
            "sh",
            "-c",
            "for d in $(ls /sys/class/net/cni0/brif); do tc filter show dev $d ingress; tc filter show dev $d egress; done",
        ],
    );
    assert!(!filters.contains("bpf"), "{filters}");
    cluster.kubectl(&["annotate", "pod", "a", "kubernetes.io/ingress-bandwidth-", "kubernetes.io/egress-bandwidth-"]);
}

fn what_others_do_is_mended(cluster: &Cluster) {
    let [b, c] = ["b", "c"].map(|pod| addresses(cluster, pod));
    let own = addresses(cluster, "a")[0].clone();
    let port = on_node("node1", &["ip", "neigh", "show", &own, "dev", "cni0"]);
    assert!(port.contains("PERMANENT"), "{port}");
    let one_port = on_node("node1", &["sh", "-c", "ls /sys/class/net/cni0/brif | head -1"]);
    for damage in [
        vec!["ip", "link", "set", "cni0", "down"],
        vec!["ip", "link", "delete", "cni0"],
        vec!["ip", "link", "set", one_port.trim(), "nomaster"],
        vec!["ip", "route", "del", &own, "dev", "cni0"],
        vec!["ip", "addr", "flush", "dev", "cni0"],
        vec!["sysctl", "-qw", "net.ipv4.conf.cni0.proxy_arp=0"],
        vec!["nft", "delete", "table", "bridge", "podnet-pods"],
    ] {
        on_node("node1", &damage);
        eventually(&format!("{damage:?} is mended"), SOON, || {
            ping_all(cluster, "a", b.iter().chain(&c))?;
            ping(cluster, "c", &own)?;
            let there = on_node("node1", &["ip", "-4", "addr", "show", "dev", "cni0"])
                + &on_node("node1", &["ls", "/sys/class/net/cni0/brif"])
                + &on_node("node1", &["sysctl", "net.ipv4.conf.cni0.proxy_arp"])
                + &on_node("node1", &["nft", "list", "tables", "bridge"]);
            let parts = ["169.254.1.1/32", one_port.trim(), "proxy_arp = 1", "podnet-pods"];
            match parts.iter().find(|part| !there.contains(*part)) {
                None => Ok(()),
                Some(part) => Err(format!("no {part}: {there}\n{}", cluster.logs())),
            }
        });
    }
}

fn they_outlive_the_agent(cluster: &Cluster) {
    let b = addresses(cluster, "b");
    let agent = cluster.pid("node1-agent");
    rustix::process::kill_process(rustix::process::Pid::from_raw(agent).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    on_node("node1", &["ip", "link", "delete", "cni0"]);
    eventually("the agent is back", SOON, || {
        let now = cluster.pid("node1-agent");
        let list = conflist();
        let ready = now != agent && list.status().success;
        if ready { Ok(()) } else { Err(cluster.logs()) }
    });
    for to in &b {
        eventually("the next agent mends the bridge", SOON, || ping(cluster, "a", to));
    }
    b.iter().for_each(|to| drop(on_node("node1", &["ping", "-c1", "-W2", to])));
}

fn conflist() -> Conflist {
    let text = std::fs::read("/run/podnet/nodes/node1/net.d/10-podnet.conflist").unwrap();
    let written: Value = serde_json::from_slice(&text).unwrap();
    let plugins = written["plugins"].as_array().unwrap().clone();
    let mut list = Conflist::new(Path::new(PODNET), "1.1.0", written["name"].as_str().unwrap(), plugins);
    list.node = Some("podnet-node1".to_owned());
    list
}

/// By the agent's own conflist, and by one that says otherwise.
fn a_runtime_may_ask_for_it(cluster: &Cluster) {
    let sandbox = "podnet-test-bridged";
    let _ = Command::new("ip").args(["netns", "del", sandbox]).output();
    assert!(Command::new("ip").args(["netns", "add", sandbox]).status().unwrap().success());
    let path = format!("/run/netns/{sandbox}");
    let list = conflist();
    let result = list.with(json!({"aliases": {"podnet": ["named"]}})).add("bridged", &path, "eth0").done();
    let names = |result: &Value| -> Vec<String> {
        result["interfaces"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&result)[0], "cni0");
    let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
    // In a block no address is one of all.
    assert!(address.ends_with("/32") && result["ips"][0]["gateway"] == "169.254.1.1", "{result:#}");
    let _ = list.check("bridged", &path, "eth0", &result).done();
    let bare = address.split('/').next().unwrap();
    ping(cluster, "a", bare).unwrap();
    // Once more, by this link and by the other: refused, and what runs runs on.
    let mut routed = conflist();
    for key in ["mode", "bridge", "hairpinMode", "isDefaultGateway"] {
        routed.plugins[0].as_object_mut().unwrap().remove(key);
    }
    for again in [&list, &routed] {
        let (_, message) = again.add("bridged", &path, "eth0").refused();
        assert!(message.contains("has an interface eth0 already"), "{message}");
        ping(cluster, "a", bare).unwrap();
    }
    nobody_has_anothers_ethernet_address(cluster, sandbox, &list);
    nobody_sends_as_another(cluster, sandbox);
    let shown = cluster.podnet(&["ipam", "show", "--ip", bare]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("names     named"), "{shown}");
    let hosts = std::fs::read_to_string("/var/lib/podnet/nodes/node1/agent/hosts/podnet").unwrap();
    assert!(hosts.contains(&format!("\n{bare} named\n")), "{hosts}");
    // The port is moved away: told.
    on_node("node1", &["ip", "link", "set", &names(&result)[1], "down"]);
    let _ = list.del("bridged", &path, "eth0", &result).done();
    assert!(ping(cluster, "a", bare).is_err());
    assert!(!Path::new("/var/lib/podnet/nodes/node1/agent/hosts/podnet").exists());

    let result = routed.add("routed", &path, "eth0").done();
    assert!(names(&result)[0].starts_with("pn"));
    ping(cluster, "a", result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap()).unwrap();
    let _ = routed.del("routed", &path, "eth0", &result).done();
    routed.plugins[0]["mode"] = json!("macvlan");
    let (code, message) = routed.add("shared", &path, "eth0").refused();
    assert!(code == 7 && message.contains("macvlan leads past the node"), "{message}");
    let _ = Command::new("ip").args(["netns", "del", sandbox]).output();
}

fn nobody_has_anothers_ethernet_address(cluster: &Cluster, sandbox: &str, list: &Conflist) {
    let link = in_pod(cluster, "a", &["cat", "/sys/class/net/eth0/address"]);
    for (mac, of) in
        [(link.trim(), " on bridge cni0 already"), ("ee:ee:ee:ee:ee:ee", "that of the node on bridge cni0")]
    {
        let (code, message) =
            list.with(json!({"mac": mac})).add("same", &format!("/run/netns/{sandbox}"), "eth1").refused();
        assert!(code == 7 && message.contains(of) && message.contains(mac), "{message}");
    }
}

/// As flannel's users know it: the node's part of the range is the bridge's, whose address is its first.
#[test]
fn in_flannels_mode_the_bridge_has_the_first_address_of_the_nodes_part() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--pod-link", "bridge"]);
    for number in [1, 2] {
        let part = format!("10.244.{number}.0/24");
        let patch = format!(r#"{{"spec": {{"podCIDR": "{part}", "podCIDRs": ["{part}"]}}}}"#);
        cluster.kubectl(&["patch", "node", &format!("node{number}"), "-p", &patch]);
    }
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-flannel}\n");
    let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-flannel-cfg", "namespace": "kube-flannel"}, "data": {"net-conf.json": conf}});
    cluster.apply(&map.to_string());
    eventually("the nodes have parts of flannel's range", SOON, || {
        let files = ["node1", "node2"]
            .map(|node| std::fs::read_to_string(format!("/run/podnet/nodes/{node}/flannel/subnet.env")));
        if files.iter().all(Result::is_ok) { Ok(()) } else { Err(cluster.logs()) }
    });
    for (name, node) in [("a", "node1"), ("b", "node1"), ("c", "node2")] {
        cluster.apply(&pod(name, node));
    }
    cluster.apply(SERVICE);
    cluster.await_ready(&["a", "b", "c"], SOON);
    let [a, b, c] = ["a", "b", "c"].map(|pod| addresses(&cluster, pod)[0].clone());
    assert!(a.starts_with("10.244.1.") && b.starts_with("10.244.1.") && c.starts_with("10.244.2."), "{a} {b} {c}");
    let bridge = on_node("node1", &["ip", "-4", "addr", "show", "dev", "cni0"]);
    assert!(bridge.contains("inet 10.244.1.1/24"), "{bridge}");
    assert!(in_pod(&cluster, "a", &["ip", "route", "get", &c]).contains("via 10.244.1.1"));
    assert!(!in_pod(&cluster, "a", &["ip", "route", "get", &b]).contains("via"));
    for to in [&b, &c, "10.244.1.1"] {
        eventually("an answer", SOON, || {
            ping(&cluster, "a", to).map_err(|error| format!("{error}\n{}", cluster.logs()))
        });
    }
    on_node("node1", &["ping", "-c1", "-W2", &a]);
    let service = cluster.json(&["service", "b"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    for pod in ["a", "b", "c"] {
        eventually("the Service answers", SOON, || http(&cluster, pod, &format!("http://{service}/hostname")));
    }
    // Where nobody is, nothing goes in circles: the node's route of the range says so.
    assert!(on_node("node1", &["ip", "route", "show", "10.244.1.0/24"]).contains("blackhole"));
}
