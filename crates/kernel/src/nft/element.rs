//! Keys and values of sets and maps, and the messages that carry them.

mod noted;
mod told;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use podnet_model::{Family, Protocol, limits::PacketRate};
use podnet_planner::ruleset::{BackendAddress, BackendKey, FrontendKey, Sender, Set};

use super::transaction::{Message, Transaction};
use crate::netlink::attribute::Writer;
pub use noted::NotedFlow;
pub(super) use noted::flows;
pub(super) use told::{Kept, Told, Value as ToldValue, count, counters, listed, remove_told};

// enum nft_set_elem_list_attributes, nft_set_elem_attributes, nft_data_attributes, nft_verdict_attributes
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const KEY_END: u16 = 10;
const EXPRESSION: u16 = 7;
const OBJECT: u16 = 9;
const EXPRESSIONS: u16 = 11;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_SET_ELEM_INTERVAL_END`: the element ends a range and is not in it.
pub(super) const INTERVAL_END: u32 = 1;

/// Verdicts of nf_tables (`enum nft_verdicts`): go on in a chain and come back, or not.
pub(super) const JUMP: i32 = -3;
pub(super) const GOTO: i32 = -4;
/// `NF_ACCEPT`.
pub(super) const ACCEPT: i32 = 1;
/// `NF_DROP`.
pub(super) const DROP: i32 = 0;

/// An attribute's length has 16 bits; a list is split before it comes near.
const LIST_LIMIT: usize = 48 << 10;

/// A key: each field of a concatenation is padded to four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl Key {
    /// A flow of IPv6; a device, an Ethernet address and an IPv6 address, or a frontend and a source of IPv6, are of 40 bytes.
    const LONGEST: usize = 44;
    /// `IFNAMSIZ`: the name of a device is filled up with zeros, of which the last one always is.
    const NAME: usize = 16;

    const fn empty() -> Self {
        Self { bytes: [0; Self::LONGEST], length: 0 }
    }

    /// With one more field of that many bytes, a multiple of four, filled up with zeros.
    fn with(mut self, field: &[u8], room: usize) -> Self {
        let taken = field.len().min(room);
        if let Some(place) = self.bytes.get_mut(self.length..self.length + taken) {
            place.copy_from_slice(&field[..taken]);
        }
        self.length += room;
        self
    }

    fn with_addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.with(&addr.octets(), 4),
            IpAddr::V6(addr) => self.with(&addr.octets(), 16),
        }
    }

    /// With that address in place of the one that it ends with.
    fn ending_with(mut self, addr: IpAddr) -> Self {
        self.length -= if addr.is_ipv4() { 4 } else { 16 };
        self.with_addr(addr)
    }

    /// As the kernel tells it; None where it is longer than any that is made here.
    pub(super) fn told(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= Self::LONGEST).then(|| Self::empty().with(bytes, bytes.len()))
    }

    /// The frontend that it is, or begins with, where it has the length of one, or of one with a slot.
    pub(super) fn frontend(&self, family: Family) -> Option<FrontendKey> {
        let (addr, rest) = self.as_bytes().split_at_checked(if family == Family::V4 { 4 } else { 16 })?;
        let addr = match family {
            Family::V4 => IpAddr::from(<[u8; 4]>::try_from(addr).ok()?),
            Family::V6 => IpAddr::from(<[u8; 16]>::try_from(addr).ok()?),
        };
        let ([number, _, _, _, high, low, _, _] | [number, _, _, _, high, low, _, _, _, _, _, _]) = *rest else {
            return None;
        };
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = all.into_iter().find(|protocol| protocol.number() == number)?;
        Some(FrontendKey { addr, protocol, port: u16::from_be_bytes([high, low]) })
    }

    /// The frontend that the key of a backend begins with, and its slot there; None where it has no room for one.
    pub(super) fn split_slot(&self) -> Option<(Self, [u8; 4])> {
        let (frontend, slot) = self.as_bytes().split_last_chunk()?;
        Some((Self::told(frontend)?, *slot))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl From<&Sender> for Key {
    fn from((device, mac, addr): &Sender) -> Self {
        let name = device.as_str().as_bytes();
        Self::empty().with(&name[..name.len().min(Self::NAME - 1)], Self::NAME).with(&mac.0, 8).with_addr(*addr)
    }
}

impl From<IpAddr> for Key {
    fn from(addr: IpAddr) -> Self {
        Self::empty().with_addr(addr)
    }
}

impl From<FrontendKey> for Key {
    fn from(key: FrontendKey) -> Self {
        Self::empty().with_addr(key.addr).with(&[key.protocol.number()], 4).with(&key.port.to_be_bytes(), 4)
    }
}

impl From<BackendKey> for Key {
    fn from(key: BackendKey) -> Self {
        // The slot comes from `numgen`, which makes a number of this host's byte order.
        Self::from(key.frontend).with(&key.slot.to_ne_bytes(), 4)
    }
}

/// What a map holds at a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Goto(&'a str),
    Backend(BackendAddress),
    Number(u32),
    Stateful(Stateful),
}

/// What an element does with a packet that asks for it, and remembers: what exceeds a limit is found, and nothing else is. None counts connections:
/// the kernel takes such an element away while it has none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stateful {
    Packets(PacketRate),
    /// Counts it.
    Counter,
}

impl Stateful {
    /// Writes the expression: its name, then its attributes (`enum nft_limit_attributes`).
    pub(super) fn write(self, writer: &mut Writer) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        /// `NFT_LIMIT_F_INV`: found is what exceeds it.
        const EXCEEDED: u32 = 1;
        match self {
            Self::Packets(PacketRate { rate, burst }) => {
                const SECOND: u64 = 1;
                writer.text(NAME, "limit");
                writer.nested(DATA, |writer| {
                    writer.bytes(1, &u64::from(rate).to_be_bytes());
                    writer.bytes(2, &SECOND.to_be_bytes());
                    writer.be32(3, burst);
                    writer.be32(5, EXCEEDED);
                });
            }
            Self::Counter => {
                writer.text(NAME, "counter");
                // It begins with nothing.
                writer.nested(DATA, |_| {});
            }
        }
    }
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) key: Key,
    /// Where the element is a range of concatenations: the last address of the key's last field.
    pub(super) last: Option<IpAddr>,
    pub(super) value: Option<Value<'a>>,
    pub(super) flags: u32,
}

impl Element<'_> {
    pub(super) fn key(key: impl Into<Key>) -> Self {
        Self { key: key.into(), last: None, value: None, flags: 0 }
    }

    /// What it limits packets to.
    pub(super) const fn packets(&self) -> Option<PacketRate> {
        match self.value {
            Some(Value::Stateful(Stateful::Packets(rate))) => Some(rate),
            _ => None,
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.nested(LIST_ELEMENT, |writer| {
            if self.flags != 0 {
                writer.be32(FLAGS, self.flags);
            }
            writer.nested(KEY, |writer| writer.bytes(DATA_VALUE, self.key.as_bytes()));
            if let Some(last) = self.last {
                writer.nested(KEY_END, |writer| writer.bytes(DATA_VALUE, self.key.ending_with(last).as_bytes()));
            }
            match self.value {
                Some(Value::Goto(chain)) => writer.nested(DATA, |writer| verdict(writer, GOTO, Some(chain))),
                Some(Value::Stateful(state)) => writer.nested(EXPRESSION, |writer| state.write(writer)),
                Some(Value::Backend(_) | Value::Number(_)) | None => {}
            }
            if let Some(data) = self.data() {
                writer.nested(DATA, |writer| writer.bytes(DATA_VALUE, data.as_bytes()));
            }
        });
    }
}

/// The elements as the kernel tells of them where they were just written.
pub(super) fn as_told(elements: &[Element<'_>]) -> Vec<Kept> {
    // Of some hundred bytes at most each: so many are far below the longest attribute.
    const AT_ONCE: usize = 256;
    let told = elements.chunks(AT_ONCE).flat_map(|elements| {
        let mut writer = Writer::default();
        writer.nested(LIST_ELEMENTS, |writer| elements.iter().for_each(|element| element.write(writer)));
        listed(&writer.into_bytes()).map(|told| Kept::of(&told)).collect::<Vec<_>>()
    });
    told.collect()
}

/// Writes a verdict as data, of an element or of an immediate expression.
pub(super) fn verdict(writer: &mut Writer, code: i32, chain: Option<&str>) {
    writer.nested(DATA_VERDICT, |writer| {
        writer.bytes(VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            writer.text(VERDICT_CHAIN, chain);
        }
    });
}

pub(super) fn verdict_element(key: FrontendKey, chain: &str) -> Element<'_> {
    Element { value: Some(Value::Goto(chain)), ..Element::key(key) }
}

pub(super) fn backend_element(key: BackendKey, to: BackendAddress) -> Element<'static> {
    Element { value: Some(Value::Backend(to)), ..Element::key(key) }
}

fn stateful_element(addr: IpAddr, state: Stateful) -> Element<'static> {
    Element { value: Some(Value::Stateful(state)), ..Element::key(addr) }
}

/// The elements of a set. A range is two: its first address, and the first after it, which has no place where the range ends with the
/// address space.
pub(super) fn set_elements(set: &Set) -> Vec<Element<'static>> {
    match set {
        Set::Addresses(addresses) => addresses.iter().map(|addr| Element::key(*addr)).collect(),
        Set::Pairs(pairs) => pairs.iter().map(|(from, to)| Element::key(Key::from(*from).with_addr(*to))).collect(),
        Set::Ports(ports) => ports.iter().map(|port| Element::key(Key::empty().with(&port.to_be_bytes(), 2))).collect(),
        Set::Numbers(numbers) => numbers
            .iter()
            .map(|(key, number)| Element { value: Some(Value::Number(*number)), ..Element::key(*key) })
            .collect(),
        Set::Sources(sources) => sources
            .iter()
            .map(|(frontend, range)| Element {
                last: Some(range.broadcast()),
                ..Element::key(Key::from(*frontend).with_addr(range.network()))
            })
            .collect(),
        Set::Senders(senders) => senders.iter().map(Element::key).collect(),
        Set::Flows => Vec::new(),
        Set::PacketRates(rates) => {
            rates.iter().map(|(addr, rate)| stateful_element(*addr, Stateful::Packets(*rate))).collect()
        }
        Set::Counters(addrs) => addrs.iter().map(|addr| stateful_element(*addr, Stateful::Counter)).collect(),
        Set::Ranges(ranges) => ranges
            .iter()
            .flat_map(|range| {
                let end = after(range).map(|after| Element { flags: INTERVAL_END, ..Element::key(after) });
                std::iter::once(Element::key(range.network())).chain(end)
            })
            .collect(),
    }
}

/// The first address after a range.
fn after(range: &IpNet) -> Option<IpAddr> {
    match range {
        IpNet::V4(range) => range.broadcast().to_bits().checked_add(1).map(|after| Ipv4Addr::from_bits(after).into()),
        IpNet::V6(range) => range.broadcast().to_bits().checked_add(1).map(|after| Ipv6Addr::from_bits(after).into()),
    }
}

/// Adds elements that must not be there yet. The last one of a range has to be in the same message as its first.
pub(super) fn add(transaction: &mut Transaction<'_>, set: &str, elements: &[Element<'_>], what: &str) {
    send(transaction, Message::NewElements, NLM_F_CREATE | NLM_F_EXCL, set, elements, what);
}

/// Removes elements that must be there.
pub(super) fn remove(transaction: &mut Transaction<'_>, set: &str, elements: &[Element<'_>], what: &str) {
    send(transaction, Message::DelElements, 0, set, elements, what);
}

/// Adds elements that may be there already with the same value.
pub(super) fn ensure(transaction: &mut Transaction<'_>, set: &str, elements: &[Element<'_>], what: &str) {
    send(transaction, Message::NewElements, NLM_F_CREATE, set, elements, what);
}

/// Removes all elements.
pub(super) fn clear(transaction: &mut Transaction<'_>, set: &str) {
    transaction.message(Message::DelElements, 0, format!("empty {set}"), |writer| writer.text(LIST_SET, set));
}

fn send(
    transaction: &mut Transaction<'_>,
    message: Message,
    flags: u16,
    set: &str,
    elements: &[Element<'_>],
    what: &str,
) {
    let mut rest = elements;
    while !rest.is_empty() {
        transaction.message(message, flags, what.to_owned(), |writer| {
            writer.text(LIST_SET, set);
            writer.nested(LIST_ELEMENTS, |writer| {
                let start = writer.len();
                while let Some((element, others)) = rest.split_first() {
                    element.write(writer);
                    rest = others;
                    let splits_range = rest.first().is_some_and(|next| next.flags & INTERVAL_END != 0);
                    if writer.len() - start >= LIST_LIMIT && !splits_range {
                        break;
                    }
                }
            });
        });
    }
}

fn backend_value(to: BackendAddress) -> Key {
    Key::from(to.addr).with(&to.port.to_be_bytes(), 4)
}

/// Writes what names a set's elements in a question.
pub(super) fn name_set(writer: &mut Writer, set: &str) {
    writer.text(LIST_SET, set);
}

/// Writes what names one element in a question.
pub(super) fn name_element(writer: &mut Writer, set: &str, key: Key) {
    name_set(writer, set);
    writer.nested(LIST_ELEMENTS, |writer| Element::key(key).write(writer));
}
