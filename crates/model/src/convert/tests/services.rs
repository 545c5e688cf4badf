//! Every field of a Service and of an EndpointSlice that decides about packets, as an API server gives it.

use std::net::IpAddr;

use super::*;
use crate::{
    NodeName, NodePort, ServiceKey,
    convert::{Invalid, Partly},
    service::{Ingress, ServiceKind, TrafficPolicy},
};

fn partly(meta: Value, spec: Value, ingress: Value) -> Result<Partly<Service>, String> {
    let mut metadata = json!({"name": "web", "namespace": "test"});
    for (key, value) in meta.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    let mut all = json!({"type": "LoadBalancer", "clusterIPs": ["10.233.0.7"], "ports": [{"port": 80}]});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let service: core::Service =
        object(json!({"metadata": metadata, "spec": all, "status": {"loadBalancer": {"ingress": ingress}}}));
    Partly::try_from(&service).map_err(|error| error.to_string())
}

/// A Service of type `LoadBalancer` with this in its specification.
fn with(spec: Value) -> Service {
    let service = partly(json!({}), spec, json!([])).unwrap();
    assert!(service.faults.is_empty(), "{:?}", service.faults);
    service.right
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The fields of the parts that were left out.
fn faults<T>(partly: &Partly<T>) -> Vec<String> {
    let field = |fault: &Invalid| match fault {
        Invalid::Missing { field, .. } | Invalid::Value { field, .. } => field.clone(),
        Invalid::Selector { field, .. } => (*field).to_owned(),
    };
    partly.faults.iter().map(field).collect()
}

#[test]
fn policies_and_affinity_are_read() {
    use TrafficPolicy::{Cluster, Local};

    let policies = |service: &Service| (service.internal_policy, service.external_policy);
    assert_eq!(policies(&with(json!({}))), (Cluster, Cluster));
    assert_eq!(
        policies(&with(json!({"internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster"}))).0,
        Cluster
    );
    assert_eq!(policies(&with(json!({"internalTrafficPolicy": "Local"}))), (Local, Cluster));
    assert_eq!(policies(&with(json!({"externalTrafficPolicy": "Local"}))), (Cluster, Local));

    assert_eq!(with(json!({})).affinity, None);
    assert_eq!(with(json!({"sessionAffinity": "None"})).affinity, None);
    assert_eq!(with(json!({"sessionAffinity": "ClientIP"})).affinity, Some(10_800));
    let config = |seconds: u32| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    assert_eq!(with(config(1)).affinity, Some(1));
    assert_eq!(with(config(86_400)).affinity, Some(86_400));
    let unused = json!({"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}});
    assert_eq!(with(unused).affinity, None);
}

#[test]
fn what_an_endpoint_and_a_health_check_need_is_read() {
    let service = with(json!({
        "publishNotReadyAddresses": true, "healthCheckNodePort": 32100, "trafficDistribution": "PreferSameNode",
        "ports": [
            {"name": "web", "port": 80, "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 0},
            {"name": "sig", "port": 38412, "protocol": "SCTP"}
        ]
    }));
    assert!(service.publish_not_ready && !with(json!({})).publish_not_ready);
    assert_eq!(
        (service.health_check, with(json!({"healthCheckNodePort": 0})).health_check),
        (Some(NodePort(32100)), None)
    );
    assert_eq!(service.traffic_distribution.as_deref(), Some("PreferSameNode"));
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port.protocol, port.port.0, port.node_port.map(|port| port.0)))
        .collect();
    assert_eq!(
        ports,
        [
            ("web", Protocol::Tcp, 80, Some(30080)),
            ("dns", Protocol::Udp, 53, None),
            ("sig", Protocol::Sctp, 38412, None)
        ]
    );
}

#[test]
fn addresses_of_both_families_and_modes_of_ingress_are_read() {
    let spec = json!({"clusterIPs": ["10.233.0.7", "fd00::7"], "externalIPs": ["192.0.2.7", "2001:db8::7"]});
    let service = with(spec);
    let ServiceKind::Virtual { cluster_ips } = &service.kind else { panic!("{:?}", service.kind) };
    assert_eq!(cluster_ips.iter().map(|addr| addr.0).collect::<Vec<_>>(), [ip("10.233.0.7"), ip("fd00::7")]);
    assert_eq!(service.external_ips, [ip("192.0.2.7"), ip("2001:db8::7")]);

    let given = json!([
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"}, {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"ip": "2001:db8::4", "ipMode": "VIP"}, {"hostname": "lb.example.net"}
    ]);
    let ingress = |addr: &str, is_proxy| Ingress { addr: ip(addr), is_proxy };
    let service = partly(json!({}), json!({}), given.clone()).unwrap().right;
    assert_eq!(
        service.ingress,
        [
            ingress("203.0.113.1", false),
            ingress("203.0.113.2", false),
            ingress("203.0.113.3", true),
            ingress("2001:db8::4", false)
        ]
    );
    let not_balanced = partly(json!({}), json!({"type": "NodePort"}), given).unwrap().right;
    assert!(not_balanced.ingress.is_empty(), "what is left of another type counts no more");
}

#[test]
fn ranges_are_read_from_the_field_and_else_from_the_annotation() {
    let annotation = json!({"annotations":
        {"service.beta.kubernetes.io/load-balancer-source-ranges": " 198.51.100.0/24, 2001:db8::/32 ,"}});
    let ranges = |meta: &Value, spec| -> Vec<String> {
        let service = partly(meta.clone(), spec, json!([])).unwrap();
        assert!(service.faults.is_empty(), "{:?}", service.faults);
        service.right.source_ranges.iter().map(ToString::to_string).collect()
    };
    let field = json!({"loadBalancerSourceRanges": ["192.0.2.9/24", " 10.0.0.0/8 "]});
    assert_eq!(ranges(&json!({}), field.clone()), ["192.0.2.0/24", "10.0.0.0/8"]);
    assert_eq!(ranges(&annotation, json!({})), ["198.51.100.0/24", "2001:db8::/32"]);
    assert_eq!(ranges(&annotation, field), ["192.0.2.0/24", "10.0.0.0/8"], "the field counts");
    assert!(ranges(&annotation, json!({"type": "NodePort"})).is_empty());
}

#[test]
fn another_programs_service_and_its_slices_are_known() {
    let label = json!({"labels": {"service.kubernetes.io/service-proxy-name": "mine"}});
    assert_eq!(partly(label, json!({}), json!([])).unwrap().right.proxy.as_deref(), Some("mine"));
    assert_eq!((with(json!({})).proxy, with(json!({})).created), (None, 0));
    let made = json!({"creationTimestamp": "1970-01-02T00:00:01Z"});
    assert_eq!(partly(made, json!({}), json!([])).unwrap().right.created, 86_401);
    for (label, unproxied) in [
        ("service.kubernetes.io/service-proxy-name", true),
        ("service.kubernetes.io/headless", true),
        ("app.kubernetes.io/name", false),
    ] {
        let slice = slice(json!({label: ""}), "IPv4", json!([]), json!([]));
        assert_eq!(slice.right.unproxied, unproxied, "{label}");
    }
}

fn slice(labels: Value, address_type: &str, ports: Value, endpoints: Value) -> Partly<EndpointSlice> {
    let mut all = json!({"kubernetes.io/service-name": "web"});
    for (key, value) in labels.as_object().unwrap() {
        all[key] = value.clone();
    }
    let slice: discovery::EndpointSlice = object(json!({
        "metadata": {"name": "web-1", "namespace": "test", "labels": all},
        "addressType": address_type, "ports": ports, "endpoints": endpoints
    }));
    Partly::<EndpointSlice>::try_from(&slice).unwrap()
}

#[test]
fn hints_nodes_and_conditions_of_endpoints_are_read() {
    let endpoints = json!([
        {"addresses": ["10.0.0.1"], "nodeName": "node1", "hostname": "web-0",
         "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node1"}]}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
        {"addresses": ["10.0.0.4"], "conditions": {"serving": true, "terminating": true}}
    ]);
    let ports = json!([{"name": "web", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
    let slice = slice(json!({}), "IPv4", ports, endpoints).right;
    assert_eq!(slice.service, ServiceKey::new("test", "web"));
    let ports: Vec<_> = slice.ports.iter().map(|port| (port.name.as_str(), port.protocol, port.port.0)).collect();
    assert_eq!(ports, [("web", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 5353)]);
    let first = &slice.endpoints[0];
    assert_eq!((first.node.clone(), first.hostname.as_deref()), (Some(NodeName::from("node1")), Some("web-0")));
    assert_eq!(first.hints.zones, ["a".into(), "b".into()]);
    assert_eq!(first.hints.nodes, [NodeName::from("node1")]);
    assert!(slice.endpoints[1].hints.zones.is_empty() && slice.endpoints[1].node.is_none());
    let conditions: Vec<_> =
        slice.endpoints.iter().map(|endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating)).collect();
    assert_eq!(
        conditions,
        [(true, true, false), (true, true, false), (false, false, false), (true, true, true)],
        "serving is as ready where nothing is said"
    );
}

#[test]
fn names_in_a_slice_are_no_endpoints_for_nodes() {
    let names = slice(json!({}), "FQDN", json!([{"port": 80}]), json!([{"addresses": ["db.example.net"]}]));
    assert!(names.faults.is_empty(), "{:?}", names.faults);
    assert!(names.right.endpoints.is_empty());
}

#[test]
fn one_odd_endpoint_or_port_is_left_out_alone() {
    let ports = json!([{"name": "web", "port": 8080}, {"name": "odd", "port": 70000}]);
    let endpoints = json!([
        {"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}, {"addresses": []}, {"addresses": ["10.0.0.4"]}
    ]);
    let slice = slice(json!({}), "IPv4", ports, endpoints);
    assert_eq!(faults(&slice), ["ports[1].port", "endpoints[1].addresses[0]", "endpoints[2].addresses[0]"]);
    assert_eq!(slice.right.ports.len(), 1);
    let addrs: Vec<_> = slice.right.endpoints.iter().map(|endpoint| endpoint.addr.0).collect();
    assert_eq!(addrs, [ip("10.0.0.1"), ip("10.0.0.4")]);
}

#[test]
fn one_odd_address_of_a_service_is_left_out_alone() {
    let ingress = json!([
        {"ip": "127.0.0.1"}, {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Tunnel"}, {"ip": "nonsense"}
    ]);
    let spec = json!({
        "externalIPs": ["169.254.1.1", "192.0.2.7"], "clusterIPs": ["10.233.0.7", "nonsense"],
        "ports": [{"name": "a", "port": 80, "nodePort": 70000}, {"name": "b", "port": 0}],
        "externalTrafficPolicy": "Sometimes", "healthCheckNodePort": -1, "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
        "loadBalancerSourceRanges": ["10.0.0.0/8", "everybody"],
    });
    let service = partly(json!({}), spec, ingress).unwrap();
    let mut fields = faults(&service);
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "spec.clusterIPs[]",
            "spec.externalIPs[0]",
            "spec.externalTrafficPolicy",
            "spec.healthCheckNodePort",
            "spec.loadBalancerSourceRanges[1]",
            "spec.ports[0].nodePort",
            "spec.ports[1].port",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            "status.loadBalancer.ingress[0].ip",
            "status.loadBalancer.ingress[2].ipMode",
            "status.loadBalancer.ingress[3].ip",
        ]
    );
    let service = service.right;
    let ServiceKind::Virtual { cluster_ips } = &service.kind else { panic!("{:?}", service.kind) };
    assert_eq!((cluster_ips.len(), service.external_ips), (1, vec![ip("192.0.2.7")]));
    assert_eq!(service.ingress, [Ingress { addr: ip("203.0.113.1"), is_proxy: false }]);
    assert_eq!((service.ports.len(), service.ports[0].node_port, service.health_check), (1, None, None));
    assert_eq!((service.external_policy, service.affinity), (TrafficPolicy::Cluster, Some(10_800)));
    assert_eq!(service.source_ranges.len(), 1);
}

#[test]
fn where_no_range_is_right_nobody_comes_by_the_load_balancer() {
    let spec = json!({"loadBalancerSourceRanges": ["everybody"], "externalIPs": ["192.0.2.7"]});
    let service = partly(json!({}), spec, json!([{"ip": "203.0.113.1"}])).unwrap();
    assert_eq!(faults(&service), ["spec.loadBalancerSourceRanges[0]"]);
    assert!(service.right.ingress.is_empty(), "no range would mean everybody");
    assert_eq!(service.right.external_ips.len(), 1, "the rest is served");
}

#[test]
fn a_service_of_which_nothing_can_be_served_is_refused() {
    let refused = |spec| partly(json!({}), spec, json!([])).unwrap_err();
    assert!(refused(json!({"clusterIPs": ["nonsense"]})).contains("spec.clusterIPs[]"));
    assert!(refused(json!({"ports": [{"port": 0}]})).contains("spec.ports[0].port"));
    assert!(refused(json!({"type": "Magic"})).contains("spec.type"));
}
