//! The plugins at work: each is a link of a chain.

mod acl;
mod any;
mod autopath;
mod cached;
mod cancel;
mod challenge;
mod chaos;
mod dns64;
mod dnssec;
mod erratic;
mod etcd;
mod forward;
mod grpc;
mod hosts;
mod kubernetes;
mod local;
mod rewrite;
mod template;
mod tsig;
mod whoami;
mod zones;

pub use acl::Acl;
pub use any::Any;
pub use autopath::Autopath;
pub use cached::Cached;
pub(crate) use cached::labels_of as cache_labels;
pub use cancel::Cancel;
pub(crate) use challenge::Proving;
pub use challenge::{Challenge, Challenges};
pub use chaos::Chaos;
pub use dns64::Dns64;
pub use dnssec::Dnssec;
pub use erratic::Erratic;
pub use etcd::Etcd;
pub use forward::Forward;
pub use grpc::Grpc;
pub use hosts::Hosts;
pub use kubernetes::Kubernetes;
pub use local::Local;
pub use rewrite::Rewriting;
pub use template::Template;
pub use tsig::Tsig;
pub use whoami::WhoAmI;
pub use zones::{ServedZone, Zones};

#[cfg(test)]
mod tests;
