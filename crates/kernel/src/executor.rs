//! Does the planner's steps, and tells what is there.

mod batch;
mod observe;
mod tunnel;
mod vxlan;

use podnet_model::LinkName;
use podnet_planner::step::Step;
use rustix::io::Errno;

use crate::{
    netlink::{NetlinkError, Operation, RtSocket},
    sysctl,
};

pub use observe::{Observed, observe};
pub use tunnel::support;

/// What doing the steps entailed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Devices that had to be made anew: routes, neighbours and FDB entries that were on them before the steps are gone, and the
    /// caller has to [`observe`] and plan again.
    pub remade: Vec<LinkName>,
}

/// Does the steps in order, many to a system call. Steps are idempotent, so the same list can be done again after a failure.
///
/// # Errors
/// The first step that failed. Those before it are done; some after it may be done. Where it is a device that cannot be made, all others
/// are done that do not stand on it; [`NetlinkError::InTheWay`] names another program's device that has what it needs.
pub fn apply(socket: &mut RtSocket, steps: &[Step]) -> Result<Applied, StepFailed> {
    batch::Batch::new(socket, steps).run()
}

/// What became of a device.
struct Set {
    index: u32,
    /// There was a device of the name that could not be changed to be so.
    remade: bool,
}

/// Lets a device that was made carry IPv6, whatever the namespace's default for new devices is.
fn allow_ipv6(socket: &RtSocket, device: &LinkName) -> Result<(), NetlinkError> {
    sysctl::allow_ipv6(socket.netns(), device.as_str()).map_err(|error| NetlinkError::Refused {
        operation: Operation::new("allow IPv6 on device", device),
        hint: Some(error.to_string()),
        errno: Errno::ACCESS,
    })
}

/// A step that was not done.
#[derive(Debug, thiserror::Error)]
#[error("step {index} failed: {step:?}")]
pub struct StepFailed {
    /// Its place in the list, from 0.
    pub index: usize,
    /// The step.
    pub step: Box<Step>,
    /// Why.
    pub source: Box<NetlinkError>,
}

#[cfg(test)]
mod tests;
