//! What the kernel counts, as it is read.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::refusal::Unserved;

/// A transport protocol by its number (IANA, Assigned Internet Protocol Numbers). Serialised by its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Transport(pub u8);

impl Transport {
    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP of IPv6.
    pub const ICMP6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    const NAMED: [(Self, &'static str); 5] =
        [(Self::TCP, "TCP"), (Self::UDP, "UDP"), (Self::SCTP, "SCTP"), (Self::ICMP, "ICMP"), (Self::ICMP6, "ICMPv6")];
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(transport, _)| transport == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Transport> for String {
    fn from(transport: Transport) -> Self {
        transport.to_string()
    }
}

/// A text names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no protocol; it must be tcp, udp, sctp, icmp, icmpv6 or a number up to 255")]
pub struct UnknownTransport(String);

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, UnknownTransport> {
        let named = Self::NAMED.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        let found = named.map(|(transport, _)| *transport).or_else(|| text.parse().ok().map(Self));
        found.ok_or_else(|| UnknownTransport(text.to_owned()))
    }
}

impl TryFrom<String> for Transport {
    type Error = UnknownTransport;

    fn try_from(text: String) -> Result<Self, UnknownTransport> {
        text.parse()
    }
}

/// What the kernel keeps an entry by: a pod's interface and the five-tuple as that pod sees it. Of echo requests and replies of ICMP the local
/// port is their identifier; of other messages of ICMP it is 0; the remote port is the type (of echo that of the request).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// The index of the interface's end on the node.
    pub device: u32,
    /// The pod's address.
    pub local: IpAddr,
    /// Its peer's.
    pub remote: IpAddr,
    /// The pod's port.
    pub local_port: u16,
    /// Its peer's.
    pub remote_port: u16,
    /// The protocol.
    pub transport: Transport,
}

/// In few pieces: what is known of a connection is looked up by it more than ten times.
impl Hash for EntryKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { device, local, remote, local_port, remote_port, transport } = *self;
        for addr in [local, remote] {
            let addr = match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                IpAddr::V6(addr) => addr,
            };
            state.write_u128(addr.to_bits());
        }
        state.write_u64((u64::from(device) << 32) | (u64::from(local_port) << 16) | u64::from(remote_port));
        state.write_u8(transport.0);
    }
}

/// What passed in one direction, since the entry began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// Packets, as many as a link would carry: one that the kernel holds together counts as what it is cut into.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Segments of TCP that were sent again, or came out of order.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retransmissions: u32,
    /// Segments of TCP with RST; packets of SCTP with ABORT.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resets: u32,
    /// All flags of TCP that were seen (RFC 9293, section 3.1). What is told has none of other protocols; as it is read, SYN of SCTP stands for an INIT.
    #[serde(default, skip_serializing_if = "no_flags")]
    pub flags: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn no_flags(flags: &u8) -> bool {
    *flags == 0
}

impl Way {
    /// FIN of TCP.
    pub const FIN: u8 = 1;
    /// SYN of TCP.
    pub const SYN: u8 = 2;
    /// RST of TCP.
    pub const RST: u8 = 4;
}

/// An error of ICMP about a packet of who began a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Its type (RFC 792; RFC 4443, section 3).
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Whom the packet was for sent it, and nobody on the way.
    pub by_destination: bool,
}

/// One entry, with its counters since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is of.
    pub key: EntryKey,
    /// The pod began the conversation, and not its peer.
    pub pod_began: bool,
    /// From the pod.
    pub out: Way,
    /// To the pod.
    pub into: Way,
    /// When it began, in ns since the machine did: tells it from an earlier one of the same key, whatever happens to the clock.
    pub born: u64,
    /// The first packet.
    pub first: Timestamp,
    /// The last packet.
    pub last: Timestamp,
    /// From the first SYN to the first acknowledgement of who sent it, in microseconds; 0: not seen.
    pub handshake_micros: u32,
    /// The protocol said that this is over.
    pub ended: bool,
    /// The frontend of a Service that the pod's socket asked for, where the backend was chosen there: in packets it is the backend alone.
    pub asked: Option<SocketAddr>,
    /// The last error of ICMP about a packet of who began it, unless an answer came since.
    pub error: Option<IcmpError>,
    /// The Service that was asked had nobody, and its socket was told so: these are no packets, but how often it asked.
    pub unserved: Option<Unserved>,
}

impl Entry {
    /// Packets of both directions.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.out.packets + self.into.packets
    }

    /// Who began it was told that nobody takes its packets, and nobody ever answered.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        let answers = if self.pod_began { self.into.packets } else { self.out.packets };
        self.error.is_some() && answers == 0
    }
}
