//! StickyAddress: the addresses that a StatefulSet's pod gets again.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{PodKey, pod::StickyOwner};

/// The annotation of a pod (of a StatefulSet's template) that is to keep its address over its lives: `"true"`.
pub const STICKY: &str = "ipam.podnet.io/sticky";

/// The addresses of a pod of a StatefulSet, named as the pod. It belongs to the StatefulSet and goes with it.
///
/// Nobody else gets them unless they ask for them by name.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ipam.podnet.io",
    version = "v1",
    kind = "StickyAddress",
    plural = "stickyaddresses",
    singular = "stickyaddress",
    namespaced,
    doc = "The address that a StatefulSet's pod of this name gets again.",
    derive = "PartialEq",
    printcolumn(name = "ADDRESS", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
pub struct StickyAddressSpec {
    /// The address; of a pod with one of each family that of IPv4.
    pub address: String,
    /// The IPv6 address beside an IPv4 one.
    #[serde(default, rename = "address6", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text")]
    pub address6: Option<String>,
}

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

impl StickyAddress {
    /// That `pod` has `addresses`, the first of each family, for as long as the StatefulSet is there.
    #[must_use]
    pub fn of(pod: &PodKey, owner: &StickyOwner, addresses: &[IpAddr]) -> Self {
        let v4 = addresses.iter().find(|addr| addr.is_ipv4());
        let v6 = addresses.iter().find(|addr| addr.is_ipv6());
        let address = v4.or(v6).map(ToString::to_string).unwrap_or_default();
        let address6 = v4.and(v6).map(ToString::to_string);
        let mut object = Self::new(&pod.name, StickyAddressSpec { address, address6 });
        object.metadata.namespace = Some(pod.namespace.to_string());
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: owner.name.to_string(),
            uid: owner.uid.to_string(),
            ..OwnerReference::default()
        }]);
        object
    }

    /// The pod that it is for.
    #[must_use]
    pub fn key(&self) -> Option<PodKey> {
        Some(PodKey::new(self.metadata.namespace.as_deref()?, self.metadata.name.as_deref()?))
    }
}
