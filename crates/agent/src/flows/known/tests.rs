//! What is known of pods, nodes and Services, and for how long.

use k8s_openapi::jiff::SignedDuration;
use podnet_flow::{Transport, names::Holder};
use podnet_model::{
    ClusterIp, Dual, Endpoint, EndpointSlice, NetConf, NodeAddr, PodAddr, Pool, Protocol, Service, ServicePort,
    SliceKey, TargetPort,
    endpoints::EndpointPort,
    excerpt,
    flannel::Backend,
    service::{Port, ServiceKind},
};
use serde_json::json;

use super::*;

fn pod(name: &str, ip: &str, phase: &str) -> Pod {
    let pod: excerpt::Pod = serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name,
            "labels": {"app": "web", "pod-template-hash": "77f9"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-77f9", "uid": "r", "controller": true},
            ],
        },
        "spec": {"nodeName": "node1", "serviceAccountName": "till", "containers": []},
        "status": {"phase": phase, "podIPs": [{"ip": ip}]},
    }))
    .unwrap();
    pod.into()
}

#[test]
fn a_pod_is_known_by_its_address_with_its_deployment_until_it_is_over_or_gone() {
    let known = Known::of_node("node1".into(), Some("10.96.0.0/16".parse().unwrap()));
    let addr: IpAddr = "10.0.0.7".parse().unwrap();
    let holder = || known.facts().names.holder(addr, Timestamp::now());
    let mut listed = Vec::new();
    known.event(Event::Apply(pod("web-1", "10.0.0.7", "Running")), &mut listed);
    let Holder::Pod(found) = holder() else { panic!("{:?}", holder()) };
    assert_eq!(
        (&*found.name, &*found.owner.as_ref().unwrap().kind, &*found.owner.as_ref().unwrap().name),
        ("web-1", "Deployment", "web")
    );
    assert_eq!((found.service_account.as_deref(), found.labels.len()), (Some("till"), 1));
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    assert_eq!(known.ranges(), [net("10.0.0.7/32"), net("10.96.0.0/16")].into(), "no pool has it");
    known.learn(&Change::Pool("p".into(), Some(Pool::new("p".into(), net("10.0.0.0/24")))));
    assert_eq!(known.ranges(), [net("10.0.0.0/24"), net("10.96.0.0/16")].into());
    for gateway in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(AGENT_V6)] {
        let holder = known.facts().names.holder(gateway, Timestamp::now());
        assert_eq!(holder, Holder::Node("node1".into()), "its pods ask it there");
    }
    known.event(Event::Apply(pod("web-1", "10.0.0.7", "Succeeded")), &mut listed);
    assert_eq!(holder(), Holder::World);
    known.event(Event::Apply(pod("web-2", "10.0.0.7", "Running")), &mut listed);
    for event in [Event::Init, Event::InitApply(pod("web-3", "10.0.0.8", "Running")), Event::InitDone] {
        assert!(matches!(holder(), Holder::Pod(_)));
        known.event(event, &mut listed);
    }
    assert_eq!(holder(), Holder::World, "it was not listed any more");
}

/// What is told of one address, by seconds from now.
struct OneAddress {
    known: Arc<Known>,
    addr: IpAddr,
    start: Timestamp,
}

impl OneAddress {
    fn new() -> Self {
        let known = Known::of_node("node1".into(), None);
        Self { known, addr: "10.0.0.7".parse().unwrap(), start: Timestamp::now() }
    }

    fn at(&self, second: i64) -> Timestamp {
        self.start.checked_add(SignedDuration::from_secs(second)).unwrap()
    }

    /// Its object is seen, now.
    fn pod(&self, name: &str, began: i64, is_shown: bool, phase: &str) {
        let mut pod = pod(name, "10.0.0.7", phase);
        let status = pod.status.as_mut().unwrap();
        status.start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.at(began)));
        if !is_shown {
            status.pod_ips = None;
        }
        self.known.event(Event::Apply(pod), &mut Vec::new());
    }

    /// The node's pod with that uid has it.
    fn given(&self, uid: &str, second: i64) {
        self.known.attached(vec![(self.addr, uid.into())], self.at(second));
    }

    /// No pod of the node has it.
    fn free(&self, second: i64) {
        self.known.attached(Vec::new(), self.at(second));
    }

    fn holder(&self, second: i64) -> String {
        match self.known.facts().names.holder(self.addr, self.at(second)) {
            Holder::Pod(pod) => pod.name.to_string(),
            other => format!("{other:?}"),
        }
    }
}

#[test]
fn a_pod_has_its_address_since_it_was_given_that_whatever_its_object_shows() {
    let told = OneAddress::new();
    let holder = |second| told.holder(second);
    told.given("nobody-knows", -70);
    told.pod("first", -60, false, "Pending");
    assert_eq!(holder(-50), "World");
    told.given("first", -55);
    assert_eq!((holder(-50).as_str(), told.known.ranges().len()), ("first", 1), "its object shows none yet");
    told.pod("first", -60, true, "Running");
    assert_eq!(holder(-50), "first");
    // It is over, and its sandbox is there yet.
    told.pod("first", -60, true, "Succeeded");
    told.given("first", 1);
    assert_eq!((holder(-50).as_str(), holder(1).as_str(), told.known.ranges().len()), ("first", "World", 0));
    // It was made long before it got an address.
    told.pod("second", -100, false, "Pending");
    told.given("second", 10);
    assert_eq!([-50, 10].map(holder), ["first", "second"]);
    // One whose object shows no end yet has it no more as well, and what it sent before stays its own.
    told.pod("third", -100, false, "Pending");
    told.given("second", 20);
    told.given("third", 21);
    assert_eq!([19, 20, 30].map(holder), ["second", "third", "third"]);
    // It had it for a while before anybody told who it is.
    told.given("late", 30);
    told.given("late", 50);
    told.pod("late", -100, false, "Pending");
    told.given("late", 51);
    assert_eq!([20, 22, 31].map(holder), ["third", "late", "late"]);
}

#[test]
fn an_earlier_holder_has_its_past_when_the_first_that_is_told_of_the_next_one_shows_the_address() {
    let told = OneAddress::new();
    told.pod("first", -60, true, "Running");
    told.free(-30);
    told.given("second", -29);
    told.pod("second", -50, true, "Running");
    assert_eq!([-40, -31, -20].map(|second| told.holder(second)), ["first", "first", "second"]);
}

#[test]
fn an_object_that_shows_an_address_of_before_takes_it_from_no_pod_that_its_node_gave_it_to() {
    let told = OneAddress::new();
    told.pod("first", -60, true, "Running");
    told.free(-30);
    told.pod("second", -40, false, "Pending");
    told.given("second", -29);
    told.pod("first", -60, true, "Running");
    let holders = || [-40, -20, 10].map(|second| told.holder(second));
    assert_eq!(holders(), ["first", "second", "second"]);
    told.given("second", 1);
    assert_eq!(holders(), ["first", "second", "second"]);
}

#[test]
fn a_static_pod_is_known_though_its_node_calls_it_by_another_uid_than_its_object_has() {
    let told = OneAddress::new();
    told.given("of-its-file", -50);
    told.pod("static", -60, true, "Running");
    told.given("of-its-file", -49);
    assert_eq!(told.holder(-40), "static");
}

#[test]
fn nodes_are_known_by_all_their_addresses_and_where_flannel_is_by_the_first_ones_of_their_parts() {
    let known = Known::of_node("node1".into(), None);
    let addr = |text: &str| text.parse::<IpAddr>().unwrap();
    let node = Node {
        addresses: ["192.0.2.2", "172.31.0.2", "203.0.113.2"].map(addr).into(),
        pod_cidrs: ["10.244.2.0/24", "fd00:244:2::/64"].map(|part| part.parse::<IpNet>().unwrap()).into(),
        ..Node::new("node2".into(), NodeAddr(addr("192.0.2.2")))
    };
    known.learn(&Change::Node("node2".into(), Some(node)));
    let is_node = |text: &str| {
        let holder = known.facts().names.holder(addr(text), Timestamp::now());
        holder == Holder::Node("node2".into())
    };
    let own = ["192.0.2.2", "172.31.0.2", "203.0.113.2"];
    let firsts = ["10.244.2.0", "10.244.2.1", "fd00:244:2::", "fd00:244:2::1"];
    let pods = ["10.244.2.2", "10.244.3.0", "fd00:244:2::2"];
    assert_eq!((own.map(is_node), firsts.map(is_node)), ([true; 3], [false; 4]), "pods may have these");
    let conf = |v4: &str| {
        let networks = Dual { v4: v4.parse().ok(), v6: "fd00:244::/32".parse().ok() };
        NetConf { networks, subnet_len: 24, backend: Backend::HostGw }
    };
    let learn = |conf| known.learn(&Change::NetConf("kube-flannel".into(), conf));
    learn(Some(conf("10.244.0.0/16")));
    assert_eq!((own.map(is_node), firsts.map(is_node), pods.map(is_node)), ([true; 3], [true; 4], [false; 3]));
    learn(Some(conf("10.99.0.0/16")));
    assert_eq!(firsts.map(is_node), [false, false, true, true], "that part is not of its range");
    learn(None);
    assert_eq!(firsts.map(is_node), [false; 4]);
    assert_eq!(known.address(&"node2".into()), Some(addr("192.0.2.2")));
    known.learn(&Change::Node("node2".into(), None));
    assert_eq!(own.map(is_node), [false; 3]);
}

#[test]
fn an_address_that_several_nodes_say_they_have_is_that_ones_whose_own_it_is_or_nobodys() {
    let known = Known::of_node("node1".into(), None);
    let addr = |text: &str| text.parse::<IpAddr>().unwrap();
    let rows = [
        ("node2", "192.0.2.2", ["192.0.2.2", "203.0.113.1", "198.51.100.2", "198.51.100.2"]),
        ("node3", "192.0.2.3", ["192.0.2.3", "203.0.113.1", "192.0.2.2", "198.51.100.3"]),
    ];
    for (name, own, said) in rows {
        let node = Node {
            internal: Some(NodeAddr(addr("10.0.2.15"))),
            addresses: said.map(addr).into(),
            ..Node::new(name.into(), NodeAddr(addr(own)))
        };
        known.learn(&Change::Node(name.into(), Some(node)));
    }
    let holder = |text: &str| known.facts().names.holder(addr(text), Timestamp::now());
    let node = |name: &str| Holder::Node(name.into());
    assert_eq!(["192.0.2.2", "198.51.100.2"].map(holder), [node("node2"), node("node2")]);
    assert_eq!(["192.0.2.3", "198.51.100.3"].map(holder), [node("node3"), node("node3")]);
    assert_eq!(["203.0.113.1", "10.0.2.15"].map(holder), [Holder::World, Holder::World]);
    known.learn(&Change::Node("node2".into(), None));
    assert_eq!(["203.0.113.1", "192.0.2.2"].map(holder), [node("node3"), node("node3")], "the only one that says so");
}

#[test]
fn a_pod_has_the_labels_that_are_of_interest() {
    let labels = |wanted: &[&str]| {
        let known = Known::of_node("node1".into(), None);
        known.choose_labels(&wanted.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        known.event(Event::Apply(pod("web-1", "10.0.0.7", "Running")), &mut Vec::new());
        match known.facts().names.holder("10.0.0.7".parse().unwrap(), Timestamp::now()) {
            Holder::Pod(pod) => pod.labels.keys().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(labels(&[]), ["app"]);
    assert_eq!(labels(&["app", "tier"]), ["app"]);
    assert_eq!(labels(&["pod-*"]), ["pod-template-hash"], "who asks for it gets it");
    assert_eq!(labels(&["ap", "pp*"]), Vec::<String>::new());
    assert_eq!(labels(&[""]), Vec::<String>::new());
}

#[test]
fn who_had_an_address_is_known_to_an_agent_that_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("holders.json");
    let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
    let pod = |name: &str, second: i64| {
        let mut pod = pod(name, "10.0.0.7", "Running");
        pod.status.as_mut().unwrap().start_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
        pod
    };
    let holder = |known: &Known, second: i64| match known.facts().names.holder("10.0.0.7".parse().unwrap(), at(second))
    {
        Holder::Pod(pod) => pod.name.to_string(),
        other => format!("{other:?}"),
    };
    let known = Known::of_node("node1".into(), None);
    known.keep_at(&path);
    known.event(Event::Apply(pod("first", 10)), &mut Vec::new());
    known.write_down(false);
    assert!(!path.exists(), "not each change is written at once");
    known.write_down(true);
    // It went while nobody looked, and another one has its address.
    let anew = Known::of_node("node1".into(), None);
    anew.keep_at(&path);
    assert_eq!(holder(&anew, 20), "first");
    let mut listed = Vec::new();
    for event in [Event::Init, Event::InitApply(pod("second", 100)), Event::InitDone] {
        anew.event(event, &mut listed);
    }
    assert_eq!([20, 99, 100].map(|second| holder(&anew, second)), ["first", "first", "second"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(&path, "[{").unwrap();
    let anew = Known::of_node("node1".into(), None);
    anew.keep_at(&path);
    assert_eq!(holder(&anew, 20), "World");
}

#[test]
fn nodes_are_among_whom_pods_may_ask_while_services_are_at_their_ports() {
    let known = Known::of_node("node1".into(), None);
    let node = Node::new("node1".into(), NodeAddr("172.16.0.1".parse().unwrap()));
    known.learn(&Change::Node("node1".into(), Some(node)));
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp("10.96.0.7".parse().unwrap())] };
    let (protocol, port) = (Protocol::Tcp, ServicePort(80));
    let mut port = Port { name: "http".into(), protocol, port, node_port: None };
    let mut learn = |node_port| {
        port.node_port = node_port;
        let cart = Service::new(ServiceKey::new("shop", "cart"), kind.clone(), vec![port.clone()]);
        known.learn(&Change::Service(cart.key.clone(), Some(cart)));
        let at = "172.16.0.1:30080".parse().unwrap();
        let service = known.facts().names.service(at, Transport::TCP).map(ToString::to_string);
        (service, known.ranges())
    };
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    assert_eq!(learn(None), (None, [net("10.96.0.7/32")].into()));
    let at_nodes = learn(Some(podnet_model::NodePort(30080)));
    assert_eq!(at_nodes, (Some("shop/cart".to_owned()), [net("10.96.0.7/32"), net("172.16.0.1/32")].into()));
    assert_eq!(learn(None), (None, [net("10.96.0.7/32")].into()));
}

#[test]
fn a_service_is_without_anybody_to_answer_once_all_was_listed_until_an_endpoint_comes() {
    let known = Known::of_node("node1".into(), None);
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp("10.96.0.7".parse().unwrap())] };
    let (protocol, port) = (Protocol::Udp, ServicePort(53));
    let port = Port { name: "dns".into(), protocol, port, node_port: None };
    let service = Service::new(ServiceKey::new("shop", "dns"), kind, vec![port]);
    let at = "10.96.0.7:53".parse().unwrap();
    let is_unserved = || known.facts().names.is_unserved(at, Transport::UDP);
    known.learn(&Change::Service(service.key.clone(), Some(service)));
    assert!(!is_unserved(), "slices may come yet");
    known.listed();
    assert!(is_unserved());
    let slice = EndpointSlice {
        key: SliceKey::new("shop", "dns-1"),
        service: ServiceKey::new("shop", "dns"),
        ports: vec![EndpointPort { name: "dns".into(), protocol, port: TargetPort(5353) }],
        endpoints: vec![Endpoint::new(PodAddr("10.0.0.1".parse().unwrap()))],
        triggered: None,
        unproxied: false,
    };
    known.learn(&Change::Slice(slice.key.clone(), Some(slice.clone())));
    assert!(!is_unserved());
    known.learn(&Change::Slice(slice.key, None));
    assert!(is_unserved());
}
