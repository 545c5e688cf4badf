//! One damage after the other.

use std::time::Duration;

use podnet_testnet::{Cluster, eventually};

use crate::{
    PODNET, SOON,
    inside::{Inside, address, pod},
};

/// A node on which things are damaged, and what has to work again afterwards.
struct Scene {
    node: Inside,
    client: Inside,
    /// Commands in the client's pod that have to succeed.
    traffic: Vec<String>,
}

impl Scene {
    fn flows(&self) -> Result<(), String> {
        self.traffic.iter().try_for_each(|command| self.client.run(command).map(|_| ()))
    }

    /// Does the damage on the node, and waits until `whole` succeeds there, for no longer than it may take; then for traffic.
    fn damage(&self, damage: &str, whole: &str) {
        let before = self.node.counter("podnet_repairs_total");
        self.node.is_mended_in_time(damage, whole);
        eventually(&format!("traffic flows after {damage}"), Duration::from_secs(10), || self.flows());
        // A route may be back before the neighbour behind it is: the count comes last.
        eventually(&format!("{damage} is counted"), Duration::from_secs(5), || {
            match self.node.counter("podnet_repairs_total") {
                after if after > before => Ok(()),
                after => Err(format!("{before} repairs before, {after} after")),
            }
        });
    }
}

#[test]
fn what_others_damage_is_mended_within_a_second_and_counted_and_told() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply(&(pod("client", "node1") + &pod("server", "node2")));
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: server}\nspec: {selector: {app: server}, ports: [{port: 80}]}",
    );
    cluster.await_ready(&["--all"], SOON);
    let (client, server) = (address(&cluster, "client"), address(&cluster, "server"));
    let service = cluster.json(&["service", "server"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let traffic = vec![format!("ping -c 1 -W 1 {server}"), format!("curl -s -m 2 http://{service}/")];
    let scene = Scene { node: Inside::node("node1"), client: Inside::pod(&client), traffic };
    eventually("traffic flows at first", SOON, || scene.flows());
    let node = &scene.node;

    let route = node.must("ip route show proto 88 | grep onlink").trim().to_owned();
    let block = route.split(' ').next().unwrap();
    let (mac, peer) = {
        let entry = node.must("bridge fdb show dev podnet.vxlan | grep dst");
        let words: Vec<String> = entry.split_whitespace().map(str::to_owned).collect();
        (words[0].clone(), words[2].clone())
    };
    let device = node.must(&format!("ip -o route show {client}"));
    let device = device.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned();
    let there = format!("ip route show {block} | grep onlink");
    let own = format!("ip route show {client} | grep {device}");

    let quiet = node.counter("podnet_repairs_total");
    assert_eq!(quiet, 0, "nothing was damaged so far, though pods came: {}", cluster.logs());

    scene.damage(&format!("ip route del {block}"), &there);
    scene.damage("ip route flush proto 88", &format!("{there} && {own}"));
    scene.damage(&format!("ip route replace {block} via 172.29.240.1"), &there);
    scene.damage(
        &format!("ip neigh del {peer} dev podnet.vxlan"),
        &format!("ip neigh show dev podnet.vxlan | grep {mac}"),
    );
    scene.damage(
        &format!("bridge fdb del {mac} dev podnet.vxlan dst {peer}"),
        &format!("bridge fdb show dev podnet.vxlan | grep {mac}"),
    );
    scene.damage("ip link set podnet.vxlan mtu 1280", "ip link show podnet.vxlan | grep 'mtu 1450'");
    scene.damage("ip link set podnet.vxlan down", &format!("ip link show up | grep podnet.vxlan && {there}"));
    scene.damage("ip link del podnet.vxlan", &there);
    scene.damage(&format!("ip link set {device} down"), &own);
    scene.damage(&format!("ip link set {device} mtu 1000"), &format!("ip link show {device} | grep 'mtu 1450'"));
    scene.damage(
        &format!("ip neigh flush dev {device} nud permanent"),
        &format!("ip neigh show dev {device} | grep PERMANENT"),
    );
    scene.damage("sysctl -qw net.ipv4.ip_forward=0", "sysctl -n net.ipv4.ip_forward | grep 1");
    scene.damage("sysctl -qw net.ipv4.conf.all.rp_filter=1", "sysctl -n net.ipv4.conf.all.rp_filter | grep 0");
    scene.damage(
        "sysctl -qw net/ipv4/conf/podnet.vxlan/rp_filter=1",
        "sysctl -n net/ipv4/conf/podnet.vxlan/rp_filter | grep 0",
    );
    scene.damage("nft delete table ip podnet-services", "nft list map ip podnet-services frontends");
    scene.damage("nft delete table ip podnet", "nft list set ip podnet nat-sources | grep elements");
    let services = "nft list chain ip podnet-services services | grep frontends";
    scene.damage("nft flush chain ip podnet-services services", services);
    scene.damage("iptables -P FORWARD DROP", "iptables -S FORWARD | grep podnet");
    scene.damage("iptables -F FORWARD", "iptables -S FORWARD | grep podnet");
    scene.damage("nft flush ruleset", "nft list map ip podnet-services frontends && nft list table ip podnet");

    let log = String::from_utf8(cluster.podnet(&["logs", "node1-agent", "--tail", "1000"]).stdout).unwrap();
    for told in ["device podnet.vxlan is gone", "has MTU 1280 and not 1450", "nft (process", "iptables (process"] {
        assert!(log.contains(told), "no {told:?} in\n{log}");
    }
    what_cannot_be_mended_hinders_nothing_else(&scene, &there);
    somebody_who_keeps_undoing_does_not_keep_the_agent_busy(&scene, block, &there);
}

/// A device of the VNI and the port of podnet's stands in the way of its own.
fn what_cannot_be_mended_hinders_nothing_else(scene: &Scene, there: &str) {
    let node = &scene.node;
    node.must("ip link set podnet.vxlan name thief; nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0");
    let rest =
        "nft list table ip podnet-services && nft list table ip podnet-pods && sysctl -n net.ipv4.ip_forward | grep 1";
    eventually("the rest is mended", Duration::from_secs(10), || node.run(rest));
    node.must("ip link show thief && ! ip link show podnet.vxlan && ip link del thief");
    eventually("the device is back", Duration::from_secs(20), || node.run(there));
    eventually("traffic flows again", Duration::from_secs(10), || scene.flows());
}

fn somebody_who_keeps_undoing_does_not_keep_the_agent_busy(scene: &Scene, block: &str, there: &str) {
    let before = scene.node.counter("podnet_repairs_total");
    scene.node.must(&format!("for i in $(seq 300); do ip route del {block} 2>/dev/null; done; true"));
    let repairs = scene.node.counter("podnet_repairs_total") - before;
    assert!(repairs < 30, "{repairs} repairs of one route in a moment");
    assert!(scene.node.counter("podnet_repairs_held_back_total") > 0);
    // Another object does not wait.
    scene.damage("nft delete table ip podnet", "nft list set ip podnet nat-sources | grep elements");
    eventually("the contested route is back in the end", Duration::from_secs(15), || scene.node.run(there));
}
