//! What API objects say is what the table's Services are: its rows hold from what an API server gives on.

#![allow(clippy::needless_pass_by_value, reason = "json! literals are passed as they are")]

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use podnet_model::{Change, EndpointSlice, Service};
use serde_json::{Value, json};

use super::{address, changes, cluster::ready};

/// Everything of the table that asks for more than a ClusterIP and a NodePort: the Service but for its ClusterIP, what its load balancer
/// gave, and its endpoints.
fn objects() -> Vec<(&'static str, Value, Value, Vec<Value>)> {
    let ip = |name: &str| address(name).unwrap().to_string();
    let port = |node_port: u16| json!([{"port": 80, "nodePort": node_port}]);
    let local = |node_port: u16| {
        json!({
            "type": "LoadBalancer", "ports": port(node_port), "externalTrafficPolicy": "Local",
            "healthCheckNodePort": node_port + 1000,
        })
    };
    let vip = |name: &str| json!([{"ip": ip(name)}]);
    let hints = |zones: &[&str], nodes: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        json!({"forZones": all(zones), "forNodes": all(nodes)})
    };
    let hinted = |name: &str, zones: &[&str], nodes: &[&str]| endpoint(name, json!({"hints": hints(zones, nodes)}));
    let plain = |name: &str| endpoint(name, json!({}));
    let starting = |name: &str| endpoint(name, json!({"conditions": {"ready": false, "serving": false}}));
    let leaving = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
    let ending = |name: &str| endpoint(name, leaving.clone());
    let ranges = json!(["198.51.100.0/28", "198.51.100.7/32", "10.233.64.0/24"]);
    let single = || json!([{"port": 80, "protocol": "TCP"}]);
    vec![
        (
            "lbproxy",
            json!({"type": "LoadBalancer", "ports": port(30052)}),
            json!([{"ip": ip("lbproxy-ip"), "ipMode": "Proxy"}]),
            vec![plain("web1"), plain("web2")],
        ),
        (
            "lbranges",
            json!({"type": "LoadBalancer", "ports": port(30053), "loadBalancerSourceRanges": ranges}),
            json!([{"ip": ip("lbranges-ip"), "ipMode": "VIP"}, {"ip": ip("lbranges-ip2")}]),
            vec![plain("web1"), plain("web2")],
        ),
        ("local", local(30054), vip("local-ip"), vec![plain("web1"), plain("shop1"), plain("web3")]),
        ("extnone", local(30058), vip("extnone-ip"), vec![starting("web1")]),
        ("localterm", local(30059), vip("localterm-ip"), vec![ending("web1"), plain("web2")]),
        (
            "inlocal",
            json!({"type": "NodePort", "ports": port(30055), "internalTrafficPolicy": "Local"}),
            json!([]),
            vec![plain("web1"), plain("web2")],
        ),
        (
            "interm",
            json!({"ports": single(), "internalTrafficPolicy": "Local"}),
            json!([]),
            vec![ending("web1"), starting("shop1"), plain("web2")],
        ),
        ("eager", json!({"ports": single(), "publishNotReadyAddresses": true}), json!([]), {
            vec![starting("web1"), starting("web2")]
        }),
        (
            "nodezone",
            json!({"ports": single(), "trafficDistribution": null}),
            json!([]),
            vec![
                hinted("web1", &["a"], &["node1"]),
                hinted("shop1", &["a"], &["node9"]),
                hinted("web2", &["b"], &["node2"]),
                hinted("shop2", &["b"], &["node8"]),
            ],
        ),
        (
            "stickylocal",
            json!({
                "type": "NodePort", "ports": port(30071), "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}
            }),
            json!([]),
            vec![plain("web1"), plain("shop1"), plain("web3")],
        ),
        ("thief", json!({"ports": single(), "externalIPs": [ip("web")]}), json!([]), vec![plain("shop1")]),
    ]
}

fn endpoint(name: &str, more: Value) -> Value {
    let node = ready(name).node.unwrap().to_string();
    let target = json!({"kind": "Pod", "namespace": "default", "name": name});
    let mut endpoint = json!({"addresses": [address(name).unwrap()], "nodeName": node, "targetRef": target});
    for (key, value) in more.as_object().unwrap() {
        endpoint[key] = value.clone();
    }
    endpoint
}

#[test]
fn api_objects_say_what_the_tables_services_are() {
    let table = changes();
    for (name, mut spec, ingress, endpoints) in objects() {
        spec["clusterIPs"] = json!([address(name).unwrap()]);
        let service: core::Service = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}
        }))
        .unwrap();
        let slice: discovery::EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "namespace": "default", "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}
            },
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints
        }))
        .unwrap();
        let service = Service::try_from(&service).unwrap();
        let slice = EndpointSlice::try_from(&slice).unwrap();
        for change in
            [Change::Service(service.key.clone(), Some(service)), Change::Slice(slice.key.clone(), Some(slice))]
        {
            let same_object = |other: &&Change| match (&change, other) {
                (Change::Service(one, _), Change::Service(other, _)) => one == other,
                (Change::Slice(one, _), Change::Slice(other, _)) => one == other,
                _ => false,
            };
            assert_eq!(table.iter().find(same_object), Some(&change));
        }
    }
}

#[test]
fn labels_for_other_programs_take_a_service_and_its_slices_out_of_the_table() {
    let table = changes();
    let labels = json!({"kubernetes.io/service-name": "unlisted", "service.kubernetes.io/headless": ""});
    let slice: discovery::EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "unlisted-1", "labels": labels},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [endpoint("web1", json!({}))]
    }))
    .unwrap();
    let slice = EndpointSlice::try_from(&slice).unwrap();
    assert!(table.contains(&Change::Slice(slice.key.clone(), Some(slice))));
    let service: core::Service = serde_json::from_value(json!({
        "metadata": {
            "namespace": "default", "name": "others", "labels": {"service.kubernetes.io/service-proxy-name": "somebody-else"}
        },
        "spec": {"type": "NodePort", "clusterIPs": [address("others").unwrap()], "ports": [{"port": 80, "nodePort": 30077}]}
    }))
    .unwrap();
    // The table's Services have no labels but what these mean.
    let service = Service { labels: Default::default(), ..Service::try_from(&service).unwrap() };
    assert!(table.contains(&Change::Service(service.key.clone(), Some(service))));
}
