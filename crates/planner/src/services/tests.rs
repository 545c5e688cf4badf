//! Services as the specification tells them; the sequences are in [`sequences`], the cost in [`cost`].

mod cost;
mod sequences;
mod six;
mod tunnels;

use std::net::Ipv4Addr;

use podnet_model::{Change, Protocol, ServiceKey, SliceKey};

use super::{
    Conflict, Plan, Services,
    packet_table::{self, Fate},
};
use crate::ruleset::{
    BackendAddress, Edit, FrontendKey, RuleSet, diff,
    walk::{Connection, Direction, Host, Packet, Verdict, walk},
};

/// The rules that a node ends up with, by edits.
fn rules_after(services: &mut Services, changes: &[Change]) -> RuleSet {
    let mut rules = services.initial();
    for change in changes {
        rules.apply(&services.apply(change).edits).unwrap();
    }
    rules
}

fn cluster_rules(node: &str) -> RuleSet {
    rules_after(&mut Services::new(packet_table::config(node)), &packet_table::changes())
}

fn host(node: &str) -> Host {
    Host::new(packet_table::address(node))
}

fn key(name: &str, protocol: Protocol, port: u16) -> FrontendKey {
    FrontendKey { addr: packet_table::address(name).unwrap(), protocol, port }
}

#[test]
fn every_packet_of_the_table_meets_its_fate() {
    let rows = packet_table::rows();
    assert!(rows.len() >= 80, "{} rows", rows.len());
    for node in packet_table::NODES {
        let rules = cluster_rules(node);
        for row in rows.iter().filter(|row| row.node == node) {
            let journey = walk(&rules, &row.packet, row.direction, &host(node));
            let fate = Fate::of(&journey);
            assert_eq!(fate.as_ref(), Some(&row.fate), "{row}\n{journey:#?}");
        }
    }
}

#[test]
fn the_order_of_the_changes_does_not_matter_to_any_packet() {
    let mut changes = packet_table::changes();
    changes.reverse();
    let rules = rules_after(&mut Services::new(packet_table::config("node1")), &changes);
    for row in packet_table::rows().iter().filter(|row| row.node == "node1") {
        assert_eq!(
            Fate::of(&walk(&rules, &row.packet, row.direction, &host("node1"))).as_ref(),
            Some(&row.fate),
            "{row}"
        );
    }
}

#[test]
fn what_the_edits_make_is_valid_and_is_what_a_restart_wants() {
    for node in packet_table::NODES {
        let mut services = Services::new(packet_table::config(node));
        let rules = rules_after(&mut services, &packet_table::changes());
        assert_eq!(rules.validate(), Ok(()));
        assert_eq!(rules, services.desired());
    }
}

#[test]
fn when_all_objects_vanish_no_element_is_left() {
    let mut services = Services::new(packet_table::config("node1"));
    let changes = packet_table::changes();
    let vanish = |change: &Change| match change.clone() {
        Change::Node(key, _) => Change::Node(key, None),
        Change::Pod(key, _) => Change::Pod(key, None),
        Change::Service(key, _) => Change::Service(key, None),
        Change::Slice(key, _) => Change::Slice(key, None),
        Change::Pool(key, _) => Change::Pool(key, None),
        Change::Block(key, _) => Change::Block(key, None),
        Change::Namespace(key, _) => Change::Namespace(key, None),
        Change::Reservation(key, _) => Change::Reservation(key, None),
        Change::IpamSettings(_) => Change::IpamSettings(None),
        Change::NetConf(key, _) => Change::NetConf(key, None),
        Change::Felix(_) => Change::Felix(None),
        Change::Proxy(_) => Change::Proxy(None),
        Change::Sticky(key, _) => Change::Sticky(key, Vec::new()),
    };
    let there_and_back: Vec<Change> = changes.iter().cloned().chain(changes.iter().map(vanish)).collect();
    let mut rules = rules_after(&mut services, &there_and_back);
    rules.chains.retain(|name, _| services.initial().chains.contains_key(name));
    assert_eq!(rules, services.initial());
    assert!(services.services.is_empty() && services.frontends.is_empty() && services.slice_owners.is_empty());
}

#[test]
fn there_are_no_chains_or_rules_per_service() {
    let rules = cluster_rules("node1");
    let mut names: Vec<&str> = rules.chains.keys().map(|name| &**name).collect();
    names.sort_unstable();
    let expected = [
        "filter-forward",
        "filter-input",
        "filter-output",
        "masq-1",
        "masq-2",
        "output",
        "postrouting",
        "prerouting",
        "reject",
        "services",
        "svc-1",
        "svc-2",
        "svc-3",
        "unserved",
    ];
    assert_eq!(names, expected);
}

#[test]
fn conflicts_name_the_first_service_as_the_winner_and_end_with_it() {
    let mut services = Services::new(packet_table::config("node1"));
    let mut rules = rules_after(&mut services, &packet_table::changes());
    let (first, second) = (ServiceKey::new("default", "rival-a"), ServiceKey::new("default", "rival-b"));
    let conflict = |frontend| Conflict { frontend, winner: first.clone(), losers: vec![second.clone()] };
    let contested = [key("shared", Protocol::Tcp, 80), key("node1", Protocol::Tcp, 30099)];
    assert_eq!(services.conflicts(), contested.map(conflict));

    rules.apply(&services.apply(&Change::Service(first, None)).edits).unwrap();
    assert_eq!(services.conflicts(), []);
    let packet = Packet::opening(Ipv4Addr::new(10, 233, 64, 1), contested[0].addr, Protocol::Tcp, 80);
    let journey = walk(&rules, &packet, Direction::FromPod, &host("node1"));
    let second_one = BackendAddress { addr: packet_table::address("web2").unwrap(), port: 8080 };
    assert_eq!(journey.destinations(), [(second_one, 1.0)]);
}

#[test]
fn udp_backends_that_vanish_are_told_and_tcp_backends_are_not() {
    let mut services = Services::new(packet_table::config("node1"));
    rules_after(&mut services, &packet_table::changes());
    let vanished = |services: &mut Services, slice: &str| {
        services.apply(&Change::Slice(SliceKey::new("default", slice), None)).vanished
    };
    let backend = |name: &str, port| BackendAddress { addr: packet_table::address(name).unwrap(), port };
    assert_eq!(
        vanished(&mut services, "log-1"),
        [
            (key("log", Protocol::Udp, 514), backend("log2", 514)),
            (key("node1", Protocol::Udp, 30514), backend("log2", 514))
        ]
    );
    let dns = key("dns", Protocol::Udp, 53);
    assert_eq!(vanished(&mut services, "dns-1"), [(dns, backend("dns1", 5353)), (dns, backend("dns2", 5353))]);
    assert_eq!(vanished(&mut services, "web-1"), []);
}

#[test]
fn what_is_there_already_makes_no_edit() {
    let mut services = Services::new(packet_table::config("node1"));
    let changes = packet_table::changes();
    rules_after(&mut services, &changes);
    for change in &changes {
        assert_eq!(services.apply(change), Plan::default(), "{change:?}");
    }
}

#[test]
fn established_connections_go_on_to_their_backend_after_it_left_the_service() {
    let mut services = Services::new(packet_table::config("node1"));
    let mut rules = rules_after(&mut services, &packet_table::changes());
    rules.apply(&services.apply(&Change::Slice(SliceKey::new("default", "web-1"), None)).edits).unwrap();
    let backend = BackendAddress { addr: packet_table::address("web2").unwrap(), port: 8080 };
    let opening =
        Packet::opening(Ipv4Addr::new(10, 233, 64, 1), packet_table::address("web").unwrap(), Protocol::Tcp, 80);
    let later =
        Packet { connection: Connection::Established { destination: Some(backend), masqueraded: false }, ..opening };
    assert_eq!(walk(&rules, &opening, Direction::FromPod, &host("node1")).verdict(), Some(Verdict::Rejected));
    let journey = walk(&rules, &later, Direction::FromPod, &host("node1"));
    assert_eq!((journey.verdict(), journey.destinations()), (Some(Verdict::Accepted), vec![(backend, 1.0)]));
}

#[test]
fn a_slice_that_changes_its_service_takes_its_endpoints_along() {
    let mut services = Services::new(packet_table::config("node1"));
    let mut rules = rules_after(&mut services, &packet_table::changes());
    let found = packet_table::changes().into_iter().find_map(|change| match change {
        Change::Slice(key, Some(slice)) if &*key.name == "alone-1" => Some((key, slice)),
        _ => None,
    });
    let (key, mut slice) = found.unwrap();
    slice.service = ServiceKey::new("default", "starting");
    rules.apply(&services.apply(&Change::Slice(key, Some(slice))).edits).unwrap();
    assert_eq!(rules, services.desired());
    let verdict = |name: &str| {
        let packet =
            Packet::opening(Ipv4Addr::new(10, 233, 64, 1), packet_table::address(name).unwrap(), Protocol::Tcp, 80);
        walk(&rules, &packet, Direction::FromPod, &host("node1")).verdict()
    };
    assert_eq!((verdict("alone"), verdict("starting")), (Some(Verdict::Rejected), Some(Verdict::Accepted)));
}

#[test]
fn a_restart_touches_only_what_differs_from_what_it_finds() {
    let mut before = Services::new(packet_table::config("node1"));
    let mut found = rules_after(&mut before, &packet_table::changes());
    let mut after = Services::new(packet_table::config("node1"));
    rules_after(&mut after, &packet_table::changes());
    assert_eq!(diff(&found, &after.desired()), []);

    after.apply(&Change::Slice(SliceKey::new("default", "alone-1"), None));
    let edits = diff(&found, &after.desired());
    assert!(edits.iter().all(|edit| !matches!(edit, Edit::SetChain(..))), "{edits:?}");
    assert_eq!(edits.len(), 4, "{edits:?}");
    found.apply(&edits).unwrap();
    assert_eq!(found, after.desired());
}
