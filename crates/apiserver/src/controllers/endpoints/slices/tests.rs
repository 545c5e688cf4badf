#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::controllers::endpoints::{collect::collect, legacy, mirror};

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
    edits(&Family::of_service(service), &collect(service, pods), existing)
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
    let slices = apply(&[], &edits(&Family::of_endpoints(&endpoints), &mirror::groups(&endpoints), &[]));
    let [slice] = &slices[..] else { panic!("{slices:?}") };
    assert_eq!(slice.labels()[MANAGED_BY], FOR_MIRRORS);
    let ready: Vec<_> =
        slice.endpoints.iter().flatten().map(|endpoint| endpoint.conditions.as_ref().unwrap().ready.unwrap()).collect();
    assert_eq!(ready, [true, false]);
}
