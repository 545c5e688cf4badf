//! Parameters of service bindings as text (RFC 9460 §2.1, §7, appendix A).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use data_encoding::BASE64;

use super::{
    print::quoted,
    text::{Word, unescape},
};
use crate::message::u16_at;

/// The registered keys by number (IANA, Service Parameter Keys).
const KEYS: [&str; 9] =
    ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"];

const MANDATORY: u16 = 0;

/// The parameters that words spell; none when one of them is wrong, comes twice, or is mandatory and missing.
pub(super) fn parse(words: &[Word<'_>]) -> Option<Vec<u8>> {
    let mut found: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index += 1;
        let (name, value) = match word.text.split_once('=') {
            _ if word.quoted => return None,
            // The value may stand in quotes, directly behind the sign.
            Some((name, "")) => match words.get(index).filter(|next| next.glued && next.quoted) {
                Some(next) => {
                    index += 1;
                    (name, Some(&*next.text))
                }
                None => (name, Some("")),
            },
            Some((name, value)) => (name, Some(value)),
            None => (&*word.text, None),
        };
        let key = key(name)?;
        let value = value.map_or(Some(Vec::new()), unescape)?;
        let value = if name.starts_with("key") { value } else { self::value(key, value)? };
        if found.insert(key, value).is_some() {
            return None;
        }
    }
    let needed = found.get(&MANDATORY).map(Vec::as_slice).unwrap_or_default();
    if !needed.chunks(2).all(|key| u16_at(key, 0).is_some_and(|key| key != MANDATORY && found.contains_key(&key))) {
        return None;
    }
    let mut data = Vec::new();
    for (key, value) in found {
        data.extend_from_slice(&key.to_be_bytes());
        data.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
        data.extend_from_slice(&value);
    }
    Some(data)
}

fn key(name: &str) -> Option<u16> {
    if let Some(number) = name.strip_prefix("key") {
        return number.parse().ok().filter(|number: &u16| number.to_string() == *name.trim_start_matches("key"));
    }
    KEYS.iter().position(|known| *known == name).map(|at| at as u16)
}

/// A registered parameter's value on the wire.
fn value(key: u16, text: Vec<u8>) -> Option<Vec<u8>> {
    let items = || std::str::from_utf8(&text).ok().map(|text| text.split(','));
    let value: Vec<u8> = match key {
        MANDATORY => {
            let mut keys = items()?.map(self::key).collect::<Option<Vec<u16>>>()?;
            keys.sort_unstable();
            keys.windows(2).all(|pair| pair[0] != pair[1]).then_some(())?;
            keys.into_iter().flat_map(u16::to_be_bytes).collect()
        }
        1 => list(&text)?,
        2 | 8 => return text.is_empty().then_some(text),
        3 => std::str::from_utf8(&text).ok()?.parse::<u16>().ok()?.to_be_bytes().into(),
        4 => {
            let addrs = items()?.map(|item| item.parse::<Ipv4Addr>().ok()).collect::<Option<Vec<_>>>()?;
            addrs.iter().flat_map(Ipv4Addr::octets).collect()
        }
        5 => BASE64.decode(&text).ok()?,
        6 => {
            let addrs = items()?.map(|item| item.parse::<Ipv6Addr>().ok()).collect::<Option<Vec<_>>>()?;
            addrs.iter().flat_map(Ipv6Addr::octets).collect()
        }
        _ => text,
    };
    (!value.is_empty()).then_some(value)
}

/// Items with their lengths, of a list with commas between; `\,` and `\\` stand for the characters (RFC 9460 §A.1).
fn list(text: &[u8]) -> Option<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b',' => items.push(Vec::new()),
            b'\\' => items.last_mut()?.push(*bytes.next()?),
            byte => items.last_mut()?.push(byte),
        }
    }
    let mut data = Vec::new();
    for item in items {
        data.push(u8::try_from(item.len()).ok().filter(|size| *size > 0)?);
        data.extend_from_slice(&item);
    }
    Some(data)
}

/// Writes parameters; none when they are cut.
pub(super) fn print(mut rest: &[u8], text: &mut String) -> Option<()> {
    let mut gap = "";
    while !rest.is_empty() {
        let (key, size) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
        let value = rest.get(4..4 + size)?;
        rest = &rest[4 + size..];
        text.push_str(gap);
        gap = " ";
        // What has no text of its own is written as bytes, under the key's number.
        if let Some(printed) = known(key, value) {
            text.push_str(&printed);
        } else {
            let _ = write!(text, "key{key}");
            if !value.is_empty() {
                text.push('=');
                quoted(value, text);
            }
        }
    }
    Some(())
}

fn known(key: u16, value: &[u8]) -> Option<String> {
    let name = KEYS.get(usize::from(key))?;
    let joined = |items: Vec<String>| (!items.is_empty()).then(|| format!("{name}={}", items.join(",")));
    match key {
        MANDATORY => {
            let keys = value.chunks(2).map(|key| u16_at(key, 0).and_then(|key| KEYS.get(usize::from(key))));
            joined(keys.map(|key| key.map(|key| (*key).to_owned())).collect::<Option<_>>()?)
        }
        1 => {
            let mut items = Vec::new();
            let mut rest = value;
            while let Some((&size, tail)) = rest.split_first() {
                let item = tail.get(..usize::from(size))?;
                let plain = item.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'.'));
                items.push(String::from_utf8(item.to_vec()).ok().filter(|_| plain && !item.is_empty())?);
                rest = &tail[usize::from(size)..];
            }
            joined(items)
        }
        2 | 8 => value.is_empty().then(|| (*name).to_owned()),
        3 => <[u8; 2]>::try_from(value).ok().map(|port| format!("{name}={}", u16::from_be_bytes(port))),
        4 => {
            let addrs =
                value.chunks(4).map(|addr| <[u8; 4]>::try_from(addr).ok().map(|a| Ipv4Addr::from(a).to_string()));
            joined(addrs.collect::<Option<_>>()?)
        }
        5 if !value.is_empty() => Some(format!("{name}={}", BASE64.encode(value))),
        6 => {
            let addrs =
                value.chunks(16).map(|addr| <[u8; 16]>::try_from(addr).ok().map(|a| Ipv6Addr::from(a).to_string()));
            joined(addrs.collect::<Option<_>>()?)
        }
        _ => None,
    }
}
