//! The same cluster with IPv6 addresses: what holds of one family holds of the other.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_model::{Change, Protocol};

use super::{
    Tables, holds,
    packet_table::{
        self, NodeRules,
        six::{self, config},
    },
    rules_after,
};
use crate::ruleset::{
    Set,
    walk::{Direction, Host, Packet},
};

#[test]
fn every_packet_of_the_table_meets_its_fate_in_ipv6_too() {
    for node in packet_table::NODES {
        let rules = rules_after(&mut NodeRules::new(config(node)), &six::changes());
        rules.validate();
        let host = Host::new(six::address(node));
        for row in six::rows().into_iter().filter(|row| row.node == node) {
            holds(&rules, &row, &host);
        }
    }
}

/// The rows are of objects of each family for itself; these are the same objects for both.
#[test]
fn a_service_of_both_families_has_in_each_the_endpoints_of_its_slices() {
    let (mut of_four, mut of_six) = (NodeRules::new(packet_table::config("node1")), NodeRules::new(config("node1")));
    let [four, by_six] = [&mut of_four, &mut of_six].map(|rules| rules_after(rules, &packet_table::changes()));
    let backends = |rules: &Tables, of: fn(&str) -> Option<IpAddr>, to: &str| -> BTreeSet<IpAddr> {
        let packet = Packet::opening(of("client1").unwrap(), of(to).unwrap(), Protocol::Tcp, 80);
        let journey = rules.walk(&packet, Direction::FromPod, &Host::new(of("node1")));
        journey.outcomes.iter().map(|outcome| outcome.destination.addr).collect()
    };
    let all = |names: [&str; 2], of: fn(&str) -> Option<IpAddr>| names.map(|name| of(name).unwrap()).into();
    for to in ["both", "both-ip"] {
        assert_eq!(backends(&four, packet_table::address, to), all(["web1", "web2"], packet_table::address), "{to}");
    }
    assert_eq!(backends(&by_six, six::address, "both"), all(["shop1", "web2"], six::address));
}

/// The way that a cluster has whose Services are of IPv4 and whose pods have both: pods' way out is translated, and that is all.
#[test]
fn what_is_of_the_other_family_is_nothing_to_a_table() {
    let mut services = NodeRules::new(config("node1"));
    let names = ["sixonly", "both"];
    let is_of_both = |change: &Change| matches!(change, Change::Service(key, _) if names.contains(&&*key.name));
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
    let pools: Vec<Change> = pools.map(six::change_six).collect();
    let mut rules = rules;
    for change in &pools {
        rules.apply(&services.apply(change).1).unwrap();
    }
    assert!(services.border.is_needed());
    let address = |name| six::address(name).unwrap();
    let masqueraded = |dst| {
        let packet = Packet::opening(address("client1"), address(dst), Protocol::Udp, 7);
        rules.walk(&packet, Direction::FromPod, &Host::new([address("node1")])).masqueraded()
    };
    assert!(masqueraded("visitor"));
    assert!(!masqueraded("web2"), "another pod");
    assert!(!masqueraded("partner"), "excluded by the node's configuration");
}
