//! `podnet trace` and `podnet why` on a cluster: what they say is what the nodes have and what a probe does, and each injected fault is named.
#![allow(clippy::unwrap_used, missing_docs)]

mod agents;
mod faults;
mod inside;
mod live;

use std::{thread, time::Duration};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(90);

fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: t, image: podnet.local/tools, command: [sleep, infinity]}}\n  \
         - {{name: web, image: podnet.local/demoapp}}\n---\n",
        name.trim_end_matches(char::is_numeric)
    )
}

/// What the command prints, and whether it ends well.
fn told(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let output = cluster.podnet(arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn trace(cluster: &Cluster, from: &str, to: &str) -> Value {
    let output = cluster.podnet(&["trace", from, to, "-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{from} {to}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The devices that a path passes on nodes, with the nodes.
fn devices(path: &Value) -> Vec<String> {
    let hops =
        path["hops"].as_array().unwrap().iter().filter(|hop| hop["place"].as_str().unwrap().starts_with("node "));
    hops.filter_map(|hop| Some(format!("{} {}", hop["node"].as_str()?, hop["device"].as_str()?))).collect()
}

fn up() -> Cluster {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    let pods = [("client", "node1"), ("near", "node1"), ("web1", "node1"), ("web2", "node2"), ("far", "node2")];
    let mut objects: String = pods.map(|(name, node)| pod(name, node)).concat();
    objects.push_str(faults::OBJECTS);
    cluster.apply(&objects);
    for (name, _) in pods {
        cluster.await_ready(&[name], SOON);
    }
    eventually("the Service has its endpoints", SOON, || {
        let trace = trace(&cluster, "default/client", "svc/web");
        let paths = trace["paths"].as_array().unwrap().len();
        if paths == 2 { Ok(()) } else { Err(trace.to_string()) }
    });
    cluster
}

#[test]
fn what_is_traced_is_what_the_nodes_have_and_each_fault_is_named() {
    let cluster = up();
    // They change nothing.
    let looks: [fn(&Cluster); 4] = [
        a_pod_of_the_other_node_is_traced_through_the_tunnel,
        a_service_is_traced_to_each_of_its_backends,
        what_leaves_and_what_comes_is_traced,
        what_was_done_for_a_pod_is_explained,
    ];
    thread::scope(|scope| {
        for look in looks {
            let cluster = &cluster;
            scope.spawn(move || look(cluster));
        }
    });
    live::a_probe_passes_where_the_trace_says_and_where_it_dies_is_named(&cluster);
    agents::agents_tell_of_their_nodes_who_may_ask(&cluster);
    faults::each_fault_is_named(&cluster);
}

fn a_pod_of_the_other_node_is_traced_through_the_tunnel(cluster: &Cluster) {
    let told = trace(cluster, "default/client", "pod/far:80");
    let path = &told["paths"][0];
    assert_eq!(path["verdict"], "arrives", "{told:#}");
    // The link of a pod by what the node's kernel says of its address.
    let link = |node: &str, pod: &str| {
        let addr = cluster.json(&["pod", pod])["status"]["podIP"].as_str().unwrap().to_owned();
        format!("{node} {}", faults::device(node, &addr))
    };
    let wanted = [
        link("node1", "client"),
        "node1 podnet.vxlan".into(),
        "node1 eth0".into(),
        "node2 eth0".into(),
        "node2 podnet.vxlan".into(),
        link("node2", "far"),
    ];
    assert_eq!(devices(path), wanted, "{told:#}");
    for to in ["pod/far", "pod/near", "svc/web", "node/node2:9099", "world"] {
        let (is_well, text) = self::told(cluster, &["trace", "default/client", to, "--compare"]);
        assert!(is_well && text.contains("the kernels have it so"), "{to}: {text}");
    }
    // The packets are counted where the trace says that they pass.
    let sent = |node: &str| {
        let path = "/sys/class/net/podnet.vxlan/statistics/tx_packets";
        faults::on(node, &["cat", path]).trim().parse::<u64>().unwrap()
    };
    let before = sent("node1");
    let addr = path["destination"].as_str().unwrap();
    cluster.exec("default", "client", &["curl", "-sS", "--max-time", "5", &format!("http://{addr}/")]).unwrap();
    assert!(sent("node1") > before);
}

fn a_service_is_traced_to_each_of_its_backends(cluster: &Cluster) {
    for to in ["svc/web", "default/web:http", "web", "web.default.svc.cluster.local.:80/tcp"] {
        let told = trace(cluster, "pod/client", to);
        let mut ends: Vec<_> =
            told["paths"].as_array().unwrap().iter().map(|path| path["why"].as_str().unwrap()).collect();
        ends.sort_unstable();
        assert_eq!(ends, ["pod default/web1 on node node1", "pod default/web2 on node node2"], "{to}: {told:#}");
        assert!(told["paths"].as_array().unwrap().iter().all(|path| path["share"] == 0.5), "{told:#}");
    }
    let (_, text) = told(cluster, &["trace", "pod/client", "web"]);
    assert!(text.contains("name: web.default.svc.cluster.local. is service default/web"), "{text}");
    assert!(text.contains("from service/web -n default") && text.contains("50.0 % of all connections"), "{text}");
    let (_, graph) = told(cluster, &["trace", "pod/client", "web", "-o", "mermaid"]);
    assert!(graph.starts_with("flowchart LR\n") && graph.contains("pod default/web2"), "{graph}");
    let (_, graph) = told(cluster, &["trace", "pod/client", "web", "-o", "dot"]);
    assert!(graph.starts_with("digraph trace {") && graph.trim_end().ends_with('}'), "{graph}");
}

fn what_leaves_and_what_comes_is_traced(cluster: &Cluster) {
    let out = trace(cluster, "pod/client", "world");
    let node = cluster.json(&["node", "node1"]);
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP").unwrap();
    assert_eq!((&out["paths"][0]["verdict"], &out["paths"][0]["source"]), (&"leaves".into(), &internal["address"]));
    // The node answers for a ClusterIP; another pod for itself.
    let ping = trace(cluster, "pod/client", "svc/web/icmp");
    assert_eq!((&ping["paths"][0]["verdict"], &ping["paths"][0]["why"]), (&"arrives".into(), &"node node1".into()));
    let ping = trace(cluster, "pod/client", "pod/far/icmp");
    assert_eq!(ping["paths"][0]["why"], "pod default/far on node node2", "{ping:#}");
    let into = trace(cluster, "world", "svc/web-ports");
    assert_eq!(into["paths"].as_array().unwrap().len(), 2, "{into:#}");
    let masqueraded = into["paths"][1]["hops"].as_array().unwrap().iter().any(|hop| hop["kind"] == "masqueraded");
    assert!(masqueraded, "{into:#}");
}

fn what_was_done_for_a_pod_is_explained(cluster: &Cluster) {
    let (is_well, text) = told(cluster, &["explain", "pod/web2"]);
    assert!(is_well, "{text}");
    // As kubectl is told of a namespace, too.
    assert_eq!(told(cluster, &["explain", "-n", "default", "web2"]), (true, text.clone()));
    let addr = cluster.json(&["pod", "web2"])["status"]["podIP"].as_str().unwrap().to_owned();
    let link = faults::device("node2", &addr);
    for words in [
        format!("eth0, on node node2 {link}; MTU 1450"),
        format!("address     {addr}, of ippool/"),
        "of its node; neither the pod nor its namespace asked for a pool: the node's CNI configuration".into(),
        format!("on node node2: {addr} to {link}"),
        "on node node1: 10.".into(),
        "search default.svc.cluster.local svc.cluster.local cluster.local".into(),
        "service/web -n default (10.".into(),
    ] {
        assert!(text.contains(&words), "{words} in {text}");
    }
}
