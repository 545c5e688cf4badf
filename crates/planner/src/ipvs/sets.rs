//! Sets of addresses and ports, as ipset has them.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use podnet_model::Protocol;

/// A set's name: at most 31 bytes (`IPSET_MAXNAMELEN` less the terminator).
pub type SetName = Arc<str>;

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What its elements are.
    pub kind: SetKind,
    /// They, each with the packet mark that it gives (`skbmark`, with a mask of all bits), where the set is of marks.
    pub elements: BTreeMap<Element, Option<u32>>,
}

impl Set {
    /// One with nothing in it.
    #[must_use]
    pub const fn new(kind: SetKind) -> Self {
        Self { kind, elements: BTreeMap::new() }
    }
}

/// What a set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetKind {
    /// Its type.
    pub of: SetType,
    /// Its elements can have marks (`skbinfo`).
    pub marks: bool,
}

impl SetKind {
    /// Of elements without marks.
    #[must_use]
    pub const fn plain(of: SetType) -> Self {
        Self { of, marks: false }
    }
}

/// The types of sets that podnet makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetType {
    /// `hash:ip`: [`Element::Address`].
    Address,
    /// `hash:net`: [`Element::Range`].
    Range,
    /// `hash:ip,port`: [`Element::Port`].
    Port,
    /// `hash:ip,port,ip`: [`Element::PortFrom`].
    PortFrom,
    /// `hash:ip,port,net`: [`Element::PortFromRange`].
    PortFromRange,
    /// `bitmap:port` from 0 to 65535, which is of no family: [`Element::PortAlone`].
    PortAlone,
}

impl SetType {
    /// The kernel's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "hash:ip",
            Self::Range => "hash:net",
            Self::Port => "hash:ip,port",
            Self::PortFrom => "hash:ip,port,ip",
            Self::PortFromRange => "hash:ip,port,net",
            Self::PortAlone => "bitmap:port",
        }
    }
}

/// An element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// A range of addresses, its host bits 0. The kernel takes none of everything (/0).
    Range(IpNet),
    /// An address, protocol and port.
    Port(IpAddr, Protocol, u16),
    /// The same, and another address.
    PortFrom(IpAddr, Protocol, u16, IpAddr),
    /// The same, and a range. The kernel takes none of everything (/0).
    PortFromRange(IpAddr, Protocol, u16, IpNet),
    /// A port.
    PortAlone(u16),
}

/// As ipset writes it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => write!(f, "{addr}"),
            Self::Range(range) => write!(f, "{range}"),
            Self::Port(addr, protocol, port) => write!(f, "{addr},{protocol}:{port}"),
            Self::PortFrom(addr, protocol, port, from) => write!(f, "{addr},{protocol}:{port},{from}"),
            Self::PortFromRange(addr, protocol, port, from) => write!(f, "{addr},{protocol}:{port},{from}"),
            Self::PortAlone(port) => write!(f, "{port}"),
        }
    }
}
