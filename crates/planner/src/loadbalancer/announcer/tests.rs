use podnet_model::{
    Endpoint, NodeAddr, PodAddr,
    service::{Ingress, Port, ServiceKind},
};

use super::*;

const VIP: &str = "172.29.240.200";

fn node(name: &str, subnet: &str) -> Change {
    let subnet: IpNet = subnet.parse().unwrap();
    let node = Node { subnet: Some(subnet), ..Node::new(name.into(), NodeAddr(subnet.addr())) };
    Change::Node(name.into(), Some(node))
}

fn service(name: &str, addr: &str, external_policy: TrafficPolicy) -> Change {
    let key = ServiceKey::new("shop", name);
    let ingress = vec![Ingress { addr: addr.parse().unwrap(), is_proxy: false }];
    let service = Service::new(key.clone(), ServiceKind::Headless, Vec::<Port>::new());
    Change::Service(key, Some(Service { ingress, external_policy, ..service }))
}

fn slice(service: &str, nodes: &[(&str, bool)]) -> Change {
    let key = SliceKey::new("shop", service);
    let endpoint = |(node, ready): &(&str, bool)| Endpoint {
        ready: *ready,
        node: Some((*node).into()),
        ..Endpoint::new(PodAddr("10.0.0.1".parse().unwrap()))
    };
    let slice = EndpointSlice {
        key: key.clone(),
        service: ServiceKey::new("shop", service),
        ports: Vec::new(),
        endpoints: nodes.iter().map(endpoint).collect(),
        unproxied: false,
        triggered: None,
    };
    Change::Slice(key, Some(slice))
}

fn everywhere() -> Advertisement {
    Advertisement {
        pools: BTreeSet::new(),
        pool_selectors: Vec::new(),
        node_selectors: Vec::new(),
        interfaces: BTreeSet::new(),
    }
}

fn pool() -> AddressPool {
    AddressPool {
        name: "default".into(),
        labels: Labels::default(),
        spans: vec!["172.29.240.200-172.29.240.250".parse().unwrap(), "192.0.2.0/24".parse().unwrap()],
        auto_assign: true,
        avoid_buggy: false,
        reserved: None,
    }
}

fn pools() -> Change {
    Change::AddressPool(ServiceKey::new("metallb-system", "default"), Some(Arc::new(pool())))
}

/// Nodes 1 to 4 on one subnet and node 5 on another.
fn cluster() -> Announcer {
    let mut announcer = Announcer::default();
    for number in 1..=4 {
        announcer.apply(&node(&format!("node{number}"), &format!("172.29.240.1{number}/24")));
    }
    announcer.apply(&node("node5", "172.29.241.11/24"));
    announcer.apply(&pools());
    announcer.set_advertisements(vec![everywhere()]);
    announcer
}

/// The nodes with a part in announcing an address, in order.
fn ranking(announcer: &Announcer, addr: &str) -> Vec<String> {
    let addr: IpAddr = addr.parse().unwrap();
    let rank =
        |name: &NodeName| announcer.duties(name).into_iter().find(|duty| duty.addr == addr).map(|duty| duty.rank);
    let mut ranked: Vec<_> = announcer.nodes.keys().filter_map(|name| Some((rank(name)?, name.to_string()))).collect();
    ranked.sort();
    assert!(ranked.iter().enumerate().all(|(place, (rank, _))| place == *rank), "{ranked:?}");
    ranked.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn nodes_on_the_addresss_own_subnet_announce_it_and_any_node_another_one() {
    let mut announcer = cluster();
    assert!(announcer.apply(&service("web", VIP, TrafficPolicy::Cluster)));
    assert!(!announcer.apply(&service("web", VIP, TrafficPolicy::Cluster)), "nothing changed");
    let mut names = ranking(&announcer, VIP);
    names.sort();
    assert_eq!(names, ["node1", "node2", "node3", "node4"]);
    announcer.apply(&service("web", "192.0.2.7", TrafficPolicy::Cluster));
    assert_eq!(ranking(&announcer, "192.0.2.7").len(), 5);
    assert!(ranking(&announcer, VIP).is_empty());
}

#[test]
fn lost_and_excluded_nodes_take_no_part_and_the_others_keep_their_order() {
    let mut announcer = cluster();
    announcer.apply(&service("web", VIP, TrafficPolicy::Cluster));
    let before = ranking(&announcer, VIP);
    let addr = NodeAddr("172.29.240.11".parse().unwrap());
    let first = Node { lost: true, ..Node::new((&*before[0]).into(), addr) };
    assert!(announcer.apply(&Change::Node(first.name.clone(), Some(first))));
    assert_eq!(ranking(&announcer, VIP), before[1..]);
    let labels = Labels::new([(EXCLUDED.to_owned(), String::new())].into());
    let second = Node { labels, ..Node::new((&*before[1]).into(), addr) };
    announcer.apply(&Change::Node(second.name.clone(), Some(second)));
    assert_eq!(ranking(&announcer, VIP), before[2..]);
}

#[test]
fn only_what_is_advertised_is_announced_by_who_is_selected() {
    let mut announcer = cluster();
    announcer.apply(&service("web", VIP, TrafficPolicy::Cluster));
    assert!(announcer.set_advertisements(Vec::new()));
    assert!(ranking(&announcer, VIP).is_empty());
    let other = Advertisement { pools: ["other".to_owned()].into(), ..everywhere() };
    announcer.set_advertisements(vec![other]);
    assert!(ranking(&announcer, VIP).is_empty());
    let one = Advertisement {
        pools: ["default".to_owned()].into(),
        node_selectors: vec!["zone == 'a'".parse().unwrap()],
        interfaces: ["eth1".to_owned()].into(),
        ..everywhere()
    };
    announcer.set_advertisements(vec![one]);
    let labels = Labels::new([("zone".to_owned(), "a".to_owned())].into());
    let subnet = Some("172.29.240.13/24".parse().unwrap());
    let node3 = Node { labels, subnet, ..Node::new("node3".into(), NodeAddr("172.29.240.13".parse().unwrap())) };
    announcer.apply(&Change::Node("node3".into(), Some(node3)));
    assert_eq!(ranking(&announcer, VIP), ["node3"]);
    assert_eq!(announcer.duties(&"node3".into())[0].interfaces, ["eth1".into()].into());
}

#[test]
fn a_local_service_is_announced_where_it_has_ready_endpoints() {
    let mut announcer = cluster();
    announcer.apply(&slice("web", &[("node2", true), ("node4", false), ("node5", true)]));
    announcer.apply(&service("web", VIP, TrafficPolicy::Local));
    assert_eq!(ranking(&announcer, VIP), ["node2"]);
    assert!(announcer.apply(&slice("web", &[("node3", true)])));
    assert_eq!(ranking(&announcer, VIP), ["node3"]);
    assert!(announcer.apply(&slice("web", &[])));
    assert!(ranking(&announcer, VIP).is_empty());
    assert!(!announcer.apply(&slice("other", &[("node1", true)])), "nobody asks where its endpoints are");
}

#[test]
fn a_local_service_whose_last_endpoints_terminate_is_announced_where_they_still_serve() {
    let mut announcer = cluster();
    let with = |endpoints: &[(&str, bool, bool, bool)]| {
        let Change::Slice(key, Some(mut slice)) = slice("web", &[]) else { panic!("a slice") };
        let endpoints = endpoints.iter().map(|&(node, ready, serving, terminating)| Endpoint {
            ready,
            serving,
            terminating,
            node: Some(node.into()),
            ..Endpoint::new(PodAddr("10.0.0.1".parse().unwrap()))
        });
        slice.endpoints = endpoints.collect();
        Change::Slice(key, Some(slice))
    };
    announcer.apply(&service("web", VIP, TrafficPolicy::Local));
    let (leaves, is_over) = (("node2", false, true, true), ("node3", false, false, true));
    announcer.apply(&with(&[("node2", true, true, false), is_over]));
    assert!(announcer.apply(&with(&[leaves, is_over])), "duties may be others: another node may have had a ready one");
    assert_eq!(ranking(&announcer, VIP), ["node2"], "its last endpoint still serves there");
    assert!(announcer.apply(&with(&[leaves, is_over, ("node4", true, true, false)])));
    assert_eq!(ranking(&announcer, VIP), ["node4"], "one is ready elsewhere");
    let unready = ("node4", false, true, false);
    assert!(announcer.apply(&with(&[is_over, unready])));
    assert!(ranking(&announcer, VIP).is_empty(), "who serves but is not ready takes part only while it terminates");
}

#[test]
fn addresses_are_spread_and_few_move() {
    let mut announcer = cluster();
    let addresses: Vec<String> = (1..=200).map(|last| format!("192.0.2.{last}")).collect();
    for addr in &addresses {
        announcer.apply(&service(addr, addr, TrafficPolicy::Cluster));
    }
    let firsts = |announcer: &Announcer| -> BTreeMap<IpAddr, NodeName> {
        let with_name = |name: &NodeName| -> Vec<(Duty, NodeName)> {
            announcer.duties(name).into_iter().map(|duty| (duty, name.clone())).collect()
        };
        let all = announcer.nodes.keys().flat_map(with_name);
        all.filter(|(duty, _)| duty.rank == 0).map(|(duty, name)| (duty.addr, name)).collect()
    };
    let before = firsts(&announcer);
    for number in 1..=5 {
        let name = format!("node{number}");
        let count = before.values().filter(|first| first.as_str() == name).count();
        assert!((20..=60).contains(&count), "{name} announces {count} of 200");
    }
    announcer.apply(&Change::Node("node3".into(), None));
    let after = firsts(&announcer);
    let moved = before.iter().filter(|(addr, first)| after[*addr] != **first).count();
    assert_eq!(moved, before.values().filter(|first| first.as_str() == "node3").count());
}

#[test]
fn what_is_announced_is_of_the_pools_that_are_served_by_and_ends_with_them() {
    let mut announcer = cluster();
    announcer.apply(&service("web", VIP, TrafficPolicy::Cluster));
    assert_eq!(ranking(&announcer, VIP).len(), 4);
    assert!(!announcer.apply(&pools()), "it says the same");
    let key = ServiceKey::new("metallb-system", "default");
    let other = AddressPool { spans: vec!["192.0.2.0/24".parse().unwrap()], ..pool() };
    assert!(announcer.apply(&Change::AddressPool(key.clone(), Some(Arc::new(other)))));
    assert_eq!(ranking(&announcer, VIP), [""; 0]);
    announcer.apply(&pools());
    assert_eq!(ranking(&announcer, VIP).len(), 4);
    assert!(announcer.apply(&Change::AddressPool(key, None)));
    assert_eq!(ranking(&announcer, VIP), [""; 0]);
}

#[test]
fn two_of_the_nodes_tell_of_a_service_and_others_where_these_are_lost() {
    let mut announcer = cluster();
    let tellers = |announcer: &Announcer, service: &ServiceKey| -> Vec<NodeName> {
        announcer.nodes.keys().filter(|node| announcer.tells_of(node, service)).cloned().collect()
    };
    let services: Vec<_> = (0..100).map(|number| ServiceKey::new("shop", &format!("web{number}"))).collect();
    let all: BTreeSet<_> = services.iter().map(|service| tellers(&announcer, service)).collect();
    assert!(all.iter().all(|tellers| tellers.len() == 2) && all.len() > 5, "{all:?}");
    let before = tellers(&announcer, &services[0]);
    let lost = Node { lost: true, ..Node::new(before[0].clone(), NodeAddr("172.29.240.11".parse().unwrap())) };
    announcer.apply(&Change::Node(before[0].clone(), Some(lost)));
    let after = tellers(&announcer, &services[0]);
    let living: Vec<_> = after.iter().filter(|node| **node != before[0]).collect();
    assert!(living.len() == 2 && living.contains(&&before[1]), "{before:?} {after:?}");
}
