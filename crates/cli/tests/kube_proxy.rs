//! kube-proxy's configuration, edited as people edit it, and what kube-proxy would tell of itself.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{net::TcpListener, process::Command, time::Duration};

use podnet_kernel::netns::NetNs;
use podnet_testnet::{Cluster, eventually};
use serde_json::{Value, json};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
const NODE1: &str = "172.29.240.11";
/// An address of node1's that no Node object knows.
const OTHER: &str = "192.0.2.7";

fn on_node1(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(["netns", "exec", "podnet-node1"]).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// The answer with its code at the end.
fn curl(url: &str) -> Result<String, String> {
    on_node1(&["curl", "-sS", "--max-time", "3", "-w", " %{http_code}", url])
}

fn await_answer(what: &str, url: &str, fits: impl Fn(&Result<String, String>) -> bool) -> String {
    let mut answer = String::new();
    eventually(what, SOON, || {
        let asked = curl(url);
        let fit = fits(&asked);
        answer = asked.clone().unwrap_or_default();
        if fit { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    answer
}

/// Replaces the configuration by one with these fields.
fn configure(cluster: &Cluster, fields: &str) {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let patch = json!({"data": {"config.conf": format!("{head}{fields}\n")}}).to_string();
    cluster.kubectl(&["-n", "kube-system", "patch", "configmap", "kube-proxy", "--type=merge", "-p", &patch]);
}

fn await_event(cluster: &Cluster, says: &str) {
    eventually("an event tells it", SOON, || {
        let said = cluster.kubectl(&["-n", "kube-system", "describe", "configmap", "kube-proxy"]);
        if said.contains(says) { Ok(()) } else { Err(said) }
    });
}

fn mode() -> String {
    curl("http://127.0.0.1:10249/proxyMode").unwrap_or_else(|error| error)
}

#[test]
fn the_configmap_is_applied_live_and_a_mistake_changes_nothing() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply_file("examples/web.yaml");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside", "namespace": "demo"},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}],
        },
    });
    cluster.apply(&service.to_string());
    cluster.await_ready(&["-n", "demo", "--all"], SOON);
    what_is_told(&cluster);
    mistakes(&cluster);
    node_ports(&cluster);
    health_of_a_service(&cluster);
    a_node_that_leaves(&cluster);
}

fn what_is_told(cluster: &Cluster) {
    assert_eq!(mode(), "nftables 200", "{}", cluster.logs());
    for path in ["healthz", "livez"] {
        let answer = curl(&format!("http://{NODE1}:10256/{path}")).unwrap();
        let body: Value = serde_json::from_str(answer.strip_suffix(" 200").unwrap()).unwrap();
        assert!(body["lastUpdated"].is_string(), "{body}");
    }
    let metrics = curl("http://127.0.0.1:10249/metrics").unwrap();
    let of = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<f64>().unwrap()
    };
    assert!(of("kubeproxy_sync_proxy_rules_service_changes_total") >= 2.0);
    assert!(of("kubeproxy_sync_proxy_rules_endpoint_changes_total") >= 2.0);
    assert!(of("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}") > 1e9);
    assert!(of("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"}") >= 1.0, "{metrics}");
    assert!((of("podnet_proxy_mode{mode=\"nftables\"}") - 1.0).abs() < 0.1);
}

fn mistakes(cluster: &Cluster) {
    configure(cluster, "nodePortAddresses: [192.0.2.0/33]");
    await_event(cluster, "nodePortAddresses[0] is \"192.0.2.0/33\"; it must be a range");
    configure(cluster, "ipvs: {schedular: rr}");
    await_event(cluster, "ipvs.schedular: a KubeProxyConfiguration has no such field");
    // Where the kernel has virtual servers that is no mistake.
    configure(cluster, "mode: ipvs");
    eventually("the mode is refused or had", SOON, || {
        let said = cluster.kubectl(&["-n", "kube-system", "describe", "configmap", "kube-proxy"]);
        let is_done = said.contains("mode is \"ipvs\", which this node cannot have") || mode() == "ipvs 200";
        if is_done { Ok(()) } else { Err(said) }
    });
    configure(cluster, "mode: nftables\nfeatureGates: {AllAlpha: true}");
    await_event(cluster, "featureGates.AllAlpha: podnet has no feature gates");
    eventually("the mode is nftables", SOON, || {
        let mode = mode();
        if mode == "nftables 200" { Ok(()) } else { Err(mode) }
    });
    cluster.exec("demo", "client", &["curl", "-sS", "--max-time", "5", "http://web"]).unwrap();
}

fn node_ports(cluster: &Cluster) {
    on_node1(&["ip", "address", "add", &format!("{OTHER}/32"), "dev", "eth0"]).unwrap();
    let (at_node, at_other) = (format!("http://{NODE1}:30080/hostname"), format!("http://{OTHER}:30080/hostname"));
    let (serves, refuses) = (
        |asked: &Result<String, String>| asked.as_ref().is_ok_and(|answer| answer.ends_with(" 200")),
        |asked: &Result<String, String>| {
            asked.as_ref().is_err_and(|error| error.contains("Couldn't connect") || error.contains("Failed to connect"))
        },
    );
    await_answer("the node's own address serves", &at_node, serves);
    assert!(refuses(&curl(&at_other)), "{:?}", curl(&at_other));
    let at_loopback = "http://127.0.0.1:30080/hostname";
    await_answer("the loopback serves", at_loopback, serves);
    configure(cluster, "nodePortAddresses: [192.0.2.0/24]");
    await_answer("the other address serves", &at_other, serves);
    await_answer("the node's own does not any more", &at_node, refuses);
    await_answer("nor the loopback", at_loopback, refuses);
    eventually("the kernel takes nothing for the loopback by a link", SOON, || {
        let setting = on_node1(&["cat", "/proc/sys/net/ipv4/conf/all/route_localnet"])?;
        if setting.trim() == "0" { Ok(()) } else { Err(setting) }
    });
    configure(cluster, "nodePortAddresses: [127.0.0.0/8]");
    await_answer("the loopback serves again", at_loopback, serves);
    await_answer("the other address does not", &at_other, refuses);
    configure(cluster, "nodePortAddresses: [primary]");
    await_answer("the node's own address serves again", &at_node, serves);
    await_answer("the other does not", &at_other, refuses);
    await_answer("nor the loopback", at_loopback, refuses);
}

fn health_of_a_service(cluster: &Cluster) {
    a_port_that_is_taken(cluster);
    let service = cluster.json(&["-n", "demo", "service", "outside"]);
    let port = service["spec"]["healthCheckNodePort"].as_u64().unwrap();
    let pods = cluster.json(&["-n", "demo", "pods", "-l", "app=web"]);
    let pods = pods["items"].as_array().unwrap();
    let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == "node1").count();
    let code = if here > 0 { 200 } else { 503 };
    let url = format!("http://{NODE1}:{port}/");
    let says = |local: usize, code: u16| {
        move |asked: &Result<String, String>| {
            asked.as_ref().is_ok_and(|answer| {
                answer.contains(&format!("\"localEndpoints\":{local},")) && answer.ends_with(&format!(" {code}"))
            })
        }
    };
    let answer = await_answer("the health check counts the node's endpoints", &url, says(here, code));
    assert!(answer.contains("\"name\":\"outside\"") && answer.contains("\"namespace\":\"demo\""), "{answer}");
    cluster.kubectl(&["-n", "demo", "scale", "deployment", "web", "--replicas=0"]);
    await_answer("the health check counts none", &url, says(0, 503));
}

/// Somebody of node1's has the port that a Service is given.
fn a_port_that_is_taken(cluster: &Cluster) {
    let node1 = NetNs::open("/run/netns/podnet-node1").unwrap();
    let taken = node1.run(|| TcpListener::bind((NODE1, 32100))).unwrap().unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "late", "namespace": "demo"},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100,
            "selector": {"app": "nobody"}, "ports": [{"port": 80}],
        },
    });
    cluster.apply(&service.to_string());
    eventually("an event tells that the port is taken", SOON, || {
        let said = cluster.kubectl(&["-n", "demo", "describe", "service", "late"]);
        let fits = said.contains("HealthCheckPort") && said.contains("172.29.240.11:32100 (Address already in use");
        if fits { Ok(()) } else { Err(said) }
    });
    drop(taken);
    await_answer("the port is had once it is free", &format!("http://{NODE1}:32100/"), |asked| {
        asked.as_ref().is_ok_and(|answer| answer.contains("\"name\":\"late\"") && answer.ends_with(" 503"))
    });
}

fn a_node_that_leaves(cluster: &Cluster) {
    configure(cluster, "healthzBindAddress: 0.0.0.0:10356");
    let url = |path: &str| format!("http://{NODE1}:10356/{path}");
    await_answer("health is told elsewhere", &url("healthz"), |asked| {
        asked.as_ref().is_ok_and(|answer| answer.ends_with(" 200"))
    });
    cluster.kubectl(&["taint", "node", "node1", "ToBeDeletedByClusterAutoscaler=now:NoSchedule"]);
    let answer = await_answer("load balancers are sent away", &url("healthz"), |asked| {
        asked.as_ref().is_ok_and(|answer| answer.ends_with(" 503"))
    });
    assert!(answer.contains("\"nodeEligible\":false"), "{answer}");
    assert!(curl(&url("livez")).unwrap().ends_with(" 200"));
}
