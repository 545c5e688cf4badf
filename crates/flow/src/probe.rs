//! A probe: one packet that is known again wherever it passes, inside tunnels too, whatever addresses are translated on its way.
//!
//! What agents are asked for and what they tell ([`Request`], [`Said`], [`Sent`]); the packet itself ([`Probe::packet`]); a filter that lets it
//! through and little else ([`Probe::filter`]), and what a packet is by all of its headers ([`Probe::recognise`]).
//!
//! A probe of TCP is a SYN with a sequence number of its own (RFC 9293), which translation leaves alone and the answer acknowledges. One of UDP
//! begins its payload with its mark, which nothing but an error sends back. One of SCTP is an INIT, whose tag the answer has in its header (RFC 9260).
//! One of ICMP asks for an echo, whose data begins with the mark and comes back with the reply (RFC 792, RFC 4443).

mod packet;
mod recognise;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use podnet_model::Protocol;
use serde::{Deserialize, Serialize};

use crate::capture::{Captured, is_interface};

/// So much of a packet is looked at, in bytes: an error that quotes the probe, within a tunnel.
pub const SNAP: u32 = 256;
/// Places of one node at which one probe is watched at most.
pub const MOST_POINTS: usize = 64;

/// By what a packet is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What it is sent by.
    pub protocol: ProbeProtocol,
    /// What no other packet has: of TCP and SCTP the lower 32 bits count.
    pub mark: u64,
}

/// What a probe is sent by: what Services carry, and ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeProtocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
    /// An INIT.
    Sctp,
    /// A request for an echo, of ICMP or ICMPv6. It has no ports: they are 0 wherever some are told.
    Icmp,
}

impl ProbeProtocol {
    /// The IANA protocol number, as it stands in the IP header of a family.
    const fn number(self, is_v6: bool) -> u8 {
        match (self, is_v6) {
            (Self::Tcp, _) => Protocol::Tcp.number(),
            (Self::Udp, _) => Protocol::Udp.number(),
            (Self::Sctp, _) => Protocol::Sctp.number(),
            (Self::Icmp, false) => ICMP_V4,
            (Self::Icmp, true) => ICMP_V6,
        }
    }
}

const ICMP_V4: u8 = 1;
const ICMP_V6: u8 = 58;

impl From<Protocol> for ProbeProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl fmt::Display for ProbeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}

/// What an agent is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// To tell where on its node a probe passes.
    Watch(Watch),
    /// To send one.
    Send(Dispatch),
}

/// Which probe is watched, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The probe.
    pub probe: Probe,
    /// The places: they are numbered in this order.
    pub points: Vec<Point>,
}

/// A place at which packets are watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Point {
    /// An interface of a pod, as it is called there.
    Inside(Captured, String),
    /// The node's end of a pod's link.
    Outside(Captured),
    /// The device with the node's address.
    Underlay,
    /// Another device of the node.
    Device(String),
}

impl Point {
    /// The name that is asked for, where there is one.
    fn named(&self) -> Option<&str> {
        match self {
            Self::Inside(_, name) | Self::Device(name) => Some(name),
            Self::Outside(_) | Self::Underlay => None,
        }
    }
}

/// A probe that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// The probe.
    pub probe: Probe,
    /// From this pod; from the node itself where there is none.
    pub from: Option<Captured>,
    /// To this address. One that asks for an echo has no use for the port.
    pub to: SocketAddr,
    /// Filled up to so many bytes, its IP header included; as short as it can be where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u16>,
}

/// What became of sending one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Just before it was sent: nanoseconds since 1970 by the sender's clock.
    pub at: u64,
    /// From which address and port.
    pub source: SocketAddr,
}

/// What an agent says that watches, each in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Said {
    /// It watches from now on: what the devices are called, in the order of the points.
    Watching(Vec<String>),
    /// Something passed.
    Seen(Sighting),
}

/// Something that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Where: the number of the point.
    pub point: u32,
    /// When: nanoseconds since 1970 by the node's clock.
    pub at: u64,
    /// It left by the device; else it came in.
    pub outbound: bool,
    /// What it is.
    pub found: Found,
}

/// A packet that belongs to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it is to the probe.
    pub kind: Kind,
    /// Where it comes from, as it says here. An error has no port: 0.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// What it is carried in.
    pub within: Option<Tunnel>,
}

/// What a packet is to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The probe itself.
    Probe,
    /// It is taken: SYN and ACK, or INIT ACK, or the reply to a request for an echo.
    Accepted,
    /// It is refused: RST, or ABORT.
    Refused,
    /// An error of ICMP quotes it.
    Error,
}

/// What packets are carried in between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tunnel {
    /// RFC 7348.
    Vxlan,
    /// RFC 2003.
    Ipip,
    /// flannel's: packets in datagrams as they are.
    Udp,
}

impl Tunnel {
    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "VXLAN",
            Self::Ipip => "IPIP",
            Self::Udp => "UDP",
        }
    }
}

/// How a device's packets begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With an Ethernet header.
    Ethernet,
    /// With their IP header.
    Bare,
}

/// Why a request cannot be answered by anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too many places, or none.
    #[error("{0} places are to be watched; 1 to {MOST_POINTS} of a node can be")]
    Points(usize),
    /// No interface has such a name.
    #[error("{0:?} is no name of an interface: 1 to 15 bytes without spaces and slashes")]
    Interface(String),
    /// Nobody is there.
    #[error("no probe can be sent to {0}: it is no address and port of one host")]
    Destination(SocketAddr),
}

impl Request {
    /// Whether it can be answered at all.
    ///
    /// # Errors
    /// What is too much or cannot be.
    pub fn check(&self) -> Result<(), Unfit> {
        match self {
            Self::Watch(watch) if !(1..=MOST_POINTS).contains(&watch.points.len()) => {
                Err(Unfit::Points(watch.points.len()))
            }
            Self::Watch(watch) => {
                let mut names = watch.points.iter().filter_map(Point::named);
                names.find(|name| !is_interface(name)).map_or(Ok(()), |odd| Err(Unfit::Interface(odd.to_owned())))
            }
            Self::Send(Dispatch { probe, to, .. }) => {
                let has_port = to.port() != 0 || probe.protocol == ProbeProtocol::Icmp;
                if has_port && is_one_host(to.ip()) { Ok(()) } else { Err(Unfit::Destination(*to)) }
            }
        }
    }
}

fn is_one_host(to: IpAddr) -> bool {
    let is_broadcast = matches!(to, IpAddr::V4(addr) if addr.is_broadcast());
    !to.is_unspecified() && !to.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests;
