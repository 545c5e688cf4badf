//! Elements as values: what the kernel tells is gone with its message.

use std::{fmt::Write, net::IpAddr};

use podnet_model::{Family, Mac, limits::PacketRate};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Key, Place, Told, Value};
use crate::netlink::attribute::text;

/// An element that the kernel told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::nft) struct Kept {
    /// None where its key is none that is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    /// The last of a range of concatenations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Key>,
    /// It ends a range and is not in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ends: bool,
    #[serde(default, skip_serializing_if = "What::is_nothing")]
    value: What,
}

/// What is at its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum What {
    #[default]
    Nothing,
    Data(Key),
    Goto(String),
    /// It finds what exceeds so many packets each second, and so many at once.
    Packets {
        rate: u32,
        burst: u32,
    },
    Other,
}

impl What {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl Kept {
    pub(in crate::nft) fn of(told: &Told<'_>) -> Self {
        let value = match told.value {
            Value::Nothing => What::Nothing,
            // What is longer than all that is made here, or no text, is none of it.
            Value::Data(bytes) => Key::told(bytes).map_or(What::Other, What::Data),
            Value::Goto(chain) => std::str::from_utf8(chain).map_or(What::Other, |chain| What::Goto(chain.to_owned())),
            Value::Packets(PacketRate { rate, burst }) => What::Packets { rate, burst },
            Value::Other => What::Other,
        };
        let place = told.place;
        Self {
            key: place.map(|place| place.key),
            last: place.and_then(|place| place.last),
            ends: place.is_some_and(|place| place.is_end),
            value,
        }
    }

    /// As it was told.
    pub(in crate::nft) fn told(&self) -> Told<'_> {
        let value = match &self.value {
            What::Nothing => Value::Nothing,
            What::Data(bytes) => Value::Data(bytes.as_bytes()),
            What::Goto(chain) => Value::Goto(chain.as_bytes()),
            What::Packets { rate, burst } => Value::Packets(PacketRate { rate: *rate, burst: *burst }),
            What::Other => Value::Other,
        };
        Told { place: self.key.map(|key| Place { key, last: self.last, is_end: self.ends }), value }
    }
}

impl Key {
    /// The address that it ends with, and what is before that.
    pub(in crate::nft) fn split_addr(&self, family: Family) -> Option<(&[u8], IpAddr)> {
        let bytes = self.as_bytes();
        match family {
            Family::V4 => bytes.split_last_chunk::<4>().map(|(before, addr)| (before, IpAddr::from(*addr))),
            Family::V6 => bytes.split_last_chunk::<16>().map(|(before, addr)| (before, IpAddr::from(*addr))),
        }
    }

    /// A sender, or an address, as `nft` writes it.
    pub(in crate::nft) fn name(&self, family: Family) -> String {
        let Some((before, addr)) = self.split_addr(family) else { return "something else".to_owned() };
        match before.split_at_checked(Self::NAME) {
            Some((name, &[a, b, c, d, e, g, _, _])) => format!("{} . {} . {addr}", text(name), Mac([a, b, c, d, e, g])),
            _ => addr.to_string(),
        }
    }
}

/// In hexadecimal digits.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * self.length);
        for byte in self.as_bytes() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unfit =
            || format!("{text:?} is no key of an element: that has {} bytes at most, in hexadecimal", Self::LONGEST);
        read(&text).ok_or_else(|| D::Error::custom(unfit()))
    }
}

fn read(text: &str) -> Option<Key> {
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    Key::told(&pairs.map(byte).collect::<Option<Vec<u8>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> Key {
        Key::told(bytes).unwrap()
    }

    #[test]
    fn an_element_is_told_again_as_it_was_also_from_elsewhere() {
        let place = |last, is_end| Some(Place { key: key(&[10, 0, 0, 1]), last, is_end });
        let longest = [7; Key::LONGEST];
        for told in [
            Told { place: place(None, false), value: Value::Nothing },
            Told { place: place(None, true), value: Value::Nothing },
            Told { place: place(Some(key(&[10, 0, 0, 255])), false), value: Value::Data(&longest) },
            Told { place: place(None, false), value: Value::Goto(b"svc-3") },
            Told { place: place(None, false), value: Value::Packets(PacketRate { rate: 100, burst: 5 }) },
            Told { place: None, value: Value::Other },
        ] {
            let text = serde_json::to_string(&Kept::of(&told)).unwrap();
            let kept: Kept = serde_json::from_str(&text).unwrap();
            let again = kept.told();
            assert_eq!((again.place, again.value), (told.place, told.value), "{text}");
        }
    }

    #[test]
    fn what_is_made_nowhere_here_is_something_else() {
        let longer = [7; Key::LONGEST + 1];
        for value in [Value::Data(&longer), Value::Goto(&[0xff])] {
            assert_eq!(Kept::of(&Told { place: None, value }).told().value, Value::Other);
        }
    }

    #[test]
    fn a_key_that_cannot_be_is_refused() {
        for text in ["0", "0g", "00".repeat(Key::LONGEST + 1).as_str()] {
            assert!(serde_json::from_str::<Key>(&format!("{text:?}")).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Key>("\"0aff\"").unwrap(), key(&[10, 255]));
    }
}
