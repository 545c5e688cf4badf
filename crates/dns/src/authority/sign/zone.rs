//! Signing whole zones (RFC 4035 §2).

use std::borrow::Borrow;

use super::{
    CannotSign, SigningKey, Validity,
    key::signers,
    signature::{Set, rrsig},
};
use crate::{
    authority::{Record, Zone, rdata::read_name, record::kind, zone::nsec},
    message::rtype,
};

const DAY: u32 = 86_400;
/// What signing makes anew.
pub(super) const REPLACED: [u16; 6] =
    [kind::RRSIG, kind::NSEC, kind::NSEC3, kind::NSEC3PARAM, kind::CDS, kind::CDNSKEY];

/// The records of a zone with keys, a chain of NSEC records and signatures; what it had of these is replaced, but for its own DNSKEY
/// records, which stay. `serial` is the SOA record's new one: CoreDNS's `sign` takes the time.
///
/// # Errors
/// When a key cannot sign, or the keys make it no zone.
pub fn sign<K: Borrow<SigningKey>>(
    zone: &Zone,
    keys: &[K],
    validity: Validity,
    serial: u32,
) -> Result<Vec<Record>, CannotSign> {
    let mut records: Vec<Record> = zone.records().filter(|record| !REPLACED.contains(&record.rtype)).collect();
    if let Some(soa) = records.first_mut() {
        renumber(soa, serial);
    }
    let ttl = zone.soa_record().ttl;
    let apex = |rtype, rdata: &[u8]| Record { owner: zone.origin().clone(), rtype, ttl, rdata: rdata.into() };
    for key in keys.iter().map(K::borrow) {
        records.push(apex(kind::DNSKEY, key.dnskey()));
    }
    // RFC 7344 §3: what the parent should have, which is the entry points; all keys when none is marked as one.
    let marked = keys.iter().any(|key| key.borrow().is_entry_point());
    for key in keys.iter().map(K::borrow).filter(|key| !marked || key.is_entry_point()) {
        records.push(apex(kind::CDNSKEY, key.dnskey()));
        records.push(apex(kind::CDS, &key.ds(zone.origin())));
    }
    let (plain, _) = Zone::from_records(zone.origin(), &records)?;
    records.extend(nsec::chain(&plain));
    let (chained, _) = Zone::from_records(zone.origin(), &records)?;
    let mut signatures = Vec::new();
    for (owner, rtype, ttl, data) in chained.sets_to_sign() {
        let set = Set { owner, rtype, ttl, data };
        let canonical = set.canonical();
        for key in signers(keys, rtype) {
            let rdata = rrsig(key, zone.origin(), &set, &canonical, validity)?;
            signatures.push(Record { owner: owner.clone(), rtype: kind::RRSIG, ttl, rdata: rdata.into() });
        }
    }
    let mut signed: Vec<Record> = chained.records().collect();
    signed.extend(signatures);
    Ok(signed)
}

/// Puts a serial number into an SOA record.
pub(super) fn renumber(soa: &mut Record, serial: u32) {
    let mut names = Vec::new();
    let end = read_name(&soa.rdata, 0, &mut names).and_then(|at| read_name(&soa.rdata, at, &mut names));
    if let Some(slot) = end.and_then(|at| soa.rdata.get_mut(at..at + 4)).filter(|_| soa.rtype == rtype::SOA) {
        slot.copy_from_slice(&serial.to_be_bytes());
    }
}

/// Whether a zone has to be signed (again): it is not signed, was 6 days ago, or its signatures expire within 14 days, as CoreDNS's
/// `sign` looks at it. The signatures of its SOA record speak for all.
#[must_use]
pub fn is_due(zone: &Zone, now: u32) -> bool {
    let soa = zone.origin();
    let mut validities = zone
        .records()
        .filter(|record| record.rtype == kind::RRSIG && record.owner == *soa && record.rdata.starts_with(&[0, 6]))
        .filter_map(|record| Validity::read(&record.rdata))
        .peekable();
    validities.peek().is_none()
        || validities.any(|validity| {
            let age = now.wrapping_sub(validity.inception) as i32;
            let left = validity.expiration.wrapping_sub(now) as i32;
            age > (6 * DAY) as i32 || left < (14 * DAY) as i32
        })
}
