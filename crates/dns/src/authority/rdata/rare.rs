//! Data whose text form is a little language of its own: places on earth, address prefixes, gateways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::text::{BadData, Words, wire_name};
use crate::message::{u16_at, u32_at};

/// The middle of the range: the equator, the prime meridian (RFC 1876 §2).
const MIDDLE: i64 = 1 << 31;
/// The altitude that is counted from, in centimetres below the spheroid.
const DEEPEST: i64 = 10_000_000;

/// A number with up to `places` decimals, as a whole number of the smallest part.
fn fixed(text: &str, places: usize) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then_some(());
    number(whole).and_then(|()| number(part))?;
    if whole.is_empty() || whole.len() > 10 || part.len() > places {
        return None;
    }
    let text = format!("{whole}{part:0<places$}");
    text.parse::<i64>().ok().map(|value| sign * value)
}

/// A place (RFC 1876 §3): latitude, longitude, altitude, and how exact they are.
pub(super) fn location(words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    let latitude = angle(words, ["N", "S"], 90)?;
    let longitude = angle(words, ["E", "W"], 180)?;
    let metres = |text: &str| fixed(text.strip_suffix('m').unwrap_or(text), 2);
    let height = |text: &str| metres(text).and_then(|height| u32::try_from(height + DEEPEST).ok());
    let altitude = words.parsed("the altitude", "metres, from -100000.00 to 42849672.95", height)?;
    data.push(0);
    // Size, horizontal and vertical precision; 1 m, 10 km and 10 m when they are not given.
    for default in [0x12, 0x16, 0x13] {
        let size = |text: &str| metres(text).and_then(precision);
        data.push(if words.is_empty() {
            default
        } else {
            words.parsed("a size", "metres, up to 90000000.00", size)?
        });
    }
    for number in [latitude, longitude, altitude] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    Ok(())
}

/// Degrees, minutes, seconds and a direction, in thousandths of a second from the middle.
fn angle(words: &mut Words<'_>, directions: [&str; 2], limit: i64) -> Result<u32, BadData> {
    let allowed = "degrees [minutes [seconds]] and a direction (N or S, then E or W)";
    let direction = |text: &str| directions.iter().position(|name| name.eq_ignore_ascii_case(text));
    let mut total = 0;
    for (unit, most) in [(3_600_000, limit), (60_000, 59), (1, 59_999)] {
        let places = if unit == 1 { 3 } else { 0 };
        let part = |text: &str| match direction(text) {
            Some(at) if unit != 3_600_000 => Some(Err(at)),
            _ => fixed(text, places).filter(|value| (0..=most).contains(value)).map(Ok),
        };
        match words.parsed("an angle", allowed, part)? {
            Ok(value) => total += value * unit,
            Err(at) => return finish(total, at, limit, words.last(), allowed),
        }
    }
    let at = words.parsed("an angle", allowed, direction)?;
    finish(total, at, limit, words.last(), allowed)
}

fn finish(total: i64, direction: usize, limit: i64, word: usize, allowed: &'static str) -> Result<u32, BadData> {
    let signed = if direction == 0 { total } else { -total };
    let value = u32::try_from(MIDDLE + signed).ok().filter(|_| total <= limit * 3_600_000);
    value.ok_or(BadData::Value { word, what: "an angle", allowed })
}

/// Centimetres as one digit and a power of ten.
fn precision(mut value: i64) -> Option<u8> {
    let mut power = 0;
    while value > 9 {
        value /= 10;
        power += 1;
    }
    (value >= 0 && power <= 9).then_some((value as u8) << 4 | power)
}

/// Writes a place; none when it is not of the only version there is.
pub(super) fn print_location(data: &[u8]) -> Option<String> {
    let exact = data.get(1..4)?.iter().all(|byte| byte >> 4 <= 9 && byte & 15 <= 9);
    if data.len() != 16 || data[0] != 0 || !exact {
        return None;
    }
    let angle = |at: usize, names: [&str; 2], limit: i64| {
        let value = i64::from(u32_at(data, at)?) - MIDDLE;
        let name = names[usize::from(value < 0)];
        let rest = value.abs();
        let (degrees, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest % 60_000);
        (rest <= limit * 3_600_000)
            .then(|| format!("{degrees} {minutes} {}.{:03} {name}", seconds / 1000, seconds % 1000))
    };
    let metres =
        |value: i64| format!("{}{}.{:02}m", if value < 0 { "-" } else { "" }, value.abs() / 100, value.abs() % 100);
    let size = |byte: u8| metres(i64::from(byte >> 4) * 10_i64.pow(u32::from(byte & 15)));
    let sizes: Vec<String> = data[1..4].iter().map(|byte| size(*byte)).collect();
    // A nought has one form: any power of ten of it would be read back as the first.
    let plain = data[1..4].iter().all(|byte| byte >> 4 > 0 || *byte == 0);
    let (latitude, longitude) = (angle(4, ["N", "S"], 90)?, angle(8, ["E", "W"], 180)?);
    let altitude = metres(i64::from(u32_at(data, 12)?) - DEEPEST);
    plain.then(|| format!("{latitude} {longitude} {altitude} {}", sizes.join(" ")))
}

/// Address prefixes (RFC 3123 §4): `[!]family:address/length`.
pub(super) fn prefixes(words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    let prefix = |text: &str| {
        let (negated, text) = text.strip_prefix('!').map_or((0, text), |text| (0x80, text));
        let (family, net) = text.split_once(':')?;
        let (addr, length) = net.split_once('/')?;
        let (number, mut octets) = match (family, addr.parse().ok()?) {
            ("1", IpAddr::V4(addr)) => (1_u16, addr.octets().to_vec()),
            ("2", IpAddr::V6(addr)) => (2, addr.octets().to_vec()),
            _ => return None,
        };
        let length = length.parse::<u8>().ok().filter(|length| usize::from(*length) <= 8 * octets.len())?;
        // Noughts at the end are left out (RFC 3123 §4).
        while octets.last() == Some(&0) {
            octets.pop();
        }
        let mut item = number.to_be_bytes().to_vec();
        item.extend_from_slice(&[length, octets.len() as u8 | negated]);
        item.extend_from_slice(&octets);
        Some(item)
    };
    while !words.is_empty() {
        let allowed = "[!]1:IPv4/length or [!]2:IPv6/length (RFC 3123)";
        data.extend(words.parsed("a prefix", allowed, prefix)?);
    }
    Ok(())
}

/// The length of `bytes` when they are address prefixes.
pub(super) fn prefixes_size(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        at += 4 + usize::from(bytes.get(at + 3)? & 0x7f);
    }
    (at == bytes.len()).then_some(at)
}

/// Writes address prefixes; none when one is of another family, or not in its only form.
pub(super) fn print_prefixes(mut rest: &[u8]) -> Option<String> {
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (family, length, size) = (u16_at(rest, 0)?, *rest.get(2)?, *rest.get(3)?);
        let part = rest.get(4..4 + usize::from(size & 0x7f))?;
        rest = &rest[4 + part.len()..];
        let mut octets = [0; 16];
        octets.get_mut(..part.len())?.copy_from_slice(part);
        let (addr, most) = match family {
            1 if part.len() <= 4 => (IpAddr::from(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])), 32),
            2 => (IpAddr::from(Ipv6Addr::from(octets)), 128),
            _ => return None,
        };
        if length > most || part.last() == Some(&0) {
            return None;
        }
        let negated = if size & 0x80 == 0 { "" } else { "!" };
        words.push(format!("{negated}{family}:{addr}/{length}"));
    }
    Some(words.join(" "))
}

/// A gateway (RFC 4025 §2.5) whose type, `kind`, stands two bytes before it: none, an address, or a name.
pub(super) fn gateway(kind: u8, words: &mut Words<'_>, data: &mut Vec<u8>) -> Result<(), BadData> {
    let origin = words.origin();
    let read = |text: &str| match kind {
        0 => (text == ".").then(Vec::new),
        1 => text.parse::<Ipv4Addr>().ok().map(|addr| addr.octets().to_vec()),
        2 => text.parse::<Ipv6Addr>().ok().map(|addr| addr.octets().to_vec()),
        3 => wire_name(text, origin).ok(),
        _ => None,
    };
    let allowed = "by the gateway's type: 0 \".\", 1 an IPv4 address, 2 an IPv6 address, 3 a name";
    data.extend(words.parsed("a gateway", allowed, read)?);
    Ok(())
}
