//! Pods that come and go, pods whose processes are killed, and pods that come back with a kept datastore.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

use crate::{
    PODNET, SOON, at_rest, await_all_available, await_held, held, kill, many, pod_addresses, pods, processes_of, text,
};

fn per_node(pods: &[Value]) -> BTreeMap<String, usize> {
    pods.iter().fold(BTreeMap::new(), |mut counts, pod| {
        *counts.entry(text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
        counts
    })
}

#[test]
fn a_hundred_pods_reach_each_other_and_leave_nothing() {
    let (cluster, before) = at_rest(&[]);
    cluster.apply(&many(100));
    await_all_available(&cluster);
    let pods = pods(&cluster, &["-l", "app=many"]);
    assert_eq!(pods.len(), 100);
    let per_node = per_node(&pods);
    assert!(per_node.len() == 3 && per_node.values().all(|count| (30..=37).contains(count)), "{per_node:?}");
    assert_eq!(pod_addresses(&cluster), held::given(&cluster));
    // While they run, each is counted: what is compared at the end is no comparison of nothing with nothing.
    await_held(&cluster, "every pod has what it needs", &held::with_many(&before, &per_node));

    // A sample of 12 pods, 4 of each node: all pairs. One request of curl asks all of them, so 12 execs make 144 pairs.
    let mut sample: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for pod in &pods {
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
    await_held(&cluster, "everything of the pods is gone", &before);
}

/// Ready, and its container was started again as often as this.
fn restarted(pod: &Value, times: u64) -> Result<(), String> {
    let status = &pod["status"]["containerStatuses"][0];
    match status["ready"] == true && status["restartCount"].as_u64() == Some(times) {
        true => Ok(()),
        false => Err(pod["status"].to_string()),
    }
}

#[test]
fn a_pod_whose_sandbox_was_killed_is_restarted_and_leaves_nothing() {
    let (cluster, before) = at_rest(&["--nodes", "2"]);
    cluster.apply(&many(4));
    await_all_available(&cluster);
    let started = pods(&cluster, &["-l", "app=many"]);
    let running = held::with_many(&before, &per_node(&started));
    await_held(&cluster, "every pod has what it needs", &running);
    let (victim, other) = (&started[0], &started[1]);
    let [pause] = processes_of("pause", text(victim, "/metadata/uid"))[..] else { panic!("one pause for {victim}") };
    kill(pause);
    let name = text(victim, "/metadata/name");
    let again = eventually("the pod is restarted", SOON, || {
        let pod = cluster.json(&["pod", name]);
        restarted(&pod, 1).map(|()| pod)
    });
    // Its sandbox is a new one, so nothing but its name has to be the same; it is reached where the API says that it is.
    let url = format!("http://{}/hostname", text(&again, "/status/podIP"));
    eventually("the new sandbox answers", SOON, || {
        match cluster.exec("default", text(other, "/metadata/name"), &["curl", "-sS", "--max-time", "2", &url])? {
            answer if answer.trim() == name => Ok(()),
            answer => Err(answer),
        }
    });
    assert_eq!(processes_of("pause", text(victim, "/metadata/uid")).len(), 1);
    await_held(&cluster, "the old sandbox has left nothing", &running);
    assert_eq!(pod_addresses(&cluster), held::given(&cluster));
    cluster.apply(&many(0));
    await_held(&cluster, "everything of the pods is gone", &before);
}

#[test]
fn names_are_resolved_while_a_dns_server_is_dead_and_comes_back() {
    const LOOKUPS: usize = 20;
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: client}\nspec: {containers: [{name: t, image: podnet.local/tools, command: [sleep, infinity]}]}");
    cluster.await_ready(&["client"], SOON);
    let servers = ["-n", "kube-system", "-l", "k8s-app=kube-dns"];
    cluster.await_ready(&servers, SOON);
    let victim = pods(&cluster, &servers)[0].clone();
    let [server] = processes_of("dns", text(&victim, "/metadata/uid"))[..] else { panic!("one server in {victim}") };
    let lookups = format!(
        "for i in $(seq {LOOKUPS}); do dig +short +time=1 +tries=1 kubernetes.default.svc.cluster.local || exit 1; done"
    );
    kill(server);
    // Each lookup is another connection: were the dead server still a backend, 20 of them would miss it once in a million.
    eventually("names are resolved", Duration::from_secs(5), || {
        let answers = cluster.exec("default", "client", &["sh", "-c", &lookups])?;
        match answers.lines().filter(|line| *line == "10.233.0.1").count() {
            LOOKUPS => Ok(()),
            _ => Err(answers),
        }
    });
    eventually("the server is back", SOON, || {
        restarted(&cluster.json(&["-n", "kube-system", "pod", text(&victim, "/metadata/name")]), 1)
    });
    assert_eq!(processes_of("dns", text(&victim, "/metadata/uid")).len(), 1);
}

#[test]
fn pods_of_a_kept_datastore_come_back_and_no_address_is_lost_to_those_that_were() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("lab.redb");
    let arguments = ["--datastore", store.to_str().unwrap()];
    let cluster = Cluster::up(PODNET, &arguments);
    cluster.apply(&many(5));
    await_all_available(&cluster);
    let down = cluster.podnet(&["down"]);
    assert!(down.status.success(), "{down:?}");
    drop(cluster);
    for _ in 0..2 {
        let cluster = Cluster::up(PODNET, &arguments);
        // What the store says of them is of the time before: they run when their sandboxes do.
        eventually("five pods and two of DNS have sandboxes", SOON, || match held::processes("pause").len() {
            7 => Ok(()),
            count => Err(format!("{count} sandboxes")),
        });
        await_all_available(&cluster);
        cluster.await_ready(&["--all", "-A"], SOON);
        eventually("what the blocks give is what pods have", SOON, || {
            let (given, had) = (held::given(&cluster), pod_addresses(&cluster));
            match given == had && had.len() == 7 {
                true => Ok(()),
                false => Err(format!("the blocks give {given:?}, the pods have {had:?}")),
            }
        });
        let pods = pods(&cluster, &["-l", "app=many"]);
        let expected: BTreeSet<&str> = pods.iter().map(|pod| text(pod, "/metadata/name")).collect();
        for pod in &pods {
            let address = text(pod, "/status/podIP");
            let url = format!("http://{address}/hostname");
            let asker = text(&pods[0], "/metadata/name");
            let answer = cluster.exec("default", asker, &["curl", "-sS", "--max-time", "2", &url]).unwrap();
            assert!(
                answer.trim() == text(pod, "/metadata/name") && expected.contains(answer.trim()),
                "{address}: {answer}"
            );
        }
    }
}
