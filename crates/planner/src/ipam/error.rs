//! Why a pod gets no address.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{BlockCidr, Family, NodeName, PodKey, PoolName};

use super::PoolSource;

/// Why a pod gets no address, in words for its events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// No pool serves this node.
    #[error("no {family} pool gives addresses on node {node}: {reasons}")]
    NoPool {
        /// The family.
        family: Family,
        /// This node.
        node: NodeName,
        /// For each pool, why not.
        reasons: String,
    },
    /// IPv6 cannot work on the node.
    #[error(
        "no IPv6 address is given on node {node} (pools of IPv6: {pools}): packets have room for {mtu} bytes there, and IPv6 needs 1280; raise \
         the MTU of the underlay's device (or the --mtu of the agent), or let the pod have IPv4 alone"
    )]
    SmallMtu {
        /// This node.
        node: NodeName,
        /// The room in bytes.
        mtu: u32,
        /// The pools that would have addresses.
        pools: String,
    },
    /// A pool that the pod names does not exist.
    #[error("pool {name} ({from}) does not exist; the pools are: {pools}")]
    UnknownPool {
        /// The name or range asked for.
        name: String,
        /// Who asked for it.
        from: PoolSource,
        /// The pools that there are.
        pools: String,
    },
    /// The pool gives no new addresses.
    #[error("pool {pool} is disabled: it gives no new addresses to pods")]
    DisabledPool {
        /// The pool.
        pool: PoolName,
    },
    /// The pool is not of the family.
    #[error("pool {pool} ({cidr}, {from}) is no {family} pool, and one is needed")]
    WrongFamily {
        /// The family.
        family: Family,
        /// The pool.
        pool: PoolName,
        /// Its range.
        cidr: IpNet,
        /// Who asked for it.
        from: PoolSource,
    },
    /// The address is in no pool.
    #[error("address {addr} is in no pool; the pools are: {pools}")]
    OutsidePools {
        /// The address asked for.
        addr: IpAddr,
        /// The pools that there are.
        pools: String,
    },
    /// Another pod has the address.
    #[error("address {addr} is held by pod {pod}")]
    Held {
        /// The address asked for.
        addr: IpAddr,
        /// Who holds it.
        pod: PodKey,
    },
    /// The address is of another node's block.
    #[error("address {addr} is in block {block}, which belongs to node {owner}: only pods on that node can have it")]
    OwnedElsewhere {
        /// The address asked for.
        addr: IpAddr,
        /// Its block.
        block: IpNet,
        /// The block's owner.
        owner: NodeName,
    },
    /// The owner of a block does not lend an address of it.
    #[error("node {node} lends no address of block {block}: {why}")]
    NotLent {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        node: NodeName,
        /// Why not.
        why: &'static str,
    },
    /// The pool's blocks changed their size, and one of the old size lies where the new one would.
    #[error(
        "address {addr} cannot be given: its block {block} overlaps block {other}, which was made with another blockSize"
    )]
    BlockInTheWay {
        /// The address asked for.
        addr: IpAddr,
        /// The block that it would be of.
        block: IpNet,
        /// The one in the way.
        other: IpNet,
    },
    /// The block around the address changes hands just now.
    #[error("address {addr} cannot be given yet: block {block} is being given up")]
    BlockLeaving {
        /// The address asked for.
        addr: IpAddr,
        /// Its block.
        block: IpNet,
    },
    /// The node has as many blocks as it may have.
    #[error(
        "address {addr} cannot be given: node {own_blocks}, and block {block} would be one more", own_blocks = limited(*own)
    )]
    BlockLimit {
        /// The address asked for.
        addr: IpAddr,
        /// Its block.
        block: IpNet,
        /// How many the node has.
        own: usize,
    },
    /// No address is left.
    #[error(
        "no address is left in {pools}: node {node} uses {held} of the {size} addresses of its {own} blocks, and {why}",
        why = no_block(*limit, *others, *strict)
    )]
    Full {
        /// The pools that were tried.
        pools: String,
        /// This node.
        node: NodeName,
        /// Number of this node's blocks in them.
        own: usize,
        /// Addresses that pods hold.
        held: usize,
        /// Addresses of this node's blocks.
        size: usize,
        /// Number of other blocks in them.
        others: usize,
        /// `maxBlocksPerHost`, where the node has that many.
        limit: Option<usize>,
        /// Nodes may not borrow from each other.
        strict: bool,
    },
}

fn limited(own: usize) -> String {
    format!("has {own} blocks already, as many as maxBlocksPerHost of the IPAMConfig allows")
}

fn no_block(limit: Option<usize>, others: usize, strict: bool) -> String {
    let borrowing = match others {
        0 => "",
        _ if strict => ", from which strictAffinity forbids to borrow",
        _ => " and have no address to lend",
    };
    match limit {
        Some(most) => format!("it may have no further one (maxBlocksPerHost of the IPAMConfig is {most})"),
        None => format!("no block is free ({others} belong to other nodes{borrowing})"),
    }
}
