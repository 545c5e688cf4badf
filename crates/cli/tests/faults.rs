//! Crashes in mid-work, and a hundred pods that come and go: nothing acknowledged is lost, nothing is given twice, nothing is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(90);

fn kill(cluster: &Cluster, process: &str) {
    let pid = rustix::process::Pid::from_raw(cluster.pid(process)).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// What the nodes' namespaces hold that pods bring: counted, so that a difference names what was left.
fn held_for_pods(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in ["node1", "node2", "node3"] {
        let run = |command: &[&str]| {
            let output =
                Command::new("ip").args(["netns", "exec", &format!("podnet-{node}")]).args(command).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        counts.insert(
            format!("{node} veths"),
            run(&["ip", "-o", "link", "show", "type", "veth"]).lines().filter(|l| !l.contains(": eth0")).count(),
        );
        counts.insert(
            format!("{node} pod routes"),
            run(&["ip", "-o", "route", "show", "proto", "88"]).lines().filter(|l| l.contains("dev pn")).count(),
        );
        counts.insert(
            format!("{node} neighbours"),
            run(&["ip", "-o", "neigh", "show", "nud", "permanent"]).lines().filter(|l| l.contains("dev pn")).count(),
        );
        let rules: Value = serde_json::from_str(&run(&["nft", "-j", "list", "table", "ip", "podnet"])).unwrap();
        for object in rules["nftables"].as_array().unwrap() {
            for kind in ["map", "set"] {
                if let Some(set) = object.get(kind) {
                    let elements = set.get("elem").and_then(Value::as_array).map_or(0, Vec::len);
                    counts.insert(format!("{node} {}", set["name"].as_str().unwrap()), elements);
                }
            }
        }
        let cgroup = ["/sys/fs/cgroup/unified/podnet", "/sys/fs/cgroup/podnet"].map(|root| format!("{root}/{node}"));
        let pods = cgroup.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
        counts.insert(format!("{node} cgroups"), pods.filter(|entry| entry.path().is_dir()).count());
        let sandboxes =
            std::fs::read_dir(format!("/var/lib/podnet/nodes/{node}/runtime")).into_iter().flatten().flatten();
        counts.insert(format!("{node} sandbox files"), sandboxes.filter(|entry| entry.path().is_dir()).count());
    }
    let namespaces = std::fs::read_dir("/run/netns").unwrap().flatten().count();
    counts.insert("namespaces".to_owned(), namespaces);
    let blocks = cluster.json(&["ipamblocks.crd.projectcalico.org"]);
    let given = blocks["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|block| block["spec"]["allocations"].as_array().unwrap().clone());
    counts.insert("addresses given in IPAMBlocks".to_owned(), given.filter(|entry| !entry.is_null()).count());
    counts
}

fn pod_addresses(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.json(&["pods", "-A"]);
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    pods["items"].as_array().unwrap().iter().filter_map(address).collect()
}

fn assert_no_address_twice(cluster: &Cluster) {
    let addresses = pod_addresses(cluster);
    let different: BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(different.len(), addresses.len(), "{addresses:?}");
}

fn many(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: many}}}}\n  template:\n    metadata: {{labels: {{app: many}}}}\n    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: d, image: podnet.local/demoapp}}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: many}}\nspec: {{selector: {{app: many}}, ports: [{{port: 80}}]}}"
    )
}

fn await_all_available(cluster: &Cluster) {
    cluster.kubectl(&["wait", "--for=condition=Available", "deployment/many", "--timeout=180s"]);
    cluster.kubectl(&["rollout", "status", "deployment/many", "--timeout=180s"]);
}

#[test]
fn a_hundred_pods_reach_each_other_and_leave_nothing() {
    let cluster = Cluster::up(PODNET, &[]);
    // The Service itself costs elements of its own: it is there before the count and after it.
    cluster.apply(&many(0));
    let before = eventually("the empty cluster comes to rest", SOON, || {
        let counts = held_for_pods(&cluster);
        if counts["addresses given in IPAMBlocks"] == 2 { Ok(counts) } else { Err(format!("{counts:?}")) }
    });
    cluster.apply(&many(100));
    await_all_available(&cluster);
    assert_no_address_twice(&cluster);
    let pods = cluster.json(&["pods", "-l", "app=many"]);
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 100);
    let per_node = pods.iter().fold(BTreeMap::new(), |mut counts: BTreeMap<&str, u32>, pod| {
        *counts.entry(pod["spec"]["nodeName"].as_str().unwrap()).or_default() += 1;
        counts
    });
    assert!(per_node.len() == 3 && per_node.values().all(|count| (30..=37).contains(count)), "{per_node:?}");

    // A sample of 12 pods, 4 of each node: all pairs. One request of curl asks all of them, so 12 execs make 144 pairs.
    let mut sample: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for pod in pods {
        sample.entry(pod["spec"]["nodeName"].as_str().unwrap()).or_default().push(pod);
    }
    let sample: Vec<&Value> = sample.into_values().flat_map(|pods| pods.into_iter().take(4)).collect();
    let urls: Vec<String> =
        sample.iter().map(|pod| format!("http://{}/hostname", pod["status"]["podIP"].as_str().unwrap())).collect();
    let expected: BTreeSet<&str> = sample.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    for pod in &sample {
        let mut command = vec!["curl", "-sS", "--max-time", "5"];
        command.extend(urls.iter().map(String::as_str));
        let answers = cluster.exec("default", pod["metadata"]["name"].as_str().unwrap(), &command).unwrap();
        assert_eq!(answers.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<BTreeSet<_>>(), expected);
    }

    cluster.apply(&many(0));
    eventually("everything of the pods is gone", SOON, || {
        let counts = held_for_pods(&cluster);
        if counts == before { Ok(()) } else { Err(format!("before {before:#?}, now {counts:#?}")) }
    });
}

#[test]
fn a_killed_api_server_loses_no_acknowledged_object() {
    let cluster = Cluster::up(PODNET, &["--nodes", "1"]);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (stop, cluster_env) = (stop.clone(), "/var/lib/podnet/kubeconfig");
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for number in 0.. {
                        let name = format!("r{round}-w{writer}-{number}");
                        let mut create = Command::new("kubectl");
                        create.env("KUBECONFIG", cluster_env).args([
                            "create",
                            "configmap",
                            &name,
                            "--from-literal",
                            "a=b",
                        ]);
                        if create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success() {
                            done.push(name);
                        }
                        if stop.load(Ordering::Relaxed) {
                            return done;
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        kill(&cluster, "apiserver");
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        acknowledged.extend(writers.into_iter().flat_map(|writer| writer.join().unwrap()));
        let listed =
            eventually("the API server is back", SOON, || cluster.try_kubectl(&["get", "configmaps", "-o", "name"]));
        let listed: BTreeSet<&str> = listed.lines().map(|line| line.trim_start_matches("configmap/")).collect();
        let lost: Vec<&String> = acknowledged.iter().filter(|name| !listed.contains(name.as_str())).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
    assert!(acknowledged.len() >= 6, "{acknowledged:?}");
    // The cluster goes on: watches of controllers, node and agent come back.
    cluster.apply(&many(3));
    await_all_available(&cluster);
}

#[test]
fn agents_killed_while_pods_start_and_stop_give_no_address_twice_and_leak_none() {
    let cluster = Cluster::up(PODNET, &[]);
    let before = eventually("the empty cluster comes to rest", SOON, || {
        match held_for_pods(&cluster)["addresses given in IPAMBlocks"] {
            2 => Ok(2),
            other => Err(other.to_string()),
        }
    });
    for round in 0..3 {
        cluster.apply(&many(30));
        std::thread::sleep(Duration::from_millis(300 + 200 * round));
        for agent in ["node1-agent", "node2-agent", "node3-agent"] {
            kill(&cluster, agent);
        }
        await_all_available(&cluster);
        assert_no_address_twice(&cluster);
        cluster.apply(&many(2));
        kill(&cluster, "node2-agent");
        cluster.kubectl(&["rollout", "status", "deployment/many", "--timeout=120s"]);
    }
    cluster.apply(&many(0));
    eventually("no address is held by nobody", SOON, || match held_for_pods(&cluster) {
        counts if counts["addresses given in IPAMBlocks"] == before => Ok(()),
        counts => Err(format!("{counts:#?}")),
    });
}

#[test]
fn connections_survive_the_death_of_every_daemon() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    for (name, node) in [("server", "node1"), ("client", "node2")] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{nodeName: {node}, containers: [{{name: t, image: podnet.local/tools, command: [sleep, infinity]}}]}}"
        ));
    }
    cluster.apply("apiVersion: v1\nkind: Service\nmetadata: {name: server}\nspec: {selector: {app: server}, ports: [{port: 5201}]}");
    cluster.await_ready(&["--all"], SOON);
    // The processes belong to the pods and not to an exec, whose stream goes through the daemons that are killed.
    cluster.exec("default", "server", &["sh", "-c", "iperf3 -s -1 -D >/dev/null 2>&1"]).unwrap();
    let address = cluster.json(&["service", "server"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let client = format!("(iperf3 -c {address} -t 12 -b 5M -J > /tmp/result.json 2>&1; touch /tmp/done) &");
    eventually("the connection is made", SOON, || {
        cluster.exec("default", "client", &["sh", "-c", &client])?;
        Ok::<_, String>(())
    });
    for process in ["node1-agent", "node2-agent", "apiserver", "node1", "node2"] {
        std::thread::sleep(Duration::from_millis(500));
        kill(&cluster, process);
    }
    let result = eventually("the transfer ends", SOON, || {
        cluster.exec("default", "client", &["sh", "-c", "test -e /tmp/done && cat /tmp/result.json"])
    });
    let result: Value = serde_json::from_str(&result).unwrap_or_else(|_| panic!("{result}"));
    let seconds = result["end"]["sum_received"]["seconds"].as_f64().unwrap_or_else(|| panic!("{result}"));
    assert!(seconds > 11.0, "{result}");
    assert!(result["error"].is_null(), "{result}");
    // The same pods still run: nobody was restarted.
    let pods = cluster.json(&["pods"]);
    assert!(
        pods["items"].as_array().unwrap().iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0),
        "{pods}"
    );
}
