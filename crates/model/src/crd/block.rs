//! IPAMBlock, BlockAffinity and IPAMHandle: who holds which addresses.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{BlockCidr, NodeName};

/// The name of the IPAMBlock object of a block: its CIDR with `.`, `:` and `/` replaced by `-` (`10-233-64-0-26`), as Calico
/// names it. That the name is a function of the range makes creating the object the compare-and-swap that claims the block.
#[must_use]
pub fn block_name(cidr: BlockCidr) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

impl IPAMBlock {
    /// The object whose creation claims the block `cidr`, all of whose `size` addresses are free, for `node`.
    #[must_use]
    pub fn claim(cidr: BlockCidr, size: u32, node: &NodeName) -> Self {
        Self::new(
            &block_name(cidr),
            IPAMBlockSpec {
                cidr: cidr.to_string(),
                affinity: Some(format!("host:{node}")),
                allocations: vec![None; size as usize],
                unallocated: (0..i64::from(size)).collect(),
                ..IPAMBlockSpec::default()
            },
        )
    }
}

impl IPAMBlockSpec {
    /// Who holds an address of this block; none where nobody does or the object contradicts itself.
    #[must_use]
    pub fn attribute_of(&self, addr: IpAddr) -> Option<&AllocationAttribute> {
        let block: IpNet = self.cidr.parse().ok().filter(|block: &IpNet| block.contains(&addr))?;
        let offset = match (block.network(), addr) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => u128::from(u32::from(addr) - u32::from(first)),
            (IpAddr::V6(first), IpAddr::V6(addr)) => u128::from(addr) - u128::from(first),
            _ => return None,
        };
        let index = (*self.allocations.get(usize::try_from(offset).ok()?)?)?;
        self.attributes.get(usize::try_from(index).ok()?)
    }
}

impl BlockAffinity {
    /// The record that `node` owns the block `cidr`.
    #[must_use]
    pub fn confirmed(cidr: BlockCidr, node: &NodeName) -> Self {
        Self::new(
            &format!("{node}-{}", block_name(cidr)),
            BlockAffinitySpec {
                state: "confirmed".to_owned(),
                node: node.to_string(),
                cidr: cidr.to_string(),
                deleted: "false".to_owned(),
                type_: Some("host".to_owned()),
            },
        )
    }
}

/// A block: a part of a pool that one node owns.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "IPAMBlock",
    plural = "ipamblocks",
    singular = "ipamblock",
    doc = "A block: a part of a pool that one node owns.",
    derive = "PartialEq",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "AFFINITY", type_ = "string", json_path = ".spec.affinity"),
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
pub struct IPAMBlockSpec {
    /// The range.
    pub cidr: String,
    /// The owner, as host:NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text")]
    pub affinity: Option<String>,
    /// For each address, by its offset in the block: the index of its attributes, or null where the address is free.
    #[serde(default)]
    #[schemars(schema_with = "allocations")]
    pub allocations: Vec<Option<i64>>,
    /// The offsets of the free addresses, the next one to be given first.
    #[serde(default)]
    #[schemars(schema_with = "offsets")]
    pub unallocated: Vec<i64>,
    /// Who holds the addresses; `allocations` points here.
    #[serde(default)]
    pub attributes: Vec<AllocationAttribute>,
    /// No other node may borrow from this block.
    #[serde(default)]
    pub strict_affinity: bool,
    /// The block is being given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Counts the updates of this block.
    #[serde(default)]
    #[schemars(schema_with = "sequence_number")]
    pub sequence_number: u64,
    /// The sequence number at which each address (by its offset) was given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sequence_numbers")]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// When the owner claimed the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub affinity_claim_time: Option<Time>,
}

/// Who holds an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AllocationAttribute {
    /// What the address is freed by.
    #[serde(default, rename = "handle_id", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text")]
    pub handle_id: Option<String>,
    /// Of a pod: namespace, pod, node, timestamp.
    #[serde(default, rename = "secondary", skip_serializing_if = "BTreeMap::is_empty")]
    pub secondary: BTreeMap<String, String>,
}

/// That a node owns a block: the index by node to the IPAMBlocks.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "BlockAffinity",
    plural = "blockaffinities",
    singular = "blockaffinity",
    doc = "That a node owns a block.",
    derive = "PartialEq",
    printcolumn(name = "NODE", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "STATE", type_ = "string", json_path = ".spec.state"),
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
pub struct BlockAffinitySpec {
    /// pending, confirmed or pendingDeletion.
    pub state: String,
    /// The owner.
    pub node: String,
    /// The block.
    pub cidr: String,
    /// "true" or "false", as a string: the record is being removed.
    pub deleted: String,
    /// host, or virtual for blocks that no node owns.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text")]
    pub type_: Option<String>,
}

/// The blocks that one handle (a sandbox's interface) holds addresses of.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "crd.projectcalico.org",
    version = "v1",
    kind = "IPAMHandle",
    plural = "ipamhandles",
    singular = "ipamhandle",
    doc = "The blocks that one handle holds addresses of.",
    derive = "PartialEq",
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
pub struct IPAMHandleSpec {
    /// The handle.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Number of addresses by block.
    #[serde(default)]
    pub block: BTreeMap<String, i64>,
    /// The handle is being removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

fn allocations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "integer", "nullable": true}})
}

fn offsets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "integer"}})
}

fn sequence_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64"})
}

fn sequence_numbers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}})
}
