//! The embedded node's pod lifecycle: what a kubelet and a container runtime are on a real node.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod streaming;
