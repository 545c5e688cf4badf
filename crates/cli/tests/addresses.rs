//! How nodes share the addresses of pools, what survives an absent API server, and `podnet ipam`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "shared/sandbox.rs"]
mod sandbox;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use podnet_testnet::{Cluster, eventually};
use sandbox::Namespace;
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: {cidr}, blockSize: 30, natOutgoing: true, nodeSelector: '!all()'}}\n---\n"
    )
}

/// A pod on a node; `annotations` are what it asks of IPAM.
fn pod(name: &str, node: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: d, image: podnet.local/demoapp}}]}}\n---\n"
    )
}

fn from_pool(pool: &str) -> String {
    format!("cni.projectcalico.org/ipv4pools: '[\"{pool}\"]'")
}

fn exactly(addr: &str) -> String {
    format!("cni.projectcalico.org/ipAddrs: '[\"{addr}\"]'")
}

fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.json(&["pod", pod])["status"]["podIP"].as_str().unwrap_or_default().to_owned()
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

/// The addresses of a block that its object says are held.
fn held(cluster: &Cluster, block: &str) -> usize {
    let Ok(object) = cluster.try_kubectl(&["get", "ipamblock", block, "-o", "json"]) else { return 0 };
    let object: Value = serde_json::from_str(&object).unwrap();
    object["spec"]["allocations"].as_array().unwrap().iter().filter(|slot| !slot.is_null()).count()
}

fn reaches(cluster: &Cluster, from: &str, to: &str) {
    let url = format!("http://{}/hostname", address(cluster, to));
    eventually(&format!("{from} reaches {to}"), SOON, || {
        match cluster.exec("default", from, &["curl", "-sS", "--max-time", "2", &url])? {
            answer if answer.trim() == to => Ok(()),
            answer => Err(answer),
        }
    });
}

#[test]
fn nodes_borrow_from_each_other_and_blocks_of_nodes_that_are_gone_come_back() {
    let cluster = Cluster::up(PODNET, &[]);
    // Two blocks for three nodes; and one block that belongs to a node that there is not.
    let ghost = "apiVersion: crd.projectcalico.org/v1\nkind: IPAMBlock\nmetadata: {name: 10-78-0-0-30}\n\
                 spec: {cidr: 10.78.0.0/30, affinity: 'host:ghost', allocations: [0, null, null, null], unallocated: [1, 2, 3], \
                 attributes: [{handle_id: gone/eth0, secondary: {namespace: default, pod: gone, node: ghost}}], strictAffinity: false}\n---\n";
    let pods: String =
        [pod("a", "node1", &from_pool("small")), pod("b", "node2", &from_pool("small")), pod("plain", "node1", "")]
            .concat();
    cluster.apply(&[&pool("small", "10.77.0.0/29"), &pool("haunted", "10.78.0.0/30"), ghost, &pods].concat());
    cluster.await_ready(&["a", "b", "plain"], SOON);
    assert_eq!([address(&cluster, "a"), address(&cluster, "b")], ["10.77.0.0", "10.77.0.4"]);

    // node3 has no block of this pool and gets none; node2 has one, and its pod asks for an address of node1's.
    cluster.apply(
        &[pod("borrower", "node3", &from_pool("small")), pod("pinned", "node2", &exactly("10.77.0.3"))].concat(),
    );
    cluster.await_ready(&["borrower", "pinned"], SOON);
    assert!(address(&cluster, "borrower").starts_with("10.77.0."));
    assert_eq!(address(&cluster, "pinned"), "10.77.0.3");
    for (from, to) in [("a", "borrower"), ("b", "borrower"), ("borrower", "pinned"), ("pinned", "a")] {
        reaches(&cluster, from, to);
    }
    cluster.apply(&pod("second", "node3", &exactly("10.77.0.3")));
    await_event(&cluster, "second", "10.77.0.3 is held by pod default/pinned");
    cluster.kubectl(&["delete", "pod", "second", "borrower", "pinned"]);
    eventually("what was borrowed is returned", SOON, || {
        match [held(&cluster, "10-77-0-0-30"), held(&cluster, "10-77-0-4-30")] {
            [1, 1] => Ok(()),
            held => Err(format!("{held:?}")),
        }
    });

    a_stateful_pod_keeps_its_address(&cluster);
    what_else_decides(&cluster);
    cluster.apply("apiVersion: crd.projectcalico.org/v1\nkind: IPAMConfig\nmetadata: {name: default}\nspec: {strictAffinity: true}");
    cluster.apply(&pod("borrower", "node3", &from_pool("small")));
    await_event(&cluster, "borrower", "from which strictAffinity forbids to borrow");
    cluster.kubectl(&["delete", "pod", "borrower"]);

    eventually("the block of a node that is gone is taken away", SOON, || {
        let blocks = cluster.kubectl(&["get", "ipamblocks", "-o", "name"]);
        if blocks.contains("10-78-0-0-30") { Err(blocks) } else { Ok(()) }
    });
    cluster.apply(&pod("ghostly", "node1", &exactly("10.78.0.0")));
    cluster.await_ready(&["ghostly"], SOON);
    assert_eq!(address(&cluster, "ghostly"), "10.78.0.0");
    without_the_api_server(&cluster);
    what_is_wrong_is_named_and_mended(&cluster);
    a_pool_is_split(&cluster);
}

/// `podnet ipam …`: what it printed; `Err` where it failed.
fn ipam(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let output = cluster.podnet(&[&["ipam"], arguments].concat());
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

fn what_is_wrong_is_named_and_mended(cluster: &Cluster) {
    let shown = ipam(cluster, &["show", "--blocks"]).unwrap();
    for parts in [["small", "10.77.0.0/29"], ["10.77.0.0/30", "node1"], ["10.77.0.4/30", "node2"]] {
        assert!(shown.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}: {shown}");
    }
    let who = ipam(cluster, &["show", "--ip", "10.77.0.0"]).unwrap();
    assert!(who.contains("pod default/a on node node1") && who.contains("10.77.0.0/30 of node node1"), "{who}");
    eventually("everything agrees", SOON, || ipam(cluster, &["check"]));

    // A sandbox of which nothing but its address is left, an interface of nobody, and a block that tells lies.
    let leaked = {
        let namespace = Namespace::make("podnet-pod-leaking");
        address_of(&namespace.cni("ADD").unwrap())
    };
    let in_node2 = [
        "netns",
        "exec",
        "podnet-node2",
        "ip",
        "link",
        "add",
        "pn0123456789ab",
        "type",
        "veth",
        "peer",
        "name",
        "pnpeer",
    ];
    assert!(Command::new("ip").args(in_node2).status().unwrap().success());
    // A lie that changes how many addresses are free, and an object that is gone, are noticed by the agent itself.
    cluster.kubectl(&[
        "patch",
        "ipamblock",
        "10-77-0-0-30",
        "--type=merge",
        "-p",
        r#"{"spec": {"allocations": [null, null, null, null]}}"#,
    ]);
    cluster.kubectl(&["delete", "ipamblock", "10-77-0-4-30"]);
    eventually("the objects say again what is", SOON, || {
        match [held(cluster, "10-77-0-0-30"), held(cluster, "10-77-0-4-30")] {
            [1, 1] => Ok(()),
            held => Err(format!("{held:?}")),
        }
    });
    let lie = r#"{"spec": {"allocations": [null, null, null, 0]}}"#;
    cluster.kubectl(&["patch", "ipamblock", "10-77-0-0-30", "--type=merge", "-p", lie]);
    let found = ipam(cluster, &["check"]).unwrap_err();
    for parts in [["leak", &*leaked], ["stray", "pn0123456789ab"], ["stale", "10.77.0.0"], ["stale", "10.77.0.3"]] {
        assert!(found.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}: {found}");
    }
    let mended = ipam(cluster, &["check", "--repair"]).unwrap();
    assert!(mended.contains("everything agrees"), "{mended}");

    let refused = ipam(cluster, &["release", "10.77.0.0"]).unwrap_err();
    assert!(refused.contains("pod default/a on node node1 runs with 10.77.0.0"), "{refused}");
    let namespace = Namespace::make("podnet-pod-kept");
    let kept = address_of(&namespace.cni("ADD").unwrap());
    let released = ipam(cluster, &["release", &kept]).unwrap();
    assert!(released.contains(&format!("{kept} of pod default/plain on node node1 is free")), "{released}");
    eventually("nobody holds it", SOON, || match ipam(cluster, &["release", &kept]) {
        Err(said) if said.contains("nobody holds") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn address_of(result: &str) -> String {
    let result: Value = serde_json::from_str(result).unwrap();
    result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned()
}

fn a_pool_is_split(cluster: &Cluster) {
    let refused = ipam(cluster, &["split", "small", "4"]).unwrap_err();
    assert!(refused.contains("has 2 blocks of /30"), "{refused}");
    ipam(cluster, &["split", "small", "2"]).unwrap();
    let pools = cluster.kubectl(&["get", "ippools", "-o", "name"]);
    assert!(
        pools.contains("/small-0") && pools.contains("/small-1") && !pools.lines().any(|l| l.ends_with("/small")),
        "{pools}"
    );
    reaches(cluster, "a", "b");
    cluster.apply(&pod("late", "node2", &from_pool("small-1")));
    cluster.await_ready(&["late"], SOON);
    assert!(["10.77.0.5", "10.77.0.6", "10.77.0.7"].contains(&&*address(cluster, "late")));
}

/// The CNI configuration's pools, reservations, and addresses without IPAM.
fn what_else_decides(cluster: &Cluster) {
    cluster.apply("apiVersion: crd.projectcalico.org/v1\nkind: IPReservation\nmetadata: {name: kept}\nspec: {reservedCIDRs: [10.77.0.1]}");
    let refused = cluster.try_apply(
        "apiVersion: crd.projectcalico.org/v1\nkind: IPReservation\nmetadata: {name: wrong}\nspec: {reservedCIDRs: [10.77/8]}",
    );
    assert!(
        refused.as_ref().is_err_and(|said| said.contains("spec.reservedCIDRs[0]") && said.contains("10.77/8")),
        "{refused:?}"
    );
    let namespace = Namespace::make("podnet-pod-by-conflist");
    let added = namespace.cni_with("ADD", |config| config["ipam"]["ipv4_pools"] = serde_json::json!(["small"]));
    assert_eq!(address_of(&added.unwrap()), "10.77.0.2", ".0 is held, .1 reserved");
    namespace.cni("DEL").unwrap();
    let wrong =
        namespace.cni_with("ADD", |config| config["ipam"]["ipv4_pools"] = serde_json::json!(["nowhere"])).unwrap_err();
    assert!(wrong.contains("pool nowhere (ipam.ipv4_pools of the CNI configuration) does not exist"), "{wrong}");

    cluster.apply(&pod("stranger", "node1", "cni.projectcalico.org/ipAddrsNoIpam: '[\"192.0.2.44\"]'"));
    cluster.await_ready(&["stranger"], SOON);
    assert_eq!(address(cluster, "stranger"), "192.0.2.44");
    reaches(cluster, "a", "stranger");
    cluster.kubectl(&["delete", "pod", "stranger"]);
}

/// Pods of a StatefulSet are themselves again after they were deleted, moved or scaled away: by name and, where they are sticky, by
/// address.
fn a_stateful_pod_keeps_its_address(cluster: &Cluster) {
    let claims = "volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  serviceName: db\n  replicas: 2\n  {claims}\n  \
         selector: {{matchLabels: {{app: db}}}}\n  template:\n    metadata: {{labels: {{app: db}}, annotations: {{ipam.podnet.io/sticky: 'true'}}}}\n    \
         spec: {{nodeSelector: {{kubernetes.io/hostname: node1}}, terminationGracePeriodSeconds: 0, containers: [{{name: d, image: podnet.local/demoapp, volumeMounts: [{{name: data, mountPath: /data}}]}}]}}"
    ));
    rolled_out(cluster);
    let pods = ["db-0", "db-1"];
    let before = pods.map(|pod| address(cluster, pod));
    eventually("the addresses are kept", SOON, || {
        let kept = cluster.kubectl(&["get", "stickyaddresses"]);
        if before.iter().all(|addr| kept.contains(addr)) { Ok(()) } else { Err(kept) }
    });
    let uid = |kind: &str, name: &str| cluster.json(&[kind, name])["metadata"]["uid"].clone();
    let owner = &cluster.json(&["stickyaddress", "db-0"])["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"], &owner["uid"]),
        (&"StatefulSet".into(), &"db".into(), &uid("statefulset", "db"))
    );
    assert_eq!(cluster.json(&["pod", "db-1"])["spec"]["hostname"], "db-1");
    eventually("each has a name", SOON, || {
        let found = cluster.exec("default", "db-1", &["getent", "hosts", "db-0.db.default.svc.cluster.local"])?;
        if found.contains(&before[0]) { Ok(()) } else { Err(found) }
    });
    cluster.exec("default", "db-0", &["sh", "-c", "echo kept > /data/file"]).unwrap();

    let first = uid("pod", "db-0");
    cluster.kubectl(&["delete", "pod", "db-0"]);
    eventually("it is made anew", SOON, || {
        match cluster.try_kubectl(&["get", "pod", "db-0", "-o", "jsonpath={.metadata.uid}"]) {
            Ok(uid) if first != uid.trim() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    rolled_out(cluster);
    assert_eq!(address(cluster, "db-0"), before[0]);
    assert_eq!(cluster.exec("default", "db-0", &["cat", "/data/file"]).unwrap().trim(), "kept");

    // To another node, one after the other: there their addresses are borrowed.
    let node2 = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node2"}}}}}"#;
    cluster.kubectl(&["patch", "statefulset", "db", "-p", node2]);
    rolled_out(cluster);
    for (pod, addr) in pods.iter().zip(&before) {
        assert_eq!(cluster.json(&["pod", pod])["spec"]["nodeName"], "node2");
        assert_eq!(address(cluster, pod), *addr, "{}", cluster.logs());
        reaches(cluster, "a", pod);
    }
    cluster.kubectl(&["scale", "statefulset", "db", "--replicas=1"]);
    cluster.kubectl(&["wait", "--for=delete", "pod/db-1", "--timeout=30s"]);
    cluster.kubectl(&["scale", "statefulset", "db", "--replicas=2"]);
    rolled_out(cluster);
    assert_eq!(address(cluster, "db-1"), before[1]);
    assert_eq!(cluster.kubectl(&["get", "controllerrevisions", "-o", "name"]).lines().count(), 2);
    cluster.kubectl(&["delete", "service,statefulset", "db"]);
    eventually("all of it goes with the set", SOON, || {
        let left = cluster.kubectl(&["get", "pods,stickyaddresses,controllerrevisions", "-o", "name"]);
        if left.contains("/db-") { Err(left) } else { Ok(()) }
    });
}

fn rolled_out(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "statefulset", "db", "--timeout=60s"]);
}

/// ADD and DEL of a known pod, as a runtime sends them, while the API server does not answer.
fn without_the_api_server(cluster: &Cluster) {
    let apiserver = rustix::process::Pid::from_raw(cluster.pid("apiserver")).unwrap();
    let namespace = Namespace::make("podnet-pod-without-api");
    rustix::process::kill_process(apiserver, rustix::process::Signal::STOP).unwrap();
    let started = Instant::now();
    let added = namespace.cni("ADD");
    let took = started.elapsed();
    let deleted = namespace.cni("DEL");
    rustix::process::kill_process(apiserver, rustix::process::Signal::CONT).unwrap();
    let added: Value = serde_json::from_str(&added.unwrap()).unwrap();
    assert!(added["ips"][0]["address"].as_str().unwrap().starts_with("10.233."), "{added}");
    assert!(took < Duration::from_secs(2), "ADD waited {took:?} for nobody");
    deleted.unwrap();
}
