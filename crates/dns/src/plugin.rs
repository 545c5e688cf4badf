//! The plugins at work: each is a link of a chain.

mod cached;
mod forward;
mod hosts;
mod kubernetes;
mod whoami;

pub use cached::Cached;
pub use forward::Forward;
pub use hosts::Hosts;
pub use kubernetes::Kubernetes;
pub use whoami::WhoAmI;
