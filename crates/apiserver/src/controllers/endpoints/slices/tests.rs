#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::controllers::endpoints::{collect, legacy, mirror};

/// The endpoints of IPv4; the zone of node n1 is z1, others have none.
fn collect(service: &Service, pods: &[Arc<Pod>]) -> Vec<Group> {
    collect::collect(service, pods, Family::V4, zone_of)
}

fn zone_of(node: &str) -> Option<String> {
    (node == "n1").then(|| "z1".to_owned())
}

fn mirrored(endpoints: &Endpoints) -> Vec<Edit> {
    let families = Family::BOTH.map(|family| (family, mirror::groups(endpoints, family)));
    edits(&Kin::of_endpoints(endpoints), &families, &[])
}

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "svc", "labels": { "team": "a" } },
        "spec": spec,
    }))
    .unwrap()
}

fn web() -> Service {
    service(json!({
        "clusterIP": "10.233.0.7", "selector": { "app": "web" },
        "ports": [{ "name": "http", "port": 80, "targetPort": "web" }],
    }))
}

fn pod(number: usize, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": format!("p{number}"), "namespace": "shop", "uid": format!("uid{number}"), "labels": { "app": "web" } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }] }] },
        "status": { "phase": "Running", "podIP": format!("10.233.64.{number}"),
                    "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    change(&mut pod);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (1..=count).map(|number| pod(number, |_| ())).collect()
}

/// The slices after the edits.
fn apply(existing: &[Arc<EndpointSlice>], edits: &[Edit]) -> Vec<Arc<EndpointSlice>> {
    let mut slices = existing.to_vec();
    for edit in edits {
        match edit {
            Edit::Create(slice) => slices.push(Arc::new((**slice).clone())),
            Edit::Update(slice) => {
                let at = slices.iter().position(|known| known.metadata.name == slice.metadata.name).unwrap();
                slices[at] = Arc::new((**slice).clone());
            }
            Edit::Delete(slice) => slices.retain(|known| known.metadata.name != slice.metadata.name),
        }
    }
    slices
}

fn plan(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Edit> {
    let families = Family::of_service(service).into_iter();
    let families: Vec<_> = families.map(|family| (family, collect::collect(service, pods, family, zone_of))).collect();
    edits(&Kin::of_service(service), &families, existing)
}

fn counts(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect()
}

#[test]
fn a_slice_says_which_pods_and_ports_a_service_leads_to() {
    let slices = apply(&[], &plan(&web(), &pods(1), &[]));
    let [slice] = &slices[..] else { panic!("{slices:?}") };
    assert_eq!(slice.labels()[SERVICE_NAME], "web");
    assert_eq!((slice.labels()[MANAGED_BY].as_str(), slice.labels()["team"].as_str()), (FOR_PODS, "a"));
    assert!(ownership::is_controlled_by(&**slice, "svc"));
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port, port.protocol.as_deref()), (Some("http"), Some(8080), Some("TCP")));
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!((endpoint.addresses[0].as_str(), endpoint.node_name.as_deref()), ("10.233.64.1", Some("n1")));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().name.as_deref(), Some("p1"));
}

#[test]
fn conditions_follow_the_pod() {
    let unready = |pod: &mut Value| pod["status"]["conditions"] = json!([]);
    let leaving = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let finished = |pod: &mut Value| pod["status"]["phase"] = json!("Failed");
    let homeless = |pod: &mut Value| pod["status"]["podIP"] = Value::Null;
    let pods = [pod(1, |_| ()), pod(2, unready), pod(3, leaving), pod(4, finished), pod(5, homeless)];
    let conditions = |service: &Service| -> Vec<_> {
        let groups = collect(service, &pods);
        let endpoints = groups.iter().flat_map(|group| &group.endpoints);
        endpoints
            .map(|endpoint| {
                let conditions = endpoint.conditions.clone().unwrap();
                [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap)
            })
            .collect()
    };
    assert_eq!(conditions(&web()), [[true, true, false], [false, false, false], [false, true, true]]);
    let mut every_address = web();
    every_address.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    assert_eq!(conditions(&every_address), [[true, true, false], [true, false, false], [true, true, true]]);
}

#[test]
fn pods_that_give_a_named_port_another_number_have_a_slice_of_their_own() {
    let other = pod(2, |pod| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090));
    let slices = apply(&[], &plan(&web(), &[pod(1, |_| ()), other], &[]));
    let mut ports: Vec<_> = slices.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn a_service_without_endpoints_has_one_slice_that_says_so_and_gives_it_up_for_a_real_one() {
    let empty = apply(&[], &plan(&web(), &[], &[]));
    assert_eq!(counts(&empty), [0]);
    assert!(plan(&web(), &[], &empty).is_empty());
    assert_eq!(counts(&apply(&empty, &plan(&web(), &pods(2), &empty))), [2]);
}

#[test]
fn a_slice_holds_a_hundred_and_a_change_touches_one() {
    let mut all = pods(250);
    let slices = apply(&[], &plan(&web(), &all, &[]));
    assert_eq!(counts(&slices), [100, 100, 50]);
    assert!(plan(&web(), &all, &slices).is_empty(), "nothing changed");
    all.remove(10);
    let gone = plan(&web(), &all, &slices);
    assert!(matches!(&gone[..], [Edit::Update(_)]), "{gone:?}");
    let slices = apply(&slices, &gone);
    all.push(pod(251, |_| ()));
    let edits = plan(&web(), &all, &slices);
    assert!(matches!(&edits[..], [Edit::Update(_)]), "{edits:?}");
    assert_eq!(counts(&apply(&slices, &edits)).iter().sum::<usize>(), 250);
}

#[test]
fn a_replaced_pod_takes_the_room_of_the_old_one() {
    let mut all = pods(200);
    let slices = apply(&[], &plan(&web(), &all, &[]));
    all[5] = pod(201, |_| ());
    let edits = plan(&web(), &all, &slices);
    assert!(matches!(&edits[..], [Edit::Update(_)]), "{edits:?}");
    assert_eq!(counts(&apply(&slices, &edits)), [100, 100]);
}

#[test]
fn a_slice_that_the_cache_does_not_show_yet_is_made_under_the_same_name() {
    let name = |edits: &[Edit]| match edits {
        [Edit::Create(slice)] => slice.metadata.name.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(name(&plan(&web(), &pods(1), &[])), name(&plan(&web(), &pods(2), &[])));
}

#[test]
fn a_pod_has_its_hostname_in_the_service_of_its_subdomain() {
    let named = pod(1, |pod| {
        pod["spec"]["hostname"] = json!("db-0");
        pod["spec"]["subdomain"] = json!("web");
    });
    assert_eq!(collect(&web(), &[named])[0].endpoints[0].hostname.as_deref(), Some("db-0"));
}

#[test]
fn the_old_endpoints_object_lists_ready_and_unready_addresses_and_leaves_out_leaving_ones() {
    let unready = |pod: &mut Value| pod["status"]["conditions"] = json!([]);
    let leaving = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let groups = collect(&web(), &[pod(1, |_| ()), pod(2, unready), pod(3, leaving)]);
    let endpoints = legacy::endpoints(&web(), &groups);
    let subset = &endpoints.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap()[0].ip, "10.233.64.1");
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 1);
    assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
    assert!(legacy::is_ours(&endpoints) && !mirror::is_mirrored(&endpoints));
}

#[test]
fn the_old_endpoints_object_ends_at_a_thousand_addresses_and_says_so() {
    let many: Vec<_> = (0..1001)
        .map(|number| {
            pod(number, |pod| pod["status"]["podIP"] = json!(format!("10.233.{}.{}", number / 250, number % 250 + 1)))
        })
        .collect();
    let endpoints = legacy::endpoints(&web(), &collect(&web(), &many));
    assert_eq!(endpoints.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
    assert_eq!(endpoints.annotations()["endpoints.kubernetes.io/over-capacity"], "truncated");
}

#[test]
fn endpoints_written_by_hand_are_copied() {
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "ep" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }], "notReadyAddresses": [{ "ip": "192.0.2.8" }],
                      "ports": [{ "port": 5432 }] }],
    }))
    .unwrap();
    assert!(mirror::is_mirrored(&endpoints));
    let slices = apply(&[], &mirrored(&endpoints));
    let [slice] = &slices[..] else { panic!("{slices:?}") };
    assert_eq!(slice.labels()[MANAGED_BY], FOR_MIRRORS);
    let ready: Vec<_> =
        slice.endpoints.iter().flatten().map(|endpoint| endpoint.conditions.as_ref().unwrap().ready.unwrap()).collect();
    assert_eq!(ready, [true, false]);
}

#[test]
fn endpoints_of_two_families_are_copied_to_slices_of_both() {
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "ep" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }, { "ip": "2001:db8::7" }], "ports": [{ "port": 5432 }] }],
    }))
    .unwrap();
    let slices = apply(&[], &mirrored(&endpoints));
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| (slice.address_type.as_str(), slice.endpoints.as_ref().unwrap()[0].addresses[0].as_str()))
        .collect();
    assert_eq!(shown, [("IPv4", "192.0.2.7"), ("IPv6", "2001:db8::7")]);
    let none: Endpoints = serde_json::from_value(json!({ "metadata": { "name": "web", "uid": "ep" } })).unwrap();
    assert!(mirrored(&none).is_empty());
}

fn dual(families: Value) -> Service {
    service(json!({
        "clusterIP": "10.233.0.7", "ipFamilies": families, "selector": { "app": "web" }, "ports": [{ "port": 80 }],
    }))
}

#[test]
fn a_service_of_two_families_has_slices_of_each_and_gives_up_those_of_one_that_it_loses() {
    let both = pod(1, |pod| pod["status"]["podIPs"] = json!([{ "ip": "10.233.64.1" }, { "ip": "fd00::1" }]));
    let pods = [both, pod(2, |_| ())];
    let slices = apply(&[], &plan(&dual(json!(["IPv6", "IPv4"])), &pods, &[]));
    let shown = |slices: &[Arc<EndpointSlice>]| -> Vec<(String, usize)> {
        slices.iter().map(|slice| (slice.address_type.clone(), slice.endpoints.as_ref().unwrap().len())).collect()
    };
    assert_eq!(shown(&slices), [("IPv6".to_owned(), 1), ("IPv4".to_owned(), 2)]);
    assert_eq!(slices[0].endpoints.as_ref().unwrap()[0].addresses, ["fd00::1"]);
    assert!(plan(&dual(json!(["IPv6", "IPv4"])), &pods, &slices).is_empty(), "nothing changed");
    let single = apply(&slices, &plan(&dual(json!(["IPv4"])), &pods, &slices));
    assert_eq!(shown(&single), [("IPv4".to_owned(), 2)]);
}

#[test]
fn endpoints_say_where_they_are_and_for_whom_they_are_meant() {
    let elsewhere = pod(2, |pod| pod["spec"]["nodeName"] = json!("n2"));
    let unready = pod(3, |pod| pod["status"]["conditions"] = json!([]));
    let pods = [pod(1, |_| ()), elsewhere, unready];
    let hints = |distribution: Value| -> Vec<Value> {
        let mut service = web();
        service.spec.as_mut().unwrap().traffic_distribution = serde_json::from_value(distribution).unwrap();
        let groups = collect(&service, &pods);
        assert_eq!(groups[0].endpoints[0].zone.as_deref(), Some("z1"));
        groups[0].endpoints.iter().map(|endpoint| serde_json::to_value(&endpoint.hints).unwrap()).collect()
    };
    let zone = json!({ "forZones": [{ "name": "z1" }] });
    assert_eq!(hints(Value::Null), [Value::Null, Value::Null, Value::Null]);
    assert_eq!(hints(json!("PreferSameZone")), [zone.clone(), Value::Null, Value::Null]);
    assert_eq!(hints(json!("PreferClose")), [zone, Value::Null, Value::Null]);
    assert_eq!(
        hints(json!("PreferSameNode")),
        [
            json!({ "forNodes": [{ "name": "n1" }], "forZones": [{ "name": "z1" }] }),
            json!({ "forNodes": [{ "name": "n2" }] }),
            Value::Null,
        ]
    );
}

#[test]
fn a_slice_says_since_when_it_is_due() {
    let mut slice = EndpointSlice::default();
    set_trigger(&mut slice, Some("2026-01-01T00:00:00.1234Z".parse().unwrap()));
    assert_eq!(slice.annotations()[TRIGGER], "2026-01-01T00:00:00.123Z");
    set_trigger(&mut slice, None);
    assert!(slice.annotations().is_empty());
}
