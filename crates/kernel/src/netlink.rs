//! Requests to the kernel over netlink (`netlink(7)`) and their answers.
//!
//! A [`Request`] is one operation with the words that an error about it needs. [`RtSocket`] sends one or many: a batch is one `send`,
//! and every request in it is acknowledged on its own. A batch is not a transaction; requests after a refused one are still done.

pub(crate) mod attribute;
pub(crate) mod batch;
mod connection;
mod error;
pub(crate) mod generic;
mod request;
mod rt_socket;

pub(crate) use connection::{Connection, Frame, News, Refusal};
pub use error::{BatchError, NetlinkError, Operation};
pub use request::Request;
pub use rt_socket::{Replies, RtSocket};

#[cfg(test)]
mod tests;
