//! Messages about sets, written and read (`linux/netfilter/ipset/ip_set.h`).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use podnet_model::{Family, Protocol};
use podnet_planner::ipvs::{Element, SetKind, SetType};

use crate::netlink::attribute::{Writer, attribute, attributes, text};

/// `NFNL_SUBSYS_IPSET`.
const SUBSYSTEM: u16 = 6;
/// The oldest protocol (`IPSET_PROTOCOL_MIN`): all that podnet asks for is in it, and every kernel takes it.
const PROTOCOL_VERSION: u8 = 6;
/// The number is in the network's byte order (`NLA_F_NET_BYTEORDER`); the kernel takes no other.
const NETWORK_ORDER: u16 = 1 << 14;

/// `enum ipset_cmd`.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub(super) enum Command {
    Create = 2,
    Destroy = 3,
    List = 7,
    Add = 9,
    Delete = 10,
    Type = 13,
}

impl Command {
    /// The message's type in the netlink header.
    pub(super) const fn kind(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Attributes of a message.
mod outer {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SET: u16 = 2;
    pub(super) const TYPE: u16 = 3;
    pub(super) const REVISION: u16 = 4;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const DATA: u16 = 7;
    pub(super) const ELEMENTS: u16 = 8;
}

/// Attributes of a set or an element.
mod data {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const LENGTH: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const PORT_TO: u16 = 5;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const PROTOCOL: u16 = 7;
    pub(super) const FLAGS: u16 = 8;
    pub(super) const MOST_ELEMENTS: u16 = 19;
    pub(super) const OTHER_ADDRESS: u16 = 20;
    pub(super) const OTHER_LENGTH: u16 = 21;
    pub(super) const COUNT: u16 = 24;
    pub(super) const MARK: u16 = 27;
}

/// `IPSET_FLAG_WITH_SKBINFO`: elements have marks.
const WITH_MARKS: u32 = 1 << 6;
/// `IPSET_FLAG_LIST_HEADER`: a listing without elements.
const HEAD_ALONE: u32 = 1 << 2;
/// How many elements a set may have. The number itself costs nothing.
const MOST_ELEMENTS: u32 = 1 << 20;

/// Those that podnet makes.
const TYPES: [SetType; 6] =
    [SetType::Address, SetType::Range, SetType::Port, SetType::PortFrom, SetType::PortFromRange, SetType::PortAlone];

/// The head of every message: `struct nfgenmsg`, the protocol, and the set, where it is about one.
pub(super) fn head(writer: &mut Writer, set: Option<&str>) {
    writer.raw(&[0; 4]);
    writer.bytes(outer::PROTOCOL, &[PROTOCOL_VERSION]);
    if let Some(set) = set {
        writer.text(outer::SET, set);
    }
}

/// Asks what the kernel knows of a type.
pub(super) fn ask_for_type(writer: &mut Writer, of: SetType, family: Family) {
    head(writer, None);
    writer.text(outer::TYPE, of.name());
    writer.bytes(outer::FAMILY, &[family_number(of, family)]);
}

/// The type's newest form that the kernel has.
pub(super) fn revision(payload: &[u8]) -> Option<u8> {
    attribute(body(payload), outer::REVISION)?.first().copied()
}

/// Makes a set.
pub(super) fn create(writer: &mut Writer, set: &str, kind: SetKind, family: Family, revision: u8) {
    head(writer, Some(set));
    writer.text(outer::TYPE, kind.of.name());
    writer.bytes(outer::REVISION, &[revision]);
    writer.bytes(outer::FAMILY, &[family_number(kind.of, family)]);
    writer.nested(outer::DATA, |writer| {
        if kind.of == SetType::PortAlone {
            port(writer, data::PORT, 0);
            port(writer, data::PORT_TO, u16::MAX);
        } else {
            writer.be32(data::MOST_ELEMENTS | NETWORK_ORDER, MOST_ELEMENTS);
        }
        if kind.marks {
            writer.be32(data::FLAGS | NETWORK_ORDER, WITH_MARKS);
        }
    });
}

/// Names an element of a set, and its mark.
pub(super) fn element(writer: &mut Writer, set: &str, element: &Element, mark: Option<u32>) {
    head(writer, Some(set));
    writer.nested(outer::DATA, |writer| {
        write_element(writer, element);
        if let Some(mark) = mark {
            // Above the mark, below which of its bits are set.
            let bits = u64::from(mark) << 32 | u64::from(u32::MAX);
            writer.bytes(data::MARK | NETWORK_ORDER, &bits.to_be_bytes());
        }
    });
}

fn write_element(writer: &mut Writer, element: &Element) {
    match *element {
        Element::PortAlone(number) => port(writer, data::PORT, number),
        Element::Address(addr) => address(writer, data::ADDRESS, addr),
        Element::Range(net) => {
            address(writer, data::ADDRESS, net.network());
            writer.bytes(data::LENGTH, &[net.prefix_len()]);
        }
        Element::Port(addr, protocol, port) => address_port(writer, addr, protocol, port),
        Element::PortFrom(addr, protocol, port, from) => {
            address_port(writer, addr, protocol, port);
            address(writer, data::OTHER_ADDRESS, from);
        }
        Element::PortFromRange(addr, protocol, port, from) => {
            address_port(writer, addr, protocol, port);
            address(writer, data::OTHER_ADDRESS, from.network());
            writer.bytes(data::OTHER_LENGTH, &[from.prefix_len()]);
        }
    }
}

fn address_port(writer: &mut Writer, addr: IpAddr, protocol: Protocol, number: u16) {
    address(writer, data::ADDRESS, addr);
    port(writer, data::PORT, number);
    writer.bytes(data::PROTOCOL, &[protocol.number()]);
}

fn port(writer: &mut Writer, kind: u16, port: u16) {
    writer.bytes(kind | NETWORK_ORDER, &port.to_be_bytes());
}

fn address(writer: &mut Writer, kind: u16, addr: IpAddr) {
    /// `IPSET_ATTR_IPADDR_IPV4` and that of IPv6.
    const V4: u16 = 1 | NETWORK_ORDER;
    const V6: u16 = 2 | NETWORK_ORDER;
    writer.nested(kind, |writer| match addr {
        IpAddr::V4(addr) => writer.bytes(V4, &addr.octets()),
        IpAddr::V6(addr) => writer.bytes(V6, &addr.octets()),
    });
}

/// `NFPROTO_…`. Ports are of no family (0), so that rules of both match them.
const fn family_number(of: SetType, family: Family) -> u8 {
    match (of, family) {
        (SetType::PortAlone, _) => 0,
        (_, Family::V4) => 2,
        (_, Family::V6) => 10,
    }
}

/// Asks what a set is, and for none of its elements.
pub(super) fn ask_for_head(writer: &mut Writer, set: &str) {
    head(writer, Some(set));
    writer.be32(outer::FLAGS | NETWORK_ORDER, HEAD_ALONE);
}

/// How many elements it has (Linux 4.10).
pub(super) fn count(payload: &[u8]) -> Option<u32> {
    let told = attribute(attribute(body(payload), outer::DATA)?, data::COUNT)?;
    told.try_into().ok().map(u32::from_be_bytes)
}

/// What a set is, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Its type: `hash:ip,port` and so on.
    of: String,
    family: u8,
    marks: bool,
    /// Elements leave by themselves.
    expires: bool,
}

impl Shape {
    /// The kind that it is of, where it is of that family and podnet makes such.
    pub(super) fn kind(&self, family: Family) -> Option<SetKind> {
        let of = TYPES.into_iter().find(|of| of.name() == self.of)?;
        (self.family == family_number(of, family) && !self.expires).then_some(SetKind { of, marks: self.marks })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            2 => " of IPv4",
            10 => " of IPv6",
            _ => "",
        };
        write!(f, "{}{family}{}", self.of, if self.expires { " whose elements expire" } else { "" })
    }
}

/// What a message of a listing says of the set; large sets take several messages, of which the first alone does.
pub(super) fn shape(payload: &[u8]) -> Option<Shape> {
    let body = body(payload);
    let header = attribute(body, outer::DATA).unwrap_or_default();
    let flags = attribute(header, data::FLAGS).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    Some(Shape {
        of: attribute(body, outer::TYPE).map(text)?,
        family: attribute(body, outer::FAMILY).and_then(|bytes| bytes.first()).copied().unwrap_or_default(),
        marks: flags & WITH_MARKS != 0,
        expires: attribute(header, data::TIMEOUT).is_some(),
    })
}

/// The elements in a message of a listing of a set of that type, with their marks.
pub(super) fn elements(payload: &[u8], of: SetType) -> impl Iterator<Item = (Element, Option<u32>)> {
    let elements = attribute(body(payload), outer::ELEMENTS).into_iter().flat_map(attributes);
    elements.filter_map(move |(_, bytes)| Some((read_element(bytes, of)?, read_mark(bytes))))
}

fn body(payload: &[u8]) -> &[u8] {
    payload.get(4..).unwrap_or_default()
}

fn read_element(bytes: &[u8], of: SetType) -> Option<Element> {
    let byte = |kind| attribute(bytes, kind)?.first().copied();
    let addr = |kind| attribute(bytes, kind).and_then(read_address);
    let port = || attribute(bytes, data::PORT)?.try_into().ok().map(u16::from_be_bytes);
    if of == SetType::PortAlone {
        return port().map(Element::PortAlone);
    }
    let first = addr(data::ADDRESS)?;
    match of {
        SetType::Address => return Some(Element::Address(first)),
        SetType::Range => return Some(Element::Range(IpNet::new(first, byte(data::LENGTH)?).ok()?)),
        _ => {}
    }
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocol.into_iter().find(|one| Some(one.number()) == byte(data::PROTOCOL))?;
    match of {
        SetType::PortFrom => Some(Element::PortFrom(first, protocol, port()?, addr(data::OTHER_ADDRESS)?)),
        SetType::PortFromRange => {
            let from = IpNet::new(addr(data::OTHER_ADDRESS)?, byte(data::OTHER_LENGTH)?).ok()?;
            Some(Element::PortFromRange(first, protocol, port()?, from))
        }
        _ => Some(Element::Port(first, protocol, port()?)),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    let (_, bytes) = attributes(bytes).next()?;
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// The mark of an element; none where it sets not all bits, as podnet's do.
fn read_mark(bytes: &[u8]) -> Option<u32> {
    let bits = attribute(bytes, data::MARK)?.try_into().ok().map(u64::from_be_bytes)?;
    (bits & u64::from(u32::MAX) == u64::from(u32::MAX)).then(|| u32::try_from(bits >> 32).ok())?
}
