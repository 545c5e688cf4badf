//! flannel's configuration taken as it is, and a node of flannel's own, made by hand, in one network with podnet's nodes; in both families.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, process::Command, time::Duration};

use podnet_testnet::{Cluster, eventually};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
const CONF: &str = "kube-flannel-cfg";
const PREFIX: &str = "flannel.alpha.coreos.com";
/// The node of flannel's: its address on the underlay, a pod's, and its VXLAN device's MAC.
const FLANNEL: (&str, &str, &str) = ("172.29.240.200", "10.244.9.5", "8e:66:a0:00:00:09");
/// The same by IPv6.
const FLANNEL6: (&str, &str, &str) = ("fd00:172:29:240::200", "fd00:10:244:9::5", "8e:66:a0:00:06:09");

fn shell(netns: &str, line: &str) -> Result<String, String> {
    let output = Command::new("ip").args(["netns", "exec", netns, "sh", "-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{line}: {text}")) }
}

fn must(netns: &str, line: &str) -> String {
    shell(netns, line).unwrap_or_else(|error| panic!("{error}"))
}

fn configure(cluster: &Cluster, backend: &str) {
    let six = r#""EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
    let conf = format!(r#"{{"Network": "10.244.0.0/16", {six}, "Backend": {backend}}}"#);
    let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": CONF, "namespace": "kube-flannel"}, "data": {"net-conf.json": conf}});
    cluster.apply(&map.to_string());
}

/// A cluster in which every node has parts of flannel's ranges, and flannel's configuration.
fn cluster(backend: &str) -> Cluster {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--ip-family", "dual"]);
    for number in [1, 2] {
        let part = format!("10.244.{number}.0/24");
        let part6 = format!("fd00:10:244:{number}::/64");
        let patch = format!(r#"{{"spec": {{"podCIDR": "{part}", "podCIDRs": ["{part}", "{part6}"]}}}}"#);
        cluster.kubectl(&["patch", "node", &format!("node{number}"), "-p", &patch]);
    }
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-flannel}\n");
    configure(&cluster, backend);
    cluster
}

fn annotation(cluster: &Cluster, node: &str, key: &str) -> String {
    let node = cluster.json(&["node", node]);
    node["metadata"]["annotations"][format!("{PREFIX}/{key}")].as_str().unwrap_or_default().to_owned()
}

fn await_route(node: &str, range: &str, shown: &str) {
    eventually(&format!("{range} {shown} on {node}"), SOON, || {
        let family = if range.contains(':') { "-6" } else { "-4" };
        let route = shell(&format!("podnet-{node}"), &format!("ip {family} route show {range}"))?;
        if route.contains(shown) { Ok(()) } else { Err(route) }
    });
}

/// ICMP with fragments, TCP and UDP with fragments, from one pod to an address where `iperf3 -s` listens.
fn await_log(node: &str, message: &str) {
    eventually("it is told", SOON, || {
        let log = fs::read_to_string(format!("/run/podnet/log/{node}-agent.log")).map_err(|error| error.to_string())?;
        if log.contains(message) { Ok(()) } else { Err(format!("not in the log: {message}")) }
    });
}

fn everything_passes(cluster: &Cluster, pod: &str, to: &str) {
    // A server of iperf3 that has one client refuses the next: the second one comes by another call.
    for line in [
        format!("ping -c 1 -W 5 {to} && ping -c 1 -W 5 -s 4000 {to} && iperf3 -c {to} -n 1M"),
        format!("iperf3 -c {to} -u -b 20M -l 4000 -n 100K"),
    ] {
        let done = cluster.exec("default", pod, &["sh", "-c", &line]);
        assert!(done.is_ok(), "{line}: {done:?}\n{}", cluster.logs());
    }
}

#[test]
fn flannels_configuration_and_nodes_are_taken_as_they_are() {
    let cluster = cluster(r#"{"Type": "vxlan"}"#);
    for (number, node) in [(1, "node1"), (2, "node2")] {
        eventually("flannel's words are published", SOON, || {
            match annotation(&cluster, node, "backend-type").as_str() {
                "vxlan" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        assert_eq!(annotation(&cluster, node, "public-ip"), format!("172.29.240.1{number}"));
        assert_eq!(annotation(&cluster, node, "public-ipv6"), format!("fd00:172:29:240::1{number}"));
        assert_eq!(annotation(&cluster, node, "kube-subnet-manager"), "true");
    }
    let file = fs::read_to_string("/run/podnet/nodes/node1/flannel/subnet.env").unwrap();
    let six = "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n";
    assert!(file.contains(&format!("FLANNEL_SUBNET=10.244.1.1/24\n{six}FLANNEL_MTU=1430\n")), "{file}");

    let pods = ["node1", "node2"].map(|node| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: on-{node}}}\nspec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: podnet.local/tools, command: [iperf3, -s]}}]}}\n"
        )
    });
    cluster.apply(&pods.concat());
    cluster.await_ready(&["--all"], SOON);
    let address = |pod: &str| cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"]);
    let both = ["10.244.1.2 fd00:10:244:1::2", "10.244.2.2 fd00:10:244:2::2"];
    assert_eq!([address("on-node1"), address("on-node2")], both);
    everything_passes(&cluster, "on-node1", "10.244.2.2");
    await_route("node1", "fd00:10:244:2::/64", "dev podnet.vxlan6");
    everything_passes(&cluster, "on-node1", "fd00:10:244:2::2");
    must("podnet-node1", "ping -c 1 -W 5 fd00:10:244:2::2");

    let flannel = FlannelNode::join(&cluster);
    await_route("node1", "10.244.9.0/24", "via 172.29.240.200 dev podnet.vxlan");
    must(FlannelNode::NETNS, &format!("ping -c 1 -W 5 -I {} 10.244.1.2", FLANNEL.1));
    await_route("node1", "fd00:10:244:9::/64", "dev podnet.vxlan6");
    must(FlannelNode::NETNS, &format!("ping -c 1 -W 5 -I {} fd00:10:244:1::2", FLANNEL6.1));
    must(FlannelNode::NETNS, "iperf3 -s -D");
    // It goes into the background before it listens.
    eventually("the server listens", SOON, || shell(FlannelNode::NETNS, "ss -Hltn sport = :5201 | grep ."));
    everything_passes(&cluster, "on-node2", FLANNEL.1);
    everything_passes(&cluster, "on-node2", FLANNEL6.1);
    // What the node itself sends has an address of its part, by which flannel's nodes know whom to answer.
    must("podnet-node2", &format!("ping -c 1 -W 5 {}", FLANNEL6.1));

    // Other backends, live. What nodes send themselves has their own address, whatever others they have.
    must("podnet-node1", "ip addr add 203.0.113.5/32 dev lo");
    configure(&cluster, r#"{"Type": "udp"}"#);
    await_route("node1", "10.244.2.0/24", "dev podnet.udp");
    await_route("node2", "10.244.1.0/24", "dev podnet.udp");
    let left = must("podnet-node1", "ip route show 10.244.9.0/24");
    assert_eq!(left, "", "a node of flannel's that still says vxlan does not understand UDP");
    eventually("the tunnel carries", SOON, || {
        cluster.exec("default", "on-node1", &["ping", "-c1", "-W1", "10.244.2.2"])
    });
    everything_passes(&cluster, "on-node1", "10.244.2.2");
    must("podnet-node1", "ping -c 1 -W 5 10.244.2.2");
    must("podnet-node1", "ip link del podnet.udp");
    eventually("the tunnel is mended", SOON, || {
        cluster.exec("default", "on-node1", &["ping", "-c1", "-W1", "10.244.2.2"])
    });
    let checked = cluster.podnet(&["ipam", "check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    configure(&cluster, r#"{"Type": "host-gw"}"#);
    await_route("node1", "10.244.2.0/24", "via 172.29.240.12 dev eth0");
    await_route("node2", "10.244.1.0/24", "via 172.29.240.11 dev eth0");
    await_route("node1", "fd00:10:244:2::/64", "via fd00:172:29:240::12 dev eth0");
    await_route("node2", "fd00:10:244:1::/64", "via fd00:172:29:240::11 dev eth0");
    everything_passes(&cluster, "on-node1", "10.244.2.2");
    everything_passes(&cluster, "on-node1", "fd00:10:244:2::2");
    eventually("flannel's nodes are told", SOON, || match annotation(&cluster, "node1", "backend-type").as_str() {
        "host-gw" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A device that flannel left is named and not touched; what does not need it goes on.
    must("podnet-node1", "ip link add flannel.1 type vxlan id 1 dstport 8472");
    configure(&cluster, r#"{"Type": "vxlan"}"#);
    await_log("node1", "remove it: ip link delete flannel.1");
    cluster.kubectl(&["create", "service", "clusterip", "meanwhile", "--tcp=80", "--clusterip=10.233.0.77"]);
    eventually("rules follow", SOON, || {
        let rules = shell("podnet-node1", "nft list table ip podnet-services")?;
        if rules.contains("10.233.0.77") { Ok(()) } else { Err("no rules".to_owned()) }
    });
    must("podnet-node1", "ip link delete flannel.1");
    await_route("node1", "10.244.2.0/24", "dev podnet.vxlan");
    // A mistake harms nothing, and is told.
    configure(&cluster, r#"{"Type": "aws-vpc"}"#);
    let message = "data[net-conf.json].Backend.Type is \"aws-vpc\"; it must be vxlan, host-gw, ipip, wireguard, udp, alloc or none";
    await_log("node1", message);
    everything_passes(&cluster, "on-node1", "10.244.2.2");
    let told = cluster.kubectl(&["events", "-n", "kube-flannel", "--for", &format!("configmap/{CONF}")]);
    assert!(told.contains(message) && told.contains("what it said before counts"), "{told}");
    assert_eq!(told.matches(message).count(), 1, "all nodes see the same: {told}");
    // Nor does it harm an agent that starts beside it.
    let began = std::time::SystemTime::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(cluster.pid("node1-agent")).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let journal = "/run/podnet/nodes/node1/net.d/10-podnet.conflist";
    eventually("the agent is ready again", SOON, || match fs::metadata(journal).and_then(|file| file.modified()) {
        Ok(written) if written > began => Ok(()),
        other => Err(format!("{other:?}")),
    });
    await_route("node1", "10.244.2.0/24", "dev podnet.vxlan");
    everything_passes(&cluster, "on-node1", "10.244.2.2");
    await_route("node1", "fd00:10:244:2::/64", "dev podnet.vxlan6");
    everything_passes(&cluster, "on-node1", "fd00:10:244:2::2");
    what_iptables_legacy_drops_is_told(&cluster);
    drop(flannel);
}

fn what_iptables_legacy_drops_is_told(cluster: &Cluster) {
    must("podnet-node2", "iptables-legacy -P FORWARD DROP");
    let remedy = eventually("it is told", SOON, || {
        let told = cluster.json(&["events", "--field-selector", "involvedObject.name=node2,reason=ForwardDropped"]);
        let message = told["items"][0]["message"].as_str().unwrap_or_default();
        match message.split_once("Let them pass: ") {
            Some((_, remedy)) if remedy.contains("-s 10.244.0.0/16") => Ok(remedy.to_owned()),
            _ => Err(told.to_string()),
        }
    });
    must("podnet-node2", &remedy);
    await_log("node2", "iptables-legacy lets pods' packets pass again");
    must("podnet-node2", "iptables-legacy -F FORWARD; iptables-legacy -P FORWARD ACCEPT");
}

/// A node as flannel makes it with VXLAN: kernel objects of `flanneld`, and annotations.
struct FlannelNode {}

impl FlannelNode {
    const NETNS: &'static str = "podnet-test-flannel";

    fn join(cluster: &Cluster) -> Self {
        let run = |line: &str| {
            let done = Command::new("sh").args(["-c", line]).output().unwrap();
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let (address, pod, mac) = FLANNEL;
        let (address6, pod6, mac6) = FLANNEL6;
        let _ = Command::new("ip").args(["netns", "del", Self::NETNS]).output();
        run(&format!("ip netns add {}", Self::NETNS));
        let node = Self {};
        run(&format!("ip -n podnet-fabric link add pnflannel type veth peer name eth0 netns {}", Self::NETNS));
        run("ip -n podnet-fabric link set pnflannel master pn0 up");
        for line in [
            "ip link set lo up".to_owned(),
            "ip link set eth0 up".to_owned(),
            format!("ip addr add {address}/24 dev eth0"),
            format!("ip addr add {pod}/32 dev lo"),
            format!(
                "ip link add flannel.1 address {mac} mtu 1450 type vxlan id 1 local {address} dstport 8472 nolearning"
            ),
            "ip addr add 10.244.9.0/32 dev flannel.1".to_owned(),
            "ip link set flannel.1 up".to_owned(),
            format!("ip addr add {address6}/64 dev eth0 nodad"),
            format!("ip addr add {pod6}/128 dev lo"),
            format!(
                "ip link add flannel-v6.1 address {mac6} mtu 1430 type vxlan id 1 local {address6} dstport 8472 nolearning"
            ),
            "ip addr add fd00:10:244:9::/128 dev flannel-v6.1".to_owned(),
            "ip link set flannel-v6.1 up".to_owned(),
        ] {
            must(Self::NETNS, &line);
        }
        for (number, peer) in [(1, "node1"), (2, "node2")] {
            let data: serde_json::Value = serde_json::from_str(&annotation(cluster, peer, "backend-data")).unwrap();
            assert_eq!(data["VNI"], 1);
            let (mac, at) = (data["VtepMAC"].as_str().unwrap(), annotation(cluster, peer, "public-ip"));
            must(Self::NETNS, &format!("ip neigh replace 10.244.{number}.0 lladdr {mac} dev flannel.1 nud permanent"));
            must(Self::NETNS, &format!("bridge fdb append {mac} dev flannel.1 dst {at} self permanent"));
            must(
                Self::NETNS,
                &format!("ip route add 10.244.{number}.0/24 via 10.244.{number}.0 dev flannel.1 onlink src {pod}"),
            );
            let data: serde_json::Value = serde_json::from_str(&annotation(cluster, peer, "backend-v6-data")).unwrap();
            let (mac, at) = (data["VtepMAC"].as_str().unwrap(), annotation(cluster, peer, "public-ipv6"));
            let part = format!("fd00:10:244:{number}::");
            must(Self::NETNS, &format!("ip neigh replace {part} lladdr {mac} dev flannel-v6.1 nud permanent"));
            must(Self::NETNS, &format!("bridge fdb append {mac} dev flannel-v6.1 dst {at} self permanent"));
            must(Self::NETNS, &format!("ip route add {part}/64 via {part} dev flannel-v6.1 onlink src {pod6}"));
        }
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: flannel9\n  annotations:\n    {PREFIX}/backend-type: vxlan\n    {PREFIX}/backend-data: '{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}'\n    {PREFIX}/public-ip: {address}\n    {PREFIX}/backend-v6-data: '{{\"VNI\":1,\"VtepMAC\":\"{mac6}\"}}'\n    {PREFIX}/public-ipv6: '{address6}'\n    {PREFIX}/kube-subnet-manager: \"true\"\nspec: {{podCIDR: 10.244.9.0/24, podCIDRs: [10.244.9.0/24, 'fd00:10:244:9::/64']}}\n"
        ));
        let status = format!(r#"{{"status": {{"addresses": [{{"type": "InternalIP", "address": "{address}"}}]}}}}"#);
        cluster.kubectl(&["patch", "node", "flannel9", "--subresource=status", "--type=merge", "-p", &status]);
        node
    }
}

impl Drop for FlannelNode {
    fn drop(&mut self) {
        // Its own processes, and with the namespace the devices.
        let pids = Command::new("ip").args(["netns", "pids", Self::NETNS]).output();
        for pid in pids.iter().flat_map(|output| {
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        }) {
            let _ = Command::new("kill").arg(pid).status();
        }
        let _ = Command::new("ip").args(["netns", "del", Self::NETNS]).output();
    }
}
