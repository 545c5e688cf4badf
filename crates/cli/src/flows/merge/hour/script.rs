//! The places of the cluster, and flows between them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use podnet_flow::{Class, Transport};

/// A pod's place: its node and its number there. What stands in it changes, its addresses do not.
pub(super) type Place = (usize, usize);

pub(super) fn address((node, pod): Place, six: bool) -> IpAddr {
    if six { format!("fd00::{node}:{}", pod + 1) } else { format!("10.0.{node}.{}", pod + 1) }.parse().unwrap()
}

pub(super) fn node_address(node: usize, six: bool) -> IpAddr {
    if six { format!("fd01::{}", node + 1) } else { format!("172.16.0.{}", node + 1) }.parse().unwrap()
}

pub(super) fn service_address(place: Place, six: bool) -> IpAddr {
    let (node, pod) = place;
    if six { format!("fd02::{node}:{}", pod + 1) } else { format!("10.96.{node}.{}", pod + 1) }.parse().unwrap()
}

fn world(six: bool) -> IpAddr {
    if six { "2001:db8::9" } else { "203.0.113.9" }.parse().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Pod(Place),
    Node(usize),
    World,
}

impl Who {
    pub(super) fn address(self, six: bool) -> IpAddr {
        match self {
            Self::Pod(place) => address(place, six),
            Self::Node(node) => node_address(node, six),
            Self::World => world(six),
        }
    }

    pub(super) const fn place(self) -> Option<Place> {
        match self {
            Self::Pod(place) => Some(place),
            Self::Node(_) | Self::World => None,
        }
    }
}

/// Who chooses a Service's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The socket, so that the packet is addressed to the pod.
    AtSocket,
    /// The node's stack.
    OnTheWay,
    /// The node's stack, which puts the node's own address in the place of the pod's.
    Masqueraded,
}

/// A flow of the script.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) class: Class,
    pub(super) transport: Transport,
    /// Of an echo its port is the identifier, and the other end's the type.
    pub(super) from: (Who, SocketAddr),
    pub(super) to: (Who, SocketAddr),
    /// The Service's address.
    pub(super) asked: Option<(SocketAddr, Chosen)>,
    /// What stands at its ends as it begins.
    pub(super) uids: [Option<Arc<str>>; 2],
    pub(super) packets: [u64; 2],
    pub(super) began: i64,
    /// When its last packet came.
    pub(super) last: i64,
    pub(super) is_over: bool,
}

impl Line {
    /// Whom its packets are addressed to where they are sent.
    pub(super) fn addressed(&self) -> SocketAddr {
        let on_the_way = self.asked.filter(|(_, chosen)| *chosen != Chosen::AtSocket);
        on_the_way.map_or(self.to.1, |(service, _)| service)
    }

    /// Whom they come from where they are answered.
    pub(super) fn seen_source(&self) -> SocketAddr {
        match (self.asked, self.from) {
            (Some((_, Chosen::Masqueraded)), (Who::Pod((node, _)), source)) => {
                SocketAddr::new(node_address(node, source.is_ipv6()), source.port())
            }
            (_, (_, source)) => source,
        }
    }

    pub(super) fn is_masked(&self) -> bool {
        self.seen_source() != self.from.1
    }

    pub(super) const fn is_echo(&self) -> bool {
        matches!(self.transport, Transport::ICMP | Transport::ICMP6)
    }
}
