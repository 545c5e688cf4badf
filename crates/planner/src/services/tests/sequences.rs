//! Whatever happens in whatever order, the rules are those of the present state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use podnet_model::{
    Change, ClusterIp, EncapMode, Endpoint, EndpointSlice, Felix, NetConf, Node, NodeAddr, NodePort, Pod, PodAddr,
    PodKey, Pool, Protocol, Service, ServiceKey, ServicePort, SliceKey, TargetPort,
    balancer::AddressPool,
    endpoints::{EndpointPort, Hints},
    labels::Labels,
    limits::PodLimits,
    pod::AddressRequest,
    service::{Ingress, Port, ServiceKind, TrafficPolicy},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{Tables, on, packet_table};
use crate::{
    border::BorderConfig,
    ruleset::{BackendAddress, FrontendKey, RuleName, Set, diff},
    services::{Backend, FrontendChange, Plan, Services, ServicesConfig, nftables::Nftables, packet_table::NodeRules},
};

fn ip(a: u8, b: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, a, 0, b))
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let port =
        (select(vec!["", "a", "b"]), select(vec![Protocol::Tcp, Protocol::Udp]), 1u16..4, option::of(30000u16..30003));
    let port = port.prop_map(|(name, protocol, port, node_port)| Port {
        name: name.into(),
        protocol,
        port: ServicePort(port),
        node_port: node_port.map(NodePort),
    });
    vec(port, 0..4)
}

fn service() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        8 => vec(0u8..4, 1..3).prop_map(|ips| {
            ServiceKind::Virtual { cluster_ips: ips.into_iter().map(|b| ClusterIp(ip(96, b))).collect() }
        }),
        1 => Just(ServiceKind::Headless),
        1 => Just(ServiceKind::External { name: "example.org".into() }),
    ];
    (0u8..4, option::weighted(0.8, (kind, ports(), special()))).prop_map(|(number, object)| {
        let key = ServiceKey::new("default", &format!("s{number}"));
        let object = object
            .map(|(kind, ports, special)| Service { ports, ..special.of(Service::new(key.clone(), kind, Vec::new())) });
        Change::Service(key, object)
    })
}

/// What Services ask for beside the usual.
#[derive(Clone, Debug)]
struct Special {
    publish_not_ready: bool,
    external: Option<u8>,
    ingress: Option<(u8, bool)>,
    ranges: Vec<&'static str>,
    affinity: Option<u32>,
    local: (bool, bool),
    health_check: Option<u16>,
    proxy: bool,
    is_anothers: bool,
}

impl Special {
    fn of(self, service: Service) -> Service {
        let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        Service {
            publish_not_ready: self.publish_not_ready,
            external_ips: self.external.map(|b| ip(97, b)).into_iter().collect(),
            ingress: self.ingress.map(|(b, is_proxy)| Ingress { addr: ip(97, b), is_proxy }).into_iter().collect(),
            source_ranges: self.ranges.iter().map(|range| range.parse().unwrap()).collect(),
            affinity: self.affinity,
            internal_policy: policy(self.local.0),
            external_policy: policy(self.local.1),
            health_check: self.health_check.map(NodePort),
            proxy: self.proxy.then(|| "other".into()),
            is_anothers: self.is_anothers,
            ..service
        }
    }
}

fn special() -> impl Strategy<Value = Special> {
    let ranges = vec(select(vec!["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "192.0.2.0/24", "fd00::/8"]), 0..3);
    let addrs = (option::weighted(0.3, 0u8..3), option::weighted(0.3, (0u8..3, prop::bool::weighted(0.2))), ranges);
    let affinity = option::weighted(0.3, select(vec![10, 10_800]));
    let more = (any::<(bool, bool)>(), option::weighted(0.3, 32_000u16..32_003), prop::bool::weighted(0.1));
    (any::<bool>(), addrs, affinity, more).prop_map(|(publish_not_ready, addrs, affinity, more)| Special {
        publish_not_ready,
        external: addrs.0,
        ingress: addrs.1,
        ranges: addrs.2,
        affinity,
        local: more.0,
        health_check: more.1,
        proxy: more.2,
        is_anothers: more.0.0 && affinity.is_some(),
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let node = select(vec!["node1", "node2"]);
    let hints = (option::weighted(0.5, select(vec!["a", "b"])), option::weighted(0.3, select(vec!["node1", "node2"])));
    (0u8..8, any::<(bool, bool, bool)>(), hints, node).prop_map(|(b, (ready, serving, terminating), hints, node)| {
        let hints = Hints {
            zones: hints.0.into_iter().map(Into::into).collect(),
            nodes: hints.1.into_iter().map(Into::into).collect(),
        };
        let node = Some(node.into());
        Endpoint { ready, serving, terminating, node, hints, ..Endpoint::new(PodAddr(ip(128, b))) }
    })
}

fn slice() -> impl Strategy<Value = Change> {
    let port = (select(vec!["", "a", "b"]), select(vec![Protocol::Tcp, Protocol::Udp]), 8080u16..8082);
    let port =
        port.prop_map(|(name, protocol, port)| EndpointPort { name: name.into(), protocol, port: TargetPort(port) });
    let object = (0u8..4, vec(port, 0..3), vec(endpoint(), 0..6));
    (0u8..6, option::weighted(0.8, object)).prop_map(|(number, object)| {
        let key = SliceKey::new("default", &format!("e{number}"));
        let object = object.map(|(service, ports, endpoints)| EndpointSlice {
            key: key.clone(),
            service: ServiceKey::new("default", &format!("s{service}")),
            ports,
            endpoints,
            triggered: None,
            unproxied: number == 5,
        });
        Change::Slice(key, object)
    })
}

fn pod() -> impl Strategy<Value = Change> {
    let object = (select(vec!["node1", "node2"]), 0u8..4, any::<bool>(), any::<bool>());
    (0u8..3, option::of(object)).prop_map(|(number, object)| {
        let key = PodKey::new("default", &format!("p{number}"));
        let object = object.map(|(node, b, host_network, finished)| Pod {
            key: key.clone(),
            uid: "".into(),
            static_uid: None,
            searches: None,
            ndots: None,
            node: Some(node.into()),
            labels: Labels::default(),
            host_network,
            addrs: vec![PodAddr(ip(128, b))],
            finished,
            request: Ok(AddressRequest::default()),
            limits: Ok(PodLimits::default()),
        });
        Change::Pod(key, object)
    })
}

fn node() -> impl Strategy<Value = Change> {
    let object = option::of((0u8..3, select(vec!["a", "b"])));
    (select(vec!["node1", "node2", "node3"]), object).prop_map(|(name, object)| {
        let object = object.map(|(b, zone)| {
            let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into();
            Node { labels: Labels::new(labels), ..Node::new(name.into(), NodeAddr(ip(0, b))) }
        });
        Change::Node(name.into(), object)
    })
}

fn pool() -> impl Strategy<Value = Change> {
    let cidr = select(vec!["10.128.0.0/16", "10.128.0.0/17", "10.129.0.0/16", "10.128.128.0/17", "10.0.0.0/8"]);
    let vxlan = select(vec![EncapMode::Always, EncapMode::Never]);
    (0u8..3, option::of((cidr, any::<bool>(), vxlan))).prop_map(|(number, object)| {
        let name = format!("pool{number}");
        let object = object.map(|(cidr, nat_outgoing, vxlan)| Pool {
            vxlan,
            nat_outgoing,
            ..Pool::new((&name).into(), cidr.parse().unwrap())
        });
        Change::Pool(name.into(), object)
    })
}

fn address_pool() -> impl Strategy<Value = Change> {
    let range = select(vec!["10.97.0.0/31", "10.97.0.2-10.97.0.9", "10.97.0.0/24", "fd00::/64"]);
    (0u8..2, option::of(range)).prop_map(|(number, range)| {
        let name = format!("pool{number}");
        let pool = range.map(|range| AddressPool::new(&name, vec![range.parse().unwrap()]).into());
        Change::AddressPool(ServiceKey::new("kube-system", &name), pool)
    })
}

fn tunnel() -> impl Strategy<Value = Change> {
    let conf = (0u8..2, option::of(1u16..3)).prop_map(|(number, port)| {
        let networks = podnet_model::Dual { v4: "10.130.0.0/16".parse().ok(), v6: None };
        let backend = |port| podnet_model::flannel::Backend::Udp { port };
        let conf = |port| NetConf { networks, subnet_len: 24, backend: backend(port) };
        Change::NetConf(format!("n{number}").as_str().into(), port.map(conf))
    });
    let felix = (any::<bool>(), 1u16..3).prop_map(|(wireguard, wireguard_port)| Felix { wireguard, wireguard_port });
    prop_oneof![conf, option::of(felix).prop_map(Change::Felix)]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let rare = prop_oneof![pod(), node(), pool(), tunnel(), address_pool()];
    vec(prop_oneof![4 => service(), 6 => slice(), 5 => rare], 0..40)
}

/// The last word on each object.
fn squashed(changes: &[Change]) -> Vec<Change> {
    let name = |change: &Change| match change {
        Change::Node(key, _) => format!("node {key}"),
        Change::Pod(key, _) => format!("pod {key}"),
        Change::Service(key, _) => format!("service {key}"),
        Change::Slice(key, _) => format!("slice {key}"),
        Change::Pool(key, _) => format!("pool {key}"),
        Change::AddressPool(key, _) => format!("address pool {key}"),
        Change::Block(key, _) => format!("block {key}"),
        Change::Namespace(key, _) => format!("namespace {key}"),
        Change::Reservation(key, _) => format!("reservation {key}"),
        Change::IpamSettings(_) => "settings".to_owned(),
        Change::NetConf(key, _) => format!("net-conf {key}"),
        Change::Felix(_) => "felix".into(),
        Change::Proxy(_) => "proxy".into(),
        Change::Sticky(key, _) => format!("sticky {key}"),
    };
    let last: BTreeMap<String, Change> = changes.iter().map(|change| (name(change), change.clone())).collect();
    last.into_values().collect()
}

/// Takes the changes in, and checks after each that the edits lead to what is wanted.
fn follow(changes: &[Change]) -> (NodeRules, Tables) {
    let mut services = on("node1");
    let mut rules = Tables(services.desired());
    for change in changes {
        let (plan, edits) = services.apply(change);
        rules.apply(&edits).unwrap_or_else(|error| panic!("{error} after {change:?}"));
        assert_eq!(rules.0, services.desired(), "after {change:?}");
        rules.validate();
        check_plan(&services, &plan);
    }
    (services, rules)
}

/// A plan tells each frontend once and nothing that stays, and slots stay as far as they can.
fn check_plan(node: &NodeRules, plan: &Plan) {
    let mut told = BTreeSet::new();
    for FrontendChange { key, before, after } in &plan.frontends {
        assert!(told.insert(*key), "{key} twice");
        assert_ne!(before, after, "{key}");
        assert_eq!(node.services.serving(key), after.as_deref(), "{key}");
        let (Some(before), Some(after)) = (before, after) else { continue };
        let (before, after) = (before.inside.slots(), after.inside.slots());
        let stays = |backend: &&Backend| after.iter().any(|after| after.at == backend.at);
        let moved = before.iter().zip(after).filter(|(before, after)| before.at != after.at);
        let moved = moved.filter(|(before, _)| stays(before)).count();
        let gone = before.len() - before.iter().filter(stays).count();
        assert!(moved <= gone, "{moved} backends of {key} moved for {gone} that went");
    }
}

/// Rules as packets see them: backends without the order of their slots, and only the chains that are used.
type Seen = (Tables, BTreeMap<(RuleName, FrontendKey), BTreeSet<BackendAddress>>);

fn as_seen(mut tables: Tables) -> Seen {
    let mut backends: BTreeMap<(RuleName, FrontendKey), BTreeSet<BackendAddress>> = BTreeMap::new();
    let rules = &mut tables.0[0];
    for (name, map) in &mut rules.backend_maps {
        for (key, backend) in std::mem::take(&mut map.elements) {
            let place = (name.clone(), key.frontend);
            assert!(backends.entry(place).or_default().insert(backend), "{backend} stands twice at {}", key.frontend);
        }
    }
    for set in rules.sets.values_mut() {
        if let Set::Numbers(numbers) = set {
            numbers.clear();
        }
    }
    rules.memories.clear();
    let used: BTreeSet<_> = rules.verdict_maps.values().flat_map(|map| map.elements.values().cloned()).collect();
    let is_choice = |name: &str| ["svc-", "masq-", "outside-"].iter().any(|kind| name.starts_with(kind));
    rules.chains.retain(|name, _| used.contains(name) || !is_choice(name));
    (tables, backends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_rules_depend_on_the_present_state_only(changes in changes()) {
        let (services, rules) = follow(&changes);
        let present = squashed(&changes);
        let reversed: Vec<Change> = present.iter().rev().cloned().collect();
        let repeated: Vec<Change> = changes.iter().flat_map(|change| [change.clone(), change.clone()]).collect();
        let seen = as_seen(rules);
        for other in [present, reversed, repeated] {
            let (others, rules) = follow(&other);
            prop_assert_eq!(&as_seen(rules), &seen);
            prop_assert_eq!(others.services.conflicts(), services.services.conflicts());
            prop_assert_eq!(others.services.health_checks(), services.services.health_checks());
        }
    }

    #[test]
    fn what_is_noted_makes_the_rules_that_edits_would_lead_to(changes in changes(), count in 0usize..40) {
        let (edited, _) = follow(&changes);
        let (config, _) = packet_table::config("node1");
        let mut services = Services::new(config);
        let mut nftables = Nftables::new(&services);
        for (number, change) in changes.iter().enumerate() {
            let plan = services.apply(change);
            if number < count {
                nftables.note(&services, &plan);
            } else {
                nftables.edits(&services, &plan);
            }
        }
        prop_assert_eq!(nftables.desired(&services), edited.nftables.desired(&edited.services));
    }

    #[test]
    fn a_node_that_moves_has_the_rules_of_one_that_was_there_from_the_start(changes in changes()) {
        let (mut services, mut rules) = follow(&changes);
        let addrs = vec![NodeAddr(ip(0, 77)), NodeAddr(ip(0, 78))];
        rules.apply(&services.set_node_addrs(&addrs)).unwrap();
        prop_assert_eq!(&rules.0, &services.desired());
        let (config, border) = packet_table::config("node1");
        let config = ServicesConfig { node_addrs: addrs.clone(), ..config };
        let mut fresh = NodeRules::new((config, BorderConfig { node_addrs: addrs, ..border }));
        changes.iter().for_each(|change| drop(fresh.apply(change)));
        prop_assert_eq!(as_seen(Tables(fresh.desired())), as_seen(rules));
    }

    #[test]
    fn the_difference_of_two_rule_sets_leads_from_one_to_the_other(before in changes(), after in changes()) {
        let (_, mut rules) = follow(&before);
        let (_, wanted) = follow(&after);
        for (rules, wanted) in rules.0.iter_mut().zip(&wanted.0) {
            rules.apply(&diff(&rules.clone(), wanted)).unwrap();
        }
        prop_assert_eq!(rules, wanted);
    }
}
