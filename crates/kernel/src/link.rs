//! Network devices (`rtnetlink(7)`, `RTM_*LINK`).

mod listing;
pub(crate) mod request;
mod settle;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use podnet_model::{LinkName, Mac};

use crate::{
    netlink::{NetlinkError, Operation, RtSocket},
    netns::NetNs,
};

pub(crate) use listing::link as from_message;

pub(crate) use settle::settle;

/// A device as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: LinkName,
    /// Ethernet address; none for a device without one.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// It was set up by its administrator (`IFF_UP`).
    pub is_up: bool,
    /// Type: `veth`, `bridge`, `vxlan` …; none for a physical device and the loopback.
    pub kind: Option<String>,
    /// Index of the bridge (or other master) that it is a port of.
    pub master: Option<u32>,
    /// Index of the device that it is tied to: a veth's other end, in whatever namespace that is.
    pub peer: Option<u32>,
    /// The parameters of a VXLAN device.
    pub vxlan: Option<VxlanParameters>,
    /// The local end of an IPIP device that has no remote one.
    pub ipip_local: Option<Ipv4Addr>,
    /// A bridge that learns where Ethernet addresses are also from frames to itself alone, which nobody checks.
    pub learns_link_local: bool,
}

/// What makes two VXLAN devices different devices (RFC 7348).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanParameters {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Source of the outer packets; none where routing chooses it.
    pub local: Option<IpAddr>,
    /// It learns where Ethernet addresses are from what it receives.
    pub learning: bool,
}

/// Which device is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRef<'a> {
    /// The one of that name.
    Name(&'a str),
    /// The one of that index.
    Index(u32),
}

impl<'a> From<&'a str> for LinkRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for LinkRef<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a LinkName> for LinkRef<'a> {
    fn from(name: &'a LinkName) -> Self {
        Self::Name(name.as_str())
    }
}

impl From<u32> for LinkRef<'_> {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl fmt::Display for LinkRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "number {index}"),
        }
    }
}

/// A veth pair to be made (`veth(4)`).
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// The end in the socket's namespace.
    pub name: &'a str,
    /// Its Ethernet address; the kernel invents one where there is none.
    pub mac: Option<Mac>,
    /// The other end.
    pub peer: VethPeer<'a>,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

/// A veth pair's other end.
#[derive(Clone, Debug)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address; the kernel invents one where there is none.
    pub mac: Option<Mac>,
    /// Its namespace; none means the socket's.
    pub netns: Option<&'a NetNs>,
}

/// All devices of the namespace.
///
/// # Errors
/// Why the kernel refused.
pub fn list(socket: &mut RtSocket) -> Result<Vec<Link>, NetlinkError> {
    let messages = socket.dump(&request::list())?;
    Ok(messages.into_iter().filter_map(from_message).collect())
}

/// One device; none where there is no such.
///
/// # Errors
/// Why the kernel refused.
pub fn find<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>) -> Result<Option<Link>, NetlinkError> {
    let replies = socket.exchange(&[request::find(link.into())])?;
    Ok(replies.into_iter().flatten().find_map(from_message))
}

/// The index of a device.
///
/// # Errors
/// [`NetlinkError::NoDevice`] where there is none.
pub fn index_of(socket: &mut RtSocket, name: &str) -> Result<u32, NetlinkError> {
    find(socket, name)?.map(|link| link.index).ok_or_else(|| NetlinkError::NoDevice {
        operation: Operation::new("find device", name),
        device: name.to_owned(),
    })
}

/// Makes a veth pair. Both ends are down at first.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_exists`] where a name is taken.
pub fn create_veth(socket: &mut RtSocket, veth: &Veth<'_>) -> Result<(), NetlinkError> {
    socket.perform(request::veth(veth))
}

/// Makes a bridge without spanning tree; it is down at first.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_exists`] where the name is taken.
pub fn create_bridge(socket: &mut RtSocket, name: &str) -> Result<(), NetlinkError> {
    socket.perform(request::bridge(name))
}

/// Makes a bridge that is there learn nothing from frames to itself alone (IEEE 802.1D, "reserved addresses"): no rule sees them.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn learn_from_no_link_local<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>) -> Result<(), NetlinkError> {
    socket.perform(request::learn_from_no_link_local(link.into()))
}

/// Makes a VXLAN device without learning; it is down at first.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_exists`] where the name, or identifier and port, are taken.
pub fn create_vxlan(socket: &mut RtSocket, vxlan: &podnet_planner::step::Vxlan) -> Result<(), NetlinkError> {
    socket.perform(request::vxlan(vxlan))
}

/// Sets a device up. Its IPv6 link-local address, if it gets one, is the kernel's business.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn set_up<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>) -> Result<(), NetlinkError> {
    socket.perform(request::set_state(link.into(), true))
}

/// Sets a device down: its routes go, its IPv4 addresses stay.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn set_down<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>) -> Result<(), NetlinkError> {
    socket.perform(request::set_state(link.into(), false))
}

/// Makes a device a port of a bridge.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device or bridge.
pub fn set_master<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>, master: &str) -> Result<(), NetlinkError> {
    let master = index_of(socket, master)?;
    socket.perform(request::set_master(link.into(), master))
}

/// Changes a device's MTU, in bytes.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn set_mtu<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>, mtu: u32) -> Result<(), NetlinkError> {
    socket.perform(request::set_mtu(link.into(), mtu))
}

/// Changes a device's Ethernet address.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn set_mac<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>, mac: Mac) -> Result<(), NetlinkError> {
    socket.perform(request::set_mac(link.into(), mac))
}

/// Keeps a device from giving itself an IPv6 link-local address when it comes up.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_missing`] where there is no such device.
pub fn set_without_link_local<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>) -> Result<(), NetlinkError> {
    socket.perform(request::without_link_local(link.into()))
}

/// Renames a device.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_exists`] where the new name is taken.
pub fn rename(socket: &mut RtSocket, from: &str, to: &str) -> Result<(), NetlinkError> {
    let index = index_of(socket, from)?;
    socket.perform(request::rename(index, to))
}

/// Moves a device to another namespace, where it is down and without addresses.
///
/// # Errors
/// Why the kernel refused; [`NetlinkError::is_exists`] where the name is taken there.
pub fn move_to<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>, netns: &NetNs) -> Result<(), NetlinkError> {
    socket.perform(request::move_to(link.into(), netns))
}

/// Removes a device, and with it its addresses, routes, neighbours and FDB entries, and a veth's other end. Done also where there is
/// no such device.
///
/// # Errors
/// Why the kernel refused.
pub fn delete<'a>(socket: &mut RtSocket, link: impl Into<LinkRef<'a>>) -> Result<(), NetlinkError> {
    socket.perform(request::delete(link.into()))
}

#[cfg(test)]
mod tests;
