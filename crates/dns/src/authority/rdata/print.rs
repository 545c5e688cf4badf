//! Data as text (RFC 1035 §5.1, RFC 3597 §5).

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER};
use domain::base::iana::Rtype;

use super::{Field, fields};
use crate::message::{u16_at, u32_at};

/// The data of a record as a zone file has it. Data that is not what its type says is written as unknown data.
pub(crate) fn print(rtype: u16, rdata: &[u8]) -> String {
    known(rtype, rdata).unwrap_or_else(|| {
        let hex = HEXLOWER.encode(rdata);
        format!("\\# {}{}{hex}", rdata.len(), if hex.is_empty() { "" } else { " " })
    })
}

/// A type's mnemonic, or `TYPE<number>`.
pub(crate) fn mnemonic(rtype: u16) -> String {
    Rtype::from_int(rtype).to_string()
}

fn known(rtype: u16, rdata: &[u8]) -> Option<String> {
    let fields = fields(rtype)?;
    let mut text = String::new();
    let mut at = 0;
    for field in fields {
        if !text.is_empty() && at < rdata.len() {
            text.push(' ');
        }
        at = print_field(*field, rdata, at, &mut text)?;
    }
    // Empty data has no text of its own in most types.
    (at == rdata.len() && !text.trim().is_empty()).then_some(text)
}

fn print_field(field: Field, rdata: &[u8], at: usize, text: &mut String) -> Option<usize> {
    let rest = rdata.get(at..)?;
    let size = match field {
        Field::U8 | Field::Algorithm => {
            let _ = write!(text, "{}", rest.first()?);
            1
        }
        Field::U16 => {
            let _ = write!(text, "{}", u16_at(rest, 0)?);
            2
        }
        Field::Type => {
            text.push_str(&mnemonic(u16_at(rest, 0)?));
            2
        }
        Field::U32 | Field::Period | Field::Time => {
            let _ = write!(text, "{}", u32_at(rest, 0)?);
            4
        }
        Field::V4 => {
            let _ = write!(text, "{}", Ipv4Addr::from(u32_at(rest, 0)?));
            4
        }
        Field::V6 => {
            let octets: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            let _ = write!(text, "{}", Ipv6Addr::from(octets));
            16
        }
        Field::Name => {
            let mut name = Vec::new();
            let end = super::read_name(rdata, at, &mut name)?;
            print_name(&name, text);
            end - at
        }
        Field::Text => {
            let size = usize::from(*rest.first()?);
            quoted(rest.get(1..=size)?, text);
            size + 1
        }
        Field::Eui(size) => {
            let size = usize::from(size);
            let pairs: Vec<String> = rest.get(..size)?.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&pairs.join("-"));
            size
        }
        Field::Locator => {
            let groups: Vec<String> =
                rest.get(..8)?.chunks(2).map(|pair| format!("{:x}", u16::from_be_bytes([pair[0], pair[1]]))).collect();
            text.push_str(&groups.join(":"));
            8
        }
        Field::Gateway => {
            let (field, size) = match *rdata.get(at.checked_sub(2)?)? {
                0 => {
                    text.push('.');
                    return Some(at);
                }
                1 => (Field::V4, 4),
                2 => (Field::V6, 16),
                3 => return print_field(Field::Name, rdata, at, text),
                _ => return None,
            };
            print_field(field, rdata, at, text)?;
            size
        }
        _ => return print_bytes(field, rest, text).map(|size| at + size),
    };
    Some(at + size)
}

fn print_bytes(field: Field, rest: &[u8], text: &mut String) -> Option<usize> {
    match field {
        Field::Salt | Field::Hash => {
            let size = usize::from(*rest.first()?);
            let bytes = rest.get(1..=size)?;
            text.push_str(&match field {
                Field::Salt if bytes.is_empty() => "-".to_owned(),
                Field::Salt => HEXLOWER.encode(bytes),
                _ => BASE32HEX_NOPAD.encode(bytes).to_ascii_lowercase(),
            });
            return Some(size + 1);
        }
        Field::Texts => {
            let mut at = 0;
            while let Some(&size) = rest.get(at) {
                if at > 0 {
                    text.push(' ');
                }
                quoted(rest.get(at + 1..=at + usize::from(size))?, text);
                at += usize::from(size) + 1;
            }
        }
        Field::Rest => quoted(rest, text),
        Field::Service => super::service::print(rest, text)?,
        Field::Location => text.push_str(&super::rare::print_location(rest)?),
        Field::Prefixes => text.push_str(&super::rare::print_prefixes(rest)?),
        // Nothing is not a word: such data has the unknown form only.
        Field::Hex | Field::Base64 if rest.is_empty() => return None,
        Field::Hex => text.push_str(&HEXLOWER.encode(rest)),
        Field::Base64 => text.push_str(&BASE64.encode(rest)),
        Field::Types => {
            let names: Vec<String> = types(rest).map(mnemonic).collect();
            text.push_str(&names.join(" "));
        }
        _ => return None,
    }
    Some(rest.len())
}

/// The types of a bitmap.
pub(crate) fn types(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let mut at = 0;
    let windows = std::iter::from_fn(move || {
        let (window, size) = (*bytes.get(at)?, usize::from(*bytes.get(at + 1)?));
        let bits = bytes.get(at + 2..at + 2 + size)?;
        at += 2 + size;
        Some((window, bits))
    });
    windows.flat_map(|(window, bits)| {
        let set = (0..bits.len() * 8).filter(|bit| bits[bit / 8] & (0x80 >> (bit % 8)) != 0);
        set.map(move |bit| u16::from(window) << 8 | bit as u16)
    })
}

/// The bitmap of a set of types (RFC 4034 §4.1.2).
pub(crate) fn type_bitmap(types: &[u16]) -> Vec<u8> {
    let mut types = types.to_vec();
    types.sort_unstable();
    let mut bytes = Vec::new();
    for window in types.chunk_by(|left, right| left >> 8 == right >> 8) {
        let mut bits = [0_u8; 32];
        for rtype in window {
            bits[usize::from(rtype & 0xff) / 8] |= 0x80 >> (rtype % 8);
        }
        let size = usize::from(window[window.len() - 1] & 0xff) / 8 + 1;
        bytes.extend_from_slice(&[(window[0] >> 8) as u8, size as u8]);
        bytes.extend_from_slice(&bits[..size]);
    }
    bytes
}

/// Writes a name on the wire as text, everything escaped that means something else in a zone file.
pub(crate) fn print_name(wire: &[u8], text: &mut String) {
    let mut rest = wire;
    if rest.len() <= 1 {
        text.push('.');
        return;
    }
    while let Some((&size, tail)) = rest.split_first() {
        if size == 0 || tail.len() < usize::from(size) {
            break;
        }
        let (label, next) = tail.split_at(usize::from(size));
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                byte if byte.is_ascii_graphic() => text.push(char::from(byte)),
                byte => {
                    let _ = write!(text, "\\{byte:03}");
                }
            }
        }
        text.push('.');
        rest = next;
    }
}

pub(super) fn quoted(bytes: &[u8], text: &mut String) {
    text.push('"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            byte => {
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    text.push('"');
}
