//! A pool changes while traffic flows: how its packets travel, and whether they leave the cluster with the node's address.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

use crate::{
    PODNET, SOON,
    inside::{Inside, address, await_mtu},
};

const POOL: &str = "default-ipv4-ippool";
/// Where the host is on the underlay.
const HOST: &str = "172.29.240.254";

fn tools(name: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: podnet.local/tools, command: [sleep, infinity]}}]}}\n"
    )
}

fn patch(cluster: &Cluster, change: &str) {
    let _ = cluster.kubectl(&["patch", "ippool", POOL, "--type=merge", "-p", &format!("{{\"spec\": {change}}}")]);
}

/// Waits until the node's route to the block is as it should be.
fn await_route(node: &str, block: &str, shown: &str) {
    eventually(&format!("{block} {shown} on {node}"), Duration::from_secs(10), || {
        let route = Inside::node(node).run(&format!("ip route show {block}"))?;
        if route.contains(shown) { Ok(()) } else { Err(route) }
    });
}

fn block_of(address: &str) -> String {
    let IpAddr::V4(address) = address.parse().unwrap() else { panic!("{address}") };
    ipnet::Ipv4Net::new(address, 26).unwrap().trunc().to_string()
}

#[test]
fn a_pool_changes_its_way_live_and_no_connection_is_lost() {
    let cluster = Cluster::up(PODNET, &["--nodes", "3", "--subnets", "2"]);
    // Nodes go to subnets in turns: node1 and node3 share one.
    cluster.apply(&["node1", "node2", "node3"].map(|node| tools(&format!("on-{node}"), node)).concat());
    cluster.await_ready(&["--all"], SOON);
    let [client, far, near] = ["on-node1", "on-node2", "on-node3"].map(|pod| address(&cluster, pod));
    let (far_block, near_block) = (block_of(&far), block_of(&near));

    sources_follow_nat_outgoing(&cluster, &client);

    await_route("node1", &near_block, "dev podnet.vxlan");
    let [client_ns, near_ns, far_ns] = [&client, &near, &far].map(|address| Inside::pod(address));
    for server in [&near_ns, &far_ns] {
        server.must("iperf3 -s -1 -D");
        // It goes into the background before it listens.
        eventually("the server listens", Duration::from_secs(20), || server.run("ss -Hltn sport = :5201 | grep ."));
    }
    let transfers = [(&near, "near"), (&far, "far")].map(|(server, name)| {
        let command = format!("iperf3 -c {server} -t 6 -i 0.5 -b 5M -J > /tmp/podnet-test-{name}.json 2>&1");
        let client = Inside(client_ns.0.clone());
        std::thread::spawn(move || client.run(&command))
    });
    // Underlay gateways of peers on the own subnet, the device for the others; with Never those have no route.
    patch(&cluster, r#"{"vxlanMode": "CrossSubnet"}"#);
    await_route("node1", &near_block, "via 172.29.240.");
    await_route("node3", &block_of(&client), "via 172.29.240.11 dev eth0");
    await_route("node1", &far_block, "dev podnet.vxlan");
    patch(&cluster, r#"{"vxlanMode": "Never"}"#);
    eventually("the device goes", Duration::from_secs(10), || {
        match Inside::node("node1").run("ip link show podnet.vxlan") {
            Ok(there) => Err(there),
            Err(_) => Ok(()),
        }
    });
    await_route("node1", &near_block, "via 172.29.240.");
    // Without encapsulation the pods have what the underlay carries.
    await_mtu(&client_ns, "eth0", 1500);
    patch(&cluster, r#"{"vxlanMode": "CrossSubnet"}"#);
    await_route("node1", &far_block, "dev podnet.vxlan");
    await_mtu(&client_ns, "eth0", 1450);
    patch(&cluster, r#"{"vxlanMode": "Always"}"#);
    await_route("node1", &near_block, "dev podnet.vxlan");

    for (transfer, name) in transfers.into_iter().zip(["near", "far"]) {
        let done = transfer.join().unwrap();
        let path = format!("/tmp/podnet-test-{name}.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let _ = std::fs::remove_file(path);
        assert!(done.is_ok(), "{name}: {done:?} {text}");
        let result: Value = serde_json::from_str(&text).unwrap();
        assert!(result["error"].is_null(), "{name}: {text}");
        let received = result["end"]["sum_received"]["bytes"].as_u64().unwrap();
        assert!(received > 2_500_000, "{name}: {received} bytes of 3.75 million");
        if name == "near" {
            // A peer on the own subnet is reached in every mode: no half second passes without a byte.
            let bytes = |interval: &Value| interval["sum"]["bytes"].as_u64().unwrap();
            let intervals: Vec<u64> = result["intervals"].as_array().unwrap().iter().map(bytes).collect();
            assert!(intervals.iter().all(|bytes| *bytes > 0), "{intervals:?}");
        }
    }
    let mended = ["node1", "node2", "node3"].map(|node| Inside::node(node).counter("podnet_repairs_total"));
    assert_eq!(mended, [0, 0, 0], "podnet's own changes are no damage\n{}", cluster.logs());

    services_follow_while_a_device_is_refused(&cluster);
    patch(&cluster, r#"{"vxlanMode": "CrossSubnet"}"#);
    await_route("node1", &near_block, "via 172.29.240.");
    routes_come_back_with_the_underlay(&cluster, &near_block);
    let reached = |what: &str, server: &str| {
        eventually(what, Duration::from_secs(20), || client_ns.run(&format!("ping -c 1 -W 1 {server}")));
    };
    reached("traffic flows to a peer on the own subnet", &near);
    a_node_moves_to_another_subnet(&cluster, &near_block, &block_of(&far));
    reached("traffic flows to the node that moved", &near);
}

/// Another program has the tunnel's port, and keeps it: that is no reason for Services to be late, or not to be mended.
fn services_follow_while_a_device_is_refused(cluster: &Cluster) {
    let node = Inside::node("node1");
    patch(cluster, r#"{"vxlanMode": "Never"}"#);
    let other = "ip link add other type vxlan id 4096 dstport 4789 local 172.29.240.11 nolearning";
    eventually("the port is free", Duration::from_secs(10), || node.run(other));
    patch(cluster, r#"{"vxlanMode": "Always"}"#);
    let failing = || node.counter("podnet_network_failing");
    eventually(
        "the device is refused",
        Duration::from_secs(10),
        || if failing() == 1 { Ok(()) } else { Err("not yet") },
    );
    // The device is tried after growing pauses, up to 10 s. What waited for it would wait longer each time.
    for last in 1..=12 {
        let ip = format!("10.233.60.{last}");
        cluster.apply(&format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: meanwhile-{last}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
        ));
        let found = format!("nft list table ip podnet-services | grep -w {ip}");
        eventually(&format!("{ip} is served"), Duration::from_secs(5), || node.run(&found));
        if last > 10 {
            node.must("nft delete table ip podnet-services");
            eventually(&format!("{ip} is served again"), Duration::from_secs(5), || node.run(&found));
        }
    }
    assert_eq!(failing(), 1);
    node.must("ip link del other");
    let over = || if failing() == 0 { Ok(()) } else { Err(cluster.logs()) };
    eventually("the network is as wanted again", Duration::from_secs(15), over);
}

/// The kernel takes routes away with the device or the address that they stand on, and does not tell.
fn routes_come_back_with_the_underlay(cluster: &Cluster, block: &str) {
    let node = Inside::node("node1");
    let route = format!("ip route show {block} proto 88 | grep 'via 172.29.240.'");
    let link = "ip link set eth0 down && ip link set eth0 up";
    let address = "ip addr del 172.29.240.11/24 dev eth0 && ip addr add 172.29.240.11/24 dev eth0";
    let slowly = "ip link set eth0 down && sleep 0.3 && ip link set eth0 up";
    for flap in [link, address, slowly] {
        let before = node.counter("podnet_repairs_total");
        node.is_mended_in_time(flap, &route);
        node.must("ip route replace default via 172.29.240.1");
        eventually("it is counted", Duration::from_secs(5), || match node.counter("podnet_repairs_total") {
            after if after > before => Ok(()),
            after => Err(format!("{after}\n{}", cluster.logs())),
        });
    }
}

/// Its old address, and the routes through it, are gone before the new one comes; its peers on the old subnet are gateways no more.
fn a_node_moves_to_another_subnet(cluster: &Cluster, block: &str, neighbour: &str) {
    let node = Inside::node("node3");
    let old = node.must("ip -4 -o addr show eth0 | grep -o '172[0-9.]*/24'").trim().to_owned();
    Inside("podnet-fabric".into()).must("ip link set node3 master pn1");
    node.must(&format!(
        "ip addr del {old} dev eth0; ip addr add 172.29.241.113/24 dev eth0; ip route add default via 172.29.241.1"
    ));
    eventually("the new address is published", Duration::from_secs(20), || {
        let node = cluster.json(&["node", "node3"]);
        match node["metadata"]["annotations"]["projectcalico.org/IPv4Address"].as_str() {
            Some("172.29.241.113/24") => Ok(()),
            other => Err(format!("{other:?}\n{}", cluster.logs())),
        }
    });
    await_route("node1", block, "via 172.29.241.113 dev podnet.vxlan");
    await_route("node3", neighbour, "via 172.29.241.");
}

fn sources_follow_nat_outgoing(cluster: &Cluster, client: &str) {
    let node = Inside::node("node1");
    for table in ["podnet", "podnet-services"] {
        let rules = node.must(&format!("nft list chain ip {table} postrouting"));
        assert!(rules.contains("masquerade fully-random"), "{rules}");
    }
    assert!(node.must("ip route show type blackhole proto 88").contains(&block_of(client)));

    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let pod = Inside::pod(client);
    let await_source = |what: &str, wanted: &str| {
        eventually(what, Duration::from_secs(10), || {
            pod.run(&format!("bash -c 'echo hello > /dev/udp/{HOST}/{port}'"))?;
            let (_, from) = socket.recv_from(&mut [0; 16]).map_err(|error| error.to_string())?;
            if from.ip().to_string() == wanted { Ok(()) } else { Err(format!("from {from}")) }
        });
    };
    await_source("what leaves the cluster has the node's address", "172.29.240.11");
    patch(cluster, r#"{"natOutgoing": false}"#);
    await_source("without natOutgoing it has the pod's", client);
    patch(cluster, r#"{"natOutgoing": true}"#);
    await_source("with natOutgoing it has the node's again", "172.29.240.11");
}
