//! Zone files that are signed (`sign`): when that is due, and what is written then.

use std::{borrow::Borrow, collections::BTreeSet, io};

use super::{
    CannotSign, SigningKey, Validity,
    zone::{REPLACED, is_due, renumber, sign},
};
use crate::{
    authority::{
        Zone,
        record::kind,
        transfer::newer,
        zonefile::{self, ZoneFileError},
    },
    message::rtype,
    name::Name,
};

/// Why a zone file is not signed.
#[derive(Debug, thiserror::Error)]
pub enum UnsignedFile {
    /// It is no zone.
    #[error(transparent)]
    Zone(#[from] ZoneFileError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] CannotSign),
}

/// The text of the signed zone file, where it has to be written: there is none (`signed`), its signatures are old, or the zone or its
/// keys are others by now. `now` is in seconds since 1970 and becomes the serial number; `spread` are random numbers.
///
/// # Errors
/// When the zone file (`name`, `text`) is none, or cannot be signed.
pub fn signed_file<K: Borrow<SigningKey>>(
    origin: &Name,
    (name, text): (&str, &str),
    include: &dyn Fn(&str) -> io::Result<String>,
    signed: Option<&str>,
    keys: &[K],
    now: u32,
    spread: [u16; 2],
) -> Result<Option<String>, UnsignedFile> {
    let file = zonefile::parse(name, text, origin, include)?;
    let (zone, _) = Zone::from_file(origin, &file, name)?;
    // What cannot be read any more is written anew.
    let none = |_: &str| Err(io::ErrorKind::Unsupported.into());
    let before = signed.and_then(|text| {
        let file = zonefile::parse("signed", text, origin, &none).ok()?;
        Zone::from_file(origin, &file, "signed").ok().map(|(zone, _)| zone)
    });
    let mut serial = now;
    if let Some(before) = before {
        if !is_due(&before, now) && content(&before, &[] as &[&SigningKey]) == content(&zone, keys) {
            return Ok(None);
        }
        if !newer(serial, before.soa().serial) {
            serial = before.soa().serial.wrapping_add(1);
        }
    }
    let records = sign(&zone, keys, Validity::of_zone(now, spread), serial)?;
    let (signed, _) = Zone::from_records(origin, &records).map_err(CannotSign::from)?;
    Ok(Some(signed.to_text()))
}

type Line = (Name, u16, u32, Box<[u8]>);

/// What a zone says beside signatures, with these keys: two zones that say the same need not be signed twice.
fn content<K: Borrow<SigningKey>>(zone: &Zone, keys: &[K]) -> BTreeSet<Line> {
    let told = zone.records().filter(|record| !REPLACED.contains(&record.rtype)).map(|mut record| {
        if record.rtype == rtype::SOA {
            renumber(&mut record, 0);
        }
        let ttl = if record.rtype == kind::DNSKEY { 0 } else { record.ttl };
        (record.owner, record.rtype, ttl, record.rdata)
    });
    let keys = keys.iter().map(K::borrow).map(|key| (zone.origin().clone(), kind::DNSKEY, 0, key.dnskey().into()));
    told.chain(keys).collect()
}
