//! What the overlay cannot plan.

use std::sync::Arc;

use podnet_model::{BlockCidr, Family, Mac, NodeAddr, NodeName, PoolName};

/// Why a block or a node has no route. Everything else is planned all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// The pool is gone, or never was.
    #[error("block {block} of node {owner} is in no pool: it gets no route")]
    NoPool {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
    },
    /// The owner, or this node itself, is not (or no longer) in the cluster, or has no address yet.
    #[error("block {block} gets no route: node {node} is not in the cluster or has no valid address")]
    UnknownNode {
        /// The block.
        block: BlockCidr,
        /// The node that is missing.
        node: NodeName,
    },
    /// The pool forbids encapsulation and the peer is not on a link of this node.
    #[error(
        "block {block} of node {owner} gets no route: the node is on another subnet and pool {pool} has vxlanMode and \
         ipipMode Never; set one of them to CrossSubnet, or let the underlay's routers know the block"
    )]
    OtherSubnet {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
        /// The pool.
        pool: PoolName,
    },
    /// The kernel cannot make the tunnel that the pool asks for.
    #[error(
        "block {block} of node {owner} gets no route: pool {pool} asks for {what}, which this node's kernel does not have"
    )]
    Unsupported {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
        /// The pool.
        pool: PoolName,
        /// The kind of tunnel.
        what: &'static str,
    },
    /// A node's own address is among those that would be sent to it through a tunnel.
    #[error("block {block} of node {owner} gets no route: it holds the address of node {node} on the underlay")]
    Loop {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
        /// The node whose address it holds.
        node: NodeName,
    },
    /// A node of flannel's works with another backend.
    #[error(
        "node {node} has flannel's backend {backend} and not {wanted}, as kube-flannel-cfg says: its pods get no routes"
    )]
    OtherBackend {
        /// The node.
        node: NodeName,
        /// What it says.
        backend: Arc<str>,
        /// What the configuration says.
        wanted: &'static str,
    },
    /// flannel's configuration says WireGuard, and the node has no key of its own.
    #[error("node {node} has not published a WireGuard key of its own: its pods get no routes")]
    NoKey {
        /// The node.
        node: NodeName,
    },
    /// A node says something of itself that is not understood; it counts as not said.
    #[error("node {node}: {wrong}; what it says there is ignored until it is mended")]
    WrongAnnotation {
        /// The node.
        node: NodeName,
        /// What is wrong with it.
        wrong: Arc<str>,
    },
    /// Encryption is on, and the node has no key of its own.
    #[error("packets to node {node} are not encrypted: it has not published a WireGuard key of its own")]
    NotEncrypted {
        /// The node.
        node: NodeName,
    },
    /// Encryption is on, and this node's kernel cannot do it.
    #[error("this node's packets are not encrypted: its kernel does not have WireGuard")]
    NoWireguard,
    /// flannel's configuration asks for IPv6 and for a backend without it.
    #[error(
        "kube-flannel-cfg asks for IPv6 (EnableIPv6), which its backend {backend} does not carry: pods reach others by IPv6 on their own \
         node only; the backends vxlan, host-gw and wireguard carry both families"
    )]
    FlannelsIpv6 {
        /// The backend's type.
        backend: &'static str,
    },
    /// flannel's VXLAN carries IPv6 by IPv6.
    #[error(
        "block {block} of node {owner} gets no route: flannel's nodes carry IPv6 between IPv6 addresses, and this node or that one has none \
         on the underlay"
    )]
    FlannelsNeedV6 {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
    },
    /// Packets are too small for IPv6.
    #[error(
        "IPv6 does not work on this node: packets have room for {mtu} bytes here, and IPv6 needs 1280; there are no routes of IPv6 to other \
         nodes nor tunnels by IPv6, and new pods get no IPv6 addresses (pools of IPv6: {pools}); raise the MTU of the underlay's device (or \
         the --mtu of the agent), or disable these pools"
    )]
    SmallMtu {
        /// The room in bytes.
        mtu: u32,
        /// The pools that new pods get nothing of.
        pools: Arc<str>,
    },
    /// This node's kernel has no IPv6.
    #[error("block {block} gets no route: this node's kernel was started without IPv6")]
    NoIpv6 {
        /// The block.
        block: BlockCidr,
    },
    /// The pool asks for a tunnel that carries IPv4 by IPv4 only.
    #[error(
        "block {block} of node {owner} gets no route: pool {pool} asks for {what}, which carries IPv4 between IPv4 addresses only; \
         set its ipipMode to Never and its vxlanMode to CrossSubnet or Always"
    )]
    OnlyV4 {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
        /// The pool.
        pool: PoolName,
        /// The kind of tunnel.
        what: &'static str,
    },
    /// The pool forbids encapsulation and one end has no address that could be a next hop.
    #[error(
        "block {block} of node {owner} gets no route: without encapsulation this node and that one need an {family} address on the \
         underlay; give them one, or set vxlanMode of pool {pool} to CrossSubnet or Always"
    )]
    NoPlainHop {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
        /// The pool.
        pool: PoolName,
        /// The families of addresses that would do.
        family: &'static str,
    },
    /// A tunnel is between two addresses of one family, and the two nodes have no such.
    #[error(
        "block {block} of node {owner} gets no route: that node has only an {theirs} address on the underlay, and this one only an {ours} \
         address; give one of them an address of the other family"
    )]
    NoCommonFamily {
        /// The block.
        block: BlockCidr,
        /// Its owner.
        owner: NodeName,
        /// The family of its address.
        theirs: Family,
        /// The family of this node's.
        ours: Family,
    },
    /// Two nodes claim one address.
    #[error(
        "node {node} has the address {addr} of node {holder}: nothing is sent to it there, and blocks that need it get no routes"
    )]
    SameAddress {
        /// The node that is not believed.
        node: NodeName,
        /// The address.
        addr: NodeAddr,
        /// The node that is.
        holder: NodeName,
    },
    /// Two nodes' names have one hash.
    #[error(
        "node {node} has the VTEP address {mac} of node {holder}: it is not reached over VXLAN until it is renamed"
    )]
    SameMac {
        /// The node that is not believed.
        node: NodeName,
        /// The MAC.
        mac: Mac,
        /// The node that is.
        holder: NodeName,
    },
}

impl Problem {
    /// Whether it lasts until somebody changes this node or another one, so that it belongs where people look.
    #[must_use]
    pub const fn is_of_nodes(&self) -> bool {
        matches!(self, Self::NoCommonFamily { .. } | Self::FlannelsNeedV6 { .. } | Self::SmallMtu { .. })
    }

    /// Whether the node that has the block is not there, while `own`, this node, is.
    pub(super) fn is_owner_gone(&self, own: &NodeName) -> bool {
        matches!(self, Self::UnknownNode { node, .. } if node != own)
    }
}
