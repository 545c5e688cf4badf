//! How Services are served, as kube-proxy's configuration says it, and what kube-proxy tells of itself.
//!
//! - [`programming`]: what of the cluster's changes is in force, and since when; [`histogram`] counts how long it took
//! - [`ports`]: bounded HTTP servers; [`status`]: `/healthz`, `/livez`, `/proxyMode` and `/metrics`
//! - [`checks`]: the ports at which load balancers ask whether a Service has endpoints here (`spec.healthCheckNodePort`)

pub mod checks;
mod histogram;
mod ports;
pub mod programming;
pub mod status;

pub use programming::Programming;
