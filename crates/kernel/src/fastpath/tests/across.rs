//! Pods of two nodes, with a VXLAN between them.

use super::*;

/// A node with one pod, and the programs at both of its devices.
struct Node {
    _netns: TestNs,
    pod: TestNs,
    fast_path: FastPath,
}

fn node(this: u8, other: u8, underlay: &TestNs) -> Node {
    let netns = TestNs::new(&format!("fp-across-node{this}"));
    prepare(&netns);
    netns.command(&format!("ip link add eth0 type veth peer name port{this} netns {}", name(underlay)));
    underlay.command(&format!("ip link set port{this} master bridge up"));
    netns.command(&format!("ip addr add 192.0.2.{this}/24 dev eth0"));
    netns.command("ip link set eth0 up");
    netns.command(&format!(
        "ip link add podnet.vxlan address 0e:00:00:00:00:0{this} mtu 1450 type vxlan id 7 dstport 4789 local 192.0.2.{this} nolearning"
    ));
    netns.command("ip link set podnet.vxlan up");
    let pod = TestNs::new(&format!("fp-across-pod{this}"));
    let interface = interface(&pod, this);
    interface.create(&mut RtSocket::open_in(&netns).unwrap()).unwrap();
    for addr in [v4(other), v6(other)] {
        let via = if addr.is_ipv4() { format!("192.0.2.{other}") } else { format!("fe80::{other}") };
        netns.command(&format!("ip route add {addr} via {via} dev podnet.vxlan onlink"));
        netns.command(&format!("ip neigh add {via} lladdr 0e:00:00:00:00:0{other} dev podnet.vxlan"));
    }
    netns.command(&format!("bridge fdb append 0e:00:00:00:00:0{other} dev podnet.vxlan dst 192.0.2.{other}"));
    echo(&pod);
    let fast_path = FastPath::load().unwrap();
    fast_path.live_for(MINUTE).unwrap();
    let mut socket = RtSocket::open_in(&netns).unwrap();
    assert!(fast_path.attach(&mut socket, &interface.host_ifname, Behind::Pod).unwrap());
    assert!(fast_path.attach(&mut socket, &"podnet.vxlan".into(), Behind::Nodes).unwrap());
    Node { _netns: netns, pod, fast_path }
}

fn name(namespace: &TestNs) -> String {
    namespace.path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn connections_between_nodes_pass_by_both_nodes_stacks() {
    let underlay = TestNs::new("fp-across-net");
    underlay.command("ip link add bridge type bridge");
    underlay.command("ip link set bridge up");
    let nodes = [node(1, 2, &underlay), node(2, 1, &underlay)];
    let forwarded = || nodes.each_ref().map(|node| node.fast_path.passed().unwrap().forwarded);
    for to in [v4(2), v6(2)] {
        let mut stream = tcp(&nodes[0].pod, to, 80);
        let before = forwarded();
        round_trips(&mut stream);
        let socket = udp(&nodes[0].pod, to, 80);
        datagrams(&socket, 1400);
        for (before, now) in before.iter().zip(forwarded()) {
            assert!(now - before >= 2 * NEARLY_ALL, "{} packets to {to}", now - before);
        }
    }
}
