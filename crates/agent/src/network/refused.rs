//! What can keep the network from being as wanted.

use podnet_kernel::{carrier::CarrierError, executor::StepFailed, netlink::NetlinkError, sockets::SocketsError};

use crate::{proxy::mode::RulesError, repair::MendError, underlay::UnderlayError};

/// Why the network is not as wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("cannot read the routes")]
    Observe(#[from] NetlinkError),
    #[error("cannot change links and routes")]
    Steps(#[from] StepFailed),
    #[error("cannot change the rules")]
    Rules(#[from] RulesError),
    #[error("cannot make the node forward IPv6")]
    Forwarding(#[from] UnderlayError),
    #[error("cannot run the UDP tunnel")]
    Carrier(#[from] CarrierError),
    #[error("cannot put Services at the sockets")]
    Sockets(#[from] SocketsError),
    #[error("cannot mend what others damaged")]
    Mend(#[from] MendError),
}
