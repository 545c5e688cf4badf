//! IPAM blocks: the unit in which nodes own addresses and routes are made.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NodeName;

/// The range of a block, its identity in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockCidr(pub IpNet);

impl fmt::Display for BlockCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block and the node that owns it (`IPAMBlock.spec.affinity`, `host:NAME`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `spec.cidr`.
    pub cidr: BlockCidr,
    /// The owner; none for a block that was given up and not yet deleted.
    pub owner: Option<NodeName>,
}
