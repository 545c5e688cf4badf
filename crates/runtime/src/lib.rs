//! The embedded node's pod lifecycle: what a kubelet and a container runtime are on a real node.

pub mod access;
