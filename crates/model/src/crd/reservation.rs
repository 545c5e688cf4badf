//! IPReservation and IPAMConfig: what IPAM must leave alone, and its settings.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses that are not given to pods that do not ask for them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "IPReservation",
    plural = "ipreservations",
    singular = "ipreservation",
    doc = "Addresses that are not given to pods that do not ask for them.",
    derive = "PartialEq",
    printcolumn(name = "CIDRS", type_ = "string", json_path = ".spec.reservedCIDRs"),
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
pub struct IPReservationSpec {
    /// Addresses and ranges.
    #[serde(default, rename = "reservedCIDRs")]
    pub reserved_cidrs: Vec<String>,
}

/// Settings of IPAM; the object is named `default`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "IPAMConfig",
    plural = "ipamconfigs",
    singular = "ipamconfig",
    doc = "Settings of IPAM; the object is named default.",
    derive = "PartialEq",
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMConfigSpec {
    /// Nodes give addresses of their own blocks only.
    #[serde(default)]
    pub strict_affinity: bool,
    /// Nodes claim further blocks by themselves.
    #[serde(default)]
    pub auto_allocate_blocks: bool,
    /// How many blocks one node may own; 0 is no limit.
    #[serde(default)]
    pub max_blocks_per_host: i64,
}
