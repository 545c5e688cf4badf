//! IPPool.

use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What `vxlanMode` and `ipipMode` may say.
pub const ENCAP_MODES: [&str; 3] = ["Always", "CrossSubnet", "Never"];

/// What `allowedUses` may list.
pub const ALLOWED_USES: [&str; 3] = ["LoadBalancer", "Tunnel", "Workload"];

/// What `assignmentMode` may say.
pub const ASSIGNMENT_MODES: [&str; 2] = ["Automatic", "Manual"];

/// The annotation of a pool that is split from another: the other's name. The two may overlap until the other is deleted.
pub const SPLIT_OF: &str = "ipam.podnet.io/split-of";

/// A range that pods' addresses come from.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "IPPool",
    plural = "ippools",
    singular = "ippool",
    doc = "A range that pods' addresses come from, and how packets reach them.",
    derive = "PartialEq",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "BLOCKSIZE", type_ = "integer", json_path = ".spec.blockSize"),
    printcolumn(name = "VXLAN", type_ = "string", json_path = ".spec.vxlanMode"),
    printcolumn(name = "IPIP", type_ = "string", json_path = ".spec.ipipMode", priority = 1),
    printcolumn(name = "NAT", type_ = "boolean", json_path = ".spec.natOutgoing"),
    printcolumn(name = "DISABLED", type_ = "boolean", json_path = ".spec.disabled"),
    printcolumn(name = "SELECTOR", type_ = "string", json_path = ".spec.nodeSelector", priority = 1),
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
#[schemars(extend("x-kubernetes-validations" = validations()))]
pub struct IPPoolSpec {
    /// The range, for example 10.233.64.0/18. It cannot change.
    #[schemars(schema_with = "range")]
    pub cidr: String,
    /// When packets to another node's block are encapsulated in VXLAN; Never where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "encap_mode")]
    pub vxlan_mode: Option<String>,
    /// When packets to another node's block are encapsulated in IPIP; Never where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "encap_mode")]
    pub ipip_mode: Option<String>,
    /// Packets of this pool's pods to addresses outside all pools leave with the node's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "off")]
    pub nat_outgoing: Option<bool>,
    /// No new addresses are given from this pool; those given stay valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "off")]
    pub disabled: Option<bool>,
    /// Routes to this pool are not exported over BGP.
    #[serde(default, rename = "disableBGPExport", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "off")]
    pub disable_bgp_export: Option<bool>,
    /// Prefix length of the blocks that nodes take: 20–32 for IPv4 (26 where not given), 116–128 for IPv6 (122).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "block_size")]
    pub block_size: Option<i64>,
    /// Which nodes give addresses from this pool, for example all() or zone == 'a'; all() where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "all_nodes")]
    pub node_selector: Option<String>,
    /// Which namespaces' pods get addresses from this pool; all() where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text")]
    pub namespace_selector: Option<String>,
    /// What addresses of this pool are for; Workload and Tunnel where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "uses")]
    pub allowed_uses: Option<Vec<String>>,
    /// Automatic (where not given), or Manual: only for pods that ask for the pool or an address of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "assignment_mode")]
    pub assignment_mode: Option<String>,
}

/// What an API server of Kubernetes checks by itself, so that it needs no webhook (CEL); [`convert`](crate::convert) says the same.
fn validations() -> serde_json::Value {
    serde_json::json!([
        {
            "rule": "self.cidr == oldSelf.cidr",
            "fieldPath": ".cidr",
            "message": "field is immutable: make another pool, disable this one, and delete it when its pods are gone",
        },
        {
            "rule": "!has(self.blockSize) || (self.cidr.contains(':') ? self.blockSize >= 116 && self.blockSize <= 128 : self.blockSize >= 20 && self.blockSize <= 32)",
            "fieldPath": ".blockSize",
            "message": "must be 20 to 32 for IPv4, 116 to 128 for IPv6",
        },
        {
            "rule": "!has(self.blockSize) || !self.cidr.contains('/') || self.blockSize >= int(self.cidr.split('/')[1])",
            "fieldPath": ".blockSize",
            "message": "a block is no larger than its pool: not less than the prefix length of cidr",
        },
        {
            "rule": "!has(self.vxlanMode) || !has(self.ipipMode) || self.vxlanMode == 'Never' || self.ipipMode == 'Never'",
            "fieldPath": ".vxlanMode",
            "message": "must be Never where ipipMode is not Never",
        },
    ])
}

/// An API server estimates what a rule costs by the longest text, and does not take one that is too costly.
fn range(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 64})
}

fn encap_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ENCAP_MODES, "default": "Never"})
}

fn assignment_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ASSIGNMENT_MODES, "default": "Automatic"})
}

fn uses(_: &mut SchemaGenerator) -> Schema {
    let each = json_schema!({"type": "string", "enum": ALLOWED_USES});
    json_schema!({"type": "array", "items": each, "maxItems": 10, "default": ["Workload", "Tunnel"]})
}

fn block_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 20, "maximum": 128})
}

fn off(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean", "default": false})
}

fn all_nodes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "default": "all()"})
}

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}
