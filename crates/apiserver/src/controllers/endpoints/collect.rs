//! The endpoints of a Service: its pods, and the ports that each of them gives to the Service's.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;

use super::{
    family::Family,
    hints::{Distribution, hints},
};
use crate::controllers::pods;

/// Endpoints that share their ports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// The ports.
    pub(super) ports: Vec<EndpointPort>,
    /// The endpoints, ordered by address.
    pub(super) endpoints: Vec<Endpoint>,
}

/// Whether the Service is nothing but a name.
pub(super) fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"))
}

/// Whether pods are chosen for the Service; otherwise somebody writes its endpoints by hand.
pub(super) fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty())
}

/// Whether the Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether the Service's selector chooses the pod.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

/// Whether the change of a pod makes no difference to any Service.
pub(super) fn says_the_same(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            addresses(pod).collect::<Vec<_>>(),
            pods::is_ready(pod),
            pods::is_finished(pod),
            pods::is_terminating(pod),
            pods::node(pod).map(str::to_owned),
            spec.and_then(|spec| spec.hostname.clone()),
        )
    };
    old.metadata.labels == new.metadata.labels && facts(old) == facts(new)
}

/// The groups of endpoints of a family, ordered by their ports. Pods without an address of it and finished pods are none.
/// `zone_of` knows the zones of nodes.
pub(super) fn collect(
    service: &Service,
    all: &[Arc<Pod>],
    family: Family,
    zone_of: impl Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let distribution = Distribution::of(service);
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in all.iter().filter(|pod| selects(service, pod) && !pods::is_finished(pod)) {
        let Some(address) = addresses(pod).find(|address| family.has(*address)) else { continue };
        let ports = ports(service, pod);
        let group = groups.entry(port_key(&ports)).or_insert_with(|| Group { ports, endpoints: Vec::new() });
        let mut endpoint = endpoint(service, pod, address);
        endpoint.zone = endpoint.node_name.as_deref().and_then(&zone_of);
        endpoint.hints = distribution.and_then(|distribution| hints(distribution, &endpoint));
        group.endpoints.push(endpoint);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.iter_mut().for_each(Group::sort);
    groups
}

impl Group {
    /// Orders the endpoints by address.
    pub(super) fn sort(&mut self) {
        self.endpoints.sort_by_cached_key(|endpoint| {
            endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok())
        });
    }
}

/// A text that is the same for the same ports.
pub(super) fn port_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<_> = ports
        .iter()
        .map(|port| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let number = port.port.unwrap_or_default();
            format!("{}/{}/{number}/{}", text(&port.name), text(&port.protocol), text(&port.app_protocol))
        })
        .collect();
    keys.sort();
    keys.join(",")
}

/// The pod's addresses: at most one of each family, as CNI gives them.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.iter();
    let listed = status
        .flat_map(|status| status.pod_ips.iter().flatten().map(|one| one.ip.as_str()).chain(status.pod_ip.as_deref()));
    listed.filter_map(|address| address.parse().ok())
}

fn endpoint(service: &Service, pod: &Pod, address: IpAddr) -> Endpoint {
    let spec = service.spec.as_ref();
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let unready_too = spec.is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
    let pod_spec = pod.spec.as_ref();
    let in_subdomain = pod_spec.and_then(|spec| spec.subdomain.as_deref()) == service.metadata.name.as_deref();
    let hostname = pod_spec.and_then(|spec| spec.hostname.clone()).filter(|name| in_subdomain && !name.is_empty());
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(unready_too || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname,
        node_name: pods::node(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let resolved = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target(port, pod)?),
            protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    resolved.collect()
}

/// The number of the pod's port that the Service's leads to; none when the pod names no such port.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = protocol(port.protocol.as_deref());
    ports
        .find(|own| own.name.as_ref() == Some(name) && protocol(own.protocol.as_deref()) == wanted)
        .map(|own| own.container_port)
}

fn protocol(of: Option<&str>) -> &str {
    of.unwrap_or("TCP")
}
