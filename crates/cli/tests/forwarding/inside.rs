//! What is another inside of pods, which no agent mends.

use std::panic::{catch_unwind, resume_unwind};

use podnet_testnet::Cluster;

use super::faults::{address, assert_named, assert_well, on, signal};

/// The namespace of the pod that has this address, as [`on`] is told it.
fn namespace(addr: &str) -> String {
    let names = std::fs::read_dir("/run/netns").unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names = names.filter_map(|name| name.strip_prefix("podnet-").map(str::to_owned));
    let mut pods = names.filter(|name| name.starts_with("pod-"));
    let has = |name: &String| on(name, &["ip", "-4", "-o", "addr"]).contains(&format!("inet {addr}/"));
    pods.find(has).unwrap_or_else(|| panic!("no pod has {addr}"))
}

pub(super) fn each_fault_in_a_pod_is_named(cluster: &Cluster) {
    let [client, far] = ["client", "far"].map(|pod| namespace(&address(cluster, pod)));
    let default = on(&client, &["ip", "route", "show", "default"]);
    let default: Vec<&str> = default.split_whitespace().collect();
    let mended = [&["ip", "route", "add"][..], &default].concat();
    let gone = vec!["ip", "route", "del", "default"];
    let route = "the route to 0.0.0.0/0 should go to eth0 via 169.254.1.1: there is none";
    let neighbour =
        |mac| vec!["ip", "neigh", "replace", "169.254.1.1", "lladdr", mac, "dev", "eth0", "nud", "permanent"];
    let mtu = |bytes| vec!["ip", "link", "set", "eth0", "mtu", bytes];
    let another = "the neighbour 169.254.1.1 on eth0 should be ee:ee:ee:ee:ee:ee: it is 02:00:00:00:00:01";
    let table = [
        (&client, "node1: in pod default/client: ", gone.clone(), mended.clone(), route),
        // Its answers do not leave it.
        (&far, "node2: in pod default/far: ", gone, mended, route),
        (
            &client,
            "node1: in pod default/client: ",
            neighbour("02:00:00:00:00:01"),
            neighbour("ee:ee:ee:ee:ee:ee"),
            another,
        ),
        (&client, "node1: in pod default/client: ", mtu("900"), mtu("1450"), "device eth0 has MTU 900 and not 1450"),
    ];
    let agents = ["node1-agent", "node2-agent"].map(|agent| cluster.pid(agent).to_string());
    for (pod, place, fault, mended, words) in table {
        signal("-STOP", &agents);
        let named = catch_unwind(|| {
            on(pod, &fault);
            assert_named(cluster, "pod/client", "pod/far", &format!("on node {place}{words}"));
        });
        let undone = catch_unwind(|| on(pod, &mended));
        // Whatever came of it: agents that stand still are in the way of whoever ends the cluster.
        signal("-CONT", &agents);
        named.unwrap_or_else(|_| panic!("{pod}: {fault:?}"));
        if let Err(panic) = undone {
            resume_unwind(panic);
        }
    }
    assert_well(cluster, "pod/client", "pod/far");
}
