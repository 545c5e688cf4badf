//! The cluster DNS server core: no sockets, no clock, no randomness of its own.
//!
//! A Corefile becomes a tree of directives ([`corefile`]), the tree becomes a typed chain of plugins in their fixed order
//! ([`chain`]), and [`server::Server`] runs that chain over packets: it answers from the cluster's zone ([`zone`]) and the
//! hosts table ([`hosts`]), remembers upstream answers ([`cache`]) and says which upstream to ask otherwise ([`forward`]).
//!
//! - [`name`], [`message`], [`answer`]: names and messages on the wire; [`destination`]: where servers are that are asked
//! - [`corefile`], [`chain`]: from text to configuration
//! - [`zone`], [`hosts`], [`cache`], [`forward`]: where answers come from
//! - [`etcd`]: records in etcd, as SkyDNS lays them out
//! - [`plugin`]: the plugins at work, as the links of a chain
//! - [`server`]: the sans-I/O server; the shell supplies packets, time, random ids and the cluster's changes
//! - [`authority`]: zones from files and transfers
//! - [`validate`]: whom to believe that a name does not exist (DNSSEC)
//! - [`metrics`]: what it counts, under the names that dashboards for cluster DNS know

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod answer;
pub mod authority;
pub mod cache;
pub mod chain;
pub mod corefile;
pub mod destination;
pub mod etcd;
pub mod forward;
pub mod hosts;
pub mod message;
pub mod metrics;
pub mod name;
pub mod plugin;
#[cfg(test)]
mod rfc;
pub mod server;
pub mod validate;
pub mod zone;

pub use chain::{Checked, Config, Environment, Listener, Port};
pub use corefile::{CorefileError, Scheme};
pub use destination::Destination;
pub use server::{Arrival, Carrier, Exchange, Keep, Outcome, Outside, Secure, Server, Transport};
