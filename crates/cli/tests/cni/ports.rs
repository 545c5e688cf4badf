//! Ports of the node that lead to pods, and senders that claim to be others, in a cluster.

use std::{net::UdpSocket, time::Duration};

use podnet_testnet::{Cluster, eventually};

use crate::{NODE, PODNET, SOON, kill, on_node, try_run};

/// Answers each datagram with the address that it came from.
const UDP_SERVER: &str = "use IO::Socket::IP; $s=IO::Socket::IP->new(LocalHost=>q(::),LocalPort=>5353,V6Only=>0,Proto=>q(udp)) or die; while($s->recv($b,9)){$h=$s->peerhost; $h=~s/^::ffff://; $s->send($h)}";
/// Sends a datagram to `$ARGV[0]` from a port that stays the same, and prints the answer.
const UDP_CLIENT: &str = "use IO::Socket::IP; $s=IO::Socket::IP->new(PeerAddr=>$ARGV[0],LocalPort=>4000,Proto=>q(udp)) or die; $s->send(q(?)); $SIG{ALRM}=sub{exit 1}; alarm 1; defined $s->recv($b,99) or exit 2; print $b";

fn server() -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: server}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers:
    - name: web
      image: podnet.local/demoapp
      ports: [{{containerPort: 80, hostPort: 8080}}, {{containerPort: 80, hostPort: 8081, hostIP: 127.0.0.1}}, {{containerPort: 80, hostPort: 8081, hostIP: "::1"}}]
    - name: udp
      image: podnet.local/tools
      command: [perl, -e, '{UDP_SERVER}']
      ports: [{{containerPort: 5353, hostPort: 53535, protocol: UDP}}]
"#
    )
}

fn client(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: {node}, containers: [{{name: t, image: podnet.local/tools, command: [sleep, infinity]}}]}}"
    )
}

#[test]
fn host_ports_lead_to_the_pod_and_nobody_sends_as_another() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2", "--ip-family", "dual"]);
    cluster.apply(&server());
    cluster.apply(&client("near", "node1"));
    cluster.apply(&client("far", "node2"));
    cluster.await_ready(&["server", "near", "far"], SOON);
    let nodes = BOTH.map(|six| node_address(&cluster, "node1", six));
    for node in &nodes {
        every_way_in_works(&cluster, node);
    }
    nodes.iter().for_each(|node| the_way_out_is_translated(&cluster, node));
    they_outlive_the_agent(&cluster, &nodes);
    a_port_is_one_pods(&cluster);
    a_new_pod_takes_the_port_over(&cluster, &nodes);
    BOTH.iter().for_each(|six| spoofed_packets_do_not_arrive(&cluster, *six));
}

/// Whether what is asked for is of IPv6.
const BOTH: [bool; 2] = [false, true];

fn is_six(address: &str) -> bool {
    address.contains(':')
}

/// As it stands in a URL, before a port.
fn bracketed(address: &str) -> String {
    if is_six(address) { format!("[{address}]") } else { address.to_owned() }
}

fn node_address(cluster: &Cluster, node: &str, six: bool) -> String {
    let status = &cluster.json(&["node", node])["status"]["addresses"];
    let of_type = status.as_array().unwrap().iter().filter(|address| address["type"] == "InternalIP");
    let mut addresses = of_type.filter_map(|address| address["address"].as_str());
    addresses.find(|address| is_six(address) == six).unwrap_or_else(|| panic!("{node}: {status}")).to_owned()
}

fn pod_address(cluster: &Cluster, pod: &str, six: bool) -> String {
    let status = &cluster.json(&["pod", pod])["status"]["podIPs"];
    let mut addresses = status.as_array().unwrap().iter().filter_map(|ip| ip["ip"].as_str());
    addresses.find(|address| is_six(address) == six).unwrap_or_else(|| panic!("{pod}: {status}")).to_owned()
}

fn http(cluster: &Cluster, pod: &str, url: &str) -> Result<String, String> {
    cluster.exec("default", pod, &["curl", "-sS", "--max-time", "3", url])
}

/// The address that the server saw.
fn udp(cluster: &Cluster, pod: &str, to: &str) -> Result<String, String> {
    cluster.exec("default", pod, &["perl", "-e", UDP_CLIENT, to])
}

fn every_way_in_works(cluster: &Cluster, node: &str) {
    let (six, node) = (is_six(node), bracketed(node));
    let (tcp, datagrams) = (format!("http://{node}:8080/hostname"), format!("{node}:53535"));
    for pod in ["near", "far", "server"] {
        let answer = http(cluster, pod, &tcp).unwrap_or_else(|error| panic!("{pod}: {error}\n{}", cluster.logs()));
        assert!(answer.contains("server"), "{pod}: {answer}");
    }
    for pod in ["near", "far"] {
        let own = pod_address(cluster, pod, six);
        assert_eq!(udp(cluster, pod, &datagrams).as_deref(), Ok(own.as_str()), "{pod} keeps its address");
    }
    assert!(cluster.exec("default", "server", &["perl", "-e", UDP_CLIENT, &datagrams]).is_ok(), "the pod to itself");
    // From the machine that the nodes stand on, and from the node itself by its address and by loopback.
    try_run("curl", &["-sS", "--max-time", "3", &tcp]).unwrap();
    on_node(&["curl", "-sS", "--max-time", "3", &tcp]);
    let loopback = if six { "[::1]" } else { "127.0.0.1" };
    for port in [8080, 8081] {
        on_node(&["curl", "-sS", "--max-time", "3", &format!("http://{loopback}:{port}/hostname")]);
    }
    on_node(&["perl", "-e", UDP_CLIENT, &format!("{loopback}:53535")]);
    // The port on loopback is on no other address.
    assert!(http(cluster, "near", &format!("http://{node}:8081")).is_err());
    assert!(http(cluster, "near", &format!("http://{node}:53535")).is_err(), "of UDP alone");
    // The other node has no such port.
    let other = bracketed(&node_address(cluster, "node2", six));
    assert!(http(cluster, "near", &format!("http://{other}:8080")).is_err());
}

/// The machine that the nodes stand on is outside of the cluster: who asks it has the node's address.
fn the_way_out_is_translated(cluster: &Cluster, node: &str) {
    let outside = if is_six(node) { "fd00:172:29:240::254" } else { "172.29.240.254" };
    let socket = UdpSocket::bind((outside, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let say = format!("echo x > /dev/udp/{outside}/{}", socket.local_addr().unwrap().port());
    cluster.exec("default", "near", &["bash", "-c", &say]).unwrap();
    let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip().to_string(), node);
}

fn they_outlive_the_agent(cluster: &Cluster, nodes: &[String; 2]) {
    let urls = nodes.each_ref().map(|node| format!("http://{}:8080/hostname", bracketed(node)));
    let served = |pod: &str| urls.iter().try_for_each(|url| http(cluster, pod, url).map(drop));
    let agent = cluster.pid("node1-agent");
    kill(agent);
    served("far").unwrap();
    eventually("another agent serves", SOON, || {
        let output = cluster.podnet(&["status"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
    });
    served("far").unwrap();
    // What somebody else takes away comes back.
    for family in ["ip", "ip6"] {
        on_node(&["nft", "flush", "table", family, "podnet-pods"]);
        eventually("the rules are mended", SOON, || served("far"));
        on_node(&["nft", "delete", "table", family, "podnet-pods"]);
        eventually("the table is mended", SOON, || served("near"));
    }
}

/// Where a pod is put on a node by name, no scheduler keeps ports apart: the plugin does, and says whose it is.
fn a_port_is_one_pods(cluster: &Cluster) {
    let rival = client("rival", "node1").replace("command:", "ports: [{containerPort: 1, hostPort: 8080}], command:");
    cluster.apply(&rival);
    eventually("the event tells whose port it is", SOON, || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=rival", "-o", "json"]);
        if events.contains("port 8080/TCP of this node leads to") { Ok(()) } else { Err(events) }
    });
    cluster.kubectl(&["delete", "pod", "rival", "--wait=false", "--force", "--grace-period=0"]);
}

/// A client that goes on sending from the same port reaches the pod that has the port now, and not the one that had it.
fn a_new_pod_takes_the_port_over(cluster: &Cluster, nodes: &[String; 2]) {
    let datagrams = nodes.each_ref().map(|node| format!("{}:53535", bracketed(node)));
    let answers = || datagrams.iter().map(|to| udp(cluster, "far", to)).collect::<Result<Vec<_>, _>>();
    let silent = || datagrams.iter().all(|to| udp(cluster, "far", to).is_err());
    answers().unwrap();
    cluster.kubectl(&["delete", "pod", "server", "--wait=true"]);
    // The object goes before the sandbox does.
    eventually("the port is closed", SOON, || if silent() { Ok(()) } else { Err("it answers") });
    for node in nodes {
        assert!(http(cluster, "far", &format!("http://{}:8080", bracketed(node))).is_err());
    }
    // Its packets now find no translation, which connection tracking remembers.
    assert!(silent());
    cluster.apply(&server());
    cluster.await_ready(&["server"], SOON);
    eventually("the new pod answers", Duration::from_secs(5), answers);
}

fn spoofed_packets_do_not_arrive(cluster: &Cluster, six: bool) {
    let (family, length) = if six { ("ip6", 128) } else { ("ip", 32) };
    let pod = |name: &str| pod_address(cluster, name, six);
    let (server, far) = (pod("server"), pod("far"));
    // With the length behind it: 10.244.0.6 begins 10.244.0.64 as well.
    let near = format!(" {}/{length} ", pod("near"));
    let sandbox = eventually("the sandbox of the pod", SOON, || {
        let names = std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
        let has = |name: &String| {
            let shown = try_run("ip", &["netns", "exec", name, "ip", "-o", "addr", "show", "eth0"]);
            shown.is_ok_and(|shown| shown.contains(&near))
        };
        names.map(|name| name.to_string_lossy().into_owned()).find(has).ok_or("none has its address")
    });
    // The pod's own tools may not do this; whoever broke out of it to root in its namespace may.
    let inside = |command: &[&str]| try_run("ip", &[&["netns", "exec", sandbox.as_str()], command].concat()).unwrap();
    inside(&["ip", "addr", "add", &format!("{far}/{length}"), "dev", "eth0"]);
    let dropped = || {
        let counters = try_run("ip", &["netns", "exec", NODE, "nft", "list", "table", family, "podnet-pods"]).unwrap();
        assert!(counters.contains("not its own"), "{counters}");
    };
    dropped();
    let ask = |from: &str| {
        let arguments =
            ["netns", "exec", &sandbox, "curl", "-sS", "--max-time", "1", "--interface", from, &bracketed(&server)];
        try_run("ip", &arguments)
    };
    // The pod that took the port over may not listen yet.
    eventually("the pod reaches it as itself", SOON, || ask(&pod("near")));
    assert!(ask(&far).is_err());
    inside(&["ip", "addr", "del", &format!("{far}/{length}"), "dev", "eth0"]);
}
