//! Elements as the kernel tells of them.

mod kept;

use std::net::IpAddr;

use podnet_model::limits::PacketRate;

pub(in super::super) use self::kept::Kept;
use super::{
    super::transaction::{Message, Transaction},
    DATA, DATA_VALUE, DATA_VERDICT, EXPRESSION, EXPRESSIONS, Element, FLAGS, GOTO, INTERVAL_END, KEY, KEY_END, Key,
    LIST_ELEMENT, LIST_ELEMENTS, LIST_SET, OBJECT, VERDICT_CHAIN, VERDICT_CODE, Value as Wanted, backend_value,
};
use crate::netlink::attribute::{attribute, attributes, text};

/// Where an element is in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place {
    pub(in super::super) key: Key,
    /// The last of a range of concatenations.
    last: Option<Key>,
    /// It ends a range and is not in it.
    is_end: bool,
}

impl Place {
    /// Its key, where it is one place and no part of a range.
    pub(in super::super) fn single(&self) -> Option<Key> {
        (self.last.is_none() && !self.is_end).then_some(self.key)
    }
}

/// An element.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Told<'a> {
    /// None where its key is none that is made here: that of the element that is found where no other is (`*`) is not told.
    pub(in super::super) place: Option<Place>,
    pub(in super::super) value: Value<'a>,
}

/// What is at a place, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Value<'a> {
    Nothing,
    Data(&'a [u8]),
    Goto(&'a [u8]),
    /// It finds what exceeds this.
    Packets(PacketRate),
    /// Something that is not made here, or that tells more than what was asked for, as counters do.
    Other,
}

impl Element<'_> {
    pub(in super::super) fn place(&self) -> Place {
        let last = self.last.map(|last| self.key.ending_with(last));
        Place { key: self.key, last, is_end: self.flags & INTERVAL_END != 0 }
    }

    /// Whether it maps to that.
    pub(in super::super) fn maps_to(&self, told: Value<'_>) -> bool {
        match (self.value, told) {
            (None, Value::Nothing) => true,
            (Some(Wanted::Goto(chain)), Value::Goto(told)) => chain.as_bytes() == told,
            (Some(_), Value::Data(told)) => self.data().is_some_and(|data| data.as_bytes() == told),
            _ => false,
        }
    }

    /// What it maps to, where that is data: a backend, or a number.
    pub(in super::super) fn data(&self) -> Option<Key> {
        match self.value? {
            Wanted::Backend(to) => Some(backend_value(to)),
            // As registers have it.
            Wanted::Number(number) => Some(Key::empty().with(&number.to_ne_bytes(), 4)),
            Wanted::Goto(_) | Wanted::Stateful(_) => None,
        }
    }
}

/// The elements in a message from the kernel.
pub(in super::super) fn listed(list: &[u8]) -> impl Iterator<Item = Told<'_>> {
    elements(list).map(|element| Told { place: place(element), value: value(element) })
}

/// The attributes of each element in a message from the kernel.
pub(super) fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lists = attributes(list).filter(|(kind, _)| *kind == LIST_ELEMENTS);
    lists.flat_map(|(_, value)| attributes(value)).map(|(_, element)| element)
}

/// The address that these bytes are.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn place(element: &[u8]) -> Option<Place> {
    let data = |kind| attribute(attribute(element, kind)?, DATA_VALUE);
    let last = match data(KEY_END) {
        Some(bytes) => Some(Key::told(bytes)?),
        None => None,
    };
    let flags = attribute(element, FLAGS).and_then(|flags| flags.try_into().ok()).map_or(0, u32::from_be_bytes);
    Some(Place { key: Key::told(data(KEY)?)?, last, is_end: flags & INTERVAL_END != 0 })
}

fn value(element: &[u8]) -> Value<'_> {
    // What an element does besides is done wherever it is found, and may end the rule.
    if [EXPRESSION, EXPRESSIONS, OBJECT].into_iter().any(|kind| attribute(element, kind).is_some()) {
        return packet_rate(element).map_or(Value::Other, Value::Packets);
    }
    let Some(data) = attribute(element, DATA) else { return Value::Nothing };
    if let Some(bytes) = attribute(data, DATA_VALUE) {
        return Value::Data(bytes);
    }
    let verdict = attribute(data, DATA_VERDICT).unwrap_or_default();
    match (attribute(verdict, VERDICT_CODE), attribute(verdict, VERDICT_CHAIN)) {
        (Some(code), Some(chain)) if *code == GOTO.to_be_bytes() => {
            Value::Goto(chain.strip_suffix(&[0]).unwrap_or(chain))
        }
        _ => Value::Other,
    }
}

/// The limit that an element has, where it is one that is made here.
fn packet_rate(element: &[u8]) -> Option<PacketRate> {
    // enum nft_expr_attributes, nft_limit_attributes
    const NAME: u16 = 1;
    const LIMIT: u16 = 2;
    const RATE: u16 = 1;
    const UNIT: u16 = 2;
    const BURST: u16 = 3;
    const KIND: u16 = 4;
    const FLAGS: u16 = 5;
    /// `NFT_LIMIT_PKTS`, in each second; `NFT_LIMIT_F_INV`.
    const PACKETS: u32 = 0;
    const SECOND: u64 = 1;
    const EXCEEDED: u32 = 1;
    let expression = attribute(element, EXPRESSION)?;
    if text(attribute(expression, NAME)?) != "limit" {
        return None;
    }
    let limit = attribute(expression, LIMIT)?;
    let long = |kind| attribute(limit, kind)?.try_into().ok().map(u64::from_be_bytes);
    let word = |kind| attribute(limit, kind)?.try_into().ok().map(u32::from_be_bytes);
    let is_of_packets = long(UNIT) == Some(SECOND) && word(KIND).unwrap_or(PACKETS) == PACKETS;
    let rate = u32::try_from(long(RATE)?).ok().filter(|_| is_of_packets && word(FLAGS) == Some(EXCEEDED))?;
    Some(PacketRate { rate, burst: word(BURST)? })
}

/// How many of the elements in a message from the kernel begin something: range ends do not.
pub(in super::super) fn count(list: &[u8]) -> usize {
    listed(list).filter(|told| told.place.is_some_and(|place| !place.is_end)).count()
}

/// The elements in a message from the kernel that are single addresses and count: how many packets asked for each.
pub(in super::super) fn counters(list: &[u8]) -> impl Iterator<Item = (IpAddr, u64)> {
    // enum nft_expr_attributes, nft_counter_attributes
    const COUNTER: u16 = 2;
    const PACKETS: u16 = 2;
    elements(list).filter_map(|element| {
        let counter = attribute(attribute(element, EXPRESSION)?, COUNTER)?;
        let packets = attribute(counter, PACKETS)?.try_into().ok().map(u64::from_be_bytes)?;
        Some((ip(place(element)?.key.as_bytes())?, packets))
    })
}

/// Removes elements that the kernel told of.
pub(in super::super) fn remove_told(transaction: &mut Transaction<'_>, set: &str, keys: &[Key]) {
    // Keys are of 44 bytes at most: so many are far below the longest attribute.
    const AT_ONCE: usize = 512;
    for keys in keys.chunks(AT_ONCE) {
        transaction.message(Message::DelElements, 0, format!("remove elements from {set}"), |writer| {
            writer.text(LIST_SET, set);
            writer.nested(LIST_ELEMENTS, |writer| {
                for key in keys {
                    writer.nested(LIST_ELEMENT, |writer| {
                        writer.nested(KEY, |writer| writer.bytes(DATA_VALUE, key.as_bytes()));
                    });
                }
            });
        });
    }
}
