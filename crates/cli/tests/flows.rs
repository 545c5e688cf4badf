//! `podnet flows`: what people and pods are told of who talks to whom.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "flows/killed.rs"]
mod killed;

use std::{path::Path, process::Command, time::Duration};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
/// Those of scenario 07.
const NODES: [&str; 3] = ["node1", "node2", "node3"];

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

/// A capture whose file outlives its pod.
fn leaver(directory: &Path) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: leaver, namespace: relays}}
spec:
  nodeName: node1
  volumes: [{{name: flows, hostPath: {{path: {}, type: Directory}}}}]
  containers:
    - {{name: client, image: "podnet.local/tools", command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1; done"]}}
    - name: capture
      image: "podnet.local/tools"
      command: [podnet, flows, --pod-to-pod, --follow, --output, json, --file, /flows/flows.jsonl]
      volumeMounts: [{{name: flows, mountPath: /flows}}]
"#,
        directory.display()
    )
}

const NOBODY: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
"#;

const LATER: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: later, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

const DOOR: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: door, namespace: shop}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30081}]}
"#;

/// What is written line by line; the last one may be under way.
fn lines(text: &str) -> impl Iterator<Item = Value> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap())
}

/// The flows to port 80, by the names of their ends, with the Service that was asked.
fn named(text: &str) -> Vec<(String, String, String)> {
    let of =
        |end: &Value| format!("{}/{}", end["namespace"].as_str().unwrap_or("-"), end["name"].as_str().unwrap_or("-"));
    lines(text)
        .filter(|flow| flow["type"] == "flow" && flow["destination"]["port"] == 80)
        .map(|flow| (of(&flow["source"]["pod"]), of(&flow["destination"]["pod"]), of(&flow["service"])))
        .collect()
}

/// Who asked whom, once for each flow.
type Pairs = Vec<(String, String)>;

fn pairs(log: &str, port: u16) -> Pairs {
    let name = |flow: &Value, end: &str| flow[end]["pod"]["name"].as_str().unwrap_or("nobody").to_owned();
    let mut pairs: Pairs = lines(log)
        .filter(|flow| flow["destination"]["port"] == port)
        .map(|flow| (name(&flow, "source"), name(&flow, "destination")))
        .collect();
    pairs.sort();
    pairs
}

#[test]
fn a_capture_beside_a_relay_turns_recording_on_and_logs_each_flow_between_pods_once() {
    // As the scenarios are run.
    let cluster = Cluster::up(PODNET, &["--nodes", "3"]);
    cluster.apply(include_str!("manifests/07-capture-pod.yaml"));
    let names = ["relay-0", "relay-1", "relay-2"];
    cluster.await_ready(&[&["-n", "relays"][..], &names].concat(), SOON);
    let inside = |pod: &str, container: &str, command: &[&str]| {
        cluster.kubectl(&[&["-n", "relays", "exec", pod, "-c", container, "--"], command].concat())
    };
    let log = |pod: &str| inside(pod, "collector", &["cat", "/flows/flows.jsonl"]);
    let ask = |from: &str, to: &[&str], port: u16| {
        let urls: Vec<String> = to.iter().map(|to| format!("http://{to}.relay:{port}/hostname")).collect();
        // Each answer is of a connection of its own.
        let mut command = vec!["curl", "-sS", "--max-time", "5", "-H", "Connection: close"];
        command.extend(urls.iter().map(String::as_str));
        inside(from, "capture", &command)
    };
    let all = || names.into_iter().flat_map(|from| names.into_iter().map(move |to| (from, to)));
    let others = || all().filter(|(from, to)| from != to);
    // Whoever follows hears what begins from then on.
    eventually("all captures follow", SOON, || {
        let there = names.map(|pod| (pod, pairs(&log(pod), 9030)));
        let missing: Vec<_> = others()
            .filter(|(from, to)| {
                let pair = ((*from).to_owned(), (*to).to_owned());
                there.iter().any(|(pod, pairs)| [from, to].contains(&pod) && !pairs.contains(&pair))
            })
            .collect();
        for from in names {
            let to: Vec<&str> = missing.iter().filter(|(source, _)| *source == from).map(|(_, to)| *to).collect();
            if !to.is_empty() {
                ask(from, &to, 9030);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    for from in names {
        let to: Vec<&str> = others().filter(|(source, _)| *source == from).flat_map(|(_, to)| [to; 2]).collect();
        let answers = ask(from, &to, 7000);
        assert_eq!(answers.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>(), to);
    }
    let node = cluster.kubectl(&["-n", "relays", "get", "pod", "relay-0", "-o", "jsonpath={.status.hostIP}"]);
    for url in [format!("https://{}:10250/", node.trim()), "http://127.0.0.1:7000/".to_owned()] {
        // The node refuses whom it does not know: that is a flow as well.
        inside("relay-0", "capture", &["sh", "-c", "curl -sk -o /dev/null $0 || true", &url]);
    }
    let expected = |pod: &str| {
        let of_pod = others().filter(|(from, to)| [from, to].contains(&&pod));
        let twice = of_pod.flat_map(|(from, to)| [(from.to_owned(), to.to_owned()), (from.to_owned(), to.to_owned())]);
        let mut expected: Pairs = twice.collect();
        expected.sort();
        expected
    };
    // One of them is told to end before it can have heard of all; it comes again.
    inside("relay-0", "capture", &["kill", "-TERM", "1"]);
    for pod in names {
        eventually("every flow is in the log", SOON, || match pairs(&log(pod), 7000) {
            found if found == expected(pod) => Ok(()),
            found => Err(format!("{pod}: {found:?}")),
        });
        let log = log(pod);
        for strange in ["127.0.0.1", "pod-node", "pod-world", "world-pod", "node-pod", ":10250,"] {
            assert!(!log.contains(strange), "{strange} in the log of {pod}: {log}");
        }
    }
    assert!(NODES.into_iter().any(counts));
    a_pod_that_is_deleted_loses_no_flow_that_had_ended(&cluster);
    // The capture that was told to end is there again, after the pause that each container makes.
    cluster.await_ready(&["-n", "relays", "relay-0"], SOON);
    cluster.kubectl(&["-n", "relays", "delete", "statefulset", "relay", "--cascade=orphan"]);
    cluster.kubectl(&["-n", "relays", "delete", "pods", "--all", "--grace-period=1"]);
    eventually("nothing is counted where nobody asks", SOON, || {
        NODES.into_iter().find(|node| counts(node)).map_or(Ok(()), |node| Err(format!("{node} goes on")))
    });
}

/// What is told to end at once after the last answer has it in its file.
fn a_pod_that_is_deleted_loses_no_flow_that_had_ended(cluster: &Cluster) {
    const FLOWS: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    cluster.apply(&leaver(directory.path()));
    cluster.await_ready(&["-n", "relays", "leaver"], SOON);
    let file = || std::fs::read_to_string(directory.path().join("flows.jsonl")).unwrap_or_default();
    let ask = |times: usize, port: u16| {
        let command = format!(
            "for number in $(seq {times}); do curl -sS --max-time 5 http://relay-1.relay:{port}/hostname || exit 1; done"
        );
        cluster.kubectl(&["-n", "relays", "exec", "leaver", "-c", "client", "--", "sh", "-c", &command])
    };
    // One that has a name: a pod has none until all of its containers run.
    let pair = || ("leaver".to_owned(), "relay-1".to_owned());
    eventually("the capture follows", SOON, || {
        if pairs(&file(), 9030).contains(&pair()) {
            return Ok(());
        }
        ask(1, 9030);
        Err(file())
    });
    ask(FLOWS, 7000);
    cluster.kubectl(&["-n", "relays", "delete", "pod", "leaver", "--grace-period=20"]);
    assert_eq!(pairs(&file(), 7000), vec![pair(); FLOWS], "{}", file());
}

/// Whether programs that count are at a pod's interface of a node: cluster DNS has one on each.
fn counts(node: &str) -> bool {
    let look = "for device in $(ls /sys/class/net); do tc filter show dev $device ingress; done";
    let output =
        Command::new("ip").args(["netns", "exec", &format!("podnet-{node}"), "sh", "-c", look]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).contains("podnet_seen_out")
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
    eventually("both ends' counters are in one record", SOON, || {
        let text = read(&["--pod-to-pod", "--port", "80"]);
        let whole = lines(&text).all(|flow| {
            let far = &flow["destinationCounts"];
            flow["node"] == "node2"
                && flow["reporter"] == "both"
                && far["node"] == "node1"
                && far["sent"] == flow["sent"]
        });
        if whole { Ok(()) } else { Err(text) }
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
    killed::tells_each_flow_once(&cluster);
    tells_what_refused_a_flow(&cluster);
    tells_who_asked_a_port_of_another_node(&cluster);
    tells_what_was_asked_at_the_socket(&cluster);
}

/// A Service that nobody stands behind refuses, and that it is why is told.
fn tells_what_refused_a_flow(cluster: &Cluster) {
    cluster.apply(NOBODY);
    let told = |cause: &str| {
        let to = ["flows", "-o", "jsonl", "--since", "5m", "--to", "service/shop/nobody", "--cause", cause];
        let output = cluster.podnet(&to);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("the Service that has no backend is told as the cause", SOON, || {
        let ask = ["sh", "-c", "curl -sS --max-time 5 http://nobody.shop/ || true"];
        cluster.exec("default", "stranger", &ask)?;
        let text = told("no-backend");
        let is_told = |flow: Value| flow["verdict"] == "refused" && flow["service"]["name"] == "nobody";
        if lines(&text).any(is_told) { Ok(()) } else { Err(text) }
    });
    let others = told("no-route");
    assert!(lines(&others).all(|item| item["type"] != "flow"), "{others}");
}

/// From outside by the node that the pod is not on; and from a pod, whose own node does not know who answers.
fn tells_who_asked_a_port_of_another_node(cluster: &Cluster) {
    cluster.apply(DOOR);
    let url = |node: &str| {
        let address = cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.status.addresses[0].address}"]);
        format!("http://{}:30081/hostname", address.trim())
    };
    let (other, own) = (url("node2"), url("node1"));
    let read = |terms: &[&str]| {
        let output = cluster.podnet(&[&["flows", "-o", "jsonl", "--since", "5m"], terms].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("who asked from outside is told, and what", SOON, || {
        let asked = Command::new("curl").args(["-sS", "--max-time", "5", &other]).output().unwrap();
        if !asked.status.success() {
            return Err(String::from_utf8_lossy(&asked.stderr).into_owned());
        }
        let text = read(&["--from", "world", "--to", "service/shop/door"]);
        let is_told = |flow: Value| {
            flow["class"] == "world-pod" && flow["node"] == "node1" && flow["destination"]["pod"]["name"] == "web"
        };
        if lines(&text).any(is_told) { Ok(()) } else { Err(text) }
    });
    eventually("the port answers a pod", SOON, || {
        cluster.exec("default", "stranger", &["curl", "-sS", "--max-time", "5", &own]).map(drop)
    });
    let expected = ("default/stranger".to_owned(), "shop/web".to_owned(), "shop/door".to_owned());
    for place in ["service/shop/door", "pod/shop/web"] {
        eventually("a flow is told with both pods, by whichever is asked for", SOON, || {
            let text = read(&["--from", "pod/default/stranger", "--to", place, "--verdict", "forwarded"]);
            let (flows, all) = (named(&text), lines(&text).filter(|item| item["type"] == "flow").count());
            let is_once = !flows.is_empty() && flows.len() == all && flows.iter().all(|flow| *flow == expected);
            if is_once { Ok(()) } else { Err(text) }
        });
    }
}

/// In mode ebpf sockets choose the backends, and packets do not show the Service any more.
fn tells_what_was_asked_at_the_socket(cluster: &Cluster) {
    cluster.take_proxy_mode("ebpf", &["node1", "node2"], SOON);
    cluster.apply(LATER);
    eventually("the Service that was asked is told", SOON, || {
        let asked =
            cluster.exec("default", "stranger", &["curl", "-sS", "--max-time", "5", "http://later.shop/hostname"]);
        asked.map_err(|error| error.to_string())?;
        let output = cluster.podnet(&["flows", "-o", "jsonl", "--since", "1m", "--to", "service/shop/later"]);
        let text = String::from_utf8(output.stdout).unwrap();
        match named(&text).first() {
            Some((source, destination, _)) if (&**source, &**destination) == ("default/stranger", "shop/web") => Ok(()),
            _ => Err(text),
        }
    });
    eventually("what is refused at the socket is told, though no packet is sent", SOON, || {
        let ask = ["sh", "-c", "curl -sS --max-time 5 http://nobody.shop/ || true"];
        cluster.exec("default", "stranger", &ask)?;
        let told = ["flows", "-o", "jsonl", "--since", "1m", "--to", "service/shop/nobody", "--cause", "no-backend"];
        let text = String::from_utf8(cluster.podnet(&told).stdout).unwrap();
        // A connection that was never opened has no port.
        let is_told = |flow: Value| {
            flow["verdict"] == "refused"
                && flow["source"]["pod"]["name"] == "stranger"
                && flow["source"]["port"] == 0
                && flow["class"] == "pod-service"
        };
        if lines(&text).any(is_told) { Ok(()) } else { Err(text) }
    });
}
