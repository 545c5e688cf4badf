//! Flows: what talks to what, from the kernel's counters to records with names.
//!
//! The kernel counts for each pod interface and five-tuple ([`entry`]); [`aggregate`] makes of what is read there one [`record`] of each flow,
//! however often it is read, whatever bells were lost and however often the reader began anew. Who an address belonged to when a flow began
//! is in [`names`]. What two nodes tell of one flow becomes one in [`ends`]; agents settle in [`joint`] which of them tells it, and what is left between them is in [`parts`]. [`filter`] picks records out, [`output`] prints them, [`store`] keeps the recent past, [`tally`] sums them up,
//! [`export`] has the forms in which collectors take them, [`jsonl`] many of them as lines.
//!
//! [`capture`] is about packets themselves: what is asked of an agent, and the order of what several tell, in the format [`pcapng`].
//! [`probe`] is about one packet that is sent to see where it passes.
//!
//! Time is an argument everywhere.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod aggregate;
mod beyond;
pub mod capture;
mod drops;
pub mod ends;
pub mod entry;
pub mod export;
pub mod filter;
mod gap;
pub mod joint;
pub mod jsonl;
pub mod names;
mod numbered;
pub mod output;
pub mod parts;
pub mod pcapng;
pub mod probe;
pub mod record;
mod refusal;
pub mod store;
pub mod tally;
#[cfg(test)]
mod testing;
mod verdict;

pub use aggregate::{Aggregator, Translations};
pub use beyond::Beyond;
pub use entry::{Entry, EntryKey, IcmpError, Transport, Way};
pub use filter::Filter;
pub use joint::Joint;
pub use names::{Names, PodIdentity};
pub use numbered::{Ahead, NoRecordId, Numbered, RecordId};
pub use record::{Cause, Class, Direction, Drops, Gap, Interface, Item, Key, Record, Report, Reporter, Verdict};
pub use refusal::{Refusal, Unserved};
pub use store::Store;
pub use tally::Tally;
