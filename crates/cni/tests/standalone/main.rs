//! Networks of one machine without an agent: by the plugin alone, with Debian's plugins, and by real runtimes.
#![allow(clippy::unwrap_used)]

mod chain;
mod faults;
mod limits;
mod machine;
mod modes;
mod names;
mod network;
mod runtimes;

pub(crate) use machine::{Machine, Sandbox, run};
