//! ServiceImports and the slices of other clusters, as the controllers of cluster sets write them.

use super::*;
use crate::{
    SliceKey,
    convert::{Partly, is_only_imported},
    endpoints::ImportedSlice,
};

fn import(spec: Value) -> Result<Partly<Service>, String> {
    let metadata = json!({"name": "web", "namespace": "test", "labels": {"tier": "front"}});
    let import: crd::ServiceImport = object(json!({"metadata": metadata, "spec": spec, "status": {"clusters": []}}));
    Partly::<Service>::try_from(&import).map_err(|error| error.to_string())
}

fn slice(labels: Value) -> discovery::EndpointSlice {
    object(json!({
        "metadata": {"name": "web-x", "namespace": "test", "labels": labels}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "odd", "port": 70000}],
        "endpoints": [{"addresses": ["10.3.0.1"], "zone": "east"}, {"addresses": ["10.3.0.2"], "zone": ""}],
    }))
}

#[test]
fn an_import_has_the_addresses_of_the_set_or_those_of_its_endpoints() {
    let ports = json!([{"name": "dns", "protocol": "UDP", "port": 53}, {"port": 80}]);
    let shared = import(json!({"type": "ClusterSetIP", "ips": ["10.42.42.42", "fd00::42"], "ports": ports})).unwrap();
    assert!(shared.faults.is_empty(), "{:?}", shared.faults);
    let ServiceKind::Virtual { cluster_ips } = &shared.right.kind else { panic!("{:?}", shared.right.kind) };
    assert_eq!(cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.42.42.42", "fd00::42"]);
    let ports: Vec<_> = shared.right.ports.iter().map(|port| (port.protocol, port.port.0)).collect();
    assert_eq!(ports, [(Protocol::Udp, 53), (Protocol::Tcp, 80)]);
    assert_eq!(shared.right.labels.get("tier").map(String::as_str), Some("front"));
    assert_eq!(import(json!({"type": "Headless", "ports": null})).unwrap().right.kind, ServiceKind::Headless);
    let early = import(json!({"type": "ClusterSetIP", "ips": null})).unwrap();
    assert_eq!(early.right.kind, ServiceKind::Virtual { cluster_ips: Vec::new() });
}

#[test]
fn of_an_import_only_the_wrong_part_is_left_out() {
    let ports =
        json!([{"name": "a", "port": 0}, {"name": "b", "port": 80, "protocol": "TLS"}, {"name": "c", "port": 1}]);
    let partly = import(json!({"type": "ClusterSetIP", "ips": ["nonsense", "10.42.42.42"], "ports": ports})).unwrap();
    let faults: Vec<String> = partly.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].starts_with(r#"ServiceImport test/web: spec.ips[0] is "nonsense""#), "{faults:?}");
    assert!(faults[1].contains("spec.ports[0].port") && faults[2].contains("spec.ports[1].protocol"), "{faults:?}");
    assert_eq!(partly.right.ports.len(), 1);
    let refused = |spec| import(spec).unwrap_err();
    assert!(refused(json!({"type": "ClusterSetIP", "ips": ["nonsense"]})).contains("spec.ips[0]"));
    assert!(refused(json!({"type": "Magic"})).contains("ClusterSetIP or Headless"));
    assert!(refused(json!({})).contains("spec.type is missing"));
}

#[test]
fn a_slice_of_another_cluster_names_its_import_and_its_cluster() {
    let (service, cluster) = ("multicluster.kubernetes.io/service-name", "multicluster.kubernetes.io/source-cluster");
    let read = |labels: Value| Partly::<ImportedSlice>::try_from(&slice(labels)).map_err(|error| error.to_string());
    let partly = read(json!({service: "shop", cluster: "north-1"})).unwrap();
    assert_eq!(partly.faults.len(), 1, "one port is wrong");
    let ImportedSlice { cluster: id, slice: right } = partly.right;
    assert_eq!((&*id, &*right.service.name, &right.key), ("north-1", "shop", &SliceKey::new("test", "web-x")));
    let zones: Vec<_> = right.endpoints.iter().map(|endpoint| endpoint.zone.as_deref()).collect();
    assert_eq!(zones, [Some("east"), None]);
    assert!(read(json!({service: "shop"})).unwrap_err().contains(cluster));
    assert!(read(json!({cluster: "north-1"})).unwrap_err().contains(service));
    for wrong in ["", "a.b", "a_b", &"a".repeat(64)] {
        assert!(read(json!({service: "shop", cluster: wrong})).unwrap_err().contains("a DNS label"), "{wrong}");
    }
}

#[test]
fn a_slice_is_another_cluster_s_alone_where_no_service_of_this_one_has_it() {
    let (own, imported) = ("kubernetes.io/service-name", "multicluster.kubernetes.io/service-name");
    assert!(is_only_imported(&slice(json!({imported: "shop"}))));
    assert!(!is_only_imported(&slice(json!({imported: "shop", own: "derived-shop"}))));
    assert!(!is_only_imported(&slice(json!({own: "shop"}))));
    assert!(!is_only_imported(&slice(json!({}))), "that one is wrong, and somebody has to hear of it");
    assert!(EndpointSlice::try_from(&slice(json!({imported: "shop"}))).is_err());
}
