//! Access to the Kubernetes API, embedded or real: the only way in which podnet learns of the cluster and tells it anything.
//!
//! - [`watch`]: the cluster's state as a stream of [`podnet_model::Change`]
//! - [`connect`]: clients from a kubeconfig or from inside a pod
//! - [`requests`]: counting them, and holding them back
//! - [`certificate`]: who holds a client certificate
//! - [`controller`]: what controllers are made of
//! - [`blocks`]: claims and publication of IPAM blocks
//! - [`node`]: what a node says of itself
//! - [`events`]: what people are to see of it
//! - [`lease`]: what one of several has
//! - [`shares`]: bounds of what each asker may have
//! - [`apply`]: create-or-update for the objects that podnet installs

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
pub mod blocks;
pub mod certificate;
pub mod connect;
pub mod controller;
pub mod events;
pub mod lease;
pub mod node;
pub mod requests;
pub mod shares;
pub mod watch;
