//! How a packet gets there: a virtual packet on its way through the planned state of all nodes that it passes.
//!
//! A [`Cluster`] plans each node as that node's agent does, from the same changes and with the same planners: [`overlay`](crate::overlay) for
//! routes and tunnels, [`services`](crate::services) and [`border`](crate::border) for the rules, which
//! [`walk_tables`](crate::ruleset::walk::walk_tables) sends the packet through. Nothing here knows what a rule or a route means beyond that.
//!
//! A random choice is not made: a [`Trace`] has a [`Path`] for each way that the packet can go, with the share of connections that go it.

mod cluster;
mod hop;
mod neighbours;
mod node;
mod objects;
mod way;

pub use cluster::Cluster;
pub use hop::{End, Entry, Hop, Kind, Object, Path, Place, Trace, Verdict};
pub use neighbours::Neighbourhood;
pub use node::{Facts, Link, Lookup, Planned};
pub use way::{BY_UNDERLAY, POD_END};

use std::net::IpAddr;

use podnet_model::{NodeName, PodKey, Protocol};

/// Where a packet comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A pod.
    Pod(PodKey),
    /// A process in a node's own network.
    Node(NodeName),
    /// An address outside of the cluster, and the node that its packets come to first.
    World(IpAddr, NodeName),
}

/// Where it is sent: what the sender writes into the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The destination address.
    pub addr: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
}

/// Why there is nothing to follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No such pod.
    #[error("there is no pod {0}; see: kubectl get pods --all-namespaces")]
    Pod(PodKey),
    /// It is on no node.
    #[error("pod {0} is on no node yet: it is not scheduled; see: kubectl describe pod {name} -n {namespace}", name = .0.name, namespace = .0.namespace)]
    Unscheduled(PodKey),
    /// It has no address of the family.
    #[error("pod {pod} has no {family} address (it has: {has}); a destination of a family that it has can be reached")]
    NoAddress {
        /// The pod.
        pod: PodKey,
        /// The destination's family.
        family: podnet_model::Family,
        /// Its addresses, or `none`.
        has: String,
    },
    /// No such node, or one that podnet cannot use.
    #[error("there is no node {0} with an address; see: kubectl get nodes -o wide")]
    Node(NodeName),
    /// A node without an address of the family.
    #[error("node {node} has no {family} address")]
    NodeFamily {
        /// The node.
        node: NodeName,
        /// The destination's family.
        family: podnet_model::Family,
    },
}

#[cfg(test)]
mod tests;
