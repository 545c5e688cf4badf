//! What the executor does, decided: kernel objects to set or to remove, in order.
//!
//! Each step is idempotent: setting what is there already and removing what is not are both done. The executor performs steps
//! one by one or batched and decides nothing.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnet::IpNet;
use podnet_model::{
    LinkName, Mac,
    wireguard::{PrivateKey, PublicKey},
};
use serde::{Deserialize, Serialize};

/// The `rtm_protocol` of every route that podnet makes, by which it tells its own from others' (`rtnetlink(7)`; 5–255 are
/// free for routing daemons, and neither iproute2's `rt_protos` nor FRR, BIRD or Calico use this one).
pub const ROUTE_PROTOCOL: u8 = 88;

/// One thing to do to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the VXLAN device, or change it to be so; it is made anew where the kernel cannot change it.
    SetVxlan(Vxlan),
    /// Make the tunnel, or change it to be so; it is made anew where the kernel cannot change it.
    SetTunnel(Tunnel),
    /// Remove a device by name.
    RemoveLink(LinkName),
    /// Make or replace a route.
    SetRoute(Route),
    /// Remove the route to this destination.
    RemoveRoute(Route),
    /// Make or replace a permanent neighbour (ARP, ND) entry.
    SetNeighbour(Neighbour),
    /// Remove a neighbour entry.
    RemoveNeighbour(Neighbour),
    /// Make or replace a permanent FDB entry of a VXLAN device.
    SetFdb(FdbEntry),
    /// Remove an FDB entry.
    RemoveFdb(FdbEntry),
    /// Make or change a peer of a WireGuard device; ranges that another peer has become this one's.
    SetPeer(Peer),
    /// Remove a peer of a WireGuard device.
    RemovePeer(Peer),
}

/// A VXLAN device without learning (RFC 7348; `ip-link(8)`, type vxlan).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// Device name.
    pub name: LinkName,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Source of the outer packets: this node's address on the underlay. Its family is that of all outer packets.
    pub local: IpAddr,
    /// The device's own Ethernet address.
    pub mac: Mac,
    /// The device's MTU: the underlay's less 50 bytes for IPv4 outside, 70 for IPv6.
    pub mtu: u32,
    /// The device's own addresses, host prefixes, so that traffic of the node itself has a source that its peers can answer.
    pub addrs: BTreeSet<IpAddr>,
}

/// What the names of podnet's own devices between nodes begin with, by which it tells them from others'.
pub const DEVICE_PREFIX: &str = "podnet.";

/// A device that carries IP packets to other nodes inside something else, without Ethernet: no neighbours, no FDB. Its routes'
/// next hops are the peers' addresses on the underlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tunnel {
    /// IP in IP.
    Ipip(Ipip),
    /// WireGuard. It holds the node's private key: it is not written anywhere.
    #[serde(skip)]
    Wireguard(Wireguard),
    /// Packets in UDP, by a program.
    Udp(UdpTunnel),
}

impl Tunnel {
    /// The device's name.
    #[must_use]
    pub const fn name(&self) -> &LinkName {
        match self {
            Self::Ipip(ipip) => &ipip.name,
            Self::Wireguard(wireguard) => &wireguard.name,
            Self::Udp(udp) => &udp.name,
        }
    }
}

/// An IPIP device without a remote end of its own (RFC 2003; `ip-tunnel(8)`): it sends to a route's next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipip {
    /// Device name.
    pub name: LinkName,
    /// Source of the outer packets, and what those that come must be sent to: this node's address on the underlay.
    pub local: Ipv4Addr,
    /// The device's MTU: the underlay's less 20 bytes.
    pub mtu: u32,
}

/// A WireGuard device. Its peers say by their ranges who gets a packet, and who may send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wireguard {
    /// Device name.
    pub name: LinkName,
    /// The UDP port that it listens on and sends from.
    pub port: u16,
    /// The device's MTU: the underlay's less 60 bytes for IPv4 outside, 80 for IPv6.
    pub mtu: u32,
    /// The mark of its encrypted packets, so that rules can tell them from what they carry.
    pub mark: u32,
    /// This node's key.
    pub key: PrivateKey,
}

/// A TUN device whose packets a program carries to other nodes in UDP, and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpTunnel {
    /// Device name.
    pub name: LinkName,
    /// The device's MTU: the underlay's less 28 bytes for IPv4 outside.
    pub mtu: u32,
}

/// A peer of a WireGuard device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// The WireGuard device.
    pub device: LinkName,
    /// Its key, which names it.
    pub key: PublicKey,
    /// Where its encrypted packets go.
    pub endpoint: SocketAddr,
    /// What goes to it, and what its packets may come from.
    pub ranges: BTreeSet<IpNet>,
}

/// A route of the main table, protocol [`ROUTE_PROTOCOL`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Where it goes.
    pub target: RouteTarget,
}

/// Where a route goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteTarget {
    /// Straight out of a device (scope link).
    Device(LinkName),
    /// Through a next hop that is on the device's link without an address there saying so (`onlink`).
    OnLink {
        /// The device.
        device: LinkName,
        /// The next hop.
        via: IpAddr,
        /// The source of packets that this node itself sends there; none lets the kernel choose, which takes the first address of the node
        /// where the device has none.
        source: Option<IpAddr>,
    },
    /// Through a next hop that the routing table knows how to reach.
    Via(IpAddr),
    /// Silently dropped: own blocks' addresses that no pod has.
    Blackhole,
}

/// A permanent neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    /// The device.
    pub device: LinkName,
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// A permanent FDB entry of a VXLAN device: frames to `mac` go to the VTEP at `remote`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub device: LinkName,
    /// The inner destination.
    pub mac: Mac,
    /// The peer's underlay address.
    pub remote: IpAddr,
}
