//! Pools and who draws from them, with real kubectl.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manifests");

/// The pods of a namespace that a selector names.
fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Vec<Value> {
    let list = cluster.json(&["-n", namespace, "pods", "-l", selector]);
    list["items"].as_array().unwrap().clone()
}

fn address(pod: &Value) -> Ipv4Addr {
    pod["status"]["podIP"].as_str().unwrap_or_default().parse().unwrap_or_else(|_| panic!("no address: {pod:#}"))
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

/// What the events of a pod say about its sandbox.
fn complaint(cluster: &Cluster, pod: &str) -> Result<String, String> {
    let field = format!("involvedObject.name={pod},reason=FailedCreatePodSandBox");
    let events = cluster.json(&["events", "--field-selector", &field]);
    let texts: Vec<&str> =
        events["items"].as_array().unwrap().iter().filter_map(|event| event["message"].as_str()).collect();
    if texts.is_empty() { Err(format!("no event about {pod} yet")) } else { Ok(texts.join("\n")) }
}

/// Waits for an event about a pod that says all of this.
fn await_complaint(cluster: &Cluster, pod: &str, parts: &[&str]) {
    eventually(&format!("{pod}: {parts:?}"), SOON, || {
        let said = complaint(cluster, pod)?;
        if parts.iter().all(|part| said.contains(part)) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn pods_draw_from_the_pools_that_they_and_their_namespaces_name_and_mistakes_are_told() {
    let cluster = Cluster::up(PODNET, &[]);
    cluster.apply_file("crates/cli/tests/manifests/02-pools.yaml");
    cluster.await_ready(&["-n", "test", "--all"], SOON);
    cluster.await_ready(&["-n", "america-node", "--all"], SOON);

    let pinned = cluster.json(&["-n", "test", "pod", "pinned"]);
    assert_eq!(pinned["status"]["podIP"], "10.233.65.177");
    eventually("the chosen address stands in the annotations", SOON, || {
        let pod = cluster.json(&["-n", "test", "pod", "pinned"]);
        let annotation = |key: &str| pod["metadata"]["annotations"][format!("cni.projectcalico.org/{key}")].clone();
        match (annotation("podIP"), annotation("podIPs")) {
            (ip, ips) if ip == "10.233.65.177/32" && ips == "10.233.65.177/32" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    let (test, america) =
        (pods(&cluster, "test", "app=demoapp-test"), pods(&cluster, "america-node", "app=demoapp-america"));
    for (pods, range) in [(&test, [10, 200, 64]), (&america, [10, 200, 66])] {
        assert_eq!(pods.len(), 3);
        for pod in pods {
            assert_eq!(address(pod).octets()[..3], range, "{pod:#}");
        }
    }
    // One block of 64 for each node that has such pods, and the first address of a block is as good as any.
    let nodes: BTreeSet<&str> = test.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    let blocks: BTreeSet<u8> = test.iter().map(|pod| address(pod).octets()[3] & 0xc0).collect();
    assert_eq!(blocks.len(), nodes.len());
    assert!(test.iter().all(|pod| blocks.contains(&(address(pod).octets()[3] & 0xc0))));
    assert!(test.iter().any(|pod| address(pod).octets()[3].is_multiple_of(64)), "{test:?}");

    for (from, to) in [(&test[0], &america[0]), (&america[1], &test[1]), (&test[2], &pinned)] {
        let namespace = from["metadata"]["namespace"].as_str().unwrap();
        let url = format!("http://{}/hostname", address(to));
        eventually(&format!("{} reaches {}", name(from), name(to)), SOON, || {
            match cluster.exec(namespace, name(from), &["curl", "-sS", "--max-time", "2", &url])? {
                answer if answer.trim() == name(to) => Ok(()),
                answer => Err(answer),
            }
        });
    }
    let listed = cluster.kubectl(&["get", "ippools"]);
    assert!(listed.lines().any(|line| line.contains("my.ippool-1") && line.contains("10.200.64.0/24")), "{listed}");
    assert!(cluster.kubectl(&["describe", "ippool", "america-ippool"]).contains("10.200.66.0/24"));

    mistakes_in_pods(&cluster);
    mistakes_in_pools(&cluster);
    // Nothing of it harmed anybody.
    let after = pods(&cluster, "test", "app=demoapp-test");
    assert_eq!(after.iter().map(address).collect::<Vec<_>>(), test.iter().map(address).collect::<Vec<_>>());
}

fn mistakes_in_pods(cluster: &Cluster) {
    let refused = cluster.try_kubectl(&["apply", "-f", &format!("{MANIFESTS}/03-pool-mistakes.yaml")]).unwrap_err();
    let sentence = r#"spec.vxlanMode: Unsupported value: "Neve": supported values: "Always", "CrossSubnet", "Never""#;
    assert!(refused.contains(sentence), "{refused}");
    let of = |app: &str| pods(cluster, "default", &format!("app={app}"));
    for app in ["two-addresses", "same-address"] {
        eventually(app, SOON, || match of(app).len() {
            3 => Ok(()),
            count => Err(format!("{count} pods")),
        });
    }
    for pod in of("two-addresses") {
        let sentence = "there cannot be more than one IPv4 address in the annotation cni.projectcalico.org/ipAddrs";
        await_complaint(cluster, name(&pod), &[sentence]);
        assert_eq!(pod["status"]["phase"], "Pending");
    }
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    let holder = eventually("one pod has the address", SOON, || {
        of("same-address").iter().find(|pod| running(pod)).map(|pod| name(pod).to_owned()).ok_or("none yet")
    });
    for pod in of("same-address").iter().filter(|pod| name(pod) != holder) {
        await_complaint(cluster, name(pod), &["10.233.65.190", &format!("default/{holder}")]);
    }
    assert_eq!(of("same-address").iter().filter(|pod| running(pod)).count(), 1);
    await_complaint(cluster, "outside", &["192.0.2.7 is in no pool", "10.233.64.0/18"]);
    await_complaint(cluster, "no-such-pool", &["pool nowhere", "does not exist", "default-ipv4-ippool"]);
}

fn mistakes_in_pools(cluster: &Cluster) {
    let pool = |name: &str, spec: &str| {
        format!("apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {spec}")
    };
    for (spec, parts) in [
        (
            "{cidr: 10.233.80.0/24}",
            ["spec.cidr", "10.233.80.0/24", "overlaps with IPPool default-ipv4-ippool (10.233.64.0/18)"],
        ),
        ("{cidr: 10.9.0.0/24, blockSize: 33}", ["spec.blockSize", "33", "must be 24 to 32"]),
        (
            "{cidr: 10.9.0.0/24, vxlanMode: Always, ipipMode: Always}",
            ["spec.vxlanMode", "Always", "must be Never where spec.ipipMode is not Never"],
        ),
    ] {
        let refused = cluster.try_apply(&pool("wrong", spec)).unwrap_err();
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    }
    for (spec, parts) in [
        (r#"{"cidr": "10.9.0.0/24"}"#, ["spec.cidr", "10.9.0.0/24", "it must stay 10.200.66.0/24"]),
        (r#"{"blockSize": 28}"#, ["spec.blockSize", "28", "must stay 26 while nodes have blocks of this pool"]),
    ] {
        let patch = format!(r#"{{"spec": {spec}}}"#);
        let refused =
            cluster.try_kubectl(&["patch", "ippool", "america-ippool", "--type=merge", "-p", &patch]).unwrap_err();
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    }
    // Pods have addresses of it; of another, which says as little as it may, nobody has.
    let refused = cluster.try_kubectl(&["delete", "ippool", "america-ippool"]).unwrap_err();
    let parts = ["Conflict", "of this pool", "in use (america-node/", r#""disabled":true"#];
    assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    cluster.apply(&pool("brief", "{cidr: 10.9.0.0/24}"));
    let spec = &cluster.json(&["ippool", "brief"])["spec"];
    let wanted = serde_json::json!({
        "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic", "blockSize": 26, "cidr": "10.9.0.0/24",
        "disableBGPExport": false, "disabled": false, "ipipMode": "Never", "natOutgoing": false, "nodeSelector": "all()",
        "vxlanMode": "Never",
    });
    assert_eq!(*spec, wanted);
    cluster.kubectl(&["delete", "ippool", "brief"]);
}
