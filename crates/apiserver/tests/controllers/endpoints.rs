use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Event, Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::fixture::{Fixture, deployment};

async fn slices(cluster: &Fixture, service: &str) -> Vec<EndpointSlice> {
    let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    cluster.api::<EndpointSlice>("default").list(&selector).await.unwrap().items
}

async fn ready_addresses(cluster: &Fixture, service: &str) -> usize {
    let slices = slices(cluster, service).await;
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_to_its_pods_and_to_nothing_when_they_are_gone() {
    let cluster = Fixture::with_nodes(2).await;
    cluster
        .create::<Service>(json!({
            "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 8080, "targetPort": "web" }] },
        }))
        .await;
    cluster.wait("an empty slice", || async { (slices(&cluster, "web").await.len() == 1).then_some(()) }).await;
    cluster.create::<Deployment>(deployment("web", 3, "v1")).await;
    cluster.wait("three addresses", || async { (ready_addresses(&cluster, "web").await == 3).then_some(()) }).await;
    let all = slices(&cluster, "web").await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].ports.as_ref().unwrap()[0].port, Some(80));
    cluster
        .until::<Endpoints>("web", "the endpoints object", |endpoints| {
            let subsets = endpoints.subsets.as_deref().unwrap_or_default();
            subsets.first().and_then(|subset| subset.addresses.as_ref()).is_some_and(|all| all.len() == 3)
        })
        .await;

    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    cluster.api::<Deployment>("default").patch("web", &PatchParams::default(), &none).await.unwrap();
    cluster.wait("no addresses", || async { (ready_addresses(&cluster, "web").await == 0).then_some(()) }).await;

    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    cluster.wait("no slices", || async { slices(&cluster, "web").await.is_empty().then_some(()) }).await;
    cluster.until_gone::<Endpoints>("default", "web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_written_by_hand_are_mirrored_and_the_api_s_own_are_left_alone() {
    let cluster = Fixture::with_nodes(0).await;
    cluster.create::<Service>(json!({ "metadata": { "name": "db" }, "spec": { "ports": [{ "port": 5432 }] } })).await;
    cluster
        .create::<Endpoints>(json!({
            "metadata": { "name": "db" },
            "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }], "ports": [{ "port": 5432 }] }],
        }))
        .await;
    cluster.wait("the mirror", || async { (ready_addresses(&cluster, "db").await == 1).then_some(()) }).await;
    cluster.api::<Endpoints>("default").delete("db", &DeleteParams::default()).await.unwrap();
    cluster.wait("its end", || async { slices(&cluster, "db").await.is_empty().then_some(()) }).await;
    let own: Vec<_> = slices(&cluster, "kubernetes").await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(own, ["kubernetes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_two_families_has_slices_of_both_and_hints_follow_the_label_of_a_node() {
    let cluster = Fixture::with_nodes(1).await;
    cluster.create::<Deployment>(deployment("web", 2, "v1")).await;
    let service: Service = cluster
        .create(json!({
            "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }], "ipFamilyPolicy": "PreferDualStack",
                      "trafficDistribution": "PreferSameZone" },
        }))
        .await;
    assert_eq!(service.spec.unwrap().cluster_ips.unwrap(), ["10.233.1.1", "fd00:10:96::101"]);
    cluster.wait("two addresses", || async { (ready_addresses(&cluster, "web").await == 2).then_some(()) }).await;
    // A slice that was written while no pod had a port goes when another one has its endpoints.
    let of_both = || async {
        let mut types: Vec<_> = slices(&cluster, "web").await.into_iter().map(|slice| slice.address_type).collect();
        types.sort();
        (types == ["IPv4", "IPv6"]).then_some(())
    };
    cluster.wait("one slice of each family", of_both).await;

    let zones = |wanted: Option<&'static str>| {
        let cluster = &cluster;
        move || async move {
            let slices = slices(cluster, "web").await;
            let endpoints: Vec<_> = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).collect();
            let said = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
                let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
                (endpoint.zone.clone(), zones.map(|zones| zones[0].name.clone()))
            };
            let wanted = (wanted.map(str::to_owned), wanted.map(str::to_owned));
            (endpoints.len() == 2 && endpoints.iter().all(|endpoint| said(endpoint) == wanted)).then_some(())
        }
    };
    cluster.wait("no zone", zones(None)).await;
    for zone in ["a", "b"] {
        let label = Patch::Merge(json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }));
        let nodes = Api::<Node>::all(cluster.client.clone());
        nodes.patch("node1", &PatchParams::default(), &label).await.unwrap();
        cluster.wait("hints of the zone", zones(Some(zone))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_topology_mode_auto_zones_get_endpoints_by_their_cpus_and_it_is_told_where_that_is_not_safe() {
    let cluster = Fixture::with_nodes(2).await;
    cluster.create::<Deployment>(deployment("web", 4, "v1")).await;
    cluster
        .create::<Service>(json!({
            "metadata": { "name": "web", "annotations": { "service.kubernetes.io/topology-mode": "Auto" } },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
        }))
        .await;
    let told = |reason: &'static str, part: &'static str| {
        let cluster = &cluster;
        move || async move {
            let events = cluster.api::<Event>("default").list(&ListParams::default()).await.unwrap();
            let is_it = |event: &Event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_ref().is_some_and(|text| text.contains(part))
            };
            events.items.iter().any(is_it).then_some(())
        }
    };
    cluster.wait("why not", told("TopologyAwareHintsDisabled", "says no zone")).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    for (node, zone) in [("node1", "a"), ("node2", "b")] {
        let label = Patch::Merge(json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }));
        nodes.patch(node, &PatchParams::default(), &label).await.unwrap();
    }
    cluster.wait("hints", told("TopologyAwareHintsEnabled", "")).await;
    let hints = |wanted: &'static [&'static str]| {
        let cluster = &cluster;
        move || async move {
            let slices = slices(cluster, "web").await;
            let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            let zones =
                endpoints.flat_map(|endpoint| endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten()));
            let mut zones: Vec<_> = zones.map(|zone| zone.name.clone()).collect();
            zones.sort();
            (zones == wanted).then_some(())
        }
    };
    cluster.wait("as many for each", hints(&["a", "a", "b", "b"])).await;
    let cpus = Patch::Merge(json!({ "status": { "allocatable": { "cpu": "192" } } }));
    nodes.patch_status("node2", &PatchParams::default(), &cpus).await.unwrap();
    cluster.wait("by the CPUs", hints(&["a", "b", "b", "b"])).await;
    let gone = Patch::Merge(json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": null } } }));
    nodes.patch("node1", &PatchParams::default(), &gone).await.unwrap();
    cluster.wait("no hints", hints(&[])).await;
}
