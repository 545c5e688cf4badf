//! Ports of the node that lead to pods, and senders that claim to be others, in a cluster.

use std::time::Duration;

use podnet_testnet::{Cluster, eventually};

use crate::{NODE, PODNET, SOON, kill, on_node, try_run};

/// Answers each datagram with the address that it came from.
const UDP_SERVER: &str = "use IO::Socket::INET; $s=IO::Socket::INET->new(LocalPort=>5353,Proto=>q(udp)) or die; while($s->recv($b,9)){$s->send($s->peerhost)}";
/// Sends a datagram to `$ARGV[0]` from a port that stays the same, and prints the answer.
const UDP_CLIENT: &str = "use IO::Socket::INET; $s=IO::Socket::INET->new(PeerAddr=>$ARGV[0],LocalPort=>4000,Proto=>q(udp)) or die; $s->send(q(?)); $SIG{ALRM}=sub{exit 1}; alarm 1; defined $s->recv($b,99) or exit 2; print $b";

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
      ports: [{{containerPort: 80, hostPort: 8080}}, {{containerPort: 80, hostPort: 8081, hostIP: 127.0.0.1}}]
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
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply(&server());
    cluster.apply(&client("near", "node1"));
    cluster.apply(&client("far", "node2"));
    cluster.await_ready(&["server", "near", "far"], SOON);
    let node = cluster.json(&["node", "node1"])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();

    every_way_in_works(&cluster, &node);
    they_outlive_the_agent(&cluster, &node);
    a_port_is_one_pods(&cluster);
    a_new_pod_takes_the_port_over(&cluster, &node);
    spoofed_packets_do_not_arrive(&cluster);
}

fn http(cluster: &Cluster, pod: &str, url: &str) -> Result<String, String> {
    cluster.exec("default", pod, &["curl", "-sS", "--max-time", "3", url])
}

/// The address that the server saw.
fn udp(cluster: &Cluster, pod: &str, to: &str) -> Result<String, String> {
    cluster.exec("default", pod, &["perl", "-e", UDP_CLIENT, to])
}

fn every_way_in_works(cluster: &Cluster, node: &str) {
    let (tcp, datagrams) = (format!("http://{node}:8080/hostname"), format!("{node}:53535"));
    for pod in ["near", "far", "server"] {
        let answer = http(cluster, pod, &tcp).unwrap_or_else(|error| panic!("{pod}: {error}\n{}", cluster.logs()));
        assert!(answer.contains("server"), "{pod}: {answer}");
    }
    for pod in ["near", "far"] {
        let own = cluster.json(&["pod", pod])["status"]["podIP"].as_str().unwrap().to_owned();
        assert_eq!(udp(cluster, pod, &datagrams).as_deref(), Ok(own.as_str()), "{pod} keeps its address");
    }
    assert!(cluster.exec("default", "server", &["perl", "-e", UDP_CLIENT, &datagrams]).is_ok(), "the pod to itself");
    // From the machine that the nodes stand on, and from the node itself by its address and by loopback.
    try_run("curl", &["-sS", "--max-time", "3", &tcp]).unwrap();
    on_node(&["curl", "-sS", "--max-time", "3", &tcp]);
    for port in [8080, 8081] {
        on_node(&["curl", "-sS", "--max-time", "3", &format!("http://127.0.0.1:{port}/hostname")]);
    }
    on_node(&["perl", "-e", UDP_CLIENT, "127.0.0.1:53535"]);
    // The port on loopback is on no other address.
    assert!(http(cluster, "near", &format!("http://{node}:8081")).is_err());
    assert!(http(cluster, "near", &format!("http://{node}:53535")).is_err(), "of UDP alone");
    // The other node has no such port.
    let other = cluster.json(&["node", "node2"])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
    assert!(http(cluster, "near", &format!("http://{other}:8080")).is_err());
}

fn they_outlive_the_agent(cluster: &Cluster, node: &str) {
    let url = format!("http://{node}:8080/hostname");
    let agent = cluster.pid("node1-agent");
    kill(agent);
    http(cluster, "far", &url).unwrap();
    eventually("another agent serves", SOON, || {
        let output = cluster.podnet(&["status"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
    });
    http(cluster, "far", &url).unwrap();
    // What somebody else takes away comes back.
    on_node(&["nft", "flush", "table", "ip", "podnet-pods"]);
    eventually("the rules are mended", SOON, || http(cluster, "far", &url));
    on_node(&["nft", "delete", "table", "ip", "podnet-pods"]);
    eventually("the table is mended", SOON, || http(cluster, "near", &url));
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
fn a_new_pod_takes_the_port_over(cluster: &Cluster, node: &str) {
    let datagrams = format!("{node}:53535");
    udp(cluster, "far", &datagrams).unwrap();
    cluster.kubectl(&["delete", "pod", "server", "--wait=true"]);
    // The object goes before the sandbox does.
    eventually("the port is closed", SOON, || match udp(cluster, "far", &datagrams) {
        Ok(answer) => Err(answer),
        Err(_) => Ok(()),
    });
    assert!(http(cluster, "far", &format!("http://{node}:8080")).is_err());
    // Its packets now find no translation, which connection tracking remembers.
    assert!(udp(cluster, "far", &datagrams).is_err());
    cluster.apply(&server());
    cluster.await_ready(&["server"], SOON);
    eventually("the new pod answers", Duration::from_secs(5), || udp(cluster, "far", &datagrams));
}

fn spoofed_packets_do_not_arrive(cluster: &Cluster) {
    let pod = |name: &str| cluster.json(&["pod", name])["status"]["podIP"].as_str().unwrap().to_owned();
    let (server, far) = (pod("server"), pod("far"));
    let sandbox = eventually("the sandbox of the pod", SOON, || {
        let names = std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
        let has = |name: &String| {
            let shown = try_run("ip", &["netns", "exec", name, "ip", "-o", "-4", "addr", "show", "eth0"]);
            shown.is_ok_and(|shown| shown.contains(&pod("near")))
        };
        names.map(|name| name.to_string_lossy().into_owned()).find(has).ok_or("none has its address")
    });
    // The pod's own tools may not do this; whoever broke out of it to root in its namespace may.
    let inside = |command: &[&str]| try_run("ip", &[&["netns", "exec", sandbox.as_str()], command].concat()).unwrap();
    inside(&["ip", "addr", "add", &format!("{far}/32"), "dev", "eth0"]);
    let dropped = || {
        let counters = try_run("ip", &["netns", "exec", NODE, "nft", "list", "table", "ip", "podnet-pods"]).unwrap();
        assert!(counters.contains("not its own"), "{counters}");
    };
    dropped();
    let ask = |from: &str| {
        let arguments = ["netns", "exec", &sandbox, "curl", "-sS", "--max-time", "1", "--interface", from, &server];
        try_run("ip", &arguments)
    };
    assert!(ask(&pod("near")).is_ok());
    assert!(ask(&far).is_err());
    inside(&["ip", "addr", "del", &format!("{far}/32"), "dev", "eth0"]);
}
