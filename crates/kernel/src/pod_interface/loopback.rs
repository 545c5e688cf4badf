//! Answers of pods to the node's loopback.
//!
//! A connection of the node to 127.0.0.1 or ::1 that is led to a pod leaves with another source, and that is translated back when an
//! answer comes in by the pod's link. Then it is a packet from a link to a loopback address, which the kernel does not take as it is.

use podnet_model::{Family, LinkName};

use crate::{
    link,
    netlink::{NetlinkError, Operation, RtSocket},
    netns::NetNs,
    route,
    sysctl::{self, SysctlError},
};

/// Why a pod cannot answer to the node's loopback.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// The setting of IPv4.
    #[error(transparent)]
    Setting(#[from] SysctlError),
    /// The route of IPv6.
    #[error(transparent)]
    Route(#[from] NetlinkError),
}

/// Makes the node take answers to its loopback that come by this device: of IPv4 by the setting `route_localnet`. IPv6 has no such
/// setting, but takes the route of a loopback address from the device alone that the packet came in by (`rt6_need_strict`): so the
/// device gets a local route to ::1 of its own, behind the one that the node uses itself. What comes in with the address ::1 before
/// any translation is dropped by the kernel all the same. Both go with the device.
///
/// # Errors
/// What the kernel refused.
pub fn answer(host: &mut RtSocket, device: &LinkName, family: Family) -> Result<(), LoopbackError> {
    match family {
        Family::V4 => {
            set(host, device, "1")?;
        }
        Family::V6 => {
            let found = link::find(host, device)?.ok_or_else(|| NetlinkError::NoDevice {
                operation: Operation::new("make route to ::1 through", device),
                device: device.to_string(),
            })?;
            host.perform(route::to_loopback(found.index))?;
        }
    }
    Ok(())
}

/// Makes the node take no more packets for its IPv4 loopback that come by this device; one that is gone takes none. The route to ::1 stays:
/// nothing that comes from elsewhere can use it.
///
/// # Errors
/// What the kernel refused.
pub fn close(host: &mut RtSocket, device: &LinkName) -> Result<(), LoopbackError> {
    match link::find(host, device)? {
        Some(_) => Ok(set(host, device, "0")?),
        None => Ok(()),
    }
}

fn set(host: &RtSocket, device: &LinkName, value: &str) -> Result<(), SysctlError> {
    let setting = format!("net/ipv4/conf/{device}/route_localnet");
    let here = NetNs::current().and_then(|here| Ok(here.inode()? == host.netns().inode()?));
    match here {
        Ok(true) => sysctl::set_here(&setting, value),
        _ => sysctl::set(host.netns(), &setting, value),
    }
}
