//! The network that carries the nodes' own packets: which device, which address, which MTU.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_kernel::{
    addr, link,
    netlink::{NetlinkError, RtSocket},
    route::{self, Target},
    sysctl::{self, SysctlError},
};
use podnet_model::LinkName;
use podnet_planner::overlay::VXLAN_OVERHEAD;

/// This node's place on the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The device.
    pub device: LinkName,
    /// The node's address there, with its prefix length: who is inside shares the subnet.
    pub address: IpNet,
    /// The device's MTU in bytes.
    pub mtu: u32,
}

/// Why the underlay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// No device was named, and none has a default route.
    #[error("no device leads to the other nodes: there is no default route; name the device with --underlay-device")]
    NoDevice,
    /// The device is missing.
    #[error("there is no device {0}; name the one that leads to the other nodes with --underlay-device")]
    Missing(LinkName),
    /// The device has no IPv4 address.
    #[error("device {0} has no IPv4 address that other nodes could reach")]
    NoAddress(LinkName),
    /// The kernel refused.
    #[error("cannot ask the kernel for its devices")]
    Netlink(#[from] NetlinkError),
    /// A kernel setting cannot be made.
    #[error("cannot prepare the node for routing")]
    Sysctl(#[from] SysctlError),
}

impl Underlay {
    /// Finds the device that was named, or that of the default route.
    ///
    /// # Errors
    ///
    /// When there is no such device or it has no IPv4 address.
    pub fn find(named: Option<&LinkName>) -> Result<Self, UnderlayError> {
        let mut socket = RtSocket::open()?;
        let device = match named {
            Some(name) => link::find(&mut socket, name)?.ok_or_else(|| UnderlayError::Missing(name.clone()))?,
            None => default_device(&mut socket)?,
        };
        let global =
            |net: &IpNet| matches!(net.addr(), IpAddr::V4(addr) if !addr.is_link_local() && !addr.is_loopback());
        let address = addr::list(&mut socket, device.index)?
            .into_iter()
            .find(global)
            .ok_or_else(|| UnderlayError::NoAddress(device.name.clone()))?;
        Ok(Self { device: device.name, address, mtu: device.mtu })
    }

    /// Makes the node forward, and accept what comes another way than the answer goes: a node's own connection to a pod comes in
    /// through VXLAN, and the answer leaves over the underlay.
    ///
    /// The reverse path filter of a device is the larger of its own and of `all` (`ip-sysctl`), and even the loose one drops
    /// everything on a device without an address, as pods' and VXLAN devices are. So `all` is cleared; what it said is written to the
    /// devices that are there and to `default`, so that no other device is filtered less than before.
    ///
    /// # Errors
    ///
    /// When a setting cannot be read or made.
    pub fn prepare(&self) -> Result<(), UnderlayError> {
        sysctl::set_here("net.ipv4.ip_forward", "1")?;
        let filter = |device: &str| format!("net/ipv4/conf/{device}/rp_filter");
        let level = |text: &str| text.trim().parse::<u8>().unwrap_or(0);
        let all = level(&sysctl::read_here(&filter("all"))?);
        if all == 0 {
            return Ok(());
        }
        let mut socket = RtSocket::open()?;
        let devices =
            link::list(&mut socket)?.into_iter().map(|link| link.name.to_string()).filter(|name| !is_ours(name));
        for device in devices.chain(["default".to_owned()]) {
            let own = level(&sysctl::read_here(&filter(&device))?);
            sysctl::set_here(&filter(&device), &own.max(all).to_string())?;
        }
        sysctl::set_here(&filter("all"), "0")?;
        Ok(())
    }

    /// MTU of pods' interfaces: room for the encapsulation, whether this pod's packets need it or not, so that a change of mode or a
    /// peer on another subnet does not break connections.
    #[must_use]
    pub const fn pod_mtu(&self) -> u32 {
        self.mtu - VXLAN_OVERHEAD
    }
}

/// Devices that podnet makes: pods' ends and VXLAN.
fn is_ours(device: &str) -> bool {
    device.starts_with("pn") || device.starts_with("podnet")
}

fn default_device(socket: &mut RtSocket) -> Result<link::Link, UnderlayError> {
    for protocol in [route::PROTOCOL_STATIC, PROTOCOL_BOOT, PROTOCOL_DHCP] {
        let routes = route::list(socket, protocol)?;
        let device = routes.iter().filter(|route| route.dst.prefix_len() == 0).find_map(|route| match route.target {
            Target::Gateway { device, .. } => device,
            Target::Device(device) => Some(device),
            Target::Blackhole => None,
        });
        if let Some(found) = device.map(|index| link::find(socket, index)).transpose()?.flatten() {
            return Ok(found);
        }
    }
    Err(UnderlayError::NoDevice)
}

/// `RTPROT_BOOT`: what `ip route add` makes (`rtnetlink(7)`).
const PROTOCOL_BOOT: u8 = 3;
/// `RTPROT_DHCP`.
const PROTOCOL_DHCP: u8 = 16;
