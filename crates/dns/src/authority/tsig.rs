//! Messages signed with shared secrets (TSIG, RFC 8945).
//!
//! A server calls [`Session::accept`] on a query and [`Session::sign`] on each message of its answer; a client starts with
//! [`Session::request`] and calls [`Session::verify`] on what comes back. A query that is not what it should be is answered with
//! [`Refused::answer`].

mod mac;
mod record;
mod session;
#[cfg(test)]
mod tests;

pub use mac::{Algorithm, Key};
pub use session::{Code, Refused, Session, TsigError};
