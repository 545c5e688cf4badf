//! FelixConfiguration.

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How nodes do their work. Only the object named `default` counts.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "FelixConfiguration",
    plural = "felixconfigurations",
    singular = "felixconfiguration",
    doc = "How nodes do their work. Only the object named default counts.",
    derive = "PartialEq",
    printcolumn(name = "WIREGUARD", type_ = "boolean", json_path = ".spec.wireguardEnabled"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct FelixConfigurationSpec {
    /// Packets between pods of different nodes are encrypted with WireGuard; false where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "boolean")]
    pub wireguard_enabled: Option<bool>,
    /// The same: one tunnel carries both families, so that either setting encrypts both.
    #[serde(default, rename = "wireguardEnabledV6", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "boolean")]
    pub wireguard_enabled_v6: Option<bool>,
    /// The UDP port that nodes listen on for WireGuard; 51820 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "port")]
    pub wireguard_listening_port: Option<i64>,
}

fn boolean(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean"})
}

fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 65535})
}
