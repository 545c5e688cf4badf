//! The same by IPv6: pods of both families on an underlay of both.

use std::time::Duration;

use podnet_testnet::{Cluster, eventually};
use serde_json::Value;

use crate::{
    PODNET, SOON,
    inside::{Inside, address, pod},
};

const LATER: Duration = Duration::from_secs(20);

/// The pod's IPv6 address, and its namespace.
fn six(cluster: &Cluster, name: &str) -> (String, Inside) {
    let pod = cluster.json(&["pod", name]);
    let ips: Vec<&str> =
        pod["status"]["podIPs"].as_array().unwrap().iter().map(|ip| ip["ip"].as_str().unwrap()).collect();
    let v6 = ips.iter().find(|ip| ip.contains(':')).unwrap_or_else(|| panic!("{name} has {ips:?}"));
    ((*v6).to_owned(), Inside::pod(ips[0]))
}

fn annotation(cluster: &Cluster, node: &str) -> Value {
    cluster.json(&["node", node])["metadata"]["annotations"]["projectcalico.org/IPv6Address"].clone()
}

#[test]
fn pods_reach_each_other_by_ipv6_and_what_they_need_for_it_is_kept_whole() {
    let cluster = Cluster::up(PODNET, &["--ip-family", "dual", "--nodes", "3", "--subnets", "2"]);
    // Nodes go to subnets in turns: node1 and node3 share one.
    cluster.apply(
        &[("client", "node1"), ("far", "node2"), ("near", "node3")].map(|(name, node)| pod(name, node)).concat(),
    );
    cluster.await_ready(&["--all"], SOON);
    let (own, client) = six(&cluster, "client");
    let [far, near] = ["far", "near"].map(|name| six(&cluster, name).0);
    let node = Inside::node("node1");
    let flows = || {
        for (server, size) in [(&near, 56), (&far, 56), (&far, 1450 - 48), (&near, 4000)] {
            client.run(&format!("ping -c 1 -W 1 -s {size} {server}"))?;
        }
        client.run(&format!("curl -s -m 2 'http://[{near}]/'")).map(drop)
    };
    eventually("traffic flows at first", SOON, flows);
    // The host knows no way to pods: what leaves the pools has the node's address.
    eventually("pods reach the world", LATER, || client.run("ping -c 1 -W 1 fd00:172:29:240::254"));
    nodes_tell_both_addresses(&cluster);

    let damage = |damage: &str, whole: &str| {
        let before = node.counter("podnet_repairs_total");
        node.is_mended_in_time(damage, whole);
        eventually(&format!("traffic flows after {damage}"), LATER, flows);
        eventually(&format!("{damage} is counted"), LATER, || match node.counter("podnet_repairs_total") {
            after if after > before => Ok(()),
            after => Err(format!("{before} repairs before, {after} after")),
        });
    };
    assert_eq!(node.counter("podnet_repairs_total"), 0, "nothing was damaged so far: {}", cluster.logs());
    let route = node.must("ip -6 route show proto 88 | grep onlink | head -1");
    let mut words = route.split_whitespace();
    let (block, next_hop) = (words.next().unwrap(), words.nth(1).unwrap());
    let there = format!("ip -6 route show {block} | grep onlink");
    let ours = format!("ip -6 route show {own} | grep pn");
    damage(&format!("ip -6 route del {block}"), &there);
    damage("ip -6 route flush proto 88", &format!("{there} && {ours}"));
    damage(
        &format!("ip -6 neigh del {next_hop} dev podnet.vxlan"),
        &format!("ip -6 neigh show dev podnet.vxlan | grep {next_hop}"),
    );
    damage("ip link del podnet.vxlan", &there);
    damage("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -n net.ipv6.conf.all.forwarding | grep 1");
    damage("sysctl -qw net.ipv6.conf.podnet/vxlan.disable_ipv6=1", &there);
    let device = node.must(&format!("ip -6 -o route show {own}"));
    let device = device.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap();
    damage(&format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"), &ours);
    damage("ip6tables -P FORWARD DROP", "ip6tables -S FORWARD | grep 'podnet: to fd00:10:233::/56'");
    node.must("ip6tables -P FORWARD ACCEPT");

    services_by_ipv6_are_kept_whole(&cluster, &client, &damage);
    ways_follow_the_pool_and_the_nodes_address(&cluster, &node, &near, &flows);
    a_node_that_starts_without_ipv4_is_reached_and_takes_it_when_it_comes(&cluster, &node, &flows);
    where_ipv6_has_no_room_pods_have_ipv4_and_the_node_says_why(&cluster);
}

/// Rules of Services and their elements, in modes that have such of each family.
fn services_by_ipv6_are_kept_whole(cluster: &Cluster, client: &Inside, damage: &impl Fn(&str, &str)) {
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: six}\nspec: {ipFamilies: [IPv6], ipFamilyPolicy: SingleStack, \
         selector: {app: near}, ports: [{port: 80}]}\n",
    );
    let service = cluster.json(&["service", "six"]);
    let vip = service["spec"]["clusterIP"].as_str().unwrap();
    let answers = || {
        let ask = || client.run(&format!("curl -sS -m 2 'http://[{vip}]/'"));
        eventually("the Service answers", SOON, ask);
    };
    answers();
    let frontend = format!("ip6 podnet-services frontends {{ {vip} . tcp . 80 }}");
    let whole = format!("nft get element {frontend}");
    for lost in [format!("nft delete element {frontend}"), "nft delete table ip6 podnet-services".to_owned()] {
        damage(&lost, &whole);
        answers();
    }
    cluster.take_proxy_mode("iptables", &["node1"], SOON);
    let whole = format!("ip6tables -t nat -S KUBE-SERVICES | grep -e '-d {vip}/128'");
    eventually("its chains are there", SOON, || Inside::node("node1").run(&whole));
    damage("ip6tables -t nat -F KUBE-SERVICES", &whole);
    answers();
    cluster.take_proxy_mode("nftables", &["node1"], SOON);
    answers();
}

fn kill(cluster: &Cluster, process: &str) {
    let process = rustix::process::Pid::from_raw(cluster.pid(process)).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

fn where_ipv6_has_no_room_pods_have_ipv4_and_the_node_says_why(cluster: &Cluster) {
    Inside::node("node2").must("ip link set eth0 mtu 1300");
    // What is larger does not arrive any more: connections to the API server that are open would hang.
    ["node2", "node2-agent"].into_iter().for_each(|process| kill(cluster, process));
    eventually("it is told", LATER, || {
        let field = "involvedObject.name=node2,reason=NetworkIncomplete";
        let told = cluster.json(&["events", "--field-selector", field])["items"][0]["message"].clone();
        let said = |part: &str| told.as_str().is_some_and(|told| told.contains(part));
        let all = ["room for 1250 bytes", "pools of IPv6: default-ipv6-ippool", "raise the MTU"].into_iter().all(said);
        if all { Ok(()) } else { Err(told.to_string()) }
    });
    cluster.apply(&pod("narrow", "node2"));
    cluster.await_ready(&["narrow"], SOON);
    let ips = cluster.json(&["pod", "narrow"])["status"]["podIPs"].clone();
    assert_eq!(ips.as_array().map(Vec::len), Some(1), "{ips}");
}

/// The agent of a node starts before DHCP has given the node its IPv4 address: tunnels go by IPv6, on both sides, until it has.
fn a_node_that_starts_without_ipv4_is_reached_and_takes_it_when_it_comes(
    cluster: &Cluster,
    node: &Inside,
    flows: &impl Fn() -> Result<(), String>,
) {
    let (near_node, near4) = (Inside::node("node3"), address(cluster, "near"));
    let client = Inside::pod(&address(cluster, "client"));
    let both = || flows().and_then(|()| client.run(&format!("ping -c 1 -W 1 -s 4000 {near4}")).map(drop));
    let ipv4 = || cluster.json(&["node", "node3"])["metadata"]["annotations"]["projectcalico.org/IPv4Address"].clone();
    let leads = |shown: &str| {
        eventually(&format!("the way to {near4} is {shown}"), LATER, || {
            let route = node.run(&format!("ip route get {near4}"))?;
            if route.contains(shown) { Ok(()) } else { Err(route) }
        });
    };
    leads("dev podnet.vxlan ");
    // The API server is reached by the address all the same.
    near_node.must("ip addr add 172.29.240.12/32 dev lo && ip addr del 172.29.240.12/24 dev eth0");
    near_node.must("ip route replace 172.29.240.0/24 dev eth0 src 172.29.240.12");
    near_node.must("ip route replace default via 172.29.240.1");
    kill(cluster, "node3-agent");
    leads("dev podnet.vxlan6 ");
    assert_eq!(ipv4(), Value::Null);
    eventually("traffic flows by IPv6 outside", LATER, both);
    near_node.must("ip addr add 172.29.240.12/24 dev eth0 && ip addr del 172.29.240.12/32 dev lo");
    leads("dev podnet.vxlan ");
    assert_eq!(ipv4(), "172.29.240.12/24");
    eventually("traffic flows by IPv4 outside again", LATER, both);
    eventually("the device that nobody needs is gone", LATER, || match node.run("ip link show podnet.vxlan6") {
        Err(_) => Ok(()),
        Ok(there) => Err(there),
    });
}

fn nodes_tell_both_addresses(cluster: &Cluster) {
    let node3 = cluster.json(&["node", "node3"]);
    let addresses = node3["status"]["addresses"].as_array().unwrap().iter();
    let internal =
        addresses.filter(|address| address["type"] == "InternalIP").map(|address| address["address"].clone());
    assert_eq!(internal.collect::<Vec<_>>(), ["172.29.240.12", "fd00:172:29:240::12"]);
    assert_eq!(annotation(cluster, "node3"), "fd00:172:29:240::12/64");
}

/// On one subnet through the peer itself, wherever that moves to; and back into VXLAN.
fn ways_follow_the_pool_and_the_nodes_address(
    cluster: &Cluster,
    node: &Inside,
    near: &str,
    flows: &impl Fn() -> Result<(), String>,
) {
    let mode = |mode: &str| {
        let patch = format!("{{\"spec\": {{\"vxlanMode\": \"{mode}\"}}}}");
        let _ = cluster.kubectl(&["patch", "ippool", "default-ipv6-ippool", "--type=merge", "-p", &patch]);
    };
    let leads = |shown: &str| {
        eventually(&format!("the way to {near} is {shown}"), LATER, || {
            let route = node.run(&format!("ip -6 route get {near}"))?;
            if route.contains(shown) { Ok(()) } else { Err(route) }
        });
    };
    mode("CrossSubnet");
    leads("via fd00:172:29:240::12 dev eth0");
    eventually("traffic flows without VXLAN", LATER, flows);
    let near_node = Inside::node("node3");
    for (old, new) in [("12", "112"), ("112", "12")] {
        let addr = |last: &str| format!("fd00:172:29:240::{last}/64 dev eth0");
        near_node.must(&format!("ip -6 addr add {} nodad && ip -6 addr del {}", addr(new), addr(old)));
        leads(&format!("via fd00:172:29:240::{new} dev eth0"));
        assert_eq!(annotation(cluster, "node3"), format!("fd00:172:29:240::{new}/64"));
        eventually("traffic flows to the node's new address", LATER, flows);
    }
    // The kernel takes routes through a device that is down away, and does not tell.
    node.must("ip link set eth0 down && ip link set eth0 up");
    node.must("ip route add default via 172.29.240.1 && ip -6 route add default via fd00:172:29:240::1");
    leads("via fd00:172:29:240::12 dev eth0");
    eventually("traffic flows after the underlay was down", LATER, flows);
    // Without an IPv6 address there is no next hop: the way is inside VXLAN, over IPv4.
    near_node.must("ip -6 addr del fd00:172:29:240::12/64 dev eth0");
    leads("dev podnet.vxlan");
    eventually("traffic flows to a node without IPv6", LATER, flows);
    assert_eq!(annotation(cluster, "node3"), Value::Null);
    near_node.must("ip -6 addr add fd00:172:29:240::12/64 dev eth0 nodad");
    leads("via fd00:172:29:240::12 dev eth0");
    mode("Always");
    leads("dev podnet.vxlan");
    eventually("traffic flows through VXLAN again", LATER, flows);
}
