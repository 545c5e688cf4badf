//! The agent is killed between any two steps of ADD and DEL: after its restart nothing is held that nobody uses, and all works on.

use std::{fs, time::Duration};

use podnet_testnet::{Cluster, eventually};
use serde_json::{Value, json};

use crate::{PODNET, SOON, Sandbox, addresses, conflist_of, held_on, try_run};

const ADD: [&str; 7] =
    ["add-begun", "add-assigned-one", "add-assigned", "add-made", "add-ruled", "add-recorded", "add-done"];
const DEL: [&str; 4] = ["del-begun", "del-ruled", "del-cut-off", "del-certain"];
/// After DEL was answered.
const BURIAL: [&str; 3] = ["burial-removed", "burial-unrecorded", "burial-freed"];

#[test]
fn an_agent_that_is_killed_at_any_step_leaves_nothing_behind() {
    // Two addresses for each: one of them may be written down, and the other not.
    let cluster = Cluster::up(PODNET, &["--nodes", "3", "--ip-family", "dual"]);
    let all = ADD.iter().chain(&DEL).chain(&BURIAL);
    // The nodes take turns: an agent that ends often is started with growing pauses.
    for (place, node) in all.zip(["node1", "node2", "node3"].into_iter().cycle()) {
        killed_at(place, node);
        let check = cluster.podnet(&["ipam", "check"]);
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(
            check.status.success(),
            "{place}: {said}{}\n{}",
            String::from_utf8_lossy(&check.stderr),
            cluster.logs()
        );
    }
}

fn killed_at(place: &str, node: &str) {
    let ports = json!({"portMappings": [{"hostPort": 7070, "containerPort": 70, "protocol": "udp"}]});
    let (list, sandbox) = (conflist_of(node, "1.1.0").with(ports), Sandbox::new(place));
    let fault = format!("/var/lib/podnet/nodes/{node}/agent/fault");
    let mut result = Value::Null;
    if ADD.contains(&place) {
        fs::write(&fault, place).unwrap();
        let (code, message) = list.add("fault", &sandbox.path(), "eth0").refused();
        assert_eq!(code, 11, "{place}: {message}");
    } else {
        result = list.add("fault", &sandbox.path(), "eth0").done();
        fs::write(&fault, place).unwrap();
    }
    // The runtime's DEL, after a failed ADD as well. It never fails for want of an agent.
    let _ = list.del("fault", &sandbox.path(), "eth0", &result).done();
    eventually(
        &format!("{place} is reached"),
        SOON,
        || if fs::exists(&fault).unwrap() { Err("not yet") } else { Ok(()) },
    );
    eventually(&format!("{place}: another agent serves"), SOON, || {
        let answer = list.status();
        if answer.success { Ok(()) } else { Err(answer.value.to_string()) }
    });
    eventually(&format!("{place}: all is freed"), Duration::from_secs(20), || {
        let mut left = held_on(node, "fault");
        let netns = format!("podnet-{node}");
        let rules = try_run("ip", &["netns", "exec", &netns, "nft", "list", "table", "ip", "podnet-pods"])?;
        left.extend(rules.contains("7070").then(|| "the port".to_owned()));
        let inside = sandbox.try_run(&["ip", "link", "show", "eth0"]);
        left.extend(inside.is_ok().then(|| "the interface".to_owned()));
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
    let result = list.add("fault", &sandbox.path(), "eth0").done();
    assert_eq!(addresses(&result).len(), 2, "{result:#}");
    for addr in addresses(&result) {
        try_run("ip", &["netns", "exec", &format!("podnet-{node}"), "ping", "-c1", "-W3", &addr]).unwrap();
    }
    let _ = list.del("fault", &sandbox.path(), "eth0", &result).done();
    assert_eq!(held_on(node, "fault"), [""; 0], "{place}");
}
