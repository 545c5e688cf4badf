//! What others do to podnet's objects in the kernel is mended at once, and traffic flows again.
#![allow(clippy::unwrap_used, missing_docs)]

mod damage;
mod fastpath;
mod inside;
#[path = "../shared/mending.rs"]
mod mending;
mod modes;
mod six;
mod sockets;
mod underlay;

use std::time::Duration;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);
