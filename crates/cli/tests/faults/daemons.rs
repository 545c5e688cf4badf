//! Daemons killed in mid-work: the API server, the agents, the node runtimes, the supervisor.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

use crate::{PODNET, SOON, at_rest, await_all_available, await_held, held, kill, many, pod_addresses, pods};

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
        kill(cluster.pid("apiserver"));
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
fn agents_killed_while_pods_start_and_stop_give_no_address_twice_and_leave_nothing() {
    killed_while_pods_start_and_stop(&["node1-agent", "node2-agent", "node3-agent"]);
}

#[test]
fn node_runtimes_killed_while_pods_start_and_stop_give_no_address_twice_and_leave_nothing() {
    killed_while_pods_start_and_stop(&["node1", "node2", "node3"]);
}

fn killed_while_pods_start_and_stop(processes: &[&str]) {
    const PODS: usize = 30;
    const DNS_PODS: usize = 2;
    let (cluster, before) = at_rest(&[]);
    // How many sandboxes there are already when the processes are killed: a few, and more.
    for already in [3, 6, 9] {
        // Known before the pods are asked for: asking takes long enough for pods to start.
        let pids = running_pids(&cluster, processes);
        cluster.apply(&many(PODS));
        eventually("some sandboxes are made", SOON, || match held::processes("pause").len() {
            count if count >= DNS_PODS + already => Ok(()),
            count => Err(format!("{count} are there")),
        });
        pids.into_iter().for_each(kill);
        let run = running(&cluster);
        assert!(run < PODS, "all {run} pods ran before the processes were killed: nothing was interrupted");
        await_all_available(&cluster);
        pod_addresses(&cluster);

        let pids = running_pids(&cluster, processes);
        // Without a grace the API forgets a pod at once: how far its node has come is seen at the sandboxes.
        let all = held::processes("pause").len();
        cluster.apply(&many(2));
        let left = eventually("sandboxes are being removed", SOON, || match held::processes("pause").len() {
            left if left < all => Ok(left),
            left => Err(format!("all {left} are there")),
        });
        pids.into_iter().for_each(kill);
        assert!(
            left > 2 + DNS_PODS,
            "all sandboxes were gone before the processes were killed: nothing was interrupted"
        );
        eventually("two pods are left", SOON, || match pods(&cluster, &["-l", "app=many"]).len() {
            2 => Ok(()),
            count => Err(format!("{count} pods")),
        });
        await_all_available(&cluster);
    }
    await_agreement(&cluster);
    cluster.apply(&many(0));
    await_held(&cluster, "everything of the pods is gone", &before);
    await_agreement(&cluster);
}

/// Waits until the blocks' objects, the journals, the interfaces and the pods agree on every address.
fn await_agreement(cluster: &Cluster) {
    eventually("everything agrees", SOON, || {
        let output = cluster.podnet(&["ipam", "check"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
    });
}

/// The process ids of daemons, once all of them run: after several deaths in a row the supervisor waits before it starts one again.
fn running_pids(cluster: &Cluster, processes: &[&str]) -> Vec<i32> {
    eventually("all of them run", SOON, || {
        processes.iter().map(|process| cluster.running(process).ok_or(format!("{process} does not run"))).collect()
    })
}

fn running(cluster: &Cluster) -> usize {
    pods(cluster, &["-l", "app=many"]).iter().filter(|pod| pod["status"]["phase"] == "Running").count()
}

#[test]
fn up_heals_a_cluster_whose_supervisor_was_killed() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    let pid = |process: &str| cluster.running(process);
    let others = ["apiserver", "node1", "node2", "node2-agent"];
    let before = others.map(pid);
    let (supervisor, agent) = (cluster.pid("supervisor"), cluster.pid("node1-agent"));
    kill(supervisor);
    kill(agent);
    eventually("nobody starts the agent again", SOON, || match (pid("supervisor"), pid("node1-agent")) {
        (None, None) => Ok(()),
        pids => Err(format!("{pids:?}")),
    });
    let up = cluster.podnet(&["up", "--nodes", "2"]);
    assert!(up.status.success(), "{up:?}\n{}", cluster.logs());
    // The new supervisor adopted what ran, and started what did not; it does so again from now on.
    assert_eq!(others.map(pid), before);
    let again = eventually("the agent is back", SOON, || pid("node1-agent").ok_or("it does not run"));
    assert_ne!(again, agent);
    for process in ["node1-agent", "node2-agent"] {
        let killed = cluster.pid(process);
        kill(killed);
        eventually("the supervisor starts it again", SOON, || match pid(process) {
            Some(new) if new != killed => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    cluster.apply(&many(4));
    await_all_available(&cluster);
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
    // It goes into the background before it listens, at port 5201.
    let listens = "grep -q ':1451 .* 0A ' /proc/net/tcp /proc/net/tcp6";
    eventually("the server listens", SOON, || cluster.exec("default", "server", &["sh", "-c", listens]));
    let address = cluster.json(&["service", "server"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let client = format!("(iperf3 -c {address} -t 12 -b 5M -J > /tmp/result.json 2>&1; touch /tmp/done) &");
    eventually("the connection is made", SOON, || {
        cluster.exec("default", "client", &["sh", "-c", &client])?;
        Ok::<_, String>(())
    });
    for process in ["node1-agent", "node2-agent", "apiserver", "node1", "node2"] {
        std::thread::sleep(Duration::from_millis(500));
        kill(cluster.pid(process));
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
