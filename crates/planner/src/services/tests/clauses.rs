//! Clauses of the specification of Services that no row of the table is about: each is of a Service of the table with something changed.

use std::{collections::BTreeSet, net::IpAddr};

use podnet_model::{
    Change, Endpoint, EndpointSlice, Family, NodeAddr, PodAddr, Protocol, Service, ServiceKey, SliceKey,
    endpoints::Hints,
    service::{ServiceKind, TrafficPolicy},
};

use super::{
    super::{FrontendKind, NodePortAddresses, Services, ServicesConfig, ebpf},
    BackendAddress, Direction, Fate, Host, NodeRules, Packet, Tables, Verdict, holds, host, key, on,
    packet_table::{self, configured, six},
    rules_after,
};

fn service(name: &str) -> Service {
    let is_it = |change| match change {
        Change::Service(key, Some(service)) if key == ServiceKey::new("default", name) => Some(service),
        _ => None,
    };
    packet_table::changes().into_iter().find_map(is_it).unwrap()
}

fn slice(name: &str) -> EndpointSlice {
    let is_it = |change| match change {
        Change::Slice(key, Some(slice)) if key == SliceKey::new("default", &format!("{name}-1")) => Some(slice),
        _ => None,
    };
    packet_table::changes().into_iter().find_map(is_it).unwrap()
}

fn address(name: &str) -> IpAddr {
    packet_table::address(name).unwrap()
}

/// Which of these a packet comes to; none where it comes to nobody.
fn met(rules: &Tables, node: &str, from: &str, to: &str) -> Vec<IpAddr> {
    let direction = if from == "client1" { Direction::FromPod } else { Direction::FromOutside };
    let packet = Packet::opening(address(from), address(to), Protocol::Tcp, 80);
    let found = rules.walk(&packet, direction, &host(node)).destinations();
    found.into_iter().map(|(at, _)| at.addr).collect()
}

fn addresses<const N: usize>(names: [&str; N]) -> Vec<IpAddr> {
    let all: BTreeSet<IpAddr> = names.map(address).into();
    all.into_iter().collect()
}

#[test]
fn hints_are_nothing_to_a_policy_local_nor_where_all_endpoints_end() {
    let hinted = |name: &str, zones: &[&str]| {
        let mut slice = slice(name);
        for (endpoint, zone) in slice.endpoints.iter_mut().zip(zones) {
            endpoint.hints = Hints { zones: vec![(*zone).into()], ..Hints::default() };
        }
        Change::Slice(slice.key.clone(), Some(slice))
    };
    let mut changes = packet_table::changes();
    // web1 and shop1, which are of this node, are meant for another zone; so is the one that ends.
    changes.extend([hinted("local", &["b", "b", "a"]), hinted("draining", &["a", "b"])]);
    let rules = rules_after(&mut on("node1"), &changes);
    assert_eq!(met(&rules, "node1", "client1", "local-ip"), addresses(["web3"]), "this node's pods go by hints");
    assert_eq!(met(&rules, "node1", "visitor", "local-ip"), addresses(["web1", "shop1"]));
    assert_eq!(met(&rules, "node1", "client1", "draining"), addresses(["web2"]));
}

/// `nodePortAddresses` and `masqueradeAll`, by the rows that are sent as packets too.
#[test]
fn every_packet_of_a_node_that_is_configured_otherwise_meets_its_fate() {
    let versions = [
        (packet_table::changes(), configured::config as fn(&str) -> _),
        (six::changes(), configured::config_six as fn(&str) -> _),
    ];
    let rows = configured::rows();
    let mut held = 0;
    for (changes, config) in versions {
        let mut node = NodeRules::new(config("node1"));
        let (family, host) = {
            let config = node.services.config();
            (config.family, Host::new(config.node_addrs.iter().map(|addr| addr.0)))
        };
        let rules = rules_after(&mut node, &changes);
        for row in rows.iter().filter(|row| Family::of(&row.packet.dst) == family) {
            holds(&rules, row, &host);
            held += 1;
        }
    }
    assert_eq!(held, rows.len());
    assert!(rows.len() > 30 && rows.iter().all(|row| row.node == "node1"));
}

/// `nodePortAddresses`.
#[test]
fn node_ports_are_at_the_addresses_that_are_allowed_and_at_no_others() {
    let (config, border) = packet_table::config("node1");
    let (first, second): (IpAddr, IpAddr) = (address("node1"), [10, 99, 0, 7].into());
    let of = |addresses: NodePortAddresses| ServicesConfig {
        node_addrs: [first, second].map(NodeAddr).into(),
        node_port_addresses: addresses,
        loopback: Vec::new(),
        ..config.clone()
    };
    let at = |services: &Services| -> Vec<IpAddr> {
        let is_it = |kind: FrontendKind, port: u16| kind == FrontendKind::NodePort && port == 30080;
        let ports = services.frontends().filter(|(key, serving)| is_it(serving.kind, key.port));
        ports.map(|(key, _)| key.addr).collect()
    };
    let within =
        |ranges: &[&str]| NodePortAddresses::Ranges(ranges.iter().map(|range| range.parse().unwrap()).collect());
    for (allowed, expected) in [
        (NodePortAddresses::Primary, vec![first]),
        (within(&["0.0.0.0/0", "::/0"]), vec![second, first]),
        (within(&["10.99.0.0/16"]), vec![second]),
        (within(&["192.0.2.128/25", "10.99.0.7/32"]), vec![second]),
        (within(&["192.0.2.128/25"]), vec![]),
    ] {
        let mut node = NodeRules::new((of(allowed.clone()), border.clone()));
        let rules = rules_after(&mut node, &packet_table::changes());
        let sorted = |addrs: Vec<IpAddr>| addrs.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(at(&node.services)), sorted(expected.clone()), "{allowed:?}");
        for addr in [first, second] {
            let packet = Packet::opening(address("visitor"), addr, Protocol::Tcp, 30080);
            let host = Host::new([first, second]);
            let found = rules.walk(&packet, Direction::FromOutside, &host).destinations();
            let is_led = found.iter().any(|(to, _)| to.addr != addr);
            assert_eq!(is_led, expected.contains(&addr), "{allowed:?}: {addr}");
        }
    }
    // An address that the node gets later counts as if it had been there.
    let mut services = Services::new(of(within(&["10.98.0.0/16"])));
    packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
    assert_eq!(at(&services), Vec::<IpAddr>::new());
    let third: IpAddr = [10, 98, 0, 1].into();
    drop(services.set_node_addrs([first, third].map(NodeAddr).into()));
    assert_eq!(at(&services), [third]);
}

/// `loadBalancerSourceRanges`.
#[test]
fn a_range_of_everybody_lets_everybody_in_and_ranges_of_the_other_family_nobody() {
    let fate = |ranges: &[&str], from: &str| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let ranged = Service { source_ranges: ranges, ..service("lbranges") };
        let mut node = on("node1");
        let changes = packet_table::changes().into_iter().chain([Change::Service(ranged.key.clone(), Some(ranged))]);
        let rules = rules_after(&mut node, &changes.collect::<Vec<_>>());
        let packet = Packet::opening(address(from), address("lbranges-ip"), Protocol::Tcp, 80);
        rules.walk(&packet, Direction::FromOutside, &host("node1")).verdict().unwrap()
    };
    let (visitor, partner) = ("visitor", "partner");
    for everybody in [&[][..], &["0.0.0.0/0"], &["198.51.100.0/28", "0.0.0.0/0"], &["0.0.0.0/0", "2001:db8::/32"]] {
        assert_eq!([visitor, partner].map(|from| fate(everybody, from)), [Verdict::Accepted; 2], "{everybody:?}");
    }
    assert_eq!(fate(&["198.51.100.0/28", "2001:db8::/32"], visitor), Verdict::Accepted);
    assert_eq!(fate(&["198.51.100.0/28", "2001:db8::/32"], partner), Verdict::Dropped);
    for other in [&["2001:db8::/32"][..], &["::/0"]] {
        assert_eq!([visitor, partner].map(|from| fate(other, from)), [Verdict::Dropped; 2], "{other:?}");
    }
}

/// Whatever becomes of a Service, connection tracking would send its UDP clients on to the endpoints that it had.
#[test]
fn udp_backends_vanish_with_their_service_and_with_its_virtual_address() {
    let backends = |services: &Services, name: &str| -> BTreeSet<_> {
        let all = services.frontends().filter(|(key, serving)| {
            serving.service == ServiceKey::new("default", name) && key.protocol == Protocol::Udp
        });
        all.flat_map(|(key, serving)| serving.backends().map(move |backend| (*key, backend.at))).collect()
    };
    let log = service("log");
    let becomes = |kind: ServiceKind| Some(Service { kind, ..log.clone() });
    let without_node_port = {
        let mut fewer = log.clone();
        fewer.ports[0].node_port = None;
        Some(fewer)
    };
    let renamed = {
        let mut other = log.clone();
        other.ports[0].name = "syslog".into();
        Some(other)
    };
    for (after, stays) in [
        (None, 0),
        (becomes(ServiceKind::Headless), 0),
        (becomes(ServiceKind::External { name: "example.org".into() }), 0),
        (without_node_port, 1),
        (renamed, 0),
    ] {
        let mut node = on("node1");
        rules_after(&mut node, &packet_table::changes());
        let before = backends(&node.services, "log");
        assert_eq!(before.len(), 3, "at the ClusterIP, the node and its loopback");
        let (plan, _) = node.apply(&Change::Service(log.key.clone(), after.clone()));
        let left = backends(&node.services, "log");
        assert_eq!(left.len(), stays, "{after:?}");
        let vanished: BTreeSet<_> = plan.vanished.into_iter().collect();
        assert_eq!(vanished, &before - &left, "{after:?}");
    }
}

/// As with kube-proxy (`CleanStaleEntries`), and as TCP has it: a question that is under way is answered.
#[test]
fn udp_connections_to_an_endpoint_are_forgotten_when_it_answers_no_more_and_not_while_it_ends() {
    let slice = slice("dns");
    let dns = key("dns", Protocol::Udp, 53);
    let [first, second] = ["dns1", "dns2"].map(|name| BackendAddress { addr: address(name), port: 5353 });
    let said = |(ready, serving, terminating)| {
        let mut slice = slice.clone();
        let endpoint = &mut slice.endpoints[0];
        (endpoint.ready, endpoint.serving, endpoint.terminating) = (ready, serving, terminating);
        Change::Slice(slice.key.clone(), Some(slice))
    };
    let removed = || {
        let mut slice = slice.clone();
        slice.endpoints.remove(0);
        Change::Slice(slice.key.clone(), Some(slice))
    };
    let mut node = on("node1");
    rules_after(&mut node, &packet_table::changes());
    let (ready, ends, ended) = ((true, true, false), (false, true, true), (false, false, true));
    let (both, other) = (vec![first, second], vec![second]);
    for (step, change, backends, fate) in [
        ("it ends", said(ends), &other, ebpf::Fate::Served),
        ("it answers no more", said(ended), &other, ebpf::Fate::Lost),
        ("it is gone after that", removed(), &other, ebpf::Fate::Lost),
        ("it is back", said(ready), &both, ebpf::Fate::Served),
        ("it is neither ready nor ending", said((false, true, false)), &other, ebpf::Fate::Served),
        ("it ends again", said(ends), &other, ebpf::Fate::Served),
        ("it is gone at once", removed(), &other, ebpf::Fate::Lost),
    ] {
        let was_astray = node.services.leads_astray(&(dns, first));
        let (plan, _) = node.apply(&change);
        let mut chosen: Vec<_> = node.services.serving(&dns).unwrap().backends().map(|backend| backend.at).collect();
        chosen.sort_unstable();
        assert_eq!((&chosen, node.services.fate(&dns, first)), (backends, fate), "{step}");
        let is_astray = fate == ebpf::Fate::Lost;
        assert_eq!(node.services.leads_astray(&(dns, first)), is_astray, "{step}");
        let expected = if is_astray && !was_astray { vec![(dns, first)] } else { Vec::new() };
        assert_eq!(plan.vanished, expected, "{step}");
    }
}

#[test]
fn udp_connections_go_on_where_policies_and_hints_come_to_lead_elsewhere() {
    let dns = key("dns", Protocol::Udp, 53);
    let slice = slice("dns");
    let hinted = {
        let mut slice = slice.clone();
        for (endpoint, zone) in slice.endpoints.iter_mut().zip(["a", "b"]) {
            endpoint.hints = Hints { zones: vec![zone.into()], ..Hints::default() };
        }
        Change::Slice(slice.key.clone(), Some(slice))
    };
    let local = Service { internal_policy: TrafficPolicy::Local, ..service("dns") };
    let local = Change::Service(local.key.clone(), Some(local));
    let second = (dns, BackendAddress { addr: address("dns2"), port: 5353 });
    for change in [hinted.clone(), local] {
        let mut node = on("node1");
        rules_after(&mut node, &packet_table::changes());
        assert_eq!(node.apply(&change).0.vanished, [], "{change:?}");
        let serving = node.services.serving(&dns).unwrap();
        assert_eq!(serving.backends().map(|backend| backend.at.addr).collect::<Vec<_>>(), addresses(["dns1"]));
        assert!(!node.services.leads_astray(&second));
        let mut fewer = slice.clone();
        fewer.endpoints.truncate(1);
        assert_eq!(node.apply(&Change::Slice(fewer.key.clone(), Some(fewer))).0.vanished, [second]);
        assert!(node.services.leads_astray(&second));
    }
    // What lasts is kept where something else changes.
    let mut node = on("node1");
    rules_after(&mut node, &packet_table::changes());
    node.apply(&hinted);
    let former = node.services.serving(&dns).unwrap().lasting.clone();
    let sticky = Service { affinity: Some(10), ..service("dns") };
    node.apply(&Change::Service(sticky.key.clone(), Some(sticky)));
    let serving = node.services.serving(&dns).unwrap();
    assert_eq!((serving.affinity, serving.lasting.len()), (Some(10), 1));
    assert!(std::sync::Arc::ptr_eq(&serving.lasting, &former));
    // An endpoint that is published whatever it says is as good as a ready one.
    let mut node = on("node1");
    let published = Service { publish_not_ready: true, ..service("dns") };
    let mut changes = packet_table::changes();
    changes.push(Change::Service(published.key.clone(), Some(published)));
    rules_after(&mut node, &changes);
    let mut ended = slice;
    (ended.endpoints[1].ready, ended.endpoints[1].serving, ended.endpoints[1].terminating) = (false, false, true);
    assert_eq!(node.apply(&Change::Slice(ended.key.clone(), Some(ended))).0.vanished, []);
    assert!(!node.services.leads_astray(&second));
}

/// `sessionAffinity` and `internalTrafficPolicy: Local` together: a client stays, among the endpoints of its node alone.
#[test]
fn a_client_that_stays_does_so_among_the_endpoints_that_a_policy_leaves_it() {
    let sticky = Service { affinity: Some(600), ..service("inlocal") };
    let mut slice = slice("inlocal");
    // Both are of this node.
    let second = Endpoint { addr: PodAddr(address("shop1")), ..slice.endpoints[0].clone() };
    slice.endpoints.push(second);
    let mut changes = packet_table::changes();
    changes.extend([Change::Service(sticky.key.clone(), Some(sticky)), Change::Slice(slice.key.clone(), Some(slice))]);
    let rules = rules_after(&mut on("node1"), &changes);
    assert_eq!(met(&rules, "node1", "client1", "inlocal"), addresses(["web1", "shop1"]));
    let opening = Packet::opening(address("client1"), address("inlocal"), Protocol::Tcp, 80);
    for (remembered, expected) in
        [("web1", addresses(["web1"])), ("shop1", addresses(["shop1"])), ("web2", addresses(["web1", "shop1"]))]
    {
        let at = BackendAddress { addr: address(remembered), port: 8080 };
        let again = Packet { remembered: Some(at), ..opening };
        let journey = rules.walk(&again, Direction::FromPod, &host("node1"));
        let Some(Fate::Arrives(found)) = Fate::of(&journey) else { panic!("{journey:#?}") };
        assert_eq!(found.keys().map(|at| at.addr).collect::<Vec<_>>(), expected, "after {remembered}");
    }
}
