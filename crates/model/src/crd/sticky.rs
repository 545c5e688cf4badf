//! StickyAddress: the address that a StatefulSet's pod gets again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PodKey, pod::StickyOwner};

/// The annotation of a pod (of a StatefulSet's template) that is to keep its address over its lives: `"true"`.
pub const STICKY: &str = "ipam.podnet.io/sticky";

/// The address of a pod of a StatefulSet, named as the pod. It belongs to the StatefulSet and goes with it.
///
/// Nobody else gets the address unless they ask for it by name.
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
    /// The address.
    pub address: String,
}

impl StickyAddress {
    /// That `pod` has `address`, for as long as the StatefulSet is there.
    #[must_use]
    pub fn of(pod: &PodKey, owner: &StickyOwner, address: &str) -> Self {
        let mut object = Self::new(&pod.name, StickyAddressSpec { address: address.to_owned() });
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
