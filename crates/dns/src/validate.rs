//! Validation (RFC 4033, 4034, 4035, 5155, 6840): from the keys that are trusted from the beginning to those of a zone, and from these
//! to what is signed with them.
//!
//! Nothing is asked for here. Who validates asks for a zone's DS records; `parent` says whose word they are, and with that one's keys
//! `delegation` says which keys the zone has to have, or that nobody vouches for any; `keys_of` reads them from the zone's DNSKEY
//! records. So from the zone up to an [anchor](Anchors), and down again. `verify` checks a set of records.
//!
//! Algorithms are 8 (RSASHA256), 10 (RSASHA512), 13 (ECDSAP256SHA256), 14 (ECDSAP384SHA384) and 15 (ED25519), digests SHA-256 and
//! SHA-384; what is signed in other ways alone counts as not signed (RFC 4035 §5.2). What one message may cost is bounded, be it made
//! to cost much (CVE-2023-50387) or not: see `Effort`.

mod anchors;
mod delegation;
#[cfg(test)]
pub(crate) mod fixture;
mod keys;
mod nsec3;
mod signature;
#[cfg(test)]
mod tests;

pub use anchors::{Anchors, BadAnchors};
pub(crate) use delegation::{Delegation, delegation, parent};
pub(crate) use keys::{Digest, Key, keys_of};
pub(crate) use nsec3::Nsec3;
pub(crate) use signature::{Effort, verify};

/// Why something is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// What should be there is not.
    #[error("what it should have is not there")]
    Missing,
    /// It has no signature.
    #[error("it is not signed")]
    Unsigned,
    /// Another zone has signed it.
    #[error("another zone has signed it")]
    Signer,
    /// It was signed for another name: that of a wildcard which stands for this one.
    #[error("a wildcard stands for it")]
    Wildcard,
    /// Its signature does not hold yet, or not any more.
    #[error("its signature does not hold yet, or not any more")]
    Time,
    /// None of the zone's keys that are trusted has made its signature.
    #[error("no key of the zone that is trusted has signed it")]
    Key,
    /// Its signature is wrong.
    #[error("its signature is wrong")]
    Wrong,
    /// To check it would cost too much.
    #[error("to check it would cost too much")]
    Effort,
}
