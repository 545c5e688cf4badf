//! WireGuard's keys.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use curve25519_dalek::{montgomery::MontgomeryPoint, scalar::clamp_integer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The port that nodes listen on where nothing else is said, as WireGuard's tools have it.
pub const DEFAULT_PORT: u16 = 51820;

/// A node's public key (Curve25519, RFC 7748): it may be known to everybody. Written in Base64, 44 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a text that is no key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a WireGuard key is 32 bytes in Base64, 44 characters")]
pub struct InvalidKey;

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        bytes(text).map(Self)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A node's private key. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub [u8; 32]);

impl PrivateKey {
    /// The key in Base64, for its file and nothing else.
    #[must_use]
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(private key)")
    }
}

impl FromStr for PrivateKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        bytes(text).map(Self)
    }
}

fn bytes(text: &str) -> Result<[u8; 32], InvalidKey> {
    STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidKey)
}

/// A private key and the public one that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// What peers know.
    pub public: PublicKey,
    /// What only this node knows.
    pub private: PrivateKey,
}

impl KeyPair {
    /// The pair of a secret of 32 random bytes, whose fixed bits are set as RFC 7748 (section 5) wants and as the kernel does.
    #[must_use]
    pub fn of_secret(secret: [u8; 32]) -> Self {
        let private = clamp_integer(secret);
        Self { public: PublicKey(MontgomeryPoint::mul_base_clamped(private).to_bytes()), private: PrivateKey(private) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_of_a_secret_is_the_one_that_others_find() {
        // As `openssl pkey -pubout` has it.
        let pair = KeyPair::of_secret(std::array::from_fn(|at| u8::try_from(at + 1).unwrap()));
        assert_eq!(pair.public.to_string(), "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=");
        assert_eq!((pair.private.0[0], pair.private.0[31]), (0, 0x60));
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_private_ones_are_not_shown() {
        let text = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
        let public: PublicKey = text.parse().unwrap();
        assert_eq!(public.to_string(), text);
        let json = serde_json::to_string(&public).unwrap();
        assert_eq!((json.as_str(), serde_json::from_str(&json).unwrap()), (&*format!("{text:?}"), public));
        assert!(serde_json::from_str::<PublicKey>("\"AQID\"").is_err());
        let private: PrivateKey = text.parse().unwrap();
        assert_eq!((private.reveal().as_str(), format!("{private:?}").as_str()), (text, "(private key)"));
        for wrong in ["", "AQID", "no key at all", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh"] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(InvalidKey), "{wrong}");
        }
    }
}
