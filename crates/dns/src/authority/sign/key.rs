//! Keys as BIND's tools write them: `K<zone>+<algorithm>+<tag>.key` and `.private`.

use std::borrow::Borrow;

use domain::{
    base::iana::SecurityAlgorithm,
    crypto::sign::{KeyPair, SecretKeyBytes, SignRaw as _},
    rdata::Dnskey,
};
use ring::digest;

use super::signature::CannotSign;
use crate::{
    authority::{
        record::kind,
        zonefile::{self, ZoneFileError},
    },
    message::u16_at,
    name::Name,
};

/// The flag of keys that a parent's DS record points to (RFC 4034 §2.1.1).
const SEP: u16 = 1;

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The public key is no zone file.
    #[error("the public key: {0}")]
    Public(#[from] ZoneFileError),
    /// It is one with other records.
    #[error("the public key's file has {found} records, allowed: one, of type DNSKEY")]
    Records {
        /// How many.
        found: usize,
    },
    /// It is no zone key.
    #[error("the key's flags are {found}, allowed: 256 (a zone's key) or 257 (one that the parent points to)")]
    Flags {
        /// The flags.
        found: u16,
    },
    /// The private key cannot be read.
    #[error("the private key: {0}")]
    Private(String),
    /// The halves do not fit together, or the algorithm is none of those that can be used.
    #[error(
        "the private key does not fit the public key with tag {tag}: {reason}; algorithms that can be used: 8 (RSASHA256), \
             10 (RSASHA512), 13 (ECDSAP256SHA256), 14 (ECDSAP384SHA384), 15 (ED25519)"
    )]
    Pair {
        /// The public key's tag.
        tag: u16,
        /// What the library says.
        reason: String,
    },
}

/// A key that signs.
#[derive(Debug)]
pub struct SigningKey {
    owner: Name,
    dnskey: Box<[u8]>,
    tag: u16,
    pair: KeyPair,
}

impl SigningKey {
    /// Reads a key from the texts of its two files.
    ///
    /// # Errors
    /// When one of them is not what it should be, or they do not fit together.
    pub fn from_bind(public: &str, private: &str) -> Result<Self, KeyError> {
        // A key's file may leave the time to live out.
        let text = format!("$TTL 3600\n{public}");
        let none = |_: &str| Err(std::io::ErrorKind::Unsupported.into());
        let mut records = zonefile::parse("key", &text, &Name::root(), &none)
            .map_err(|mut error| {
                error.place.line -= 1;
                error
            })?
            .records;
        let found = records.len();
        let Some(record) = records.pop().filter(|record| found == 1 && record.rtype == kind::DNSKEY) else {
            return Err(KeyError::Records { found });
        };
        let flags = u16_at(&record.rdata, 0).unwrap_or(0);
        // Bit 7: a zone's key; bit 8: revoked (RFC 5011 §7).
        if flags & 0x0180 != 0x0100 {
            return Err(KeyError::Flags { found: flags });
        }
        let tag = tag(&record.rdata);
        let pair_error = |reason: String| KeyError::Pair { tag, reason };
        let secret = SecretKeyBytes::parse_from_bind(private).map_err(|error| KeyError::Private(error.to_string()))?;
        let (protocol, algorithm) = (record.rdata[2], SecurityAlgorithm::from_int(record.rdata[3]));
        let public = Dnskey::new(flags, protocol, algorithm, record.rdata[4..].to_vec());
        let public = public.map_err(|error| pair_error(error.to_string()))?;
        if secret.algorithm() != algorithm {
            return Err(pair_error("it is of another algorithm".to_owned()));
        }
        let pair = KeyPair::from_bytes(&secret, &public).map_err(|error| pair_error(error.to_string()))?;
        Ok(Self { owner: record.owner, dnskey: record.rdata, tag, pair })
    }

    /// The zone that it was made for. It may sign others.
    #[must_use]
    pub fn owner(&self) -> &Name {
        &self.owner
    }

    /// The data of its DNSKEY record.
    #[must_use]
    pub fn dnskey(&self) -> &[u8] {
        &self.dnskey
    }

    /// Its tag (RFC 4034 appendix B).
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// Whether a parent's DS record is meant to point to it.
    #[must_use]
    pub fn is_entry_point(&self) -> bool {
        u16_at(&self.dnskey, 0).unwrap_or(0) & SEP != 0
    }

    /// Its algorithm's number.
    #[must_use]
    pub fn algorithm(&self) -> u8 {
        self.dnskey[3]
    }

    /// The data of the DS record that a zone's parent needs for it, with a SHA-256 digest (RFC 4509). CoreDNS's `sign` tells one of
    /// SHA-1 beside it, which none may be made with any more (RFC 9905 §2).
    #[must_use]
    pub fn ds(&self, zone: &Name) -> Vec<u8> {
        let digest = digest::digest(&digest::SHA256, &[zone.wire(), &self.dnskey].concat());
        let mut data = self.tag.to_be_bytes().to_vec();
        data.extend_from_slice(&[self.algorithm(), 2]);
        data.extend_from_slice(digest.as_ref());
        data
    }

    pub(super) fn sign(&self, data: &[u8]) -> Result<Box<[u8]>, CannotSign> {
        self.pair.sign_raw(data).map(Into::into).map_err(|_| CannotSign::Key { tag: self.tag })
    }
}

/// The keys that sign a set: where some are entry points and some are not, the former sign the keys and what tells the parent of
/// them (RFC 7344 §4.1), the latter everything else; otherwise all sign all.
pub(super) fn signers<K: Borrow<SigningKey>>(keys: &[K], rtype: u16) -> impl Iterator<Item = &SigningKey> {
    let keys = keys.iter().map(K::borrow);
    let entries = keys.clone().filter(|key| key.is_entry_point()).count();
    let split = entries > 0 && entries < keys.len();
    let about_keys = matches!(rtype, kind::DNSKEY | kind::CDS | kind::CDNSKEY);
    keys.filter(move |key| !split || key.is_entry_point() == about_keys)
}

/// RFC 4034 appendix B.
pub(crate) fn tag(dnskey: &[u8]) -> u16 {
    let sum: u32 = dnskey.iter().enumerate().map(|(at, byte)| u32::from(*byte) << (8 * (1 - at as u32 % 2))).sum();
    (sum + (sum >> 16)) as u16
}
