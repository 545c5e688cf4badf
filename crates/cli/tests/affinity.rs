//! Clients that stay with their backend, and pings of a ClusterIP, as people see them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeSet, process::Command, time::Duration};

use podnet_testnet::{Cluster, eventually};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

/// The backends that answer a pod's next connections, of which each says its address.
fn met(cluster: &Cluster, to: &str) -> Result<BTreeSet<String>, String> {
    let line = format!("for i in $(seq 8); do curl -sS --max-time 3 http://{to}/ || exit 1; done");
    let output = cluster.kubectl_command(&["exec", "client", "--", "sh", "-c", &line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said =
        text.split("ServerIP: ").skip(1).map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned());
    if output.status.success() { Ok(said.collect()) } else { Err(text) }
}

#[test]
fn a_client_stays_with_its_backend_and_a_cluster_ip_answers_pings() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.kubectl(&["create", "deployment", "web", "--image=podnet.local/demoapp", "--replicas=3"]);
    cluster.kubectl(&["expose", "deployment", "web", "--port=80", "--session-affinity=ClientIP"]);
    cluster.kubectl(&["run", "client", "--image=podnet.local/tools", "--command", "--", "sleep", "1000"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let ip = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let mut first = BTreeSet::new();
    eventually("the Service answers", SOON, || {
        first = met(&cluster, &ip)?;
        if first.len() == 1 { Ok(()) } else { Err(format!("{first:?}")) }
    });
    cluster.kubectl(&["exec", "client", "--", "ping", "-c", "1", "-W", "3", &ip]);
    let ping = Command::new("ip").args(["netns", "exec", "podnet-node1", "ping", "-c", "1", "-W", "3", &ip]).output();
    assert!(ping.unwrap().status.success(), "from the node");
    // The others' coming and going is nothing to it; that its own goes is.
    cluster.kubectl(&["scale", "deployment", "web", "--replicas=5"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(met(&cluster, &ip).unwrap(), first);
    cluster.kubectl(&["delete", "pod", "-l", "app=web", "--grace-period=0", "--force"]);
    eventually("another one answers, and it alone", SOON, || {
        let now = met(&cluster, &ip)?;
        if now.len() == 1 && now != first { Ok(()) } else { Err(format!("{now:?}")) }
    });
}
