//! The network of a node as a pure function of the cluster's state.
//!
//! A [`change`](podnet_model::Change) goes to each planner, which replans its own key and answers with the difference:
//! [`overlay`] plans links, routes, neighbours and FDB entries and answers with [`step`]s; [`services`] plans frontends and
//! backends, which are rendered to [`ruleset`] edits; [`border`] plans what pods may send out of the cluster. [`ipam`] decides addresses, [`limits`] how a
//! pod's traffic is held back, [`attachments`] what a pod may send and which ports of the node lead to it. Nothing here has a clock, a socket or a file.
//!
//! [`proxy`] chooses the mode that Services are served in.
//!
//! [`loadbalancer`] decides which Service has which address outside the cluster, and who announces it.
//! [`election`] says when one of several candidates takes a Lease.
//!
//! [`repair`] says what others damaged, and when it is mended.
//!
//! [`resolver`] leads pods' questions to the resolver of their own node.
//!
//! [`iptables`] is the vocabulary of iptables: its rules, and the text that makes them.
//!
//! [`ipvs`] is the vocabulary of the kernel's virtual servers.
//!
//! [`trace`] follows a virtual packet through the nodes on its way.
//!
//! [`ruleset`] is the one truth about Service and policy rules: it is rendered for the kernel and walked by virtual packets.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod attachments;
pub mod border;
mod counted;
pub mod election;
pub mod ipam;
pub mod iptables;
pub mod ipvs;
pub mod limits;
pub mod loadbalancer;
pub mod overlay;
pub mod proxy;
pub mod repair;
pub mod resolver;
pub mod ruleset;
pub mod services;
pub mod step;
pub mod trace;
