//! What agents tell of their nodes is compared where the nodes are not on this machine: where it is not said that they are.

use std::thread;

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

use super::{
    SOON, faults,
    live::{ADMIN, NODE},
    told,
};

/// What is compared by the agents, and how that ends.
fn compared(cluster: &Cluster, from: &str, to: &str, kubeconfig: &str) -> (Option<i32>, String) {
    let output = cluster.podnet(&["trace", from, to, "--compare", "--kubeconfig", kubeconfig]);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn why(cluster: &Cluster, to: &str) -> (bool, String) {
    told(cluster, &["why", "pod/client", to, "--kubeconfig", ADMIN])
}

pub(super) fn agents_tell_of_their_nodes_who_may_ask(cluster: &Cluster) {
    all_is_as_it_is_by_the_nodes_themselves(cluster);
    a_pod_is_explained_by_what_its_agent_tells(cluster);
    what_is_another_is_named(cluster);
    of_a_silent_agent_that_is_said(cluster);
    whoever_may_not_is_told_so(cluster);
    what_is_broken_is_found_by_a_probe(cluster);
}

fn all_is_as_it_is_by_the_nodes_themselves(cluster: &Cluster) {
    for to in ["pod/far", "pod/near", "svc/web", "svc/local-outside", "node/node2:9099", "world"] {
        let ways = |more: &[&str]| {
            let arguments = [&["trace", "default/client", to, "--compare", "-o", "json"], more].concat();
            let output = cluster.podnet(&arguments);
            serde_json::from_slice::<Value>(&output.stdout).unwrap()["paths"].clone()
        };
        thread::scope(|scope| {
            let by_themselves = scope.spawn(|| ways(&[]));
            let (code, text) = compared(cluster, "default/client", to, ADMIN);
            assert_eq!(code, Some(0), "{to}: {text}");
            assert!(text.contains("the kernels have it so") && !text.contains("assumed to be"), "{to}: {text}");
            assert_eq!(ways(&["--kubeconfig", ADMIN]), by_themselves.join().unwrap(), "{to}");
        });
    }
}

fn a_pod_is_explained_by_what_its_agent_tells(cluster: &Cluster) {
    let link = faults::device("node2", &faults::address(cluster, "web2"));
    let (is_well, text) = told(cluster, &["explain", "pod/web2", "--kubeconfig", ADMIN]);
    assert!(is_well && text.contains(&format!("eth0, on node node2 {link}; MTU 1450")), "{text}");
    assert!(!text.contains("assumed"), "{text}");
    // Whoever may not ask it is told what is assumed, and why.
    let (_, text) = told(cluster, &["explain", "pod/client", "--kubeconfig", NODE]);
    assert!(text.contains("assumed") && text.contains("you may not get nodes/forwarding of node1"), "{text}");
}

/// What somebody undoes again and again is mended after growing pauses: in one of them it is told.
fn what_is_another_is_named(cluster: &Cluster) {
    let entries = faults::on("node2", &["bridge", "fdb", "show", "dev", "podnet.vxlan"]);
    let entry = entries.lines().find(|line| line.contains(" dst ")).unwrap();
    let words: Vec<&str> = entry.split_whitespace().collect();
    let mac = words[0];
    let peer = words[words.iter().position(|word| *word == "dst").unwrap() + 1];
    let fault = ["bridge", "fdb", "replace", mac, "dev", "podnet.vxlan", "dst", "172.29.240.99", "self", "permanent"];
    let words = format!(
        "differs on node node2: the FDB entry of {mac} on podnet.vxlan should lead to {peer}: it leads to 172.29.240.99"
    );
    eventually("an agent tells that it is another", SOON, || {
        // More than once for each look: however long that takes, the pauses soon are longer.
        for _ in 0..4 {
            faults::on("node2", &fault);
        }
        let (code, text) = compared(cluster, "pod/far", "pod/client", ADMIN);
        if code == Some(1) && text.contains(&words) { Ok(()) } else { Err(text) }
    });
    eventually("its agent mends it", SOON, || {
        let (code, text) = compared(cluster, "pod/far", "pod/client", ADMIN);
        if code == Some(0) { Ok(()) } else { Err(text) }
    });
}

fn of_a_silent_agent_that_is_said(cluster: &Cluster) {
    let agent = [cluster.pid("node2-agent").to_string()];
    faults::signal("-STOP", &agent);
    let named = std::panic::catch_unwind(|| {
        let (code, text) = compared(cluster, "default/client", "pod/far", ADMIN);
        assert_eq!(code, Some(3), "{text}");
        for words in
            ["node node2 was not compared: its agent does not answer within", "; not compared", "not all was compared"]
        {
            assert!(text.contains(words), "{words:?} in {text}");
        }
        assert!(!text.contains("node node1 was not") && !text.contains("differs"), "{text}");
        // By its namespace it is compared all the same.
        let (is_well, text) = told(cluster, &["trace", "default/client", "pod/far", "--compare"]);
        assert!(is_well && text.contains("the kernels have it so"), "{text}");
    });
    faults::signal("-CONT", &agent);
    named.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn whoever_may_not_is_told_so(cluster: &Cluster) {
    let (code, text) = compared(cluster, "default/client", "pod/near", NODE);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("you may not get nodes/forwarding of node1"), "{text}");
}

fn what_is_broken_is_found_by_a_probe(cluster: &Cluster) {
    for to in ["pod/far", "svc/web", "web"] {
        let (is_well, text) = why(cluster, to);
        assert!(is_well && text.contains("nothing is broken") && !text.contains("no probe"), "{to}: {text}");
    }
    let (is_well, text) = why(cluster, "pod/far:4444");
    let words = "nothing at pod default/far on node node2 listens on port 4444/TCP";
    assert!(!is_well && text.contains(words), "{text}");
    let rules = "add table inet wall; add chain inet wall across { type filter hook forward priority 0; }; add rule inet wall across tcp dport 80 drop";
    faults::on("node2", &["nft", rules]);
    let named = std::panic::catch_unwind(|| {
        let (is_well, text) = why(cluster, "pod/far");
        let words = "the probe died: it passed podnet.vxlan of node node2";
        assert!(!is_well && text.contains(words), "{text}");
    });
    faults::on("node2", &["nft", "delete", "table", "inet", "wall"]);
    named.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // Whoever may not send is told that this was not tried.
    let (is_well, text) = told(cluster, &["why", "pod/client", "pod/far", "--kubeconfig", NODE]);
    assert!(text.contains("you may not"), "{is_well} {text}");
}
