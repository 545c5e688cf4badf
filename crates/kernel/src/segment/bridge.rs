//! The bridge that containers of a network are ports of.

use ipnet::IpNet;
use podnet_model::LinkName;

use crate::{
    addr,
    link::{self, Link},
    netlink::{NetlinkError, RtSocket},
    sysctl::{self, SysctlError},
};

/// Makes the bridge where there is none, gives it these addresses, and sets it up. One that is there keeps all else that it has, but
/// learns no more from what no rule sees ([`link::learn_from_no_link_local`]); it is not removed with the last container, as others may have made something of it.
///
/// # Errors
/// What the kernel refused, a device of another kind that has the name, an address in the way.
pub fn prepare(
    socket: &mut RtSocket,
    name: &LinkName,
    mtu: u32,
    addrs: &[IpNet],
    force: bool,
) -> Result<u32, BridgeError> {
    let found = match link::find(socket, name)? {
        Some(found) => found,
        None => make(socket, name, mtu)?,
    };
    if found.kind.as_deref() != Some("bridge") {
        let kind = found.kind.unwrap_or_else(|| "physical".to_owned());
        return Err(BridgeError::Kind { name: name.clone(), kind });
    }
    if found.learns_link_local {
        link::learn_from_no_link_local(socket, found.index)?;
    }
    let there = addr::list(socket, found.index)?;
    for wanted in addrs.iter().filter(|wanted| !there.contains(wanted)) {
        let overlaps = |other: &&IpNet| other.contains(&wanted.addr()) || wanted.contains(&other.addr());
        for other in there.iter().filter(overlaps) {
            if !force {
                return Err(BridgeError::Address { name: name.clone(), wanted: *wanted, found: *other });
            }
            addr::delete(socket, found.index, *other)?;
        }
        addr::add(socket, found.index, *wanted)?;
    }
    if !found.is_up {
        link::set_up(socket, found.index)?;
    }
    Ok(found.index)
}

/// A bridge takes the lowest Ethernet address of its ports, so it would change with them, and its neighbours would not know: it keeps
/// the one that the kernel gave it at first, as one that was set is never changed. What a container advertises as a router is none for
/// the node (see `pod_interface::ipv6`).
fn make(socket: &mut RtSocket, name: &LinkName, mtu: u32) -> Result<Link, BridgeError> {
    link::create_bridge(socket, name.as_str())?;
    let made = link::find(socket, name)?.ok_or_else(|| NetlinkError::NoDevice {
        operation: crate::netlink::Operation::new("set up bridge", name),
        device: name.to_string(),
    })?;
    if let Some(mac) = made.mac {
        link::set_mac(socket, made.index, mac)?;
    }
    link::set_mtu(socket, made.index, mtu)?;
    let setting = format!("net/ipv6/conf/{name}/accept_ra");
    match sysctl::set(socket.netns(), &setting, "0") {
        Err(error) if !error.is_missing() => Err(error.into()),
        // A kernel without IPv6 has no such setting.
        _ => Ok(made),
    }
}

/// Why a bridge is not as a network needs it.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A device of another kind has the name.
    #[error("device {name} is no bridge ({kind})")]
    Kind {
        /// The device.
        name: LinkName,
        /// What it is.
        kind: String,
    },
    /// It has another address in the subnet.
    #[error("bridge {name} has {found}, which is in the way of gateway {wanted} (\"forceAddress\": true removes it)")]
    Address {
        /// The bridge.
        name: LinkName,
        /// The gateway's.
        wanted: IpNet,
        /// What it has.
        found: IpNet,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting could not be made.
    #[error(transparent)]
    Setting(#[from] SysctlError),
}
