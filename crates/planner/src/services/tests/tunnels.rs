//! No pod sends into the nodes' tunnels.

use podnet_model::{Felix, NetConf, flannel::Backend};

use super::*;
use crate::ruleset::{Match, Set};

const WIREGUARD: u16 = 51_820;

fn net_conf(backend: Backend) -> Change {
    let networks = podnet_model::Dual { v4: packet_table::POD_CIDR.parse().ok(), v6: None };
    Change::NetConf("kube-flannel".into(), Some(NetConf { networks, subnet_len: 24, backend }))
}

fn felix(wireguard: bool) -> Change {
    Change::Felix(Some(Felix { wireguard, wireguard_port: WIREGUARD }))
}

/// Whether a datagram passes, and whether TCP to the same port does.
fn pass(rules: &Tables, direction: Direction, (src, dst, port): (&str, &str, u16)) -> [bool; 2] {
    let at = |name| packet_table::address(name).unwrap();
    [Protocol::Udp, Protocol::Tcp].map(|protocol| {
        let packet = Packet::opening(at(src), at(dst), protocol, port);
        rules.walk(&packet, direction, &host("node1")).verdict() == Some(Verdict::Accepted)
    })
}

#[test]
fn what_a_pod_sends_to_a_tunnel_is_dropped_wherever_a_node_may_have_it() {
    use Direction::{FromHost, FromOutside, FromPod};
    let mut changes = packet_table::changes();
    changes.extend([net_conf(Backend::Udp { port: 8285 }), felix(true)]);
    let rules = rules_after(&mut on("node1"), &changes);
    for (direction, src, dst, port, passes) in [
        (FromPod, "client1", "node1", 8285, false),
        (FromPod, "client1", "node2", 8285, false),
        (FromPod, "plain1", "node2", 8285, false),
        // Nodes have addresses that nobody else knows of.
        (FromPod, "client1", "visitor", 8285, false),
        (FromPod, "client1", "client2", 8285, true),
        (FromPod, "client1", "node1", 8286, true),
        (FromPod, "client1", "node1", WIREGUARD, false),
        // A pod may have a tunnel of its own to elsewhere.
        (FromPod, "client1", "visitor", WIREGUARD, true),
        (FromOutside, "client2", "node1", 8285, false),
        (FromOutside, "client2", "node1", WIREGUARD, false),
        (FromOutside, "node2", "node1", 8285, true),
        (FromOutside, "node2", "node1", WIREGUARD, true),
        (FromHost, "node1", "node2", 8285, true),
    ] {
        let found = pass(&rules, direction, (src, dst, port));
        assert_eq!(found, [passes, true], "{src} to {dst}:{port}");
    }
}

#[test]
fn a_node_with_an_address_in_a_range_of_pods_is_a_node() {
    let mut changes = packet_table::changes();
    let Some(Change::Node(name, Some(mut node))) =
        changes.iter().rfind(|change| matches!(change, Change::Node(..))).cloned()
    else {
        unreachable!()
    };
    node.addr.0 = packet_table::address("client3").unwrap();
    changes.extend([Change::Node(name, Some(node)), net_conf(Backend::Udp { port: 8285 })]);
    let rules = rules_after(&mut on("node1"), &changes);
    assert_eq!(pass(&rules, Direction::FromOutside, ("client3", "node1", 8285)), [true, true]);
    assert_eq!(pass(&rules, Direction::FromOutside, ("client2", "node1", 8285)), [false, true]);
}

/// The ports are those of the tunnels that the cluster has, and no others.
#[test]
fn a_port_is_a_tunnels_while_there_is_the_tunnel() {
    let mut services = on("node1");
    let mut rules = services.desired()[1].clone();
    let pool = |vxlan| {
        let mut pools = packet_table::changes().into_iter();
        let mut pool = pools.rfind(|change| matches!(change, Change::Pool(..))).unwrap();
        if let Change::Pool(_, Some(pool)) = &mut pool {
            pool.vxlan = vxlan;
        }
        pool
    };
    let vxlan = Backend::Vxlan { vni: 1, port: 8472, direct_routing: false };
    use podnet_model::EncapMode::{Always, CrossSubnet, Never};
    for (change, all, open) in [
        (pool(Never), &[][..], &[][..]),
        (pool(CrossSubnet), &[4789], &[4789]),
        (net_conf(vxlan), &[4789, 8472], &[4789, 8472]),
        (pool(Always), &[4789, 8472], &[4789, 8472]),
        (felix(true), &[4789, 8472, WIREGUARD], &[4789, 8472]),
        (net_conf(Backend::WireGuard { port: 7000 }), &[4789, 7000, WIREGUARD], &[4789]),
        (felix(false), &[4789, 7000], &[4789]),
        (net_conf(Backend::HostGw), &[4789], &[4789]),
        (pool(Never), &[], &[]),
    ] {
        rules.apply(&services.apply(&change).1.1).unwrap();
        assert_eq!(rules, services.desired()[1]);
        let ports = |ports: &[u16]| Set::Ports(ports.iter().copied().collect());
        assert_eq!((&rules.sets["tunnels"], &rules.sets["open-tunnels"]), (&ports(all), &ports(open)), "{change:?}");
    }
    let ipip = |chain: &str| rules.chains[chain].rules.iter().any(|rule| rule.matches.contains(&Match::Protocol(4)));
    assert!(ipip("filter-input") && ipip("filter-forward"));
}
