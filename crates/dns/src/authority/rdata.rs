//! What the data of each record type is made of: one table for reading, writing, checking and putting into canonical form.
//!
//! Types without a row here are opaque bytes (RFC 3597), whose text form is `\# <length> <hex>`.

mod canonical;
mod print;
mod rare;
mod scalar;
mod service;
mod text;
mod wire;

pub(crate) use canonical::{canonical, names, targets};
pub(crate) use print::{mnemonic, print, print_name, type_bitmap, types};
pub(crate) use scalar::{period, type_named};
pub(crate) use text::{BadData, Word, Words, parse, wire_name};
pub(crate) use wire::{read, read_name};

/// A part of a record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    U8,
    U16,
    U32,
    /// Seconds; in text also with units, as `1h30m`.
    Period,
    V4,
    V6,
    Name,
    /// One character string (RFC 1035 §3.3).
    Text,
    /// One or more character strings, to the end.
    Texts,
    /// One text without length, to the end (RFC 8659 §4.1, RFC 7553 §4.5).
    Rest,
    /// Bytes to the end, as hexadecimal digits.
    Hex,
    /// Bytes to the end, in base 64.
    Base64,
    /// Bytes after their length, in hexadecimal; `-` for none (RFC 5155 §3.3).
    Salt,
    /// Bytes after their length, in base 32 with the extended hex alphabet (RFC 5155 §3.3).
    Hash,
    /// A type's mnemonic.
    Type,
    /// A set of types, to the end (RFC 4034 §4.1.2).
    Types,
    /// An absolute time: `YYYYMMDDHHmmSS` or seconds (RFC 4034 §3.2).
    Time,
    /// A DNSSEC algorithm: number or mnemonic.
    Algorithm,
    /// Six or eight bytes, in hexadecimal with dashes between (RFC 7043).
    Eui(u8),
    /// Four groups of hexadecimal digits (RFC 6742 §2.1.2).
    Locator,
    /// A place on earth (RFC 1876 §2).
    Location,
    /// Address prefixes, to the end (RFC 3123 §4).
    Prefixes,
    /// A gateway of the type that the byte before the last says (RFC 4025 §2.5).
    Gateway,
    /// Parameters of a service binding, to the end (RFC 9460 §2.1).
    Service,
}

/// The parts of a type's data; none for a type that is opaque.
pub(crate) fn fields(rtype: u16) -> Option<&'static [Field]> {
    use Field::{
        Algorithm, Base64, Eui, Gateway, Hash, Hex, Location, Locator, Name, Period, Prefixes, Rest, Salt, Service,
        Text, Texts, Time, Type, Types, U8, U16, U32, V4, V6,
    };
    Some(match rtype {
        1 => &[V4],
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2..=5 | 7..=9 | 12 | 39 => &[Name],
        6 => &[Name, Name, U32, Period, Period, Period, Period],
        13 => &[Text, Text],
        // MINFO, RP
        14 | 17 => &[Name, Name],
        // MX, AFSDB, RT, KX, LP
        15 | 18 | 21 | 36 | 107 => &[U16, Name],
        // TXT, ISDN, SPF
        16 | 20 | 99 => &[Texts],
        19 => &[Text],
        // SIG, RRSIG
        24 | 46 => &[Type, Algorithm, U8, U32, Time, Time, U16, Name, Base64],
        // KEY, DNSKEY, CDNSKEY
        25 | 48 | 60 => &[U16, U8, Algorithm, Base64],
        26 => &[U16, Name, Name],
        28 => &[V6],
        29 => &[Location],
        33 => &[U16, U16, U16, Name],
        35 => &[U16, U16, Text, Text, Text, Name],
        37 => &[U16, U16, Algorithm, Base64],
        42 => &[Prefixes],
        45 => &[U8, U8, U8, Gateway, Base64],
        // DS, CDS, TA, DLV
        43 | 59 | 32_768 | 32_769 => &[U16, Algorithm, U8, Hex],
        44 => &[U8, U8, Hex],
        47 => &[Name, Types],
        // DHCID, OPENPGPKEY
        49 | 61 => &[Base64],
        50 => &[U8, U8, U16, Salt, Hash, Types],
        51 => &[U8, U8, U16, Salt],
        // TLSA, SMIMEA
        52 | 53 => &[U8, U8, U8, Hex],
        62 => &[U32, U16, Types],
        63 => &[U32, U8, U8, Hex],
        64 | 65 => &[U16, Name, Service],
        // NID, L64
        104 | 106 => &[U16, Locator],
        105 => &[U16, V4],
        108 => &[Eui(6)],
        109 => &[Eui(8)],
        256 => &[U16, U16, Rest],
        257 => &[U8, Text, Rest],
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
