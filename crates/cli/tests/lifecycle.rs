//! `podnet up` and `podnet down`: what they make, what they leave, and what they survive.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use podnet_testnet::{Cluster, Traces, eventually};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn kill_everything() {
    eventually("no podnet process is left", Duration::from_secs(10), || {
        let processes = Traces::now().processes;
        processes.iter().for_each(|process| kill(process.split(' ').next().unwrap()));
        if processes.is_empty() { Ok(()) } else { Err(format!("{processes:?}")) }
    });
}

/// The machine's init reaps what was killed when it comes to it, so the last zombies are awaited.
fn assert_no_trace(before: &Traces) {
    eventually("nothing is left", Duration::from_secs(10), || match Traces::now() {
        now if now == *before => Ok(()),
        now => Err(format!("before {before:#?}, now {now:#?}")),
    });
}

#[test]
fn down_leaves_no_trace_of_an_up_with_pods() {
    let cluster = Cluster::none(PODNET);
    let before = Traces::now();
    let up = cluster.podnet(&["up"]);
    assert!(up.status.success(), "{up:?}\n{}", cluster.logs());
    cluster.apply_file("examples/web.yaml");
    cluster.await_ready(&["-n", "demo", "--all"], Duration::from_secs(60));
    let down = cluster.podnet(&["down"]);
    assert!(down.status.success(), "{down:?}");
    assert_no_trace(&before);
}

#[test]
fn down_leaves_no_trace_after_everything_was_killed() {
    let cluster = Cluster::none(PODNET);
    let before = Traces::now();
    assert!(cluster.podnet(&["up"]).status.success(), "{}", cluster.logs());
    kill_everything();
    let down = cluster.podnet(&["down"]);
    assert!(down.status.success(), "{down:?}");
    assert_no_trace(&before);
}

#[test]
fn up_heals_a_cluster_of_which_everything_was_killed_and_its_objects_are_there() {
    let cluster = Cluster::up(PODNET, &[]);
    cluster.apply_file("examples/web.yaml");
    cluster.await_ready(&["-n", "demo", "--all"], Duration::from_secs(60));
    kill_everything();
    let again = cluster.podnet(&["up"]);
    assert!(again.status.success(), "{again:?}\n{}", cluster.logs());
    cluster.await_ready(&["-n", "demo", "--all"], Duration::from_secs(60));
    eventually("the client reaches the Service", Duration::from_secs(30), || {
        cluster.exec("demo", "client", &["curl", "-sS", "--max-time", "2", "http://web"])
    });
}

#[test]
fn up_finishes_what_a_killed_up_began() {
    let cluster = Cluster::none(PODNET);
    let mut first = std::process::Command::new(PODNET).arg("up").stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("the first up made a namespace", Duration::from_secs(10), || {
        if std::fs::exists("/run/netns/podnet-node1").unwrap() { Ok(()) } else { Err("not yet") }
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let second = cluster.podnet(&["up"]);
    assert!(second.status.success(), "{second:?}\n{}", cluster.logs());
}

#[test]
fn a_second_up_changes_nothing_and_one_with_other_settings_is_refused() {
    let cluster = Cluster::up(PODNET, &[]);
    let (apiserver, agent) = (cluster.pid("apiserver"), cluster.pid("node2-agent"));
    assert!(cluster.podnet(&["up"]).status.success());
    assert_eq!((apiserver, agent), (cluster.pid("apiserver"), cluster.pid("node2-agent")));
    let other = cluster.podnet(&["up", "--nodes", "2"]);
    assert_eq!(other.status.code(), Some(1));
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(message.contains("other settings") && message.contains("podnet down"), "{message}");
}

#[test]
fn a_datastore_outside_is_kept_over_down_and_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("lab.redb");
    let arguments = ["--datastore", store.to_str().unwrap(), "--nodes", "1"];
    let cluster = Cluster::up(PODNET, &arguments);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal", "a=b"]);
    let down = cluster.podnet(&["down"]);
    assert!(down.status.success() && String::from_utf8_lossy(&down.stdout).contains("is kept"), "{down:?}");
    drop(cluster);
    let cluster = Cluster::up(PODNET, &arguments);
    assert_eq!(cluster.json(&["configmap", "kept"])["data"]["a"], "b");
}

#[test]
fn status_names_every_process_and_the_nodes_on_two_subnets() {
    let cluster = Cluster::up(PODNET, &["--subnets", "2"]);
    let status: serde_json::Value = serde_json::from_slice(&cluster.podnet(&["status", "-o", "json"]).stdout).unwrap();
    let processes = status["processes"].as_array().unwrap();
    // Supervisor, API server, and a runtime and an agent for each of three nodes.
    assert_eq!(processes.len(), 8);
    assert!(processes.iter().all(|process| process["pid"].is_number()), "{status}");
    let addresses: Vec<_> =
        status["nodes"].as_array().unwrap().iter().map(|node| node["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["172.29.240.11", "172.29.241.11", "172.29.240.12"]);
}

#[test]
fn wrong_usage_exits_with_2_and_a_missing_cluster_with_1() {
    let cluster = Cluster::none(PODNET);
    assert_eq!(cluster.podnet(&["up", "--nodes", "0"]).status.code(), Some(2));
    assert_eq!(cluster.podnet(&["fly"]).status.code(), Some(2));
    let status = cluster.podnet(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("podnet up"));
    assert!(cluster.podnet(&["--help"]).status.success());
}

#[test]
fn the_command_explains_and_completes_itself() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(PODNET).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = run(&["--help"]);
    // A line of its own for each, with what it does.
    for command in ["up", "down", "status", "logs", "kubeconfig", "env", "version", "completions"] {
        let line = help.lines().find(|line| line.split_whitespace().next() == Some(command));
        assert!(line.is_some_and(|line| line.split_whitespace().count() > 3), "{command} in {help}");
    }
    let script = run(&["completions", "bash"]);
    // What is offered after `podnet` itself.
    let offers = script.split("podnet)\n").find_map(|case| case.trim_start().strip_prefix("opts=\"")).unwrap();
    let offers: Vec<&str> = offers.split('"').next().unwrap().split(' ').collect();
    for command in ["up", "down", "status", "logs"] {
        assert!(offers.contains(&command), "{command} in {offers:?}");
    }
    assert!(script.contains("complete -F _podnet"), "{script}");
    assert!(run(&["version"]).contains(env!("CARGO_PKG_VERSION")));
}
