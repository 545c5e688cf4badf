//! What a Service without backends refuses at the socket that asks for it (mode `ebpf`): no packet of it is ever sent, so that it is counted there and at no
//! interface.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use crate::{
    entry::{Entry, EntryKey, Transport, Way},
    verdict::Verdict,
};

/// Whom a Service has for a socket that asks for it, if it has no backend for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// Nobody anywhere.
    Nobody,
    /// Nobody on this node, and its policy allows no others.
    NobodyHere,
}

impl Unserved {
    /// As for packets that come to such a Service: the one is refused, and a policy that leaves nobody drops.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Nobody => Verdict::Refused,
            Self::NobodyHere => Verdict::Dropped,
        }
    }
}

/// How often a Service refused what sockets of a namespace asked from one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The cookie of the sockets' network namespace.
    pub netns: u64,
    /// The socket's port; 0 where it had none yet, as one of TCP that is about to be connected.
    pub port: u16,
    /// Where the Service was asked.
    pub to: SocketAddr,
    /// The protocol.
    pub transport: Transport,
    /// How often.
    pub count: u64,
    /// When that began, in ns since the machine did.
    pub born: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// Why, the last time.
    pub unserved: Unserved,
}

impl Refusal {
    /// As if each had been a packet without bytes at the pod's interface, by its index on the node, with the first of the pod's addresses of that family;
    /// none where the pod has no such address.
    ///
    /// Connections that are refused have no port of their own to tell them apart: those that follow each other within a second are one.
    #[must_use]
    pub fn entry(&self, device: u32, addrs: &[IpAddr]) -> Option<Entry> {
        let local = addrs.iter().copied().find(|addr| addr.is_ipv4() == self.to.is_ipv4())?;
        Some(Entry {
            key: EntryKey {
                device,
                local,
                remote: self.to.ip(),
                local_port: self.port,
                remote_port: self.to.port(),
                transport: self.transport,
            },
            pod_began: true,
            out: Way { packets: self.count, ..Way::default() },
            into: Way::default(),
            born: self.born,
            first: self.first,
            last: self.last,
            handshake_micros: 0,
            ended: self.transport == Transport::TCP,
            asked: Some(self.to),
            error: None,
            unserved: Some(self.unserved),
        })
    }
}
