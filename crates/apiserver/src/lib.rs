//! The embedded Kubernetes API.
//!
//! A request travels top-down through these modules:
//!
//! - [`server`]: listeners, TLS, start and stop; [`pki`]: the certificate authority and what it issues
//! - [`http`]: from an HTTP request to a verb on a resource and back; [`errors`]: refusals as `metav1.Status`;
//!   [`protobuf`]: bodies that are not JSON
//! - [`auth`]: who asks, and may they
//! - [`api`]: the verbs themselves (create, update, patch, delete, subresources) with Kubernetes' rules for metadata
//! - [`registry`]: which kinds exist, one row each; [`crd`]: rows that come from CustomResourceDefinitions
//! - [`store`]: revisions, durable writes, the ordered cache, and the events that watches read
//! - [`discovery`], [`openapi`]: what clients ask before they ask
//! - [`nodeproxy`]: exec, attach and logs, passed on to the pod's node
//!
//! The pure parts work on JSON values alone: [`patch`], [`selector`], [`table`], [`admission`], and `shape`, which says how large
//! and how deep objects may be.
//!
//! [`Api`] is the whole without sockets: its router answers requests and [`Api::in_process_client`] is a `kube::Client` on top of
//! it. [`serve`] puts it behind TLS.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod api;
pub mod auth;
pub mod config;
pub mod controllers;
pub mod crd;
pub mod discovery;
pub mod errors;
pub mod http;
pub mod nodeproxy;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod protobuf;
pub mod registry;
pub mod selector;
pub mod server;
mod shape;
pub mod store;
pub mod table;

pub use api::Api;
pub use config::Config;
pub use pki::{Pki, kubeconfig};
pub use server::{ServeError, serve};
