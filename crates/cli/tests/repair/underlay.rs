//! The network between the nodes changes, and the pods' network follows.

use std::time::Duration;

use podnet_testnet::{Cluster, eventually};

use crate::{
    PODNET, SOON,
    inside::{Inside, address, await_mtu, pod},
};

#[test]
fn the_mtu_and_the_address_of_a_node_are_followed_live() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply(&(pod("client", "node1") + &pod("server", "node2")));
    cluster.await_ready(&["--all"], SOON);
    let server = address(&cluster, "server");
    let (client, server_ns) = (Inside::pod(&address(&cluster, "client")), Inside::pod(&server));
    let nodes = ["node1", "node2"].map(Inside::node);
    let flows = |what: &str, size: u32| {
        eventually(what, Duration::from_secs(10), || {
            client.run(&format!("ping -c 1 -W 1 -M do -s {} {server}", size - 28))
        })
    };
    flows("traffic flows at first", 1450);

    for (underlay, pods) in [(1400, 1350), (1500, 1450)] {
        nodes.iter().for_each(|node| drop(node.must(&format!("ip link set eth0 mtu {underlay}"))));
        for inside in [&client, &server_ns] {
            await_mtu(inside, "eth0", pods);
        }
        nodes.iter().for_each(|node| await_mtu(node, "podnet.vxlan", pods));
        flows("the largest packets flow", pods);
    }

    let node2 = &nodes[1];
    node2.must("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1");
    for (old, new) in [("172.29.240.12", "172.29.240.112"), ("172.29.240.112", "172.29.240.12")] {
        node2.must(&format!("ip addr add {new}/24 dev eth0 && ip addr del {old}/24 dev eth0"));
        eventually(&format!("{new} is published"), Duration::from_secs(20), || {
            let node = cluster.json(&["node", "node2"]);
            match node["metadata"]["annotations"]["projectcalico.org/IPv4Address"].as_str() {
                Some(found) if found == format!("{new}/24") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        eventually(&format!("packets go to {new}"), Duration::from_secs(10), || {
            nodes[0].run(&format!("bridge fdb show dev podnet.vxlan | grep 'dst {new} '"))
        });
        flows("traffic flows to the node's new address", 1450);
    }
    // The agent of the node that moved still hears of the cluster.
    cluster.apply(&pod("late", "node2"));
    cluster.await_ready(&["late"], SOON);
}
