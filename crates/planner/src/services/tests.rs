//! Services as the specification tells them; the sequences are in [`sequences`], the cost in [`cost`].

mod clauses;
mod cost;
mod policies;
mod sequences;
mod six;
mod tunnels;

use std::net::Ipv4Addr;

use podnet_model::{Change, Protocol, Service, ServiceKey, SliceKey};

use super::{
    Conflict, Plan,
    packet_table::{self, Edits, Fate, NodeRules, Row},
};
use crate::ruleset::{
    BackendAddress, Edit, EditError, FrontendKey, RuleSet, diff,
    walk::{Connection, Direction, Host, Journey, Packet, Verdict, walk_tables},
};

/// A node's tables: that of Services, and that of the border.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tables([RuleSet; 2]);

impl Tables {
    fn apply(&mut self, (services, border): &Edits) -> Result<(), EditError> {
        self.0[0].apply(services)?;
        self.0[1].apply(border)
    }

    fn walk(&self, packet: &Packet, direction: Direction, host: &Host) -> Journey {
        walk_tables(&[&self.0[0], &self.0[1]], packet, direction, host)
    }

    fn validate(&self) {
        self.0.iter().for_each(|table| table.validate().unwrap());
    }
}

/// The rules that a node ends up with, by edits.
fn rules_after(node: &mut NodeRules, changes: &[Change]) -> Tables {
    let mut rules = Tables(node.desired());
    for change in changes {
        rules.apply(&node.apply(change).1).unwrap();
    }
    rules
}

fn on(name: &str) -> NodeRules {
    NodeRules::new(packet_table::config(name))
}

fn cluster_rules(name: &str) -> Tables {
    rules_after(&mut on(name), &packet_table::changes())
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
    assert!(rows.len() >= 250, "{} rows", rows.len());
    for node in packet_table::NODES {
        let rules = cluster_rules(node);
        for row in rows.iter().filter(|row| row.node == node) {
            holds(&rules, row, &host(node));
        }
    }
}

/// Whether the packet meets its fate; where it sticks, also the next one, wherever the first one came.
fn holds(rules: &Tables, row: &Row, host: &Host) {
    let journey = rules.walk(&row.packet, row.direction, host);
    assert_eq!(Fate::of(&journey).as_ref(), Some(&row.fate), "{row}\n{journey:#?}");
    let Fate::Arrives(arrivals) = &row.fate else { return };
    for (at, masqueraded) in arrivals {
        let next = rules.walk(&Packet { remembered: Some(*at), ..row.packet }, row.direction, host);
        let one = [(*at, *masqueraded)].into();
        let expected = if row.sticks { Fate::Arrives(one) } else { row.fate.clone() };
        assert_eq!(Fate::of(&next), Some(expected.clone()), "{row}, the second time\n{next:#?}");
        for frontend in &row.sticks_at {
            let elsewhere = Packet { dst: frontend.addr, dport: frontend.port, remembered: Some(*at), ..row.packet };
            let next = rules.walk(&elsewhere, row.direction, host);
            assert_eq!(Fate::of(&next), Some(expected.clone()), "{row}, then to {frontend:?}\n{next:#?}");
        }
    }
    let nobody = BackendAddress { addr: row.packet.src, port: 1 };
    let after_one_that_is_gone = rules.walk(&Packet { remembered: Some(nobody), ..row.packet }, row.direction, host);
    assert_eq!(Fate::of(&after_one_that_is_gone).as_ref(), Some(&row.fate), "{row}, with a backend that is gone");
}

#[test]
fn the_order_of_the_changes_does_not_matter_to_any_packet() {
    let mut changes = packet_table::changes();
    changes.reverse();
    let rules = rules_after(&mut on("node1"), &changes);
    for row in packet_table::rows().iter().filter(|row| row.node == "node1") {
        assert_eq!(
            Fate::of(&rules.walk(&row.packet, row.direction, &host("node1"))).as_ref(),
            Some(&row.fate),
            "{row}"
        );
    }
}

#[test]
fn what_the_edits_make_is_valid_and_is_what_a_restart_wants() {
    for node in packet_table::NODES {
        let mut services = on(node);
        let rules = rules_after(&mut services, &packet_table::changes());
        rules.validate();
        assert_eq!(rules.0, services.desired());
    }
}

#[test]
fn when_all_objects_vanish_no_element_is_left() {
    let mut services = on("node1");
    let changes = packet_table::changes();
    let vanish = |change: &Change| match change.clone() {
        Change::Node(key, _) => Change::Node(key, None),
        Change::Pod(key, _) => Change::Pod(key, None),
        Change::Service(key, _) => Change::Service(key, None),
        Change::Slice(key, _) => Change::Slice(key, None),
        Change::Pool(key, _) => Change::Pool(key, None),
        Change::AddressPool(key, _) => Change::AddressPool(key, None),
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
    let initial = on("node1").desired();
    rules.0[0].chains.retain(|name, _| initial[0].chains.contains_key(name));
    rules.0[0].memories.clear();
    assert_eq!(rules.0, initial);
    let services = &services.services;
    assert!(services.services.is_empty() && services.frontends.is_empty() && services.slice_owners.is_empty());
    assert!(services.health_checked.is_empty() && services.contested.is_empty());
}

#[test]
fn there_are_no_chains_or_rules_per_service() {
    let rules = cluster_rules("node1");
    let mut names: Vec<&str> = rules.0[0].chains.keys().map(|name| &**name).collect();
    names.sort_unstable();
    let expected = [
        "drop",
        "filter-forward",
        "filter-input",
        "filter-output",
        "guard",
        "guard-output",
        "guard-prerouting",
        "masq-1",
        "masq-2",
        "masq-3",
        "masq-3-10800s",
        "masq-3-600s",
        "output",
        "outside-1",
        "outside-2",
        "outside-2-600s",
        "postrouting",
        "prerouting",
        "reject",
        "services",
        "svc-1",
        "svc-2",
        "svc-3",
        "svc-3-10800s",
        "svc-3-600s",
        "unserved",
    ];
    assert_eq!(names, expected);
}

#[test]
fn conflicts_name_the_first_service_as_the_winner_and_end_with_it() {
    let mut services = on("node1");
    let mut rules = rules_after(&mut services, &packet_table::changes());
    let (first, second) = (ServiceKey::new("default", "rival-a"), ServiceKey::new("default", "rival-b"));
    let conflict = |frontend| Conflict { frontend, winner: first.clone(), losers: vec![second.clone()] };
    let node_port = |at| key(at, Protocol::Tcp, 30099);
    let contested = [key("shared", Protocol::Tcp, 80), node_port("localhost"), node_port("node1")];
    // A ClusterIP is its Service's, whatever the names.
    let of = |name| ServiceKey::new("default", name);
    let stolen = key("web", Protocol::Tcp, 80);
    let theft = Conflict { frontend: stolen, winner: of("web"), losers: vec![of("thief")] };
    let expected: Vec<Conflict> = [theft.clone()].into_iter().chain(contested.map(conflict)).collect();
    assert_eq!(services.services.conflicts(), expected);

    rules.apply(&services.apply(&Change::Service(first, None)).1).unwrap();
    assert_eq!(services.services.conflicts(), [theft]);
    let packet = Packet::opening(Ipv4Addr::new(10, 233, 64, 1), contested[0].addr, Protocol::Tcp, 80);
    let journey = rules.walk(&packet, Direction::FromPod, &host("node1"));
    let second_one = BackendAddress { addr: packet_table::address("web2").unwrap(), port: 8080 };
    assert_eq!(journey.destinations(), [(second_one, 1.0)]);
}

#[test]
fn the_older_service_has_what_two_ask_for_whatever_their_names_and_whoever_comes_first() {
    let changes = packet_table::changes();
    let rivals: Vec<Service> = ["rival-a", "rival-b"]
        .map(|name| {
            let is_it = |change: &Change| match change {
                Change::Service(key, Some(service)) if &*key.name == name => Some(service.clone()),
                _ => None,
            };
            changes.iter().find_map(is_it).unwrap()
        })
        .into();
    let aged = |service: &Service, created| Service { created, ..service.clone() };
    let contested = key("shared", Protocol::Tcp, 80);
    let winner = |orders: [Service; 2]| {
        let mut services = on("node1");
        rules_after(&mut services, &changes);
        for service in orders {
            services.apply(&Change::Service(service.key.clone(), Some(service)));
        }
        services.services.serving(&contested).unwrap().service.name.to_string()
    };
    let (a, b) = (&rivals[0], &rivals[1]);
    assert_eq!(winner([aged(a, 20), aged(b, 10)]), "rival-b", "it is older");
    assert_eq!(winner([aged(b, 10), aged(a, 20)]), "rival-b", "it is older and came first");
    assert_eq!(winner([aged(b, 20), aged(a, 10)]), "rival-a");
    assert_eq!(winner([aged(b, 10), aged(a, 10)]), "rival-a", "of the same age: by name");
}

#[test]
fn udp_backends_that_vanish_are_told_and_tcp_backends_are_not() {
    let mut services = on("node1");
    rules_after(&mut services, &packet_table::changes());
    let vanished = |services: &mut NodeRules, slice: &str| {
        services.apply(&Change::Slice(SliceKey::new("default", slice), None)).0.vanished
    };
    let backend = |name: &str, port| BackendAddress { addr: packet_table::address(name).unwrap(), port };
    assert_eq!(
        vanished(&mut services, "log-1"),
        [
            (key("log", Protocol::Udp, 514), backend("log2", 514)),
            (key("localhost", Protocol::Udp, 30514), backend("log2", 514)),
            (key("node1", Protocol::Udp, 30514), backend("log2", 514))
        ]
    );
    let dns = key("dns", Protocol::Udp, 53);
    assert_eq!(vanished(&mut services, "dns-1"), [(dns, backend("dns1", 5353)), (dns, backend("dns2", 5353))]);
    assert_eq!(vanished(&mut services, "web-1"), []);
}

#[test]
fn what_is_there_already_makes_no_edit() {
    let mut services = on("node1");
    let changes = packet_table::changes();
    rules_after(&mut services, &changes);
    for change in &changes {
        assert_eq!(services.apply(change), (Plan::default(), Edits::default()), "{change:?}");
    }
}

#[test]
fn established_connections_go_on_to_their_backend_after_it_left_the_service() {
    let mut services = on("node1");
    let mut rules = rules_after(&mut services, &packet_table::changes());
    rules.apply(&services.apply(&Change::Slice(SliceKey::new("default", "web-1"), None)).1).unwrap();
    let backend = BackendAddress { addr: packet_table::address("web2").unwrap(), port: 8080 };
    let opening =
        Packet::opening(Ipv4Addr::new(10, 233, 64, 1), packet_table::address("web").unwrap(), Protocol::Tcp, 80);
    let later =
        Packet { connection: Connection::Established { destination: Some(backend), masqueraded: false }, ..opening };
    assert_eq!(rules.walk(&opening, Direction::FromPod, &host("node1")).verdict(), Some(Verdict::Rejected));
    let journey = rules.walk(&later, Direction::FromPod, &host("node1"));
    assert_eq!((journey.verdict(), journey.destinations()), (Some(Verdict::Accepted), vec![(backend, 1.0)]));
}

#[test]
fn a_slice_that_changes_its_service_takes_its_endpoints_along() {
    let mut services = on("node1");
    let mut rules = rules_after(&mut services, &packet_table::changes());
    let found = packet_table::changes().into_iter().find_map(|change| match change {
        Change::Slice(key, Some(slice)) if &*key.name == "alone-1" => Some((key, slice)),
        _ => None,
    });
    let (key, mut slice) = found.unwrap();
    slice.service = ServiceKey::new("default", "starting");
    rules.apply(&services.apply(&Change::Slice(key, Some(slice))).1).unwrap();
    assert_eq!(rules.0, services.desired());
    let verdict = |name: &str| {
        let packet =
            Packet::opening(Ipv4Addr::new(10, 233, 64, 1), packet_table::address(name).unwrap(), Protocol::Tcp, 80);
        rules.walk(&packet, Direction::FromPod, &host("node1")).verdict()
    };
    assert_eq!((verdict("alone"), verdict("starting")), (Some(Verdict::Rejected), Some(Verdict::Accepted)));
}

#[test]
fn a_restart_touches_only_what_differs_from_what_it_finds() {
    let mut before = on("node1");
    let mut found = rules_after(&mut before, &packet_table::changes());
    let mut after = on("node1");
    rules_after(&mut after, &packet_table::changes());
    assert_eq!(diff(&found.0[0], &after.desired()[0]), []);

    after.apply(&Change::Slice(SliceKey::new("default", "alone-1"), None));
    let edits = diff(&found.0[0], &after.desired()[0]);
    assert!(edits.iter().all(|edit| !matches!(edit, Edit::SetChain(..))), "{edits:?}");
    assert_eq!(edits.len(), 4, "{edits:?}");
    found.0[0].apply(&edits).unwrap();
    assert_eq!(found.0, after.desired());
}
