//! A zone's keys, and what vouches for them (RFC 4034 §2 and §5).

use domain::{base::iana::SecurityAlgorithm, crypto::common::PublicKey, rdata::Dnskey};
use ring::digest;

use super::{Effort, Fault, verify};
use crate::{
    answer::Section,
    authority::{kind, sign::tag},
    message::{Expanded, u16_at},
    name::Name,
};

/// The most keys that a zone may have. The root has two or three, while it changes them four.
const MOST_KEYS: usize = 24;
/// The algorithms whose signatures are checked: RSASHA256, RSASHA512, ECDSAP256SHA256, ECDSAP384SHA384, ED25519.
const ALGORITHMS: [u8; 5] = [8, 10, 13, 14, 15];
/// A key's flags: a zone's key (RFC 4034 §2.1.1), and that it is revoked (RFC 5011 §7).
const ZONE: u16 = 0x0100;
const REVOKED: u16 = 0x0080;
/// The protocol of all keys (RFC 4034 §2.1.2).
const PROTOCOL: u8 = 3;

/// A key that signatures can be checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    tag: u16,
    /// The data of its DNSKEY record.
    data: Box<[u8]>,
}

impl Key {
    /// Reads the data of a DNSKEY record; none where it is no key of a zone, or cannot be used.
    pub(crate) fn read(dnskey: &[u8]) -> Option<Self> {
        let (flags, protocol, algorithm) = (u16_at(dnskey, 0)?, *dnskey.get(2)?, *dnskey.get(3)?);
        let usable = flags & (ZONE | REVOKED) == ZONE && protocol == PROTOCOL && ALGORITHMS.contains(&algorithm);
        usable.then(|| Self { tag: tag(dnskey), data: dnskey.into() })
    }

    /// Its tag (RFC 4034 appendix B); several keys can have the same.
    pub(crate) fn tag(&self) -> u16 {
        self.tag
    }

    /// Its algorithm's number.
    pub(crate) fn algorithm(&self) -> u8 {
        self.data[3]
    }

    /// Whether a signature over data was made with it.
    pub(super) fn verifies(&self, data: &[u8], signature: &[u8]) -> bool {
        let (flags, algorithm) = (u16_at(&self.data, 0).unwrap_or(ZONE), SecurityAlgorithm::from_int(self.data[3]));
        let Ok(dnskey) = Dnskey::new(flags, PROTOCOL, algorithm, self.data[4..].to_vec()) else { return false };
        PublicKey::from_dnskey(&dnskey).is_ok_and(|key| key.verify(data, signature).is_ok())
    }
}

/// What vouches for one key of a zone: what a DS record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    tag: u16,
    algorithm: u8,
    /// How it is made: 2 is SHA-256 (RFC 4509), 4 is SHA-384 (RFC 6605).
    kind: u8,
    digest: Box<[u8]>,
}

impl Digest {
    /// Reads the data of a DS record.
    pub(crate) fn read(ds: &[u8]) -> Option<Self> {
        let (tag, algorithm, kind) = (u16_at(ds, 0)?, *ds.get(2)?, *ds.get(3)?);
        Some(Self { tag, algorithm, kind, digest: ds.get(4..)?.into() })
    }

    /// What vouches for this key of a zone.
    pub(crate) fn of(zone: &Name, key: &Key) -> Self {
        let made = digest::digest(&digest::SHA256, &[zone.wire(), &key.data].concat());
        Self { tag: key.tag, algorithm: key.algorithm(), kind: 2, digest: made.as_ref().into() }
    }

    /// Whether it can be checked at all.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.kind, 2 | 4) && ALGORITHMS.contains(&self.algorithm)
    }

    /// Whether it vouches for a key of a zone.
    fn vouches(&self, zone: &Name, key: &Key) -> bool {
        let by = match self.kind {
            2 => &digest::SHA256,
            4 => &digest::SHA384,
            _ => return false,
        };
        self.tag == key.tag
            && self.algorithm == key.algorithm()
            && digest::digest(by, &[zone.wire(), &key.data].concat()).as_ref() == &*self.digest
    }
}

/// The keys of a zone, from the answer to a question for its DNSKEY records (RFC 4035 §5.2), and the seconds for which they may be kept:
/// all of them, since one that `digests` vouch for has signed the set.
///
/// # Errors
/// With the reason not to believe them.
pub(crate) fn keys_of(
    zone: &Name,
    digests: &[Digest],
    records: &[Expanded],
    now: u32,
) -> Result<(Vec<Key>, u32), Fault> {
    let told =
        |record: &&Expanded| record.section == Section::Answer && record.rtype == kind::DNSKEY && record.owner == *zone;
    let set: Vec<&Expanded> = records.iter().filter(told).collect();
    if set.is_empty() {
        return Err(Fault::Missing);
    }
    if set.len() > MOST_KEYS {
        return Err(Fault::Effort);
    }
    let keys: Vec<Key> = set.iter().filter_map(|record| Key::read(&record.rdata)).collect();
    let is_vouched = |key: &&Key| digests.iter().any(|digest| digest.vouches(zone, key));
    let vouched: Vec<Key> = keys.iter().filter(is_vouched).cloned().collect();
    if vouched.is_empty() {
        return Err(Fault::Key);
    }
    let seconds = verify(&set, records.iter(), zone, &vouched, now, &mut Effort::of_message())?.seconds;
    Ok((keys, seconds))
}
