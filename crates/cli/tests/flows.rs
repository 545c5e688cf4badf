//! `podnet flows`: what people and pods are told of who talks to whom.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node1
  containers: [{name: web, image: "podnet.local/demoapp"}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: node2
  volumes: [{name: flows, emptyDir: {}}]
  containers:
    - {name: client, image: "podnet.local/tools", command: [sleep, infinity]}
    - name: capture
      image: "podnet.local/tools"
      command: [podnet, flows, --pod-to-pod, --follow, --output, json, --file, /flows/flows.jsonl]
      env: [{name: PODNET_AGENT, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]
      volumeMounts: [{name: flows, mountPath: /flows}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: default}
spec:
  nodeName: node2
  containers:
    - name: stranger
      image: "podnet.local/tools"
      command: [sleep, infinity]
      env: [{name: PODNET_AGENT, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]
"#;

/// The flows to port 80, by the names of their ends, with the Service that was asked.
fn named(text: &str) -> Vec<(String, String, String)> {
    let flows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of =
        |end: &Value| format!("{}/{}", end["namespace"].as_str().unwrap_or("-"), end["name"].as_str().unwrap_or("-"));
    flows
        .filter(|flow| flow["type"] == "flow" && flow["destination"]["port"] == 80)
        .map(|flow| (of(&flow["source"]["pod"]), of(&flow["destination"]["pod"]), of(&flow["service"])))
        .collect()
}

#[test]
fn each_flow_is_told_once_with_both_names_to_people_and_to_its_own_pod_and_to_no_stranger() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--flows"]);
    cluster.apply(PODS);
    cluster.await_ready(&["-n", "shop", "web", "client"], SOON);
    cluster.await_ready(&["-n", "default", "stranger"], SOON);
    let inside = |container: &str, command: &[&str]| {
        cluster.kubectl(&[&["-n", "shop", "exec", "client", "-c", container, "--"], command].concat())
    };
    // Whoever follows hears what begins from then on: the file is made before the agent is asked.
    let mut asked = 0;
    let mut captured = String::new();
    eventually("the capture has a flow", SOON, || {
        asked += 1;
        inside("client", &["curl", "-sS", "--max-time", "5", "http://web.shop/hostname"]);
        captured = inside("capture", &["cat", "/flows/flows.jsonl"]);
        if captured.is_empty() { Err("nothing yet".to_owned()) } else { Ok(()) }
    });
    let expected = ("shop/client".to_owned(), "shop/web".to_owned(), "shop/web".to_owned());
    let read = |arguments: &[&str]| {
        let output = cluster.podnet(&[&["flows", "-o", "jsonl", "--since", "10m"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("every flow is told", SOON, || match named(&read(&["--pod-to-pod"])) {
        flows if flows == vec![expected.clone(); asked] => Ok(()),
        flows => Err(format!("{} of {asked}: {flows:?}", flows.len())),
    });
    assert_eq!(named(&read(&["--to", "service/shop/web"])).len(), asked);
    assert_eq!(named(&read(&["--from", "namespace/default"])).len(), 0);
    // Its own pod's, between pods alone: cluster DNS is a pod, the agent is none.
    captured = inside("capture", &["cat", "/flows/flows.jsonl"]);
    let flows = named(&captured);
    assert!(!flows.is_empty() && flows.len() <= asked && flows.iter().all(|flow| *flow == expected), "{captured}");
    assert!(
        !captured.contains("127.0.0.1") && !captured.contains("pod-node") && !captured.contains("pod-world"),
        "{captured}"
    );
    let ask = "curl -sk -o /dev/null -w %{http_code} $1 https://$PODNET_AGENT:9098/flows";
    let status = |header: &str| inside("capture", &["sh", "-c", ask, "sh", header]);
    assert_eq!(status("-g").trim(), "401", "nobody is anonymous");
    // Who may not list pods is told of none but itself.
    let told = cluster.exec("default", "stranger", &["podnet", "flows", "-o", "jsonl"]).unwrap();
    assert_eq!(named(&told), [], "{told}");
}
