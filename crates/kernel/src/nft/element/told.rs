//! Elements as the kernel tells of them.

use super::{
    super::transaction::{Message, Transaction},
    DATA, DATA_VALUE, DATA_VERDICT, EXPRESSION, Element, FLAGS, GOTO, INTERVAL_END, KEY, KEY_END, LIST_ELEMENT,
    LIST_ELEMENTS, LIST_SET, VERDICT_CHAIN, VERDICT_CODE, Value, backend_value,
};
use crate::netlink::attribute::{attribute, attributes, text};

/// Where an element is in its set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Place {
    key: Vec<u8>,
    /// The last of a range of concatenations.
    last: Option<Vec<u8>>,
    /// It ends a range and is not in it.
    is_end: bool,
}

/// What is at a place, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Told {
    Nothing,
    Data(Vec<u8>),
    Goto(String),
    /// Something that is not made here.
    Other,
}

impl Element<'_> {
    pub(in super::super) fn place(&self) -> Place {
        let last = self.last.map(|last| self.key.ending_with(last).as_bytes().to_vec());
        Place { key: self.key.as_bytes().to_vec(), last, is_end: self.flags & INTERVAL_END != 0 }
    }

    /// How the kernel tells of what it maps to; of a limit it tells more than what was asked for.
    pub(in super::super) fn told(&self) -> Told {
        match self.value {
            Some(Value::Goto(chain)) => Told::Goto(chain.to_owned()),
            Some(Value::Backend(to)) => Told::Data(backend_value(to).as_bytes().to_vec()),
            Some(Value::Number(number)) => Told::Data(number.to_ne_bytes().to_vec()),
            Some(Value::Limit(_)) => Told::Other,
            None => Told::Nothing,
        }
    }
}

/// The elements in a message from the kernel.
pub(in super::super) fn listed(list: &[u8]) -> impl Iterator<Item = (Place, Told)> {
    let elements = attributes(list).filter(|(kind, _)| *kind == LIST_ELEMENTS).flat_map(|(_, value)| attributes(value));
    elements.filter_map(|(_, element)| {
        let data = |kind| attribute(attribute(element, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
        let flags = attribute(element, FLAGS).and_then(|flags| flags.try_into().ok()).map_or(0, u32::from_be_bytes);
        let place = Place { key: data(KEY)?, last: data(KEY_END), is_end: flags & INTERVAL_END != 0 };
        Some((place, told(element)))
    })
}

fn told(element: &[u8]) -> Told {
    let Some(data) = attribute(element, DATA) else {
        return if attribute(element, EXPRESSION).is_some() { Told::Other } else { Told::Nothing };
    };
    if let Some(bytes) = attribute(data, DATA_VALUE) {
        return Told::Data(bytes.to_vec());
    }
    let verdict = attribute(data, DATA_VERDICT).unwrap_or_default();
    match (attribute(verdict, VERDICT_CODE), attribute(verdict, VERDICT_CHAIN)) {
        (Some(code), Some(chain)) if *code == GOTO.to_be_bytes() => Told::Goto(text(chain)),
        _ => Told::Other,
    }
}

/// How many of the elements in a message from the kernel begin something: range ends do not.
pub(in super::super) fn count(list: &[u8]) -> usize {
    listed(list).filter(|(place, _)| !place.is_end).count()
}

/// Removes elements that the kernel told of.
pub(in super::super) fn remove_told(transaction: &mut Transaction<'_>, set: &str, keys: &[&Place]) {
    // Keys are of 40 bytes at most: so many are far below the longest attribute.
    const AT_ONCE: usize = 512;
    for keys in keys.chunks(AT_ONCE) {
        transaction.message(Message::DelElements, 0, format!("remove elements from {set}"), |writer| {
            writer.text(LIST_SET, set);
            writer.nested(LIST_ELEMENTS, |writer| {
                for place in keys {
                    writer.nested(LIST_ELEMENT, |writer| {
                        writer.nested(KEY, |writer| writer.bytes(DATA_VALUE, &place.key));
                    });
                }
            });
        });
    }
}
