//! That flows are missing is told as well.

use std::sync::Arc;

use jiff::Timestamp;
use podnet_model::{LinkName, NodeName};
use serde::{Deserialize, Serialize};

use crate::names::PodIdentity;

/// Flows are missing: how much, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// When it was last known that nothing was missing.
    pub start: Timestamp,
    /// When it was noticed.
    pub end: Timestamp,
    /// The node.
    pub node: NodeName,
    /// What could not take more.
    pub at: GapAt,
    /// The interface, where it is one's.
    #[serde(flatten)]
    pub device: Option<Interface>,
    /// The pod at whose interfaces it is missing, where all of it is one's and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Arc<PodIdentity>>,
    /// Packets that are in no record; of records that are missing those of flows that have ended, of both directions, as far as they are known: since a
    /// flow began, so that to who reads also of flows that go on earlier records may have told a part of them.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that are missing; or flows that the kernel had no room for: connections of TCP and SCTP to the last one, and of other protocols an estimate, right
    /// within some hundredths up to 400,000 of one interface in a second and fewer than there were beyond that, of all that sent or got any of these packets. To who
    /// reads only of flows that have ended: those.
    pub flows: u64,
}

/// The node's end of a pod's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its index in the node's namespace: another one's after the node began anew.
    #[serde(rename = "device")]
    pub index: u32,
    /// Its name, where that is known: nobody has it any more once the pod is gone.
    #[serde(default, rename = "interface", skip_serializing_if = "Option::is_none")]
    pub name: Option<LinkName>,
}

impl From<u32> for Interface {
    fn from(index: u32) -> Self {
        Self { index, name: None }
    }
}

/// Where flows got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapAt {
    /// The kernel's map was full: a larger one has room. Or what ended could not be told before its port was used again: packets of both connections
    /// are in one record.
    Kernel,
    /// A reader was slower than what it reads: records went by.
    Reader,
    /// The past that is kept is shorter than what was asked for: some of what was recorded then is not there any more. How much that is is not known.
    Store,
    /// A collector was away for longer than there was room, or refused them.
    Collector,
    /// The node's log of flows could not be written.
    Log,
    /// An agent did not end by itself (it was killed, or its node): what it had read and not told yet is nowhere. How much that was is not known.
    Agent,
}
