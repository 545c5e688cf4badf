//! What is known of pods, nodes and Services, and for how long.

use podnet_flow::{Transport, names::Holder};
use podnet_model::{
    ClusterIp, Endpoint, EndpointSlice, PodAddr, Protocol, Service, ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
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
    pod.object
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
    known.facts().pools.insert("p".to_owned(), vec![net("10.0.0.0/24")]);
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
    let node = podnet_model::node::Node::new("node1".into(), podnet_model::NodeAddr("172.16.0.1".parse().unwrap()));
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
