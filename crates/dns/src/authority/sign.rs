//! DNSSEC signatures: of whole zones (the `sign` plugin) and of answers on their way (the `dnssec` plugin).
//!
//! Times are seconds since 1970 and come in as arguments. The random number that an ECDSA signature needs for itself is the
//! library's matter.

mod answer;
mod cache;
mod file;
mod key;
mod signature;
#[cfg(test)]
mod tests;
mod zone;

pub use answer::{Online, Told};
pub use file::{UnsignedFile, signed_file};
pub(crate) use key::tag;
pub use key::{KeyError, SigningKey};
pub(crate) use signature::Set;
#[cfg(test)]
pub(crate) use signature::rrsig;
pub use signature::{CannotSign, Validity};
pub use zone::{is_due, sign};
