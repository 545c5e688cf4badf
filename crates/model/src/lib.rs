//! The vocabulary of the cluster network.
//!
//! API objects become these types once, at the edge ([`convert`]); everything above speaks them only. Inside, nothing is
//! optional that cannot be absent, and roles are types: a [`NodeAddr`] cannot be passed where a [`PodAddr`] belongs.
//!
//! - [`names`], [`addr`], [`family`], [`labels`]: the words
//! - [`node`], [`pod`], [`service`], [`endpoints`], [`pool`], [`block`]: the objects that the planner reads
//! - [`balancer`]: where load balancers' addresses come from
//! - [`limits`], [`quantity`]: how a pod's traffic is limited, and the numbers that say so
//! - [`flannel`], [`felix`], [`wireguard`]: what other configurations say about the way between nodes
//! - [`proxy`]: how Services are served, as kube-proxy's configuration says it
//! - [`change`]: one change of the cluster's state, what a watch delivers
//! - [`cni`]: what a container runtime asks of a plugin
//! - [`crd`]: the `crd.projectcalico.org/v1` types as the API spells them
//! - [`excerpt`]: API objects of which there are very many, without what nobody here reads
//! - [`convert`]: API object to model, with an error that names the object, the field, the value and what is allowed

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
pub mod balancer;
pub mod block;
pub mod change;
pub mod cni;
pub mod convert;
pub mod crd;
pub mod endpoints;
pub mod errors;
pub mod excerpt;
pub mod family;
pub mod felix;
pub mod flannel;
pub mod ipam;
pub mod labels;
pub mod limits;
pub mod names;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pool;
pub mod proxy;
pub mod quantity;
pub mod service;
pub mod wireguard;

pub use addr::{ClusterIp, HOST_MAC, Mac, NodeAddr, NodePort, PodAddr, Protocol, ServicePort, TargetPort};
pub use block::{Block, BlockCidr, Held, Loan};
pub use change::Change;
pub use endpoints::{Endpoint, EndpointSlice};
pub use family::{Dual, Family};
pub use felix::Felix;
pub use flannel::NetConf;
pub use ipam::{IpamSettings, Reservation};
pub use names::{LinkName, Namespace, NodeName, PodKey, PoolName, PortName, ServiceKey, SliceKey};
pub use namespace::NamespaceScope;
pub use node::Node;
pub use pod::Pod;
pub use pool::{EncapMode, Pool};
pub use proxy::ProxyConfig;
pub use service::Service;
