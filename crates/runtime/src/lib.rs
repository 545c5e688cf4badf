//! The embedded node's pod lifecycle: what a kubelet and a container runtime are on a real node.
//!
//! [`run`] is the process `podnet node`: it registers the node, watches the pods that are bound to it and gives each a worker (`pod`).
//! A worker makes the pod's sandbox (`sandbox`), whose network comes from CNI plugins (`cni`) and whose processes belong to
//! [`pause`], a process of its own that outlives this one. What the workers ask of the cluster goes through `cluster`; what the
//! [`streaming`] server asks of the workers goes through [`access`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod config;
pub mod demoapp;
pub mod images;
pub mod streaming;

mod cluster;
mod cni;
mod containers;
mod node;
mod pause;
mod pod;
mod sandbox;

pub use config::NodeConfig;
pub use node::{NodeError, TlsError, run};
pub use pause::{PauseError, pause};
