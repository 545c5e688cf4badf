//! Node.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use super::{Invalid, Object};
use crate::{Node, NodeAddr};

/// The annotation by which a node publishes its address with its prefix length, for example `172.29.0.11/24`.
pub const IPV4_ADDRESS: &str = "projectcalico.org/IPv4Address";

impl TryFrom<&api::Node> for Node {
    type Error = Invalid;

    fn try_from(node: &api::Node) -> Result<Self, Invalid> {
        let object = Object::new("Node", &node.metadata);
        let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let internal = addresses
            .iter()
            .find(|address| address.type_ == "InternalIP")
            .ok_or_else(|| object.missing("status.addresses[type=InternalIP]", "the node's address on the underlay"))?;
        let addr: NodeAddr = internal.address.parse().map_err(|_| {
            object.value("status.addresses[type=InternalIP].address", &internal.address, "an IP address")
        })?;
        let subnet = object
            .annotation(IPV4_ADDRESS)
            .map(|text| {
                text.parse().map_err(|_| {
                    let allowed = "an IPv4 address with its prefix length, for example 172.29.0.11/24";
                    object.value(format!("metadata.annotations[{IPV4_ADDRESS}]"), text, allowed)
                })
            })
            .transpose()?;
        Ok(Self {
            name: object.name()?.into(),
            labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
            addr,
            subnet,
            lost: is_lost(node),
        })
    }
}

fn is_lost(node: &api::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}
