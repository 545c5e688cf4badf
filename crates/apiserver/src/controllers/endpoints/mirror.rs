//! Endpoints that somebody wrote by hand for a Service that chooses no pods: their slices are copies.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, Endpoints},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort},
};
use kube::ResourceExt;

use super::{
    collect::{Group, port_key},
    family::Family,
    legacy,
};

/// The label with which a writer of Endpoints says that they write slices as well.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Addresses beyond this number in one subset are not copied (Kubernetes' default).
const CAPACITY: usize = 1000;

/// Whether the object is to be copied.
pub(super) fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.metadata.deletion_timestamp.is_none()
        && !legacy::is_ours(endpoints)
        && endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true")
}

/// The groups of endpoints of a family that the object lists; none where it lists none.
pub(super) fn groups(endpoints: &Endpoints, family: Family) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<_> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true, family));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false, family));
        let endpoints: Vec<_> = ready.chain(unready).flatten().take(CAPACITY).collect();
        if !endpoints.is_empty() {
            let group = groups.entry(port_key(&ports)).or_insert_with(|| Group { ports, endpoints: Vec::new() });
            group.endpoints.extend(endpoints);
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.iter_mut().for_each(Group::sort);
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool, family: Family) -> Option<Endpoint> {
    let ip: IpAddr = address.ip.parse().ok().filter(|ip| family.has(*ip))?;
    Some(Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(ready), terminating: Some(false) }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    })
}
