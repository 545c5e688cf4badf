//! What is used up or away: a pool's addresses, room under the journal, the API server.

use std::{fs, io::Write, process::Command};

use podnet_testnet::{Cluster, eventually};
use serde_json::{Value, json};

use crate::{PODNET, SOON, Sandbox, address, conflist, held, on_node, run, try_run};

const STATE: &str = "/var/lib/podnet/nodes/node1/agent";

#[test]
fn what_is_used_up_is_told_and_harms_nothing() {
    let cluster = Cluster::none(PODNET);
    fs::create_dir_all(STATE).unwrap();
    let mounted = Mounted::tmpfs(STATE);
    let up = cluster.podnet(&["up", "--nodes", "1"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    a_pool_that_is_full(&cluster);
    without_an_api_server(&cluster);
    no_pool_with_room(&cluster);
    in_the_way();
    a_disk_that_is_full(&cluster);
    out_of_the_way(&cluster);
    // The directory can only be removed when nothing is mounted there.
    drop(mounted);
    drop(cluster);
}

fn a_pool_that_is_full(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: tiny}\nspec: {cidr: 10.99.0.0/30, blockSize: 30, nodeSelector: '!all()'}",
    );
    let list = conflist("1.1.0").with(json!({"ipRanges": [[{"subnet": "10.99.0.0/30"}]]}));
    let sandboxes: Vec<Sandbox> = (0..5).map(|number| Sandbox::new(&format!("tiny{number}"))).collect();
    let mut results = Vec::new();
    for (number, sandbox) in sandboxes.iter().enumerate().take(4) {
        let id = format!("tiny{number}");
        // The agent hears of the pool a moment after the API server has it.
        let result = eventually("an address of the pool", SOON, || {
            let answer = list.add(&id, &sandbox.path(), "eth0");
            if answer.success { Ok(answer.value) } else { Err(answer.value.to_string()) }
        });
        assert!(address(&result).starts_with("10.99.0."), "{result:#}");
        results.push((id, result));
    }
    let (code, message) = list.add("tiny4", &sandboxes[4].path(), "eth0").refused();
    assert!(code == 100 && message.contains("tiny"), "{code} {message}");
    assert_eq!(held("tiny4"), [""; 0]);
    assert!(sandboxes[4].try_run(&["ip", "link", "show", "eth0"]).is_err());
    for ((id, result), sandbox) in results.iter().zip(&sandboxes) {
        on_node(&["ping", "-c1", "-W3", &address(result)]);
        let _ = list.del(id, &sandbox.path(), "eth0", result).done();
    }
}

/// Somebody's device has what podnet's needs: a part of the network fails for long.
fn in_the_way() {
    on_node(&["ip", "link", "set", "podnet.vxlan", "name", "stranger"]);
}

/// It is told by an event and a metric; STATUS is of the whole node, which runtimes would give up, and so says that all is well.
fn out_of_the_way(cluster: &Cluster) {
    let list = conflist("1.1.0");
    eventually("the failure is told", SOON, || {
        let events = cluster.json(&["events"]);
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let told =
            events.iter().find(|event| event["reason"] == "NetworkRefused").map(|event| event["message"].to_string());
        told.filter(|told| told.contains("stranger")).ok_or_else(|| format!("{events:?}"))
    });
    let failing = || on_node(&["curl", "-s", "http://127.0.0.1:9099/metrics"]).contains("podnet_network_failing 1\n");
    assert!(failing());
    let _ = list.status().done();
    on_node(&["ip", "link", "del", "stranger"]);
    eventually("the network is whole", SOON, || if failing() { Err("it fails".to_owned()) } else { Ok(()) });
}

/// No pod can get an address: of the pools that serve this node one gives none, the other has none, or cannot be asked for one.
fn no_pool_with_room(cluster: &Cluster) {
    let (list, sandboxes) = (conflist("1.1.0"), [0, 1, 2, 3].map(|number| Sandbox::new(&format!("room{number}"))));
    let mut asking = conflist("1.1.0");
    asking.plugins[0]["statusOnFull"] = true.into();
    let status = |wanted: Option<u64>| {
        let answer = asking.status();
        let code = answer.value["code"].as_u64();
        if code == wanted { Ok(answer) } else { Err(answer.value.to_string()) }
    };
    let patch = |pool: &str, spec: &Value| {
        let patch = json!({"spec": spec}).to_string();
        cluster.kubectl(&["patch", "ippool", pool, "--type=merge", "-p", &patch]);
    };
    patch("tiny", &json!({"nodeSelector": "all()"}));
    patch("default-ipv4-ippool", &json!({"disabled": true}));
    let results: Vec<Value> = (0..)
        .zip(&sandboxes)
        .map(|(number, sandbox): (u32, _)| {
            eventually("an address of the pool", SOON, || {
                let answer = list.add(&format!("room{number}"), &sandbox.path(), "eth0");
                if answer.success && address(&answer.value).starts_with("10.99.") {
                    return Ok(answer.value);
                }
                let _ = list.del(&format!("room{number}"), &sandbox.path(), "eth0", &Value::Null);
                Err(answer.value.to_string())
            })
        })
        .collect();
    let (_, message) = eventually("no address", SOON, || status(Some(50))).refused();
    assert!(message.contains("no pod can get an address") && message.contains("tiny"), "{message}");
    // Running pods have no trouble: the node is ready all the same.
    let _ = list.status().done();
    // A pool with room that this node has no block of yet.
    cluster.apply("apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: spare}\nspec: {cidr: 10.98.0.0/26, blockSize: 26}");
    eventually("a block can be claimed", SOON, || status(None));
    let api = cluster.pid("apiserver").to_string();
    run("kill", &["-STOP", &api]);
    let silent = asking.status();
    run("kill", &["-CONT", &api]);
    let _ = silent.done();
    patch("default-ipv4-ippool", &json!({"disabled": false}));
    cluster.kubectl(&["delete", "ippool", "spare"]);
    for ((number, result), sandbox) in (0_u32..).zip(&results).zip(&sandboxes) {
        let _ = list.del(&format!("room{number}"), &sandbox.path(), "eth0", result).done();
    }
    patch("tiny", &json!({"nodeSelector": "!all()"}));
}

fn without_an_api_server(cluster: &Cluster) {
    let (list, sandbox) = (conflist("1.1.0"), Sandbox::new("noapi"));
    let api = cluster.pid("apiserver").to_string();
    run("kill", &["-STOP", &api]);
    let added = list.add("noapi", &sandbox.path(), "eth0");
    let pinged = try_run("ip", &["netns", "exec", crate::NODE, "ping", "-c1", "-W3", &address(&added.value)]);
    let deleted = list.del("noapi", &sandbox.path(), "eth0", &added.value);
    run("kill", &["-CONT", &api]);
    let (result, _) = (added.done(), deleted.done());
    assert!(pinged.is_ok(), "{result:#} {pinged:?}");
    assert_eq!(held("noapi"), [""; 0]);
}

fn a_disk_that_is_full(cluster: &Cluster) {
    let (list, sandbox) = (conflist("1.1.0"), Sandbox::new("full"));
    let kept = Sandbox::new("kept");
    let before = list.add("kept", &kept.path(), "eth0").done();
    let fill = format!("{STATE}/fill");
    let mut file = fs::File::create(&fill).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // The journal's last page has room for some lines yet.
    let refused = (0..200).find_map(|number| {
        let id = format!("full{number}");
        let answer = list.add(&id, &sandbox.path(), "eth0");
        if answer.success {
            let _ = list.del(&id, &sandbox.path(), "eth0", &answer.value);
            return None;
        }
        Some((id, answer))
    });
    let (id, answer) = refused.expect("the disk is full");
    let (code, message) = answer.refused();
    assert!(code == 102 && message.contains("No space left on device"), "{code} {message}");
    assert!(sandbox.try_run(&["ip", "link", "show", "eth0"]).is_err());
    on_node(&["ping", "-c1", "-W3", &address(&before)]);
    fs::remove_file(&fill).unwrap();
    let result = eventually("there is room again", SOON, || {
        let answer = list.add(&id, &sandbox.path(), "eth0");
        if answer.success { Ok(answer.value) } else { Err(answer.value.to_string()) }
    });
    on_node(&["ping", "-c1", "-W3", &address(&result)]);
    let _ = list.del(&id, &sandbox.path(), "eth0", &result).done();
    let _ = list.del("kept", &kept.path(), "eth0", &before).done();
    eventually("nothing is leaked", SOON, || {
        let check = cluster.podnet(&["ipam", "check"]);
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        if check.status.success() { Ok(Value::Null) } else { Err(said) }
    });
}

/// A small file system, unmounted with the value.
struct Mounted(&'static str);

impl Mounted {
    fn tmpfs(on: &'static str) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=128k", "tmpfs", on]);
        Self(on)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", self.0]).output();
    }
}
