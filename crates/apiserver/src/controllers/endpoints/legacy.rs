//! The Endpoints object of a Service: what `kubectl get endpoints` shows.

use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service},
    discovery::v1::Endpoint,
};
use kube::{ResourceExt, api::ObjectMeta};

use super::collect::{self, Group};

/// The label that says who writes an Endpoints object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
/// Says that not all addresses fit.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses in one object (Kubernetes documentation, "Over-capacity endpoints").
const CAPACITY: usize = 1000;

/// Whether this controller wrote the object.
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY).is_some_and(|by| by == CONTROLLER)
}

/// The object for these groups.
pub(super) fn endpoints(service: &Service, groups: &[Group]) -> Endpoints {
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if collect::is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    let mut left = CAPACITY;
    let total: usize = groups.iter().map(|group| group.endpoints.iter().filter(|one| !is_leaving(one)).count()).sum();
    let subsets: Vec<_> = groups.iter().filter_map(|group| subset(group, &mut left)).collect();
    let truncated = (total > CAPACITY).then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: truncated,
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Whether an object needs no change to be the wanted one.
pub(super) fn says_the_same(known: &Endpoints, wanted: &Endpoints) -> bool {
    known.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default()
        && known.metadata.labels == wanted.metadata.labels
        && known.annotations().get(OVER_CAPACITY) == wanted.annotations().get(OVER_CAPACITY)
}

/// The known object with the wanted content.
pub(super) fn updated(known: &Endpoints, wanted: Endpoints) -> Endpoints {
    let mut metadata = known.metadata.clone();
    metadata.labels = wanted.metadata.labels;
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    annotations.extend(wanted.metadata.annotations.into_iter().flatten());
    Endpoints { metadata, subsets: wanted.subsets }
}

/// Ready addresses come before the others when not all fit.
fn subset(group: &Group, left: &mut usize) -> Option<EndpointSubset> {
    let mut take = |ready: bool| {
        let chosen = group.endpoints.iter().filter(|one| !is_leaving(one) && is_ready(one) == ready);
        let addresses: Vec<_> = chosen.take(*left).filter_map(address).collect();
        *left -= addresses.len();
        (!addresses.is_empty()).then_some(addresses)
    };
    let (addresses, not_ready_addresses) = (take(true), take(false));
    if addresses.is_none() && not_ready_addresses.is_none() {
        return None;
    }
    let ports: Vec<_> = group
        .ports
        .iter()
        .map(|port| EndpointPort {
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    Some(EndpointSubset { addresses, not_ready_addresses, ports: (!ports.is_empty()).then_some(ports) })
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
}

/// Pods on their way out are not in Endpoints, unless the Service asks for every address.
fn is_leaving(endpoint: &Endpoint) -> bool {
    !is_ready(endpoint) && endpoint.conditions.as_ref().is_some_and(|conditions| conditions.terminating == Some(true))
}

fn address(endpoint: &Endpoint) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: endpoint.addresses.first()?.clone(),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        target_ref: endpoint.target_ref.clone(),
    })
}
