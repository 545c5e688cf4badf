//! What keeps flows from being counted.

use aya::maps::MapError;
use podnet_model::LinkName;

use crate::{fastpath::FastPathError, netlink::NetlinkError, object::LoadError, sockets::SocketsError};

/// Why flows are not counted.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// The kernel did not take the programs or their maps.
    #[error("cannot load the programs that count flows, which need Linux 5.14 with eBPF")]
    Load(#[from] LoadError),
    /// The fast path that counts cannot be used.
    #[error("cannot load the fast path that counts flows")]
    FastPath(#[from] FastPathError),
    /// The process can have no descriptor more.
    #[error("cannot keep a map of flows")]
    Keep(#[from] std::io::Error),
    /// The ring of bells cannot be used.
    #[error("cannot use the ring that tells of flows")]
    Ring(#[from] MapError),
    /// The programs at sockets cannot be looked at.
    #[error("cannot tell what sockets speak with")]
    Sockets(#[from] SocketsError),
    /// A map cannot be read or written.
    #[error("cannot {action} of flows")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The programs cannot be put at a device.
    #[error("cannot count flows at {device}")]
    Attach {
        /// The device.
        device: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// The programs cannot be taken away from a device.
    #[error("cannot end counting flows at {device}")]
    Detach {
        /// The device.
        device: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// It cannot be told which programs are at a device.
    #[error("cannot tell whether flows are counted at {device}")]
    Look {
        /// The device.
        device: LinkName,
        /// Why.
        source: NetlinkError,
    },
}
