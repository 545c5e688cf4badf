#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Node> {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": {
            "allocatable": { "cpu": "2", "memory": "1Gi", "pods": "10" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    change(&mut node);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn three() -> Vec<Arc<Node>> {
    ["n1", "n2", "n3"].map(|name| node(name, |_| ())).into()
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "shop", "uid": name, "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c" }] },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn snapshot(nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Snapshot {
    Snapshot::new(nodes, pods, &HashMap::new(), BTreeMap::new())
}

fn asks(cpu: &str, memory: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } }] })
}

fn on(node: &str) -> Verdict {
    Verdict::On(node.to_owned())
}

fn nowhere(message: &str) -> Verdict {
    Verdict::Nowhere(message.to_owned())
}

#[test]
fn copies_of_a_pod_are_spread_over_the_nodes() {
    let others: Vec<_> = (0..6).map(|n| pod(&format!("other{n}"), json!({ "nodeName": "n1" }))).collect();
    let others: Vec<_> = others
        .into_iter()
        .map(|pod| {
            let mut pod = (*pod).clone();
            pod.metadata.labels = Some([("app".to_owned(), "other".to_owned())].into());
            Arc::new(pod)
        })
        .collect();
    let mut snapshot = snapshot(&three(), &others);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..9 {
        let Verdict::On(node) = place(&mut snapshot, &pod(&format!("web{n}"), json!({}))) else { panic!() };
        *counts.entry(node).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn a_pod_that_was_bound_but_does_not_show_it_yet_takes_its_place() {
    let assumed = HashMap::from([("web0".to_owned(), "n1".to_owned())]);
    let waiting = [pod("web0", json!({}))];
    let mut snapshot = Snapshot::new(&three(), &waiting, &assumed, BTreeMap::new());
    assert_eq!(place(&mut snapshot, &pod("web1", json!({}))), on("n2"));
}

#[test]
fn refusals_are_summed_up_in_kubernetes_words() {
    let tainted = json!([{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }]);
    let nodes = [
        node("cordoned", |node| node["spec"]["unschedulable"] = json!(true)),
        node("down", |node| node["status"]["conditions"] = json!([{ "type": "Ready", "status": "Unknown" }])),
        node("tainted", |node| node["spec"]["taints"] = tainted),
        node("small", |node| node["status"]["allocatable"] = json!({ "cpu": "100m", "memory": "1Mi", "pods": "10" })),
        node("full", |node| node["status"]["allocatable"]["pods"] = json!("0")),
    ];
    let verdict = place(&mut snapshot(&nodes, &[]), &pod("web", asks("1", "100Mi")));
    assert_eq!(
        verdict,
        nowhere(
            "0/5 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, \
             1 node(s) had untolerated taint {gpu: yes}, \
             1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable."
        )
    );
    assert_eq!(place(&mut snapshot(&[], &[]), &pod("web", json!({}))), nowhere("no nodes available to schedule pods"));
}

#[test]
fn a_node_selector_chooses_and_a_wrong_one_is_told() {
    let mut three = snapshot(&three(), &[]);
    let chosen = pod("a", json!({ "nodeSelector": { "kubernetes.io/hostname": "n3" } }));
    assert_eq!(place(&mut three, &chosen), on("n3"));
    let wrong = pod("b", json!({ "nodeSelector": { "disk": "ssd" } }));
    let message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    assert_eq!(place(&mut three, &wrong), nowhere(message));
}

#[test]
fn requests_of_earlier_pods_count_and_finished_ones_do_not() {
    let mut done = (*pod("done", asks("2", "1Gi"))).clone();
    done.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    done.status = Some(serde_json::from_value(json!({ "phase": "Succeeded" })).unwrap());
    let mut one = snapshot(&[node("n1", |_| ())], &[Arc::new(done)]);
    assert_eq!(place(&mut one, &pod("a", asks("1500m", "1Mi"))), on("n1"));
    assert_eq!(
        place(&mut one, &pod("b", asks("501m", "1Mi"))),
        nowhere("0/1 nodes are available: 1 Insufficient cpu.")
    );
    assert_eq!(place(&mut one, &pod("c", asks("500m", "1Mi"))), on("n1"));
}

#[test]
fn a_pod_that_tolerates_it_goes_to_a_node_that_is_not_ready() {
    let down = node("n1", |node| node["status"]["conditions"] = json!([]));
    let tolerant = pod("agent", json!({ "tolerations": [{ "operator": "Exists" }] }));
    assert_eq!(place(&mut snapshot(&[down], &[]), &tolerant), on("n1"));
}

#[test]
fn pods_that_shun_each_other_have_a_node_each_and_one_too_many_waits() {
    let shun = json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }] } } });
    let mut three = snapshot(&three(), &[]);
    let verdicts: Vec<_> = (0..4).map(|n| place(&mut three, &pod(&format!("web{n}"), shun.clone()))).collect();
    assert_eq!(verdicts[..3], [on("n1"), on("n2"), on("n3")]);
    let message = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.";
    assert_eq!(verdicts[3], nowhere(message));
    let plain = place(&mut three, &pod("plain", json!({})));
    let message = "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules.";
    assert_eq!(plain, nowhere(message), "those that are there shun it");
}

#[test]
fn pods_that_want_to_be_together_begin_somewhere_and_stay_there() {
    let together = json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }] } } });
    let mut three = snapshot(&three(), &[]);
    for n in 0..3 {
        assert_eq!(place(&mut three, &pod(&format!("web{n}"), together.clone())), on("n1"));
    }
}

#[test]
fn a_spread_constraint_that_must_hold_holds() {
    let spread = json!({ "nodeSelector": { "kubernetes.io/hostname": "n1" }, "topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "web" } } }] });
    let zoned = |name: &str, zone: &str| node(name, |node| node["metadata"]["labels"]["zone"] = json!(zone));
    let nodes = [zoned("n1", "a"), zoned("n2", "b")];
    let mut everywhere = spread.clone();
    everywhere["nodeSelector"] = json!({});
    let mut two = snapshot(&nodes, &[]);
    let verdicts: Vec<_> = (0..4).map(|n| place(&mut two, &pod(&format!("web{n}"), everywhere.clone()))).collect();
    assert_eq!(verdicts, [on("n1"), on("n2"), on("n1"), on("n2")]);
}

#[test]
fn host_ports_are_taken_once() {
    let port = json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    let mut one = snapshot(&[node("n1", |_| ())], &[]);
    assert_eq!(place(&mut one, &pod("a", port.clone())), on("n1"));
    let message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(place(&mut one, &pod("b", port)), nowhere(message));
}
