//! Zones that this server is the authority of: files, transfers, signatures.
//!
//! [`zonefile`] reads text into [`Record`]s; records make a [`Zone`], which answers ([`Zone::lookup`]).

mod message;
mod order;
mod rdata;
mod record;
pub mod zone;
pub mod zonefile;

pub use record::Record;
pub use zone::{Defect, Found, Kind, Soa, Warning, Zone};
