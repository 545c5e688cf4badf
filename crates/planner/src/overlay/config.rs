//! What an overlay is made with, and the numbers that belong to each way.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use podnet_model::{Dual, LinkName, NodeName};
use serde::{Deserialize, Serialize};

/// Bytes that VXLAN adds to a packet inside IPv4: 20 IP, 8 UDP, 8 VXLAN, 14 inner Ethernet (RFC 7348 section 5).
pub const VXLAN_OVERHEAD: u32 = 50;

/// Bytes that IPIP adds: another IPv4 header (RFC 2003).
pub const IPIP_OVERHEAD: u32 = 20;

/// Bytes that WireGuard adds inside IPv4: 20 IP, 8 UDP, 16 header, 16 tag (the WireGuard paper, section 5.4.6).
pub const WIREGUARD_OVERHEAD: u32 = 60;

/// Bytes by which an IPv6 header is longer than one of IPv4 (RFC 8200 section 3): what VXLAN and WireGuard add more inside IPv6.
pub const IPV6_EXTRA: u32 = 20;

/// The least MTU of IPv6 (RFC 8200 section 5): of a device with less Linux takes IPv6 away as a whole.
pub const IPV6_LEAST_MTU: u32 = 1280;

/// Bytes that UDP adds inside IPv4: 20 IP, 8 UDP.
pub const UDP_OVERHEAD: u32 = 28;

/// UDP port of VXLAN where nothing else is configured (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

/// The mark of WireGuard's encrypted packets; a bit that neither Services nor Kubernetes' other components use.
pub const WIREGUARD_MARK: u32 = 0x0020_0000;

/// What a node's overlay is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// This node.
    pub node: NodeName,
    /// The node's place on the underlay.
    pub underlay: Place,
    /// The MTU of pods' interfaces; none lets it follow from the underlay and the encapsulation.
    pub pod_mtu: Option<u32>,
    /// The names of the VXLAN devices, by the family of their outer packets.
    pub vxlan_devices: Dual<LinkName>,
    /// The name of the IPIP device.
    pub ipip_device: LinkName,
    /// The name of the WireGuard device.
    pub wireguard_device: LinkName,
    /// The name of the TUN device of the UDP tunnel.
    pub udp_device: LinkName,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// A node whose lease has expired counts as gone: its routes leave before its Node object does.
    pub without_lost_nodes: bool,
    /// Which tunnels the kernel can make.
    pub support: Support,
}

/// A node's place on the underlay, as it sees that itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device with the node's address.
    pub device: LinkName,
    /// That device's MTU in bytes.
    pub mtu: u32,
    /// The node's own address there, where it is not the one that its peers know (they may reach it through NAT): the source of
    /// encapsulated packets.
    pub addr: Option<Ipv4Addr>,
    /// The same by IPv6.
    pub addr6: Option<Ipv6Addr>,
    /// The subnet that it publishes, so that peers on it are known before the node's own object shows a change; none takes what
    /// the object says.
    pub subnet: Option<IpNet>,
    /// The same by IPv6.
    pub subnet6: Option<IpNet>,
}

impl Place {
    /// On a device with this MTU; the rest is as the node's own object says.
    #[must_use]
    pub const fn on(device: LinkName, mtu: u32) -> Self {
        Self { device, mtu, addr: None, addr6: None, subnet: None, subnet6: None }
    }
}

/// Kinds of tunnels that this node's kernel can make; VXLAN it always can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// IPIP: its module is there.
    pub ipip: bool,
    /// WireGuard: its module is there.
    pub wireguard: bool,
    /// TUN devices.
    pub tun: bool,
    /// IPv6 at all: a kernel may be started without it.
    pub ipv6: bool,
}

impl Support {
    /// All of them.
    pub const ALL: Self = Self { ipip: true, wireguard: true, tun: true, ipv6: true };
}

impl OverlayConfig {
    /// The defaults: devices `podnet.vxlan`, `podnet.vxlan6`, `podnet.ipip`, `podnet.wg` and `podnet.udp`, VNI 4096 (as Calico has it, above the range of VLANs) and port 4789
    /// (RFC 7348); the kernel can make every kind of tunnel.
    #[must_use]
    pub fn new(node: NodeName, underlay_device: LinkName, underlay_mtu: u32) -> Self {
        Self {
            node,
            underlay: Place::on(underlay_device, underlay_mtu),
            pod_mtu: None,
            vxlan_devices: Dual { v4: "podnet.vxlan".into(), v6: "podnet.vxlan6".into() },
            ipip_device: "podnet.ipip".into(),
            wireguard_device: "podnet.wg".into(),
            udp_device: "podnet.udp".into(),
            vni: 4096,
            port: VXLAN_PORT,
            without_lost_nodes: false,
            support: Support::ALL,
        }
    }

    /// The names of the VXLAN devices.
    #[must_use]
    pub const fn vxlan_names(&self) -> [&LinkName; 2] {
        [&self.vxlan_devices.v4, &self.vxlan_devices.v6]
    }
}
