//! What Services say beyond ports: policies, zones, health checks, connections of UDP.

use std::collections::BTreeSet;

use podnet_model::{Change, Protocol, ServiceKey, SliceKey};

use super::{
    super::{ServicesConfig, ipvs::Ipvs},
    Fate, NodeRules, Tables, host, key, on, packet_table, rules_after,
};
use crate::{
    iptables::{ChainKey, Table},
    ipvs::Scheduler,
    ruleset::{
        BackendAddress, BackendKey, GROUP, Set,
        walk::{Direction, Packet, Verdict},
    },
};

/// A client has one backend at all addresses of a Service's port; each port, and each protocol, has its own.
#[test]
fn all_frontends_of_a_services_port_are_one_group_to_the_memory_of_clients() {
    let mut services = on("node1");
    let rules = rules_after(&mut services, &packet_table::changes());
    let Some(Set::Numbers(numbers)) = rules.0[0].sets.get("numbers") else { panic!("a map of numbers") };
    let group = |at: &str, protocol, port| {
        let frontend = key(at, protocol, port);
        numbers.get(&BackendKey { frontend, slot: GROUP }).copied()
    };
    let web = group("sticky", Protocol::Tcp, 80).unwrap();
    assert_eq!(group("sticky-ip", Protocol::Tcp, 80), Some(web));
    assert_eq!(group("node1", Protocol::Tcp, 30070), Some(web));
    let dns = group("sticky", Protocol::Udp, 53).unwrap();
    let other = group("stickylocal", Protocol::Tcp, 80).unwrap();
    assert!(dns != web && other != web && other != dns);
    assert_eq!(group("web", Protocol::Tcp, 80), None, "no affinity");
}

#[test]
fn health_checks_count_the_ready_endpoints_of_this_node() {
    let checks = |node: &str| {
        let mut rules = on(node);
        rules_after(&mut rules, &packet_table::changes());
        rules.services.health_checks()
    };
    let at = |names: &[&str]| names.iter().map(|name| packet_table::address(name).unwrap()).collect();
    let check = |service: &str, local: &[&str]| (ServiceKey::new("default", service), at(local));
    for (node, local, ending, talk) in [
        ("node1", &["web1", "shop1"][..], &[][..], &["dns1", "shop1"][..]),
        ("node2", &[], &["web2"], &[]),
        ("node3", &["web3"], &[], &["web3"]),
    ] {
        let found = checks(node).into_iter().map(|(port, check)| (port.0, (check.service, check.local)));
        let expected = [
            (31054, check("local", local)),
            (31058, check("extnone", &[])),
            (31059, check("localterm", ending)),
            (31081, check("talk", talk)),
            (31087, check("guard", local)),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected, "{node}");
    }
}

/// `masqueradeAll`. What it is in mode `iptables` stands beside the chains of that mode.
#[test]
fn where_all_is_masqueraded_pods_are_too_and_that_at_cluster_ips_alone() {
    let (config, border) = packet_table::config("node1");
    let config = ServicesConfig { masquerade_all: true, loopback: Vec::new(), ..config };
    let mut node = NodeRules::new((config, border));
    let rules = rules_after(&mut node, &packet_table::changes());
    let address = |name: &str| packet_table::address(name).unwrap();
    let masqueraded = |to: &str, port| {
        let packet = Packet::opening(address("client1"), address(to), Protocol::Tcp, port);
        let journey = rules.walk(&packet, Direction::FromPod, &host("node1"));
        let Some(Fate::Arrives(at)) = Fate::of(&journey) else { panic!("{journey:#?}") };
        at.into_values().collect::<BTreeSet<bool>>()
    };
    assert_eq!(masqueraded("web", 80), [true].into());
    assert_eq!(masqueraded("lb", 80), [true].into());
    assert_eq!(masqueraded("lb-ip", 80), [false].into());
    assert_eq!(masqueraded("node1", 30080), [false].into());
    let ipvs = Ipvs::new(&node.services, Scheduler::RoundRobin).rules(&node.services);
    let services = &ipvs.chains[&ChainKey::new(Table::Nat, "KUBE-SERVICES")];
    assert_eq!(
        services[0].to_string(),
        "-m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" \
         -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ"
    );
}

#[test]
fn a_node_that_changes_its_zone_has_the_backends_of_the_new_one() {
    let mut services = on("node1");
    let mut rules = rules_after(&mut services, &packet_table::changes());
    let to_zonal = Packet::opening(
        packet_table::address("client1").unwrap(),
        packet_table::address("zonal").unwrap(),
        Protocol::Tcp,
        80,
    );
    let names = |rules: &Tables| -> Vec<_> {
        let found = rules.walk(&to_zonal, Direction::FromPod, &host("node1")).destinations();
        found.into_iter().map(|(at, _)| at.addr).collect()
    };
    let address = |name: &str| packet_table::address(name).unwrap();
    assert_eq!(names(&rules), [address("web1")]);
    let node = |zone: Option<&str>| {
        let zone = zone.map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.to_owned()));
        let node = podnet_model::Node::new("node1".into(), podnet_model::NodeAddr(address("node1")));
        Change::Node(
            "node1".into(),
            Some(podnet_model::Node {
                labels: zone.into_iter().collect::<std::collections::BTreeMap<_, _>>().into(),
                ..node
            }),
        )
    };
    for (zone, expected) in
        [(Some("b"), &["web2", "web3"][..]), (None, &["web1", "web2", "web3"]), (Some("a"), &["web1"])]
    {
        rules.apply(&services.apply(&node(zone)).1).unwrap();
        assert_eq!(rules.0, services.desired());
        let mut expected: Vec<_> = expected.iter().map(|name| address(name)).collect();
        expected.sort_unstable();
        assert_eq!(names(&rules), expected, "{zone:?}");
    }
}

/// What UDP connections are there is known to the kernel alone: what was before is not asked.
#[test]
fn udp_connections_lead_astray_that_go_elsewhere_than_to_a_backend() {
    let mut services = on("node1");
    rules_after(&mut services, &packet_table::changes());
    let at = |name: &str, port| BackendAddress { addr: packet_table::address(name).unwrap(), port };
    let dns = key("dns", Protocol::Udp, 53);
    for (frontend, to, astray) in [
        (dns, at("dns1", 5353), false),
        (dns, at("dns1", 5354), true),
        (dns, at("web1", 5353), true),
        (key("node1", Protocol::Udp, 30514), at("node1", 30514), true),
        (key("node1", Protocol::Udp, 30514), at("log2", 514), false),
        (key("empty", Protocol::Udp, 53), at("dns1", 53), true),
        (key("node1", Protocol::Udp, 9), at("node1", 9), false),
        (key("web", Protocol::Tcp, 80), at("node1", 80), false),
    ] {
        assert_eq!(services.services.leads_astray(&(frontend, to)), astray, "{frontend} to {to}");
    }
    // A Service that comes takes over what went to the node itself.
    services.apply(&Change::Slice(SliceKey::new("default", "log-1"), None));
    let log = packet_table::changes()
        .into_iter()
        .find(|change| matches!(change, Change::Slice(key, _) if &*key.name == "log-1"));
    let (plan, _) = services.apply(&log.unwrap());
    let itself = |name: &str, port| (key(name, Protocol::Udp, port), at(name, port));
    assert_eq!(plan.vanished, [itself("log", 514), itself("localhost", 30514), itself("node1", 30514)]);
}

/// Its address comes with its status, and until then its device says whose packet it is.
#[test]
fn a_pod_that_is_not_known_by_its_address_yet_is_no_outsider() {
    let unknown = |change: &Change| matches!(change, Change::Pod(key, _) if &*key.name == "client2");
    let changes: Vec<Change> = packet_table::changes().into_iter().filter(|change| !unknown(change)).collect();
    let rules = rules_after(&mut on("node2"), &changes);
    let address = |name: &str| packet_table::address(name).unwrap();
    let packet = Packet::opening(address("client2"), address("local-ip"), Protocol::Tcp, 80);
    let verdict = |direction| rules.walk(&packet, direction, &host("node2")).verdict();
    assert_eq!(verdict(Direction::FromPod), Some(Verdict::Accepted));
    assert_eq!(verdict(Direction::FromOutside), Some(Verdict::Dropped));
}
