//! Pods with an IPv4 and an IPv6 address.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "shared/sandbox.rs"]
mod sandbox;

use std::{process::Command, time::Duration};

use podnet_testnet::{Cluster, eventually};
use sandbox::Namespace;
use serde_json::{Value, json};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

fn pool(name: &str, cidr: &str, block_size: u8) -> String {
    format!(
        "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: '{cidr}', blockSize: {block_size}, vxlanMode: Always, nodeSelector: '!all()'}}\n---\n"
    )
}

/// A pod on a node; `annotations` are what it asks of IPAM.
fn pod(name: &str, node: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: d, image: podnet.local/demoapp,\
         env: [{{name: IPS, valueFrom: {{fieldRef: {{fieldPath: status.podIPs}}}}}}]}}]}}\n---\n"
    )
}

fn asking(key: &str, list: &[&str]) -> String {
    format!("cni.projectcalico.org/{key}: '{}'", json!(list))
}

/// The addresses of a pod, in the order in which its status has them.
fn addresses(cluster: &Cluster, pod: &str) -> Vec<String> {
    let status = &cluster.json(&["pod", pod])["status"];
    let listed: Vec<String> =
        status["podIPs"].as_array().into_iter().flatten().map(|one| one["ip"].as_str().unwrap().to_owned()).collect();
    assert_eq!(status["podIP"].as_str(), listed.first().map(String::as_str), "podIP is the first of podIPs");
    listed
}

fn await_event(cluster: &Cluster, pod: &str, part: &str) {
    eventually(&format!("{pod}: {part}"), SOON, || {
        let field = format!("involvedObject.name={pod},reason=FailedCreatePodSandBox");
        let events = cluster.json(&["events", "--field-selector", &field]);
        let said: Vec<&str> =
            events["items"].as_array().unwrap().iter().filter_map(|e| e["message"].as_str()).collect();
        if said.iter().any(|text| text.contains(part)) { Ok(()) } else { Err(format!("{said:?}")) }
    });
}

/// By each address that it has.
fn reaches(cluster: &Cluster, from: &str, to: &str) {
    let own: Vec<bool> = addresses(cluster, from).iter().map(|addr| addr.contains(':')).collect();
    for addr in addresses(cluster, to).iter().filter(|addr| own.contains(&addr.contains(':'))) {
        let url =
            if addr.contains(':') { format!("http://[{addr}]/hostname") } else { format!("http://{addr}/hostname") };
        eventually(&format!("{from} reaches {to} at {addr}"), SOON, || {
            match cluster.exec("default", from, &["curl", "-sS", "--max-time", "2", &url])? {
                answer if answer.trim() == to => Ok(()),
                answer => Err(answer),
            }
        });
    }
}

/// `podnet ipam …`: what it printed; `Err` where it failed.
fn ipam(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let output = cluster.podnet(&[&["ipam"], arguments].concat());
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

#[test]
fn pods_have_an_address_of_each_family_and_both_work() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--ip-family", "dual", "--flows"]);
    let pods = [pod("plain", "node1", ""), pod("near", "node1", ""), pod("far", "node2", "")].concat();
    cluster.apply(&[pool("six", "fd00:77::/124", 126), pool("tiny", "fd00:78::/127", 127), pods].concat());
    cluster.await_ready(&["plain", "near", "far"], SOON);
    everybody_is_told_of_both(&cluster);
    reaches(&cluster, "plain", "near");
    reaches(&cluster, "plain", "far");
    nodes_reach_pods(&cluster);
    rules_of_both_are_compared(&cluster);
    what_passes_by_ipv6_is_told(&cluster);
    what_breaks_by_ipv6_is_named(&cluster);
    pods_and_their_configuration_decide(&cluster);
    a_pod_gets_both_or_none(&cluster);
    a_stateful_pod_keeps_both(&cluster);
    both_outlive_the_agent(&cluster);
    both_are_released_together(&cluster);
}

fn everybody_is_told_of_both(cluster: &Cluster) {
    let addrs = addresses(cluster, "plain");
    let [v4, v6] = &addrs[..] else { panic!("{addrs:?}") };
    assert!(v4.starts_with("10.233.6") && v6.starts_with("fd00:10:233:"), "{addrs:?}");
    let inside = |command: &str| cluster.exec("default", "plain", &["sh", "-c", command]).unwrap();
    assert_eq!(inside("echo $IPS").trim(), format!("{v4},{v6}"));
    let hosts = inside("cat /etc/hosts");
    assert!(addrs.iter().all(|addr| hosts.contains(&format!("{addr}\tplain"))), "{hosts}");
    let links = inside("ip -o addr show dev eth0");
    assert!(links.contains(&format!("{v4}/32")) && links.contains(&format!("{v6}/128")), "{links}");
    eventually("Calico's annotations tell of both", SOON, || {
        let annotations = cluster.json(&["pod", "plain"])["metadata"]["annotations"].clone();
        let is = [&annotations["cni.projectcalico.org/podIP"], &annotations["cni.projectcalico.org/podIPs"]];
        let ought = [json!(format!("{v4}/32")), json!(format!("{v4}/32,{v6}/128"))];
        if is == [&ought[0], &ought[1]] { Ok(()) } else { Err(annotations.to_string()) }
    });
    let shown = ipam(cluster, &["show", "--blocks"]).unwrap();
    for parts in [["default-ipv6-ippool", "2^72"], ["fd00:10:233::/122", "node1"], ["fd00:10:233::40/122", "node2"]] {
        assert!(shown.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}: {shown}");
    }
    let who = ipam(cluster, &["show", "--ip", v6]).unwrap();
    assert!(who.contains("pod default/plain on node node1"), "{who}");
}

fn nodes_reach_pods(cluster: &Cluster) {
    for (node, pod) in [("node1", "plain"), ("node2", "plain"), ("node1", "far")] {
        for addr in addresses(cluster, pod) {
            let netns = format!("podnet-{node}");
            let ping = ["netns", "exec", &netns, "ping", "-c1", "-W3", &addr];
            assert!(
                Command::new("ip").args(ping).output().unwrap().status.success(),
                "{node} does not reach {pod} at {addr}"
            );
        }
    }
}

/// The agent mends faults at once: it stands still meanwhile, and mends them then.
fn while_the_agent_of_node1_stands_still<T>(cluster: &Cluster, work: impl FnOnce() -> T) -> T {
    let agent = rustix::process::Pid::from_raw(cluster.pid("node1-agent")).unwrap();
    let signal = |which| rustix::process::kill_process(agent, which).unwrap();
    signal(rustix::process::Signal::STOP);
    let done = work();
    signal(rustix::process::Signal::CONT);
    done
}

/// What `podnet …` prints.
fn said(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.podnet(arguments);
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn rules_of_both_are_compared(cluster: &Cluster) {
    let compared = || said(cluster, &["trace", "pod/plain", "pod/far", "--compare"]);
    let fault = ["nft", "delete", "table", "ip6", "podnet"];
    let words = ["differs on node node1: there is no table podnet that does anything (family ip6)"];
    is_named_and_mended(cluster, &fault, &words, compared, |text| !text.contains("(family ip6)"));
}

/// What is asked while node1's agent stands still and this was done there has these words, until the agent goes on.
fn is_named_and_mended(
    cluster: &Cluster,
    fault: &[&str],
    words: &[&str],
    ask: impl Fn() -> String,
    is_whole: impl Fn(&str) -> bool,
) {
    let damage = || (Command::new("ip").args(["netns", "exec", "podnet-node1"]).args(fault).status(), ask());
    let (done, text) = while_the_agent_of_node1_stands_still(cluster, damage);
    assert!(done.unwrap().success() && words.iter().all(|words| text.contains(words)), "{text}");
    eventually("the agent mends it", SOON, || {
        let text = ask();
        if is_whole(&text) { Ok(()) } else { Err(text) }
    });
}

/// A flow is told once, with what both nodes counted; and a probe passes each device of the way.
fn what_passes_by_ipv6_is_told(cluster: &Cluster) {
    const PORT: u16 = 20123;
    let [plain, far] = ["plain", "far"].map(|pod| addresses(cluster, pod).swap_remove(1));
    let url = format!("http://[{far}]/hostname");
    let ask = ["curl", "-sS", "--max-time", "5", "--local-port", &PORT.to_string(), &url];
    assert_eq!(cluster.exec("default", "plain", &ask).unwrap().trim(), "far");
    eventually("the flow is told once", SOON, || {
        let output = cluster.podnet(&["flows", "-o", "jsonl", "--since", "5m", "--from", &plain, "--to", &far]);
        let text = String::from_utf8_lossy(&output.stdout);
        let flows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let flows: Vec<Value> = flows.filter(|flow| flow["type"] == "flow" && flow["source"]["port"] == PORT).collect();
        let is_whole = |flow: &Value| {
            let other = &flow["destinationCounts"];
            flow["source"]["pod"]["name"] == "plain"
                && flow["destination"]["pod"]["name"] == "far"
                && flow["class"] == "pod-pod-other-node"
                && flow["reporter"] == "both"
                && other["node"] == "node2"
                && other["sent"] == flow["sent"]
        };
        if flows.len() == 1 && is_whole(&flows[0]) { Ok(()) } else { Err(format!("{flows:?}")) }
    });
    let to = format!("[{far}]:80");
    let output = cluster.podnet(&["trace", "pod/plain", &to, "--live", "-o", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let live = &told["live"];
    assert!(output.status.success() && live["arrived"] == true, "{live:#}");
    let seen: Vec<&Value> = live["hops"].as_array().unwrap().iter().filter(|hop| hop["seen"] == true).collect();
    let devices: Vec<&str> = seen.iter().map(|hop| hop["device"].as_str().unwrap()).collect();
    // The links of the pods are the second one and the last but one.
    let within = ["podnet.vxlan", "eth0", "eth0", "podnet.vxlan"];
    assert!(devices.len() == 8 && devices[2..6] == within && devices[0] == "eth0", "{devices:?}: {live:#}");
    assert!(seen.iter().all(|hop| hop["destination"] == to.as_str()), "{live:#}");
    let answer = &live["answer"];
    assert_eq!((&answer["kind"], &answer["by"]), (&json!("accepted"), &json!(far)), "{live:#}");
}

fn what_breaks_by_ipv6_is_named(cluster: &Cluster) {
    let to = format!("[{}]:80", addresses(cluster, "far").swap_remove(1));
    let why = || said(cluster, &["why", "pod/plain", &to]);
    let fault = ["ip", "-6", "route", "del", "fd00:10:233::40/122"];
    let words = ["on node node1: the route to fd00:10:233::40/122 should go to podnet.vxlan via ", ": there is none"];
    is_named_and_mended(cluster, &fault, &words, why, |text| text.contains("nothing is broken on the way"));
}

fn pods_and_their_configuration_decide(cluster: &Cluster) {
    let pods = [
        pod("pinned", "node2", &asking("ipAddrs", &["10.233.64.190", "fd00:77::6"])),
        pod("named", "node2", &asking("ipv6pools", &["six"])),
        pod("alone", "node1", &asking("ipAddrs", &["fd00:77::d"])),
    ];
    cluster.apply(&pods.concat());
    cluster.await_ready(&["pinned", "named", "alone"], SOON);
    assert_eq!(addresses(cluster, "pinned"), ["10.233.64.190", "fd00:77::6"]);
    let named = addresses(cluster, "named");
    assert!(named.len() == 2 && named[1].starts_with("fd00:77::"), "{named:?}");
    assert_eq!(addresses(cluster, "alone"), ["fd00:77::d"], "what is asked for is all");
    for (from, to) in [("plain", "pinned"), ("alone", "named"), ("far", "alone"), ("alone", "plain")] {
        reaches(cluster, from, to);
    }
    let wrong = [
        pod("two", "node1", &asking("ipAddrs", &["fd00:77::e", "fd00:77::f"])),
        pod("other", "node1", &asking("ipv6pools", &["default-ipv4-ippool"])),
    ];
    cluster.apply(&wrong.concat());
    await_event(
        cluster,
        "two",
        "there cannot be more than one IPv6 address in the annotation cni.projectcalico.org/ipAddrs",
    );
    await_event(cluster, "other", "is no IPv6 pool, and one is needed");
    cluster.kubectl(&["delete", "pod", "two", "other"]);

    let namespace = Namespace::make("podnet-pod-dual");
    let families = |v4: &str, v6: &str| {
        let added = namespace.cni_with("ADD", |config| {
            config["ipam"]["assign_ipv4"] = json!(v4);
            config["ipam"]["assign_ipv6"] = json!(v6);
        });
        namespace.cni("DEL").unwrap();
        added.map(|result| serde_json::from_str::<Value>(&result).unwrap())
    };
    let texts = |result: &Value, list: &str, key: &str| -> Vec<String> {
        result[list].as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
    };
    let both = families("true", "true").unwrap();
    assert_eq!(texts(&both, "routes", "dst"), ["0.0.0.0/0", "::/0"]);
    assert_eq!(texts(&both, "routes", "gw"), ["169.254.1.1", "fe80::1"]);
    let [four, six] = [families("true", "false").unwrap(), families("false", "true").unwrap()];
    assert!(matches!(&texts(&four, "ips", "address")[..], [only] if only.ends_with("/32")), "{four}");
    assert!(matches!(&texts(&six, "ips", "address")[..], [only] if only.ends_with("/128")), "{six}");
    assert_eq!(texts(&six, "routes", "dst"), ["::/0"]);
    let neither = families("false", "false").unwrap_err();
    assert!(neither.contains("turns both assign_ipv4 and assign_ipv6 off"), "{neither}");
    let odd = families("true", "perhaps").unwrap_err();
    assert!(odd.contains(r#"ipam.assign_ipv6 of the CNI configuration is \"perhaps\""#), "{odd}");
}

/// Where there is no IPv6 address the IPv4 one is given back.
fn a_pod_gets_both_or_none(cluster: &Cluster) {
    let tiny = asking("ipv6pools", &["tiny"]);
    cluster.apply(&[pod("t1", "node1", &tiny), pod("t2", "node1", &tiny)].concat());
    cluster.await_ready(&["t1", "t2"], SOON);
    cluster.apply(&pod("t3", "node1", &tiny));
    await_event(cluster, "t3", "no address is left in tiny (fd00:78::/127)");
    cluster.kubectl(&["delete", "pod", "t3"]);
    // Nor before the runtime's DEL.
    let namespace = Namespace::make("podnet-pod-dual-failed");
    let failed = namespace.cni_with("ADD", |config| config["ipam"]["ipv6_pools"] = json!(["tiny"])).unwrap_err();
    assert!(failed.contains("no address is left in tiny"), "{failed}");
    eventually("nothing is left of the pod that failed", SOON, || {
        let shown = ipam(cluster, &["check"])?;
        let held = ipam(cluster, &["show", "--pool", "tiny"])?;
        if held.contains("2 (100%)") { Ok(shown) } else { Err(held) }
    });
    cluster.kubectl(&["delete", "pod", "t1", "t2"]);
}

fn a_stateful_pod_keeps_both(cluster: &Cluster) {
    let rolled_out = || cluster.kubectl(&["rollout", "status", "statefulset", "db", "--timeout=60s"]);
    cluster.apply(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  serviceName: db\n  replicas: 1\n  \
         selector: {matchLabels: {app: db}}\n  template:\n    metadata: {labels: {app: db}, annotations: {ipam.podnet.io/sticky: 'true'}}\n    \
         spec: {nodeSelector: {kubernetes.io/hostname: node1}, terminationGracePeriodSeconds: 0, containers: [{name: d, image: podnet.local/demoapp}]}",
    );
    rolled_out();
    let before = addresses(cluster, "db-0");
    assert_eq!(before.len(), 2);
    eventually("both are kept", SOON, || {
        let kept = cluster.try_kubectl(&["get", "stickyaddress", "db-0", "-o", "json"])?;
        if before.iter().all(|addr| kept.contains(addr)) { Ok(()) } else { Err(kept) }
    });
    // On another node both are borrowed from the one that it was on.
    let node2 = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node2"}}}}}"#;
    cluster.kubectl(&["patch", "statefulset", "db", "-p", node2]);
    rolled_out();
    assert_eq!(cluster.json(&["pod", "db-0"])["spec"]["nodeName"], "node2");
    assert_eq!(addresses(cluster, "db-0"), before);
    reaches(cluster, "plain", "db-0");
    reaches(cluster, "far", "db-0");
    cluster.kubectl(&["delete", "statefulset", "db"]);
    eventually("all of it goes with the set", SOON, || {
        let left = cluster.kubectl(&["get", "pods,stickyaddresses", "-o", "name"]);
        if left.contains("/db-") { Err(left) } else { Ok(()) }
    });
}

fn both_outlive_the_agent(cluster: &Cluster) {
    let agent = cluster.pid("node1-agent");
    rustix::process::kill_process(rustix::process::Pid::from_raw(agent).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    eventually("another agent runs", SOON, || match cluster.running("node1-agent") {
        Some(pid) if pid != agent => Ok(()),
        pid => Err(format!("{pid:?}")),
    });
    cluster.apply(&pod("after", "node1", ""));
    cluster.await_ready(&["after"], SOON);
    for (from, to) in [("after", "plain"), ("far", "after"), ("plain", "alone")] {
        reaches(cluster, from, to);
    }
    eventually("everything agrees", SOON, || ipam(cluster, &["check"]));
}

fn both_are_released_together(cluster: &Cluster) {
    let namespace = Namespace::make("podnet-pod-dual-kept");
    let added: Value = serde_json::from_str(&namespace.cni("ADD").unwrap()).unwrap();
    let check = || namespace.cni_with("CHECK", |config| config["prevResult"] = added.clone());
    check().unwrap();
    let away = ["netns", "exec", "podnet-pod-dual-kept", "ip", "-6", "route", "del", "default"];
    assert!(Command::new("ip").args(away).status().unwrap().success());
    let damaged = check().unwrap_err();
    assert!(damaged.contains("no route to ::/0"), "{damaged}");
    let addr = |index: usize| {
        let text = added["ips"][index]["address"].as_str().unwrap();
        text.split('/').next().unwrap().to_owned()
    };
    let released = ipam(cluster, &["release", &addr(1)]).unwrap();
    for addr in [addr(0), addr(1)] {
        assert!(released.contains(&format!("{addr} of pod default/plain on node node1 is free")), "{released}");
    }
}
