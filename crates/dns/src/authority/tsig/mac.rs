//! Keys and what they sign with (RFC 8945 §6).

use hmac::{Hmac, Mac as _};
use ring::hmac as fast;
use sha2::Sha224;

use crate::name::Name;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC-SHA-1, for old peers.
    Sha1,
    /// HMAC-SHA-224.
    Sha224,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-384.
    Sha384,
    /// HMAC-SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in messages and configuration, without the final dot.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Sha1 => "hmac-sha1",
            Self::Sha224 => "hmac-sha224",
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    /// The algorithm of a name; a final dot is allowed. HMAC-MD5 has none here: RFC 8945 §6 tells not to use it.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        Self::ALL.into_iter().find(|algorithm| algorithm.text().eq_ignore_ascii_case(text))
    }

    /// The name on the wire.
    pub(super) fn wire(self) -> Vec<u8> {
        let text = self.text().as_bytes();
        [&[text.len() as u8], text, &[0]].concat()
    }
}

/// A shared secret.
#[derive(Clone)]
pub struct Key {
    name: Name,
    algorithm: Algorithm,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Fast(fast::Key),
    Sha224(Box<[u8]>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret stays one.
        f.debug_struct("Key").field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// A key from its secret's bytes.
    #[must_use]
    pub fn new(name: Name, algorithm: Algorithm, secret: &[u8]) -> Self {
        let fast = |kind| Secret::Fast(fast::Key::new(kind, secret));
        let secret = match algorithm {
            Algorithm::Sha1 => fast(fast::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::Sha224 => Secret::Sha224(secret.into()),
            Algorithm::Sha256 => fast(fast::HMAC_SHA256),
            Algorithm::Sha384 => fast(fast::HMAC_SHA384),
            Algorithm::Sha512 => fast(fast::HMAC_SHA512),
        };
        Self { name, algorithm, secret }
    }

    /// A key from its secret in base 64, as configuration has it; none when it is not that.
    #[must_use]
    pub fn from_base64(name: Name, algorithm: Algorithm, secret: &str) -> Option<Self> {
        let secret = data_encoding::BASE64.decode(secret.trim().as_bytes()).ok()?;
        Some(Self::new(name, algorithm, &secret))
    }

    /// What it is called; both sides use the same name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn sign(&self, data: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Fast(key) => fast::sign(key, data).as_ref().to_vec(),
            Secret::Sha224(secret) => {
                sha224(secret).map(|mac| mac.chain_update(data).finalize().into_bytes().to_vec()).unwrap_or_default()
            }
        }
    }

    /// Compares in a time that does not depend on where the difference is.
    pub(super) fn verify(&self, data: &[u8], mac: &[u8]) -> bool {
        match &self.secret {
            Secret::Fast(key) => fast::verify(key, data, mac).is_ok(),
            Secret::Sha224(secret) => {
                sha224(secret).is_some_and(|expected| expected.chain_update(data).verify_slice(mac).is_ok())
            }
        }
    }

    pub(super) fn size(&self) -> usize {
        match self.algorithm {
            Algorithm::Sha1 => 20,
            Algorithm::Sha224 => 28,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

/// HMAC takes secrets of any length, so this is never none.
fn sha224(secret: &[u8]) -> Option<Hmac<Sha224>> {
    Hmac::new_from_slice(secret).ok()
}
