//! Services in mode `userspace`, asked for by the ConfigMap `kube-proxy`, with real kubectl.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "shared/serving.rs"]
mod serving;

use std::{
    collections::BTreeSet,
    io::Read,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use podnet_kernel::{cgroup::Cgroup, netns::NetNs};
use podnet_testnet::{Cluster, eventually};
use serving::{Lasting, on_node, pod};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
const NODES: [&str; 2] = ["node1", "node2"];

#[test]
fn services_are_passed_on_by_a_program_that_outlives_the_agent_while_the_configuration_says_so() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    for (name, node) in [("client", "node1"), ("web1", "node1"), ("web2", "node2")] {
        cluster.apply(&pod(name, node));
    }
    cluster.apply(SERVICES);
    cluster.await_ready(&["client", "web1", "web2"], SOON);
    let service = cluster.json(&["service", "web"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    served(&cluster, &service);
    let mut before = Lasting::begin(&cluster, 5201);

    cluster.take_proxy_mode("userspace", &NODES, SOON);
    assert!(!on_node("node1", &["nft", "list", "tables"]).contains("podnet-services"));
    assert!(on_node("node1", &["ip", "route", "show", "proto", "87"]).contains(&service));
    served(&cluster, &service);
    before.goes_on(&cluster);
    follows_endpoints(&cluster, &service);
    tells_what_it_does_not_serve(&cluster);
    let mut within = Lasting::begin(&cluster, 5202);
    let passes_on = programs("node1");
    assert_eq!(passes_on.len(), 1);
    let of_process = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", passes_on[0])).unwrap();
    assert!(of_process("cmdline").starts_with("podnet\0proxy\0"), "{:?}", of_process("cmdline"));
    assert_eq!(of_process("comm"), "podnet\n");
    let agent = cluster.pid("node1-agent").to_string();
    assert!(Command::new("kill").args(["-9", &agent]).status().unwrap().success());
    // Another one is there.
    cluster.take_proxy_mode("userspace", &NODES, SOON);
    served(&cluster, &service);
    within.goes_on(&cluster);
    assert_eq!(programs("node1"), passes_on, "the program outlives its agent");

    cluster.take_proxy_mode("nftables", &NODES, SOON);
    served(&cluster, &service);
    within.goes_on(&cluster);
    before.goes_on(&cluster);
    within.end(&cluster);
    for (node, family) in [("node1", "-4"), ("node1", "-6"), ("node2", "-4"), ("node2", "-6")] {
        eventually("nothing is left once the last connection is over", SOON, || {
            let seen = on_node(node, &["ip", family, "route", "show", "table", "all", "proto", "87"])
                + &on_node(node, &["ip", family, "rule"])
                + &on_node(node, &["ip", "-br", "link", "show", "type", "veth"]);
            if seen.contains("podservices") || seen.contains("28782") || seen.contains("unreachable 10.") {
                Err(seen)
            } else {
                Ok(())
            }
        });
    }
    for node in NODES {
        eventually("the program ends where nobody needs it", SOON, || match programs(node) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
    }
}

#[test]
fn a_program_that_passes_on_connections_ends_with_its_agents_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = program_in(directory.path());
    drop(directory);
    let how = eventually("it ends", SOON, || program.try_wait().unwrap().ok_or("it runs"));
    assert!(how.success(), "{how}");
    let mut said = String::new();
    program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    // It would end without an agent, too.
    assert!(said.contains("the agent's directory is gone"), "{said}");
}

#[test]
fn a_program_that_passes_on_connections_goes_on_where_nobody_reads_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = program_in(directory.path());
    drop((program.stdout.take(), program.stderr.take()));
    drop(directory);
    // It says that it does.
    let how = eventually("it ends", SOON, || program.try_wait().unwrap().ok_or("it runs"));
    assert!(how.success(), "{how}");
}

/// A program in a namespace of its own that listens to an agent of this directory.
fn program_in(directory: &Path) -> Child {
    let socket = directory.join("proxy.sock");
    let mut command = Command::new(PODNET);
    command.arg("proxy").arg("--socket").arg(&socket).env_remove("PODNET_LOG");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = NetNs::with_scratch(|| command.spawn()).unwrap().unwrap();
    drop(eventually("it listens", SOON, || UnixStream::connect(&socket)));
    program
}

/// The processes that pass on connections of a node.
fn programs(node: &str) -> Vec<u32> {
    Cgroup::v2(format!("podnet/system/{node}-agent-proxy")).unwrap().pids().unwrap()
}

const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, selector: {app: web}, \
                        ports: [{name: http, port: 80, nodePort: 30080}]}\n---\napiVersion: v1\nkind: Service\nmetadata: \
                        {name: lasting}\nspec: {selector: {name: web2}, ports: [{name: a, port: 5201}, {name: b, port: \
                        5202}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: signal}\nspec: {selector: {app: web}, \
                        ports: [{port: 3868, protocol: SCTP}]}";

/// From a pod by name and by the ClusterIP, which answers pings too, and from the node and from the other one by the NodePort; a port that
/// it does not have is refused at once.
fn served(cluster: &Cluster, service: &str) {
    let from_client = |command: &[&str]| cluster.exec("default", "client", command);
    let curl = |url: &str| from_client(&["curl", "-sS", "--max-time", "3", url]);
    let mut seen = BTreeSet::new();
    eventually("both backends answer", SOON, || {
        seen.extend(answering(cluster, "http://web.default.svc.cluster.local/hostname?[1-8]")?);
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    from_client(&["ping", "-c1", "-W5", service]).unwrap();
    let refused = curl(&format!("http://{service}:81")).unwrap_err();
    // curl says so of what is refused; what takes too long is 28.
    assert!(refused.contains("curl: (7)"), "{refused}");
    let node = cluster.json(&["node", "node1"])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
    for from in ["node1", "node2"] {
        for to in [format!("{node}:30080"), service.to_owned()] {
            on_node(from, &["curl", "-sS", "--max-time", "10", &format!("http://{to}/hostname")]);
        }
    }
}

/// Who answered the client, each time by a connection of its own.
fn answering(cluster: &Cluster, urls: &str) -> Result<BTreeSet<String>, String> {
    let command = ["curl", "-sS", "--fail-early", "--max-time", "3", "-H", "Connection: close", urls];
    let answers = cluster.exec("default", "client", &command)?;
    Ok(answers.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Who is no backend any more is met no more.
fn follows_endpoints(cluster: &Cluster, service: &str) {
    cluster.kubectl(&["label", "pod", "web2", "app-", "--overwrite"]);
    eventually("one backend is left", SOON, || {
        let seen = answering(cluster, &format!("http://{service}/hostname?[1-20]"))?;
        if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    cluster.kubectl(&["label", "pod", "web2", "app=web"]);
}

fn tells_what_it_does_not_serve(cluster: &Cluster) {
    eventually("there is an event of the Service of SCTP", SOON, || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=signal"]);
        if events.contains("NotServed") && events.contains("has no SCTP") { Ok(()) } else { Err(events) }
    });
}
