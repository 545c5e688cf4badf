//! Zones that this server is the authority of: files, transfers, signatures.
//!
//! [`zonefile`] reads text into [`Record`]s; records make a [`Zone`], which answers ([`Zone::lookup`]). [`transfer`] gives zones away
//! and takes them in, [`catalog`] reads zones that list others, [`tsig`] signs the messages of that with shared secrets, [`sign`] signs
//! zones and answers (DNSSEC).

pub mod catalog;
pub mod held;
mod message;
mod order;
pub(crate) mod rdata;
mod record;
pub mod sign;
pub mod transfer;
pub mod tsig;
pub mod zone;
pub mod zonefile;

pub use held::Held;
pub(crate) use order::compare;
pub use record::Record;
pub(crate) use record::{kind, size};
pub use zone::{Defect, Found, Kind, Soa, Warning, Zone};
pub(crate) use zone::{Nsec3Hash, nsec3_hash};
