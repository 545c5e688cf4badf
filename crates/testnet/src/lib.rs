//! The test harness: a whole cluster from `podnet up`, driven by real kubectl, the traces that it must not leave, and a virtual
//! machine with another kernel.
//!
//! A cluster belongs to the machine, so tests that use one take turns ([`Cluster`] holds a lock). Whatever a test does, its cluster
//! is removed at its end. Nothing here skips: what is missing fails the test and says so.

pub mod cluster;
pub mod cni;
pub mod traces;
pub mod vm;
pub mod wait;

pub use cluster::Cluster;
pub use traces::Traces;
pub use wait::eventually;
