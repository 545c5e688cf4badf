//! How Services are served, as kube-proxy's configuration says it, and what kube-proxy tells of itself.
//!
//! - [`programming`]: what of the cluster's changes is in force, and since when; [`histogram`] counts how long it took
//! - [`facts`]: how many rules there are and what was refused, and other figures of kube-proxy's metrics; [`counted`]: packets
//! - [`ports`]: bounded HTTP servers, [`guests`] who is served there; [`status`]: `/healthz`, `/livez`, `/proxyMode`, `/configz` and `/metrics`
//! - [`configured`]: the configuration, the mode that follows from it, [`conntrack`]'s settings
//! - `mode`: the seam behind which each mode puts its rules in force
//! - [`userspace`]: connections passed on by a program, which outlives the agent
//! - [`told`]: what the network's thread tells those who are asked
//! - [`checks`]: the ports at which load balancers ask whether a Service has endpoints here (`spec.healthCheckNodePort`)

pub mod checks;
pub mod configured;
mod configz;
mod conntrack;
pub mod counted;
pub mod facts;
pub mod guests;
mod histogram;
mod iptables;
mod ipvs;
pub mod mode;
pub(crate) mod ports;
pub mod programming;
pub mod status;
pub mod told;
pub mod userspace;

pub use configured::Configured;
pub use told::Told;
