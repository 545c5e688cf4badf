//! IPAM blocks: the unit in which nodes own addresses and routes are made.

use std::{fmt, net::Ipv4Addr, sync::Arc};

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
    /// How many addresses nobody holds, as last published.
    pub free: usize,
    /// Addresses that the owner lent to other nodes.
    pub loans: Vec<Loan>,
    /// Other nodes wait for the owner's answer (annotation `ipam.podnet.io/requests`).
    pub is_asked: bool,
}

impl Block {
    /// A block of which nothing is lent or asked, all of whose addresses are free.
    #[must_use]
    pub fn new(cidr: BlockCidr, owner: Option<NodeName>) -> Self {
        let bits = u32::from(cidr.0.max_prefix_len() - cidr.0.prefix_len());
        let free = 1_usize.checked_shl(bits).unwrap_or(usize::MAX);
        Self { cidr, owner, free, loans: Vec::new(), is_asked: false }
    }
}

/// One address of a block that a pod on another node than the block's owner has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loan {
    /// The address.
    pub addr: Ipv4Addr,
    /// The node that the pod is on.
    pub node: NodeName,
    /// What the address is freed by.
    pub handle: Arc<str>,
}
