//! Pods on a bridge of their node: to a neighbour a packet passes other devices than to all else, and those are the ones that a trace names.

use std::net::IpAddr;

use podnet_kernel::{
    netlink::RtSocket,
    pod_interface::{NodeBridge, OnBridge, PodInterface},
    sysctl,
};
use podnet_model::{
    Block, BlockCidr, Change, EncapMode, Family, HOST_MAC, Mac, Node, NodeAddr, NodeName, PodKey, Protocol, proxy::Mode,
};
use podnet_planner::trace::{Cluster, Facts, Link, Target};

use crate::{
    lab,
    namespace::Namespace,
    traced::{passes_as_traced, pod, serve, service},
};

const BRIDGE: &str = "cni0";
/// By IPv4 the block is a segment to the pods on the bridge.
const BLOCK: &str = "10.233.1.0/26";
const MTU: u32 = 1500;

/// A pod and its link.
struct Attached {
    key: PodKey,
    namespace: Namespace,
    addrs: [IpAddr; 2],
    link: Link,
}

impl Attached {
    /// On the bridge, or with a link of its own.
    fn new(host: &mut RtSocket, name: &str, number: u8, is_on_bridge: bool) -> Self {
        let namespace = Namespace::new(&format!("bridge-{name}"));
        let addrs: [IpAddr; 2] =
            [format!("10.233.1.{number}"), format!("fd00:233::1:{number}")].map(|addr| addr.parse().unwrap());
        let bridge = is_on_bridge.then(|| OnBridge {
            bridge: BRIDGE.into(),
            hairpin: true,
            segments: vec![BLOCK.parse().unwrap()],
            gateways: gateways(),
        });
        let routed = Link::routed(format!("pn-{name}").into());
        let link = match &bridge {
            Some(on) => Link { bridge: Some(on.bridge.clone()), segments: on.segments.clone(), ..routed },
            None => routed,
        };
        let interface = PodInterface {
            netns: namespace.netns.clone(),
            container_ifname: "eth0".into(),
            host_ifname: link.device.clone(),
            addr: addrs.to_vec(),
            routes: Vec::new(),
            mtu: MTU,
            pod_mac: Mac([2, 0, 0, 0, 1, number]),
            host_mac: HOST_MAC,
            bridge,
        };
        interface.create(host).unwrap();
        Self { key: PodKey::new("default", name), namespace, addrs, link }
    }
}

fn gateways() -> Vec<ipnet::IpNet> {
    ["169.254.1.1/32", "fe80::1/128"].map(|net| net.parse().unwrap()).into()
}

/// Whether all of what passes the bridge is shown to rules (`br_netfilter`) from now on, or none of it. A kernel without br_netfilter has no such
/// settings.
fn is_shown(node: &Namespace, value: &str) -> bool {
    let set = |key: &str| sysctl::set(&node.netns, &format!("net.bridge.{key}"), value).is_ok();
    let [four, six] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"].map(set);
    four && six
}

/// The cluster that the node and its pods are, and a Service of each family whose endpoint is the second pod.
fn cluster(name: &NodeName, pods: &[Attached], services: [IpAddr; 2], shows_bridged: [bool; 2]) -> Cluster {
    let own: ipnet::IpNet = "192.0.2.1/24".parse().unwrap();
    let node = Node { subnet: Some(own), ..Node::new(name.clone(), NodeAddr(own.addr())) };
    let block = BlockCidr(BLOCK.parse().unwrap());
    let mut changes = vec![
        Change::Node(name.clone(), Some(node)),
        Change::Block(block, Some(Block::new(block, Some(name.clone())))),
        lab::pool(EncapMode::Never, EncapMode::Never),
    ];
    changes.extend(pods.iter().map(|attached| pod(&attached.key, name.clone(), &attached.addrs)));
    changes.extend(service("near", services, &pods[1].addrs));
    let links = pods.iter().flat_map(|pod| pod.addrs.map(|addr| (addr, pod.link.clone())));
    let facts = Facts { links: links.collect(), shows_bridged, ..Facts::new("eth0".into(), MTU, Mode::Nftables) };
    Cluster::new(changes, [(name.clone(), facts)].into())
}

#[test]
fn to_a_neighbour_on_a_bridge_and_by_it_to_all_else_packets_pass_as_traced() {
    let node = Namespace::new("bridge-node");
    // What a masqueraded packet has as its source.
    node.command("ip addr add 192.0.2.1/32 dev lo");
    let mut host = RtSocket::open_in(&node.netns).unwrap();
    let bridge = NodeBridge { name: BRIDGE.into(), mac: HOST_MAC, mtu: MTU, gateways: gateways(), has_ipv6: true };
    bridge.prepare(&mut host, false).unwrap();
    let _ = is_shown(&node, "0");
    let pods = [("own", 5, true), ("near", 6, true), ("routed", 7, false)]
        .map(|(name, number, is_on_bridge)| Attached::new(&mut host, name, number, is_on_bridge));
    let services: [IpAddr; 2] = ["10.96.0.1", "fd00:96::1"].map(|addr| addr.parse().unwrap());
    let name = NodeName::from("node1");
    let shown = cluster(&name, &pods, services, [true; 2]);
    let cluster = cluster(&name, &pods, services, [false; 2]);
    for family in Family::ALL {
        serve(&cluster, &name, &node, family);
    }
    let mut places = vec![(name.to_string(), &node)];
    places.extend(pods.iter().map(|pod| (pod.key.name.to_string(), &pod.namespace)));
    let [own, near, routed] = &pods;
    // In the place of who has a link of its own, though an address of the segment, the node answers.
    for addr in near.addrs.into_iter().chain(routed.addrs).chain(services) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            passes_as_traced(&cluster, &places, &own.key, Target { addr, protocol, port: 80 });
        }
    }
    // By now the kernel has cached the neighbour's Ethernet header, without which the first packet would leave by the bridge's own device.
    if is_shown(&node, "1") {
        for addr in services {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                passes_as_traced(&shown, &places, &own.key, Target { addr, protocol, port: 80 });
            }
        }
    }
}
