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

/// The program is at the Service to which nobody came through them, and they are at the one with connections, whose new ones rules take.
pub(crate) fn stay_beside_the_program(scene: &Scene<'_>) {
    let (theirs, others) = (&scene.service, &scene.other);
    // Whence the lasting connections come.
    let node = NODES[0];
    is_so(node, &has_address(theirs, true));
    is_so(node, &format!("! {}", has_way(theirs)));
    is_so(node, &is_ruled(theirs));
    leaves_some(node);
    for node in NODES {
        is_so(node, &has_way(others));
        is_so(node, &has_address(others, false));
        is_so(node, &format!("! {}", is_ruled(others)));
    }
    scene.answers(&|command| scene.client.run(command), others);
}

/// The program has a Service yet, as connections to it go on, and there is no virtual server of it. New ones rules take.
pub(crate) fn leave_alone(scene: &Scene<'_>) {
    let (node, theirs) = (NODES[0], &scene.service);
    is_so(node, &has_way(theirs));
    is_so(node, &has_address(theirs, false));
    is_so(node, &format!("! ipvsadm -Ln | grep -F ' {theirs}:80 '"));
    is_so(node, &is_ruled(theirs));
    leaves_some(node);
}

fn is_so(node: &str, command: &str) {
    on_node(node, command).unwrap();
}

fn has_address(service: &str, has: bool) -> String {
    let not = if has { "" } else { "! " };
    format!("{not}ip -o -4 address show | grep -F ' {service}/32 '")
}

/// To the program, in whose mode it is made.
fn has_way(service: &str) -> String {
    format!("ip route show {service} proto 87 | grep podservices4")
}

fn is_ruled(service: &str) -> String {
    format!("nft get element ip podnet-services cluster-ips {{ {service} }}")
}

/// The metric tells it.
fn leaves_some(node: &str) {
    is_so(node, "curl -s http://127.0.0.1:10249/metrics | grep -E '^podnet_proxy_addresses_left_to_rules [1-9]'");
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
