//! Asking upstreams: whom, in which order, how often, and who waits for the answer.
//!
//! Nothing is sent here. A [`Flight`] is one question that is being asked; each attempt is an [`Exchange`] that the shell performs
//! and reports on. Clients that ask what is being asked already wait for the same flight.

mod flights;
mod upstreams;

use std::{net::SocketAddr, time::Duration};

pub use flights::{Again, Attempt, Flight, Flights, Full, Joined, Plan, Waiter};
pub use upstreams::Upstreams;

use crate::{
    message::{Head, UDP_SIZE, flag, rtype},
    server::Transport,
};

/// How often a question is sent before its clients get SERVFAIL.
pub const ATTEMPTS: usize = 3;
/// How long each attempt may take: three of them end before a stub resolver's own five seconds do (resolv.conf(5), `timeout`).
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
/// The most questions in flight where the Corefile sets no `max_concurrent`.
pub const MAX_FLIGHTS: usize = 1000;
/// The most clients that wait for answers, all together.
pub const MAX_WAITERS: usize = 20_000;

/// Which exchange something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ticket {
    /// An attempt to answer clients' question.
    Question(u64),
    /// A check whether an upstream is up again.
    Check {
        /// The server block.
        block: usize,
        /// The forward plugin in it.
        forward: usize,
        /// The upstream.
        upstream: usize,
    },
    /// A look whether an upstream asks this very server.
    Loop,
}

/// A message that has to be sent to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Names it when its end is reported.
    pub ticket: Ticket,
    /// Whom to ask, from a socket of its own with a random port.
    pub upstream: SocketAddr,
    /// How.
    pub transport: Transport,
    /// The message; over TCP its length has to go before it.
    pub message: Vec<u8>,
    /// When to give up.
    pub timeout: Duration,
}

/// A query as we send it: recursion wanted, EDNS where `edns` says so.
#[must_use]
pub fn query(id: u16, question: &[u8], edns: bool, dnssec_ok: bool, flags: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(12 + question.len() + 11);
    for word in [id, flags, 1, 0, 0, u16::from(edns)] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(question);
    if edns {
        message.push(0);
        message.extend_from_slice(&rtype::OPT.to_be_bytes());
        message.extend_from_slice(&UDP_SIZE.to_be_bytes());
        message.extend_from_slice(&[0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    message
}

/// The flags of a query for a client.
fn flags(checking_disabled: bool) -> u16 {
    flag::RD | if checking_disabled { flag::CD } else { 0 }
}

/// Whether a client would rather be asked for over TCP.
#[must_use]
pub fn wants_tcp(head: &Head) -> bool {
    head.limit == u16::MAX
}
