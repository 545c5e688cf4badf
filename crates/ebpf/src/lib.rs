//! Programs that run in the kernel (eBPF), as compiled by `build.rs`, and what they and podnet agree on.
//!
//! Nothing is loaded here: that is `podnet-kernel`'s.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod fastpath;
pub mod flows;
pub mod sockets;
