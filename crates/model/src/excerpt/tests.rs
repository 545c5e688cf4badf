use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use serde_json::{Value, from_value, json};

use super::{EndpointSlice, Pod, Service};
use crate::convert::{Partly, is_only_imported};

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "web-x", "namespace": "test", "uid": "u1", "resourceVersion": "7", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z", "other": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u2"}],
            "managedFields": [{"manager": "m", "fieldsV1": {"f:endpoints": {}}}],
        },
        "ports": [{"name": "http", "protocol": "UDP", "port": 8080}, {"name": "odd", "port": 70000}, {"name": "all"}],
        "endpoints": [
            {"addresses": ["10.0.0.1", "10.0.0.9"], "conditions": {"ready": false, "serving": true, "terminating": null},
             "hostname": "web-0", "nodeName": "node1", "zone": "a", "deprecatedTopology": {"x": "y"},
             "targetRef": {"kind": "Pod", "namespace": "other", "name": "web-0", "uid": "u3"},
             "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node1"}]}},
            {"addresses": ["10.0.0.2"], "conditions": null, "hostname": "", "zone": "", "targetRef": {"kind": "Pod", "name": "\u{e9}\"1"}},
            {"addresses": ["10.0.0.3"], "targetRef": {"kind": "Node", "name": "node1"}, "hints": {"forZones": null}},
            {"addresses": ["fd00::1"]}, {"addresses": ["nonsense"]}, {"addresses": []}, {},
        ],
    })
}

/// Read from a text, of a value, and made of the whole object.
fn slices(value: &Value) -> [EndpointSlice; 3] {
    let whole: discovery::EndpointSlice = from_value(value.clone()).unwrap();
    [serde_json::from_str(&value.to_string()).unwrap(), from_value(value.clone()).unwrap(), (&whole).into()]
}

#[test]
fn a_slice_says_the_same_as_the_whole_object_its_wrong_parts_too() {
    let [read, of_value, of_whole] = slices(&slice()).map(|slice| Partly::<crate::EndpointSlice>::try_from(&slice));
    let read = read.unwrap();
    assert_eq!((Ok(read.clone()), Ok(read.clone())), (of_value, of_whole));
    let faults: Vec<String> = read.faults.iter().map(ToString::to_string).collect();
    let named = [
        "ports[1].port is \"70000\"",
        "endpoints[3].addresses[0] is \"fd00::1\"",
        "endpoints[4].addresses[0] is \"nonsense\"",
        "endpoints[5].addresses[0] is missing",
        "endpoints[6].addresses[0] is missing",
    ];
    assert_eq!(faults.len(), named.len(), "{faults:?}");
    assert!(faults.iter().zip(named).all(|(fault, named)| fault.contains(named)), "{faults:?}");
    let slice = read.right;
    assert!(slice.unproxied && slice.triggered.is_some());
    let [first, second, third] = &slice.endpoints[..] else { panic!("three endpoints: {slice:?}") };
    assert_eq!((first.ready, first.serving, first.terminating), (false, true, false));
    assert_eq!((first.hostname.as_deref(), first.zone.as_deref()), (Some("web-0"), Some("a")));
    assert_eq!(first.node, Some("node1".into()));
    assert_eq!(first.pod, Some(crate::PodKey::new("other", "web-0")));
    assert_eq!((first.hints.zones.len(), first.hints.nodes.len()), (2, 1));
    assert_eq!((second.hostname.as_deref(), second.zone.as_deref()), (None, None));
    assert_eq!((&second.pod, &third.pod), (&Some(crate::PodKey::new("test", "\u{e9}\"1")), &None));
}

#[test]
fn metadata_of_a_slice_has_who_it_is_and_what_is_read_of_it_alone() {
    let [read, ..] = slices(&slice());
    let metadata = &read.metadata;
    assert_eq!((metadata.uid.as_deref(), metadata.resource_version.as_deref()), (Some("u1"), Some("7")));
    assert_eq!(metadata.labels.iter().flatten().count(), 2);
    assert_eq!(metadata.annotations.iter().flatten().count(), 1);
    assert!(metadata.managed_fields.is_none() && metadata.owner_references.is_none());
    let mut imported = slice();
    imported["metadata"]["labels"] = json!({"multicluster.kubernetes.io/service-name": "shop"});
    assert!(slices(&imported).iter().all(is_only_imported));
    assert!(!is_only_imported(&read));
    assert!(slices(&json!({"metadata": null, "addressType": "IPv4", "endpoints": null}))[0].endpoints.is_empty());
}

#[test]
fn a_service_says_the_same_as_the_whole_object() {
    let value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "test", "uid": "u1", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                     "labels": {"app": "web", "service.kubernetes.io/service-proxy-name": "another"},
                     "annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8,everybody", "other": "x"},
                     "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.233.0.7", "clusterIPs": ["10.233.0.7", "fd00::7"], "externalIPs": ["192.0.2.7", "::1"],
                 "selector": {"app": "web"}, "ports": [{"name": "a", "port": 80, "nodePort": 30080, "targetPort": "http"}, {"name": "b", "port": 0}],
                 "publishNotReadyAddresses": true, "loadBalancerClass": "example.com/other", "sessionAffinity": "ClientIP",
                 "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "internalTrafficPolicy": "Local",
                 "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "trafficDistribution": "PreferSameZone"},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "Proxy"}, {"hostname": "lb.example.com"}]}, "conditions": []},
    });
    let same = |value: Value| {
        let whole: core::Service = from_value(value.clone()).unwrap();
        let read: Service = serde_json::from_str(&value.to_string()).unwrap();
        let [whole, read] = [&whole, &read.object].map(Partly::<crate::Service>::try_from);
        assert_eq!(whole, read);
        read
    };
    let Partly { right: service, faults } = same(value.clone()).unwrap();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!((service.affinity, service.source_ranges.len(), service.ingress.len()), (Some(60), 1, 1));
    assert!(service.publish_not_ready && service.is_anothers && service.created > 0 && service.labels.len() == 2);
    let mut ranged = value;
    ranged["spec"]["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
    assert_eq!(same(ranged).unwrap().right.source_ranges, ["192.0.2.0/24".parse().unwrap()]);
    let metadata = json!({"name": "db", "namespace": "test"});
    let external = json!({"metadata": metadata, "spec": {"type": "ExternalName", "externalName": "db.example.com"}});
    assert!(same(external).is_ok());
    assert!(same(json!({"metadata": {"name": "web", "namespace": "test"}})).is_err());
}

#[test]
fn a_pod_says_the_same_as_the_whole_object() {
    let value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "test", "uid": "u1", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                     "labels": {"app": "web"},
                     "annotations": {"cni.projectcalico.org/ipv4pools": "[\"blue\"]", "ipam.podnet.io/sticky": "true", "kubernetes.io/config.mirror": "u9",
                                     "kubernetes.io/ingress-bandwidth": "10M"},
                     "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u2"}]},
        "spec": {"nodeName": "node1", "serviceAccountName": "web", "dnsPolicy": "ClusterFirst",
                 "dnsConfig": {"searches": ["example.com"], "options": [{"name": "ndots", "value": "3"}]},
                 "containers": [{"name": "web", "image": "web", "env": [{"name": "A", "value": "b"}]}], "volumes": [{"name": "v", "emptyDir": {}}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "startTime": "2026-01-01T00:00:05Z",
                   "containerStatuses": [{"name": "web", "image": "web", "imageID": "", "ready": true, "restartCount": 0}]},
    });
    let whole: core::Pod = from_value(value.clone()).unwrap();
    let read: Pod = serde_json::from_str(&value.to_string()).unwrap();
    let pod = crate::Pod::try_from(&whole).unwrap();
    assert_eq!(Ok(&pod), crate::Pod::try_from(&read).as_ref());
    assert!(pod.request.as_ref().is_ok_and(|request| request.sticky.is_some() && request.pools.v4.len() == 1));
    assert!(pod.limits.as_ref().is_ok_and(|limits| *limits != crate::limits::PodLimits::default()));
    assert!(pod.searches.is_some() && pod.ndots == Some(3));
    assert_eq!((pod.addrs.len(), pod.static_uid.as_deref()), (2, Some("u9")));
    assert_eq!(pod.labels.get("app").map(String::as_str), Some("web"));
    assert_eq!(read, Pod::from(&whole));
    let object = core::Pod::from(read);
    assert_eq!(object.metadata, whole.metadata);
    let (spec, status) = (object.spec.unwrap(), object.status.unwrap());
    assert!(spec.containers.is_empty() && spec.service_account_name.is_some() && status.start_time.is_some());
    let mut shared = value;
    shared["spec"]["hostNetwork"] = json!(true);
    let read: Pod = from_value(shared).unwrap();
    assert!(crate::Pod::try_from(&read).unwrap().host_network);
    assert!(size_of::<Pod>() * 2 < size_of::<core::Pod>(), "there is no room for what is left out");
}
