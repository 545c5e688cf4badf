//! Addresses at which the agent answers its node's own pods: those of the node's resolver, and pods' gateway, where it is asked for flows.
//!
//! They are on the loopback device: it is there on every node, nobody else's network configuration touches it, and it goes with no
//! module, bridge or pod. Packets come to such an address by whatever device they enter (the kernel's weak host model), and by their
//! scope no packet that asks for no source gets it as its own.

use std::net::IpAddr;

use crate::{
    addr, link,
    netlink::{NetlinkError, RtSocket},
};

/// Makes sure that the loopback device has the addresses. Answers how many it had not.
///
/// # Errors
/// What the kernel refused.
pub fn hold(socket: &mut RtSocket, addrs: &[IpAddr]) -> Result<usize, NetlinkError> {
    let device = loopback(socket)?;
    let held = addr::list(socket, device)?;
    let lacking: Vec<IpAddr> =
        addrs.iter().copied().filter(|addr| !held.iter().any(|held| held.addr() == *addr)).collect();
    for addr in &lacking {
        socket.perform(addr::set_as_no_source(device, *addr))?;
    }
    Ok(lacking.len())
}

/// Takes the addresses from the loopback device. Done also where it has them not.
///
/// # Errors
/// What the kernel refused.
pub fn release(socket: &mut RtSocket, addrs: &[IpAddr]) -> Result<(), NetlinkError> {
    let device = loopback(socket)?;
    addrs.iter().try_for_each(|addr| socket.perform(addr::removal(device, (*addr).into())))
}

fn loopback(socket: &mut RtSocket) -> Result<u32, NetlinkError> {
    link::index_of(socket, "lo")
}

#[cfg(test)]
mod tests;
