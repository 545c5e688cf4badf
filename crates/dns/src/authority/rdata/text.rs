//! Reading data from the words of a zone file (RFC 1035 §5.1, RFC 3597 §5).

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER_PERMISSIVE};

use super::{
    Field, fields,
    print::type_bitmap,
    rare,
    scalar::{algorithm, period, timestamp, type_named},
    wire,
};
use crate::name::{BadName, MAX_LABEL, MAX_NAME};

/// A word of a zone file, escapes as written.
#[derive(Clone, Debug)]
pub(crate) struct Word<'a> {
    pub(crate) text: Cow<'a, str>,
    /// It stood between quotes.
    pub(crate) quoted: bool,
    /// No space stood before it.
    pub(crate) glued: bool,
    /// Where it starts: the byte in the file, and the line from 1.
    pub(crate) at: usize,
    pub(crate) line: u32,
}

/// The words of one record's data, and what relative names end in.
pub(crate) struct Words<'a> {
    words: &'a [Word<'a>],
    next: usize,
    origin: &'a [u8],
}

/// What is wrong with a record's data. `word` counts from the first word of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadData {
    Value { word: usize, what: &'static str, allowed: &'static str },
    Name { word: usize, reason: BadName },
    Missing { what: &'static str },
    Extra { word: usize },
    TooLong,
}

impl<'a> Words<'a> {
    pub(crate) fn new(words: &'a [Word<'a>], origin: &'a [u8]) -> Self {
        Self { words, next: 0, origin }
    }

    fn take(&mut self, what: &'static str) -> Result<(usize, &'a Word<'a>), BadData> {
        let index = self.next;
        let word = self.words.get(index).ok_or(BadData::Missing { what })?;
        self.next += 1;
        Ok((index, word))
    }

    fn number(&mut self, what: &'static str, max: u64, allowed: &'static str) -> Result<u64, BadData> {
        let (word, text) = self.take(what)?;
        let digits = text.text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.text.parse::<u64>().ok().filter(|value| digits && *value <= max);
        value.ok_or(BadData::Value { word, what, allowed })
    }

    /// Whether no word is left.
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.words.len()
    }

    /// The word that was taken last.
    pub(super) fn last(&self) -> usize {
        self.next.saturating_sub(1)
    }

    /// What relative names end in.
    pub(super) fn origin(&self) -> &'a [u8] {
        self.origin
    }

    pub(super) fn parsed<T>(
        &mut self,
        what: &'static str,
        allowed: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, BadData> {
        let (word, text) = self.take(what)?;
        read(&text.text).ok_or(BadData::Value { word, what, allowed })
    }

    /// What is left, put together, as binary data is written over several words.
    fn joined(&mut self, what: &'static str) -> Result<(usize, String), BadData> {
        let (first, word) = self.take(what)?;
        let mut text = word.text.clone().into_owned();
        while let Ok((_, word)) = self.take(what) {
            text.push_str(&word.text);
        }
        Ok((first, text))
    }
}

/// The data of a record of type `rtype`.
pub(crate) fn parse(rtype: u16, mut words: Words<'_>) -> Result<Vec<u8>, BadData> {
    let data = match words.words.first() {
        Some(word) if word.text == "\\#" && !word.quoted => unknown(rtype, &mut words)?,
        first => {
            let Some(fields) = fields(rtype) else {
                let (what, allowed) = ("the data of this type", "\\# <length> <hexadecimal digits> (RFC 3597)");
                return Err(match first {
                    Some(_) => BadData::Value { word: 0, what, allowed },
                    None => BadData::Missing { what: allowed },
                });
            };
            let mut data = Vec::new();
            for field in fields {
                self::field(*field, &mut words, &mut data)?;
            }
            data
        }
    };
    if words.next < words.words.len() {
        return Err(BadData::Extra { word: words.next });
    }
    if data.len() > usize::from(u16::MAX) { Err(BadData::TooLong) } else { Ok(data) }
}

fn field(field: Field, words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    match field {
        Field::U8 => data.push(words.number("a number", 255, "0 to 255")? as u8),
        Field::U16 => {
            let value = words.number("a number", 65_535, "0 to 65535")?;
            data.extend_from_slice(&(value as u16).to_be_bytes());
        }
        Field::U32 => {
            let value = words.number("a number", u64::from(u32::MAX), "0 to 4294967295")?;
            data.extend_from_slice(&(value as u32).to_be_bytes());
        }
        Field::Period => {
            let value = words.parsed("a time", "seconds, or units as in 1h30m, up to 4294967295 s", period)?;
            data.extend_from_slice(&value.to_be_bytes());
        }
        Field::V4 => {
            let addr = words.parsed("an address", "an IPv4 address", |text| text.parse::<Ipv4Addr>().ok())?;
            data.extend_from_slice(&addr.octets());
        }
        Field::V6 => {
            let addr = words.parsed("an address", "an IPv6 address", |text| text.parse::<Ipv6Addr>().ok())?;
            data.extend_from_slice(&addr.octets());
        }
        Field::Name => {
            let (word, text) = words.take("a name")?;
            let name = wire_name(&text.text, words.origin).map_err(|reason| BadData::Name { word, reason })?;
            data.extend_from_slice(&name);
        }
        Field::Type => {
            let rtype = words.parsed("a type", "a type such as A or TYPE65280", type_named)?;
            data.extend_from_slice(&rtype.to_be_bytes());
        }
        Field::Algorithm => data.push(words.parsed("an algorithm", "a number or a mnemonic", algorithm)?),
        Field::Time => {
            let time = words.parsed("a time", "YYYYMMDDHHmmSS, or seconds", timestamp)?;
            data.extend_from_slice(&time.to_be_bytes());
        }
        Field::Text => character_string(words, data)?,
        Field::Texts => {
            character_string(words, data)?;
            while words.next < words.words.len() {
                character_string(words, data)?;
            }
        }
        _ => binary(field, words, data)?,
    }
    Ok(())
}

fn binary(field: Field, words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    match field {
        Field::Rest => {
            let (word, text) = words.take("a text")?;
            let bad = BadData::Value { word, what: "a text", allowed: "characters, and bytes as \\DDD" };
            data.extend_from_slice(&unescape(&text.text).ok_or(bad)?);
        }
        Field::Hex | Field::Base64 => {
            let (word, text) = words.joined("binary data")?;
            let (bytes, allowed) = match field {
                Field::Hex => (HEXLOWER_PERMISSIVE.decode(text.as_bytes()), "pairs of hexadecimal digits"),
                _ => (BASE64.decode(text.as_bytes()), "base 64"),
            };
            data.extend(bytes.map_err(|_| BadData::Value { word, what: "binary data", allowed })?);
        }
        Field::Salt | Field::Hash => {
            let (word, text) = words.take("binary data")?;
            let (bytes, allowed) = match field {
                Field::Salt if text.text == "-" => (Ok(Vec::new()), ""),
                Field::Salt => {
                    (HEXLOWER_PERMISSIVE.decode(text.text.as_bytes()), "up to 255 bytes in hexadecimal, or -")
                }
                _ => (BASE32HEX_NOPAD.decode(text.text.to_ascii_uppercase().as_bytes()), "base 32 (extended hex)"),
            };
            let bytes = bytes.ok().filter(|bytes| bytes.len() <= 255);
            let bytes = bytes.ok_or(BadData::Value { word, what: "binary data", allowed })?;
            data.push(bytes.len() as u8);
            data.extend_from_slice(&bytes);
        }
        Field::Types => {
            let mut types = Vec::new();
            while words.next < words.words.len() {
                types.push(words.parsed("a type", "a type such as A or TYPE65280", type_named)?);
            }
            data.extend_from_slice(&type_bitmap(&types));
        }
        Field::Eui(size) => {
            let allowed =
                if size == 6 { "six pairs of hexadecimal digits, - between" } else { "eight pairs, - between" };
            let bytes = words.parsed("an identifier", allowed, |text| groups(text, '-', 2, usize::from(size)))?;
            data.extend(bytes.into_iter().map(|group| group as u8));
        }
        Field::Locator => {
            let allowed = "four groups of hexadecimal digits, : between";
            let value = words.parsed("a locator", allowed, |text| groups(text, ':', 4, 4))?;
            data.extend(value.into_iter().flat_map(u16::to_be_bytes));
        }
        Field::Service => service(words, data)?,
        Field::Location => rare::location(words, data)?,
        Field::Prefixes => rare::prefixes(words, data)?,
        Field::Gateway => rare::gateway(data.get(1).copied().unwrap_or(0), words, data)?,
        _ => {}
    }
    Ok(())
}

fn groups(text: &str, separator: char, digits: usize, count: usize) -> Option<Vec<u16>> {
    let groups = text.split(separator).map(|group| {
        let hex = (1..=digits).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(group, 16).ok().filter(|_| hex)
    });
    groups.collect::<Option<Vec<u16>>>().filter(|groups| groups.len() == count)
}

/// The form of any type's data (RFC 3597 §5). Data of a type with a row in the table has to be such data.
fn unknown(rtype: u16, words: &mut Words<'_>) -> Result<Vec<u8>, BadData> {
    words.next += 1;
    let length = words.number("the data's length", 65_535, "0 to 65535")? as usize;
    let (word, text) = if length == 0 { (1, String::new()) } else { words.joined("hexadecimal digits")? };
    let what = "unknown data";
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let bytes = bytes.map_err(|_| BadData::Value { word, what, allowed: "pairs of hexadecimal digits" })?;
    if bytes.len() != length {
        return Err(BadData::Value { word, what, allowed: "as many bytes as the length before them says" });
    }
    match wire::read(&bytes, 0, bytes.len(), rtype) {
        Some(data) if data == bytes => Ok(data),
        _ => Err(BadData::Value { word, what, allowed: "what the data of this type is made of" }),
    }
}

fn service(words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    let word = words.next;
    let bad = BadData::Value { word, what: "the parameters", allowed: "key=value as in alpn=h2 port=443 (RFC 9460)" };
    data.extend(super::service::parse(&words.words[word..]).ok_or(bad)?);
    words.next = words.words.len();
    Ok(())
}

fn character_string(words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    let (word, text) = words.take("a text")?;
    let bytes = unescape(&text.text).filter(|bytes| bytes.len() <= 255);
    let allowed = "up to 255 bytes; longer text is written as several";
    let bytes = bytes.ok_or(BadData::Value { word, what: "a text", allowed })?;
    data.push(bytes.len() as u8);
    data.extend_from_slice(&bytes);
    Ok(())
}

/// Bytes with `\DDD` and `\X` resolved; none for a number above 255 or a backslash at the end.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'\\' {
            let (value, tail) = escaped(tail)?;
            bytes.push(value);
            rest = tail;
        } else {
            bytes.push(*byte);
        }
    }
    Some(bytes)
}

/// The byte that an escape stands for; what is given follows the backslash.
fn escaped(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (first, tail) = rest.split_first()?;
    if !first.is_ascii_digit() {
        return Some((*first, tail));
    }
    let digits = std::str::from_utf8(rest.get(..3)?).ok()?;
    let value = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u8>().ok())??;
    Some((value, &rest[3..]))
}

/// A name as a zone file spells it, as wire form in that spelling; relative ones end in `origin`.
pub(crate) fn wire_name(text: &str, origin: &[u8]) -> Result<Vec<u8>, BadName> {
    match text {
        "@" => return Ok(origin.to_vec()),
        "." => return Ok(vec![0]),
        _ => {}
    }
    let mut wire = Vec::with_capacity(text.len() + 1 + origin.len());
    let mut label = Vec::new();
    let mut rest = text.as_bytes();
    let mut absolute = false;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'.' => {
                push(&mut label, &mut wire)?;
                absolute = rest.is_empty();
            }
            b'\\' => {
                let (value, tail) = escaped(tail).ok_or(BadName::Character)?;
                label.push(value);
                rest = tail;
            }
            byte => label.push(*byte),
        }
    }
    if absolute {
        wire.push(0);
    } else {
        push(&mut label, &mut wire)?;
        wire.extend_from_slice(origin);
    }
    if wire.len() > MAX_NAME { Err(BadName::TooLong) } else { Ok(wire) }
}

fn push(label: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), BadName> {
    match label.len() {
        0 => Err(BadName::EmptyLabel),
        1..=MAX_LABEL => {
            wire.push(label.len() as u8);
            wire.append(label);
            Ok(())
        }
        _ => Err(BadName::LongLabel),
    }
}
