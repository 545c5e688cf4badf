//! Services in mode `iptables`, asked for by the ConfigMap `kube-proxy`, with real kubectl.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "shared/serving.rs"]
mod serving;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use podnet_testnet::{Cluster, eventually};
use serving::{Lasting, on_node, pod};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
const NODES: [&str; 2] = ["node1", "node2"];

#[test]
fn services_are_in_iptables_while_the_configuration_says_so() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    for (name, node) in [("client", "node1"), ("web1", "node1"), ("web2", "node2")] {
        cluster.apply(&pod(name, node));
    }
    cluster.apply(SERVICES);
    cluster.await_ready(&["client", "web1", "web2"], SOON);
    let service = cluster.json(&["service", "web"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    served(&cluster, &service);
    let mut lasting = Lasting::begin(&cluster, 5201);

    cluster.take_proxy_mode("iptables", &NODES, SOON);
    chains_are_as_people_expect(&service);
    served(&cluster, &service);
    damage_is_mended();
    follows_endpoints(&cluster);
    outlives_the_agent(&cluster, &service);
    lasting.goes_on(&cluster);

    cluster.take_proxy_mode("nftables", &NODES, SOON);
    served(&cluster, &service);
    lasting.goes_on(&cluster);
    lasting.end(&cluster);
    for tool in ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save"] {
        let left = on_node("node1", &[tool]);
        assert!(!left.contains("KUBE-"), "{left}");
    }
}

const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, selector: {app: web}, \
                        ports: [{name: http, port: 80, nodePort: 30080}]}\n---\napiVersion: v1\nkind: Service\nmetadata: \
                        {name: lasting}\nspec: {selector: {name: web2}, ports: [{port: 5201}]}\n---\napiVersion: v1\nkind: Service\n\
                        metadata: {name: sticky}\nspec: {selector: {name: web1}, sessionAffinity: ClientIP, ports: [{port: 80}]}";

fn chain(table: &str, name: &str) -> String {
    let output = Command::new("ip")
        .args(["netns", "exec", "podnet-node1", "iptables-nft", "-t", table, "-S", name])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// From a pod by the ClusterIP, which answers pings too, and from the node and from the other one by the NodePort; a port that it does not
/// have is refused at once.
fn served(cluster: &Cluster, service: &str) {
    let from_client = |command: &[&str]| cluster.exec("default", "client", command);
    let curl = |url: &str| from_client(&["curl", "-sS", "--max-time", "3", url]);
    let mut seen = std::collections::BTreeSet::new();
    eventually("both backends answer", SOON, || {
        // Eight connections.
        let url = format!("http://{service}/hostname?[1-8]");
        let answers = from_client(&["curl", "-sS", "--max-time", "3", "-H", "Connection: close", &url])?;
        seen.extend(answers.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    from_client(&["ping", "-c1", "-W2", service]).unwrap();
    let refused = curl(&format!("http://{service}:81")).unwrap_err();
    // curl says so of what is refused; what takes too long is 28.
    assert!(refused.contains("curl: (7)"), "{refused}");
    let node = cluster.json(&["node", "node1"])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
    for from in ["node1", "node2"] {
        on_node(from, &["curl", "-sS", "--max-time", "3", &format!("http://{node}:30080/hostname")]);
    }
}

fn chains_are_as_people_expect(service: &str) {
    let services = chain("nat", "KUBE-SERVICES");
    let expected =
        format!(r#"-A KUBE-SERVICES -d {service}/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp"#);
    assert!(services.contains(&expected), "{services}");
    assert!(
        services.contains(r#""default/kubernetes:https cluster IP""#) && services.contains("KUBE-SVC-NPX46M4PTMTKRN6Y")
    );
    assert!(chain("nat", "KUBE-NODEPORTS").contains(r#""default/web:http" -m tcp --dport 30080 -j KUBE-EXT-"#));
    let tables = on_node("node1", &["nft", "list", "tables"]);
    assert!(!tables.contains("podnet-services") && tables.contains("table ip podnet"), "{tables}");
}

/// Long before all rules are compared, which is done once a minute.
fn damage_is_mended() {
    let right = chain("nat", "KUBE-SERVICES");
    let hooks = chain("nat", "PREROUTING");
    on_node("node1", &["iptables-nft", "-t", "nat", "-D", "PREROUTING", "1"]);
    on_node("node1", &["iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES"]);
    let damaged = Instant::now();
    eventually("the chains are mended", SOON, || {
        let (services, now) = (chain("nat", "KUBE-SERVICES"), chain("nat", "PREROUTING"));
        if services == right && now == hooks { Ok(()) } else { Err(format!("{services}\n{now}")) }
    });
    assert!(damaged.elapsed() < Duration::from_secs(20), "mended after {:?}", damaged.elapsed());
}

fn follows_endpoints(cluster: &Cluster) {
    let endpoints = || on_node("node1", &["iptables-nft-save", "-t", "nat"]).matches("default/web:http -> ").count();
    assert_eq!(endpoints(), 2);
    cluster.kubectl(&["label", "pod", "web2", "app-", "--overwrite"]);
    eventually(
        "one backend is left",
        SOON,
        || if endpoints() == 1 { Ok(()) } else { Err(chain("nat", "KUBE-SERVICES")) },
    );
    cluster.kubectl(&["label", "pod", "web2", "app=web"]);
    eventually("both are back", SOON, || if endpoints() == 2 { Ok(()) } else { Err(chain("nat", "KUBE-SERVICES")) });
}

/// The chains stay as they are, and so do the clients that the kernel remembers for them.
fn outlives_the_agent(cluster: &Cluster, service: &str) {
    let memory = |command: &str| on_node("node1", &["sh", "-c", command]);
    memory("for list in /proc/net/xt_recent/KUBE-SEP-*; do echo +192.0.2.9 > $list; done");
    let before = chain("nat", "KUBE-SERVICES");
    let agent = cluster.pid("node1-agent").to_string();
    assert!(Command::new("kill").args(["-9", &agent]).status().unwrap().success());
    served(cluster, service);
    cluster.take_proxy_mode("iptables", &NODES, SOON);
    eventually("the chains are the same", SOON, || {
        let now = chain("nat", "KUBE-SERVICES");
        if now == before { Ok(()) } else { Err(now) }
    });
    let remembered = memory("cat /proc/net/xt_recent/KUBE-SEP-*");
    assert!(remembered.contains("src=192.0.2.9 "), "{remembered}");
}
