//! Ports of a node that lead to a pod.

use podnet_model::{Change, EncapMode, Node, NodeAddr, cni::PortMapping, proxy::Mode};

use super::{super::*, pod, pool};
use crate::{attachments::TABLE, ruleset::BackendAddress};

const MODES: [Mode; 5] = [Mode::Nftables, Mode::Iptables, Mode::Ipvs, Mode::Userspace, Mode::Ebpf];
const NODE: &str = "192.0.2.11";

/// A node whose port 8080 of TCP leads to its pod's port 80, at this address of the node; what else is on the node does not.
fn cluster(mode: Mode, host_ip: &str) -> Cluster {
    let port =
        PortMapping { host_ip: host_ip.parse().unwrap(), protocol: Protocol::Tcp, host_port: 8080, container_port: 80 };
    let link = |device: &str, ports| Link { ports, ..Link::routed(device.into()) };
    let links = [("10.1.1.5", link("pn-one", vec![port])), ("10.1.1.6", link("pn-two", Vec::new()))];
    let links = links.map(|(addr, link)| (addr.parse::<IpAddr>().unwrap(), link)).into();
    let facts = Facts { links, ..Facts::new("eth0".into(), 1500, mode) };
    let node = Node { subnet: Some("192.0.2.11/24".parse().unwrap()), ..Node::new("node1".into(), addr(NODE)) };
    let range = pool(EncapMode::Never, EncapMode::Never);
    let changes = vec![
        Change::Node("node1".into(), Some(node)),
        Change::Pool(range.name.clone(), Some(range)),
        pod("p1", "node1", "10.1.1.5"),
        pod("p2", "node1", "10.1.1.6"),
    ];
    Cluster::new(changes, [(NodeName::from("node1"), facts)].into())
}

fn addr(text: &str) -> NodeAddr {
    NodeAddr(text.parse().unwrap())
}

fn world() -> Source {
    Source::World("203.0.113.9".parse().unwrap(), "node1".into())
}

/// The only way there.
fn path(cluster: &Cluster, from: &Source, to: (&str, u16), protocol: Protocol) -> Path {
    let target = Target { addr: to.0.parse().unwrap(), protocol, port: to.1 };
    let mut paths = cluster.trace(from, target).unwrap().paths;
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths.remove(0)
}

fn of_kind(path: &Path, kind: Kind) -> Option<&Hop> {
    path.hops.iter().find(|hop| hop.kind == kind)
}

#[test]
fn a_port_of_the_node_leads_to_its_pod_by_the_same_rule_in_every_mode() {
    for mode in MODES {
        let path = path(&cluster(mode, "0.0.0.0"), &world(), (NODE, 8080), Protocol::Tcp);
        assert_eq!(path.end, End { verdict: Verdict::Arrives, why: "pod default/p1 on node node1".into() }, "{mode}");
        let there = BackendAddress { addr: "10.1.1.5".parse().unwrap(), port: 80 };
        assert_eq!((path.destination, path.source.to_string()), (there, "203.0.113.9".to_owned()), "{mode}");
        let translated = of_kind(&path, Kind::Translated).unwrap();
        assert_eq!(translated.object, Some(Object::namespaced("pod", "default", "p1")), "{mode}");
        let rule = translated.rule.as_deref().unwrap();
        let words = "prerouting ports-from-outside: ports of all of the node's addresses";
        assert!(rule.starts_with(&format!("nftables, table {TABLE}, {words}")), "{mode}: {rule}");
        assert!(translated.cost.as_deref().is_some_and(|cost| cost.contains("connection tracking")), "{mode}");
    }
}

#[test]
fn another_port_and_another_protocol_and_another_address_of_the_node_are_the_nodes_own() {
    for (host_ip, port, protocol) in
        [("0.0.0.0", 8081, Protocol::Tcp), ("0.0.0.0", 8080, Protocol::Udp), ("127.0.0.1", 8080, Protocol::Tcp)]
    {
        let path = path(&cluster(Mode::Nftables, host_ip), &world(), (NODE, port), protocol);
        assert_eq!(of_kind(&path, Kind::Translated), None, "{host_ip} {port}/{protocol}");
        assert_eq!((path.end.verdict, path.destination.port), (Verdict::Arrives, port), "{host_ip} {port}/{protocol}");
        assert!(!path.end.why.contains("pod"), "{}", path.end.why);
    }
}

#[test]
fn who_would_be_answered_past_the_node_is_asked_for_by_it() {
    let own = Source::Pod(PodKey::new("default", "p1"));
    let other = Source::Pod(PodKey::new("default", "p2"));
    let node = Source::Node("node1".into());
    for mode in MODES {
        let cluster = cluster(mode, "0.0.0.0");
        for (from, to, comment) in [
            (&own, NODE, "a pod to itself by a port of the node"),
            (&node, "127.0.0.1", "the node's loopback to a pod"),
        ] {
            let path = path(&cluster, from, (to, 8080), Protocol::Tcp);
            assert_eq!((path.end.verdict, path.source.to_string().as_str()), (Verdict::Arrives, NODE), "{mode} {to}");
            let masqueraded = of_kind(&path, Kind::Masqueraded).unwrap();
            let rule = masqueraded.rule.as_deref().unwrap();
            assert!(rule.contains(TABLE) && rule.contains(comment), "{mode} {to}: {rule}");
            assert!(masqueraded.cost.as_deref().is_some_and(|cost| cost.contains("nothing more")), "{mode} {to}");
            assert_eq!(masqueraded.object, Some(Object::namespaced("pod", "default", "p1")), "{mode} {to}");
        }
        let path = path(&cluster, &other, (NODE, 8080), Protocol::Tcp);
        assert_eq!((path.end.verdict, of_kind(&path, Kind::Masqueraded)), (Verdict::Arrives, None), "{mode}");
        assert_eq!(path.source.to_string(), "10.1.1.6", "{mode}");
    }
}
