//! The same cluster with IPv6 addresses: what holds of one family holds of the other.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use podnet_model::{Change, ClusterIp, Family, NodeAddr, PodAddr, Protocol, service::ServiceKind};

use super::{super::ServicesConfig, Tables, host, packet_table, rules_after};
use crate::{
    border::BorderConfig,
    ruleset::{
        BackendAddress, Set,
        walk::{Direction, Host, Packet},
    },
    services::packet_table::{Fate, NodeRules},
};

/// The IPv6 address that stands for one of IPv4; one of IPv6 stays what it is.
fn six(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => Ipv6Addr::from_bits(0xfd << 120 | u128::from(addr.to_bits())).into(),
        addr => addr,
    }
}

fn range_six(range: IpNet) -> IpNet {
    match (range, six(range.network())) {
        (IpNet::V4(range), IpAddr::V6(network)) => Ipv6Net::new_assert(network, range.prefix_len() + 96).into(),
        (range, _) => range,
    }
}

fn config(node: &str) -> (ServicesConfig, BorderConfig) {
    let (services, border) = packet_table::config(node);
    let node_addrs: Vec<_> = services.node_addrs.iter().map(|addr| NodeAddr(six(addr.0))).collect();
    let no_nat_cidrs = border.no_nat_cidrs.iter().copied().map(range_six).collect();
    let services = ServicesConfig { family: Family::V6, node_addrs: node_addrs.clone(), ..services };
    (services, BorderConfig { family: Family::V6, node_addrs, no_nat_cidrs, ..border })
}

fn change_six(mut change: Change) -> Change {
    match &mut change {
        Change::Node(_, Some(node)) => node.addr = NodeAddr(six(node.addr.0)),
        Change::Pod(_, Some(pod)) => pod.addrs.iter_mut().for_each(|addr| *addr = PodAddr(six(addr.0))),
        Change::Pool(_, Some(pool)) => pool.cidr = range_six(pool.cidr),
        Change::Slice(_, Some(slice)) => {
            slice.endpoints.iter_mut().for_each(|endpoint| endpoint.addr = PodAddr(six(endpoint.addr.0)));
        }
        Change::Service(_, Some(service)) => {
            if let ServiceKind::Virtual { cluster_ips } = &mut service.kind {
                cluster_ips.iter_mut().for_each(|ip| *ip = ClusterIp(six(ip.0)));
            }
        }
        _ => {}
    }
    change
}

fn rules_six(node: &str) -> Tables {
    let changes: Vec<Change> = packet_table::changes().into_iter().map(change_six).collect();
    rules_after(&mut NodeRules::new(config(node)), &changes)
}

fn fate_six(fate: Fate) -> Fate {
    match fate {
        Fate::Arrives(at) => {
            let six =
                |(to, masqueraded): (BackendAddress, bool)| (BackendAddress { addr: six(to.addr), ..to }, masqueraded);
            Fate::Arrives(at.into_iter().map(six).collect())
        }
        Fate::Rejected => Fate::Rejected,
    }
}

#[test]
fn every_packet_of_the_table_meets_its_fate_in_ipv6_too() {
    for node in packet_table::NODES {
        let rules = rules_six(node);
        rules.validate();
        let local = host(node).local_addresses.into_iter().map(six);
        let host = Host::new(local);
        for row in packet_table::rows().into_iter().filter(|row| row.node == node) {
            let packet = Packet { src: six(row.packet.src), dst: six(row.packet.dst), ..row.packet };
            let fate = Fate::of(&rules.walk(&packet, row.direction, &host));
            assert_eq!(fate, Some(fate_six(row.fate.clone())), "{row}");
        }
    }
}

/// The way that a cluster has whose Services are of IPv4 and whose pods have both: pods' way out is translated, and that is all.
#[test]
fn what_is_of_the_other_family_is_nothing_to_a_table() {
    let mut services = NodeRules::new(config("node1"));
    let is_of_both = |change: &Change| matches!(change, Change::Service(key, _) if &*key.name == "sixonly");
    let changes: Vec<Change> = packet_table::changes().into_iter().filter(|change| !is_of_both(change)).collect();
    let rules = rules_after(&mut services, &changes);
    let mut nothing = NodeRules::new(config("node1")).desired();
    // A tunnel's port is that of packets of either family.
    for set in ["tunnels", "open-tunnels"] {
        nothing[1].sets.insert(set.into(), Set::Ports([4789].into()));
    }
    assert_eq!(rules.0, nothing);
    assert!(!services.services.is_needed() && !services.border.is_needed());

    let pools = packet_table::changes().into_iter().filter(|change| matches!(change, Change::Pool(..)));
    let pools: Vec<Change> = pools.map(change_six).collect();
    let mut rules = rules;
    for change in &pools {
        rules.apply(&services.apply(change).1).unwrap();
    }
    assert!(services.border.is_needed());
    let address = |name| six(packet_table::address(name).unwrap());
    let masqueraded = |dst| {
        let packet = Packet::opening(address("client1"), address(dst), Protocol::Udp, 7);
        rules.walk(&packet, Direction::FromPod, &Host::new([address("node1")])).masqueraded()
    };
    assert!(masqueraded("visitor"));
    assert!(!masqueraded("web2"), "another pod");
    assert!(!masqueraded("partner"), "excluded by the node's configuration");
}
