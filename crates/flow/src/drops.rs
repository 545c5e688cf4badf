//! What was dropped at pods' interfaces, where nobody knows of which flows it was.

use std::sync::Arc;

use jiff::Timestamp;
use podnet_model::NodeName;
use serde::{Deserialize, Serialize};

use crate::{gap::Interface, names::PodIdentity, verdict::Cause};

/// Which way packets go, as Kubernetes calls it (`kubernetes.io/ingress-bandwidth`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Packets that were dropped at an interface. They are in the records of their flows, as sent: there they were counted before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drops {
    /// When it was looked before.
    pub start: Timestamp,
    /// When it was looked now.
    pub end: Timestamp,
    /// The node.
    pub node: NodeName,
    /// What dropped them.
    pub cause: Cause,
    /// Where they went.
    pub direction: Direction,
    /// The interface, where that may be told.
    #[serde(flatten)]
    pub device: Option<Interface>,
    /// The pod that the interface is of, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Arc<PodIdentity>>,
    /// How many: 1 or more. What the kernel holds together to be cut by a device counts as one, where it was dropped uncut.
    pub packets: u64,
}
