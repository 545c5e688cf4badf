//! RRSIG records (RFC 4034 §3).

use super::key::SigningKey;
use crate::{
    authority::{Defect, order::Labels, rdata::canonical},
    message::{CLASS_IN, u32_at},
    name::Name,
};

const HOUR: u32 = 3600;
const DAY: u32 = 24 * HOUR;

/// Why something could not be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    /// The library could not sign.
    #[error("the key with tag {tag} could not sign")]
    Key {
        /// The key.
        tag: u16,
    },
    /// With keys and signatures it would be no zone.
    #[error("the signed zone would be none: {0}")]
    Zone(#[from] Defect),
}

/// When signatures hold, in seconds since 1970 (modulo 2^32, RFC 4034 §3.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then.
    pub inception: u32,
    /// Until then.
    pub expiration: u32,
}

impl Validity {
    /// For whole zones, as CoreDNS's `sign` has it: from 3 hours ago, less up to 18, for 32 days and up to 5 more. The random
    /// numbers spread both, so that not all zones are signed again at once.
    #[must_use]
    pub fn of_zone(now: u32, spread: [u16; 2]) -> Self {
        let part = |whole: u32, share: u16| (u64::from(whole) * u64::from(share) / u64::from(u16::MAX)) as u32;
        Self {
            inception: now.wrapping_sub(3 * HOUR + part(18 * HOUR, spread[0])),
            expiration: now.wrapping_add(32 * DAY + part(5 * DAY, spread[1])),
        }
    }

    /// For answers on their way, as CoreDNS's `dnssec` has it: from 3 hours ago for 8 days.
    #[must_use]
    pub fn of_answer(now: u32) -> Self {
        Self { inception: now.wrapping_sub(3 * HOUR), expiration: now.wrapping_add(8 * DAY) }
    }

    /// What a signature's data says.
    pub(super) fn read(rrsig: &[u8]) -> Option<Self> {
        Some(Self { expiration: u32_at(rrsig, 8)?, inception: u32_at(rrsig, 12)? })
    }
}

/// A set to be signed, or whose signature is checked.
pub(crate) struct Set<'a> {
    pub(crate) owner: &'a Name,
    pub(crate) rtype: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<&'a [u8]>,
}

impl Set<'_> {
    /// What is signed after the signature's own data: the records in canonical form and order (RFC 4034 §3.1.8.1, §6).
    pub(crate) fn canonical(&self) -> Vec<u8> {
        let mut data: Vec<_> = self.data.iter().map(|data| canonical(self.rtype, data)).collect();
        data.sort_unstable();
        data.dedup();
        let mut out = Vec::new();
        for data in data {
            out.extend_from_slice(self.owner.wire());
            out.extend_from_slice(&self.rtype.to_be_bytes());
            out.extend_from_slice(&CLASS_IN.to_be_bytes());
            out.extend_from_slice(&self.ttl.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(&data);
        }
        out
    }
}

/// The data of the RRSIG record of a key in `zone` for a set, whose canonical form is given.
pub(crate) fn rrsig(
    key: &SigningKey,
    zone: &Name,
    set: &Set<'_>,
    canonical: &[u8],
    validity: Validity,
) -> Result<Vec<u8>, CannotSign> {
    let mut rrsig = set.rtype.to_be_bytes().to_vec();
    rrsig.extend_from_slice(&[key.algorithm(), labels(set.owner)]);
    for number in [set.ttl, validity.expiration, validity.inception] {
        rrsig.extend_from_slice(&number.to_be_bytes());
    }
    rrsig.extend_from_slice(&key.tag().to_be_bytes());
    rrsig.extend_from_slice(zone.wire());
    let signature = key.sign(&[&rrsig, canonical].concat())?;
    rrsig.extend_from_slice(&signature);
    Ok(rrsig)
}

/// The labels of an owner, a leading wildcard not counted (RFC 4034 §3.1.3).
fn labels(owner: &Name) -> u8 {
    let wildcard = owner.wire().starts_with(b"\x01*");
    (Labels::of(owner.wire()).count() - usize::from(wildcard)) as u8
}
