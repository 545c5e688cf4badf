//! For whom an endpoint is meant, where a Service's traffic is to stay near (KEP-2433, KEP-4444, KEP-3015).

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone},
};

use super::topology;

/// The label of a node that names its zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// Where a Service's traffic is to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    /// In the client's zone.
    SameZone,
    /// On the client's node; else in its zone.
    SameNode,
}

impl Distribution {
    /// What the Service asks for; `PreferClose` is the older name of `PreferSameZone`. Where it asks for shares of zones by its annotation, that
    /// counts.
    pub(super) fn of(service: &Service) -> Option<Self> {
        if topology::is_auto(service) {
            return None;
        }
        match service.spec.as_ref()?.traffic_distribution.as_deref()? {
            "PreferSameZone" | "PreferClose" => Some(Self::SameZone),
            "PreferSameNode" => Some(Self::SameNode),
            _ => None,
        }
    }
}

/// The hints of an endpoint: of its own zone and node. One that is not ready has none, nor has one of which nobody knows where it is.
pub(super) fn hints(distribution: Distribution, endpoint: &Endpoint) -> Option<EndpointHints> {
    let ready = endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true));
    if !ready {
        return None;
    }
    let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let node = endpoint.node_name.clone().filter(|_| distribution == Distribution::SameNode);
    let for_nodes = node.map(|name| vec![ForNode { name }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}
