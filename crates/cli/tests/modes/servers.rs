//! Virtual servers, as `ipvsadm` shows them.

use std::collections::BTreeSet;

use podnet_testnet::eventually;

use crate::{NODES, SOON, Scene, on_node};

/// A virtual server for each frontend, in turns over all pods, and the addresses that people look for at `kube-ipvs0`.
pub(crate) fn read_as_people_expect(scene: &Scene<'_>) {
    let frontends = |node: usize| {
        [format!("{}:80", scene.service), format!("{}:30080", scene.nodes[node]), format!("{}:80", scene.balanced)]
    };
    for (at, node) in NODES.into_iter().enumerate() {
        for frontend in frontends(at) {
            eventually(&format!("{frontend} on {node} has the pods"), SOON, || {
                let table = on_node(node, "ipvsadm -Ln")?;
                match real_servers(&table, &frontend) {
                    Some(found) if found == scene.pods => Ok(()),
                    _ => Err(table),
                }
            });
        }
        let addresses = on_node(node, "ip -o -4 address show dev kube-ipvs0").unwrap();
        assert!(addresses.contains(&format!(" {}/32 ", scene.service)), "{addresses}");
    }
}

/// As if all their connections were over, cluster DNS's own too, which lasts: then they make way for the program that was to serve.
pub(crate) fn make_way() {
    for node in NODES {
        on_node(node, "ipvsadm -C").unwrap();
        let apart =
            "ip link show dev podservices4 && ! ip link show dev kube-ipvs0 && ! ipvsadm -Ln | grep -e '-> .*:.*Masq'";
        eventually(&format!("the program serves on {node}"), SOON, || on_node(node, apart));
    }
}

/// Those of a virtual server that takes turns, by masquerading and with the weight 1: without their ports, which are 80.
fn real_servers(table: &str, frontend: &str) -> Option<BTreeSet<String>> {
    let mut lines = table.lines().skip_while(|line| !line.starts_with(&format!("TCP  {frontend} ")));
    let head: Vec<&str> = lines.next()?.split_whitespace().collect();
    let servers = lines.map_while(|line| line.trim_start().strip_prefix("-> "));
    let served = servers.map(|server| match server.split_whitespace().collect::<Vec<_>>()[..] {
        [at, "Masq", "1", ..] => at.strip_suffix(":80").map(str::to_owned),
        _ => None,
    });
    if head[2..] == ["rr"] { served.collect() } else { None }
}
