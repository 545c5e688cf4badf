//! The `metallb.io/v1beta1` types: where load balancers' addresses come from, and who announces them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A range that load balancers' addresses come from.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    plural = "ipaddresspools",
    singular = "ipaddresspool",
    namespaced,
    doc = "A range that load balancers' addresses come from.",
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    printcolumn(name = "AUTO ASSIGN", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "AVOID BUGGY IPS", type_ = "boolean", json_path = ".spec.avoidBuggyIPs"),
    printcolumn(name = "ADDRESSES", type_ = "string", json_path = ".spec.addresses"),
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Ranges such as 192.0.2.0/28 or 192.0.2.10-192.0.2.20, of either family.
    pub addresses: Vec<String>,
    /// Whether Services get addresses of this pool without naming it; true where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "boolean_true")]
    pub auto_assign: Option<bool>,
    /// Addresses that end in .0 and .255 are left alone.
    #[serde(default, rename = "avoidBuggyIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "boolean")]
    pub avoid_buggy_ips: Option<bool>,
    /// Which Services may have addresses of this pool; all where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "service_allocation")]
    pub service_allocation: Option<ServiceAllocation>,
}

/// How much of a pool is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses that Services have.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// IPv6 addresses that Services have.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses that Services could have.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses that Services could have; the largest number where there are more.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
}

/// Which Services may have addresses of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Of several pools that serve, that with the lowest number comes first; 0 comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Namespaces by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

/// Which pools' addresses are announced on the nodes' own networks, and by which nodes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    singular = "l2advertisement",
    namespaced,
    doc = "Which pools' addresses are announced on the nodes' own networks, and by which nodes.",
    derive = "PartialEq",
    printcolumn(name = "IPADDRESSPOOLS", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "INTERFACES", type_ = "string", json_path = ".spec.interfaces"),
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Pools by name; without these and without selectors all pools.
    #[serde(default, rename = "ipAddressPools", skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// Pools by their labels.
    #[serde(default, rename = "ipAddressPoolSelectors", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes by their labels; all where not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors")]
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces by name; all where not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
}

fn boolean(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean"})
}

fn boolean_true(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean", "default": true})
}

fn selectors(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": selector()})
}

fn selector() -> serde_json::Value {
    let texts = serde_json::json!({"type": "array", "items": {"type": "string"}});
    serde_json::json!({
        "type": "object",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": {"type": "array", "items": {
                "type": "object",
                "required": ["key", "operator"],
                "properties": {
                    "key": {"type": "string"},
                    "operator": {"type": "string", "enum": ["DoesNotExist", "Exists", "In", "NotIn"]},
                    "values": texts,
                },
            }},
        },
    })
}

fn service_allocation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "priority": {"type": "integer", "minimum": 0},
            "namespaces": {"type": "array", "items": {"type": "string"}},
            "namespaceSelectors": {"type": "array", "items": selector()},
            "serviceSelectors": {"type": "array", "items": selector()},
        },
    })
}
