//! Checking the signature over a set of records (RFC 4035 §5.3).

use super::{Fault, Key};
use crate::{
    authority::{kind, sign::Set},
    message::{Expanded, u16_at, u32_at},
    name::{Name, QueryName},
};

/// The most checks that one message costs. A denial by NSEC3 records needs four, twice that while a zone is signed with two algorithms;
/// who needs more has several keys with the same tag, or signatures that are wrong (CVE-2023-50387).
const MOST_CHECKS: usize = 16;
/// The most signatures over one set that are looked at: a zone that changes its keys has four, with two algorithms. Those that no key
/// can have made cost no check, but time all the same.
const MOST_SIGNATURES: usize = 8;
/// Where the signer's name begins in an RRSIG record's data (RFC 4034 §3.1).
const SIGNER: usize = 18;

/// What checking one message may still cost.
#[derive(Debug)]
pub(crate) struct Effort(usize);

impl Effort {
    /// What one message may cost.
    pub(crate) fn of_message() -> Self {
        Self(MOST_CHECKS)
    }

    /// Counts a check; an error: there may be no more.
    fn spend(&mut self) -> Result<(), Fault> {
        self.0 = self.0.checked_sub(1).ok_or(Fault::Effort)?;
        Ok(())
    }
}

/// A signature that is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vouched<'a> {
    /// Its RRSIG record.
    pub(crate) record: &'a Expanded,
    /// Seconds for which the set may be kept (RFC 4035 §5.3.3).
    pub(crate) seconds: u32,
}

/// Checks that a set, all records of one name and type, is the zone's own: one of the RRSIG records among those `beside` has to be made
/// with one of the zone's keys, for this very name, and hold `now` (seconds since 1970, modulo 2^32).
///
/// # Errors
/// With what is wrong with the last of the signatures, or that there is none.
pub(crate) fn verify<'a>(
    set: &[&Expanded],
    beside: impl Iterator<Item = &'a Expanded>,
    zone: &Name,
    keys: &[Key],
    now: u32,
    effort: &mut Effort,
) -> Result<Vouched<'a>, Fault> {
    let Some(first) = set.first() else { return Err(Fault::Missing) };
    let mut fault = Fault::Unsigned;
    let covers = |record: &&Expanded| {
        record.rtype == kind::RRSIG && u16_at(&record.rdata, 0) == Some(first.rtype) && record.owner == first.owner
    };
    for record in beside.filter(covers).take(MOST_SIGNATURES) {
        let Some(signature) = Signature::read(record) else { continue };
        if let Err(found) = signature.fits(&first.owner, zone, now) {
            fault = found;
            continue;
        }
        fault = Fault::Key;
        let mut signed = None;
        let made = |key: &&Key| key.tag() == signature.tag && key.algorithm() == signature.algorithm;
        for key in keys.iter().filter(made) {
            effort.spend()?;
            if key.verifies(signed.get_or_insert_with(|| signature.signed(set)), signature.bytes) {
                let least = set.iter().map(|record| record.ttl).min().unwrap_or(0);
                let left = signature.expiration.wrapping_sub(now);
                return Ok(Vouched { record, seconds: least.min(record.ttl).min(signature.ttl).min(left) });
            }
            fault = Fault::Wrong;
        }
    }
    Err(fault)
}

/// What an RRSIG record says (RFC 4034 §3.1).
struct Signature<'a> {
    algorithm: u8,
    /// How many labels the name has that it is made for; a leading wildcard and the root do not count.
    labels: u8,
    /// The time to live that the records have in their zone, in seconds.
    ttl: u32,
    /// It holds until then, …
    expiration: u32,
    /// … from then on.
    inception: u32,
    /// The tag of the key that made it.
    tag: u16,
    signer: QueryName,
    /// All that stands before the signer's name.
    head: &'a [u8],
    /// The signature itself.
    bytes: &'a [u8],
}

impl<'a> Signature<'a> {
    fn read(record: &'a Expanded) -> Option<Self> {
        let data = record.rdata.as_slice();
        let (signer, end) = QueryName::parse(data, SIGNER).ok()?;
        Some(Self {
            algorithm: *data.get(2)?,
            labels: *data.get(3)?,
            ttl: u32_at(data, 4)?,
            expiration: u32_at(data, 8)?,
            inception: u32_at(data, 12)?,
            tag: u16_at(data, 16)?,
            signer,
            head: data.get(..SIGNER)?,
            bytes: data.get(end..)?,
        })
    }

    /// Whether it can be the zone's signature for this name now (RFC 4035 §5.3.1).
    fn fits(&self, owner: &Name, zone: &Name, now: u32) -> Result<(), Fault> {
        if self.signer.wire() != zone.wire() || !owner.within(zone) {
            return Err(Fault::Signer);
        }
        // What a wildcard stands for is not there itself: of what is checked here that has to be so.
        let wildcard = usize::from(owner.wire().starts_with(b"\x01*"));
        if usize::from(self.labels) + wildcard != owner.labels() {
            return Err(Fault::Wildcard);
        }
        // RFC 4034 §3.1.5: serial numbers (RFC 1982).
        let begun = now.wrapping_sub(self.inception) as i32 >= 0;
        let holds = self.expiration.wrapping_sub(now) as i32 >= 0;
        if begun && holds { Ok(()) } else { Err(Fault::Time) }
    }

    /// What it is made over (RFC 4034 §3.1.8.1).
    fn signed(&self, set: &[&Expanded]) -> Vec<u8> {
        let mut signed = [self.head, self.signer.wire()].concat();
        if let Some(first) = set.first() {
            let data = set.iter().map(|record| record.rdata.as_slice()).collect();
            let set = Set { owner: &first.owner, rtype: first.rtype, ttl: self.ttl, data };
            signed.extend_from_slice(&set.canonical());
        }
        signed
    }
}
