//! Questions that are being asked.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use super::{ATTEMPT_TIMEOUT, ATTEMPTS, Exchange, MAX_FLIGHTS, MAX_WAITERS, Ticket, flags, query};
use crate::{answer::Alias, cache::Key, message::Head, server::Transport};

/// A client that waits for an answer.
#[derive(Debug)]
pub struct Waiter<C> {
    /// What its response repeats.
    pub head: Head,
    /// Its question, as it spelled it.
    pub question: Box<[u8]>,
    /// The aliases that led from its question to the one that is asked.
    pub aliases: Vec<Alias>,
    /// The server block that it asked.
    pub block: usize,
    /// The way back to it.
    pub client: C,
}

/// One question that is being asked.
#[derive(Debug)]
pub struct Flight<C> {
    /// The question.
    pub key: Key,
    /// The server block whose upstreams are asked.
    pub block: usize,
    /// The forward plugin in it.
    pub forward: usize,
    /// Who waits.
    pub waiters: Vec<Waiter<C>>,
    order: Vec<usize>,
    addrs: Box<[SocketAddr]>,
    attempts: usize,
    id: u16,
    edns: bool,
    transport: Transport,
}

/// The attempt that a flight is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The upstream's place among those of its forward plugin.
    pub upstream: usize,
    /// Its address.
    pub addr: SocketAddr,
    /// The query's id.
    pub id: u16,
    /// How it was asked.
    pub transport: Transport,
    /// The query had an OPT record.
    pub edns: bool,
}

/// A question that somebody wants asked.
pub struct Plan<'a> {
    /// The question.
    pub key: Key,
    /// The server block whose upstreams are asked.
    pub block: usize,
    /// The forward plugin in it.
    pub forward: usize,
    /// The upstreams.
    pub upstreams: &'a [SocketAddr],
    /// Their order for a new flight.
    pub order: &'a dyn Fn() -> Vec<usize>,
    /// How the first attempt goes.
    pub transport: Transport,
    /// The plugin's bound on questions in flight.
    pub max_concurrent: Option<usize>,
}

/// What came of asking to wait.
#[derive(Debug)]
pub enum Joined {
    /// The question is being asked already.
    Waiting,
    /// The first one to ask: this has to be sent.
    Send(Exchange),
}

/// No more questions can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The plugin's own `max_concurrent` is reached.
    Configured,
    /// The server's bound on questions or clients is reached.
    Server,
    /// There is no upstream that may be asked.
    NoUpstream,
}

/// How to ask once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The same upstream over TCP: the answer was cut.
    OverTcp,
    /// The same upstream without an OPT record: it does not understand it (RFC 6891 §6.2.2).
    WithoutEdns,
    /// The next upstream.
    Elsewhere(Transport),
}

/// All questions that are being asked.
#[derive(Debug)]
pub struct Flights<C> {
    open: HashMap<u64, Flight<C>>,
    by_key: HashMap<(usize, usize, Key), u64>,
    counts: HashMap<(usize, usize), usize>,
    waiters: usize,
    next: u64,
}

impl<C> Default for Flights<C> {
    fn default() -> Self {
        Self { open: HashMap::new(), by_key: HashMap::new(), counts: HashMap::new(), waiters: 0, next: 0 }
    }
}

impl<C> Flights<C> {
    /// Lets a client wait for the answer to a question, which is asked when nobody asks it yet.
    ///
    /// # Errors
    /// When there is no room, or nobody to ask.
    pub fn join(&mut self, plan: Plan<'_>, waiter: impl FnOnce() -> Waiter<C>, id: u16) -> Result<Joined, Full> {
        if self.waiters >= MAX_WAITERS {
            return Err(Full::Server);
        }
        let count = self.counts.entry((plan.block, plan.forward)).or_default();
        let entry = match self.by_key.entry((plan.block, plan.forward, plan.key.clone())) {
            Entry::Occupied(entry) => {
                if let Some(flight) = self.open.get_mut(entry.get()) {
                    flight.waiters.push(waiter());
                    self.waiters += 1;
                }
                return Ok(Joined::Waiting);
            }
            Entry::Vacant(entry) => entry,
        };
        if *count >= plan.max_concurrent.unwrap_or(MAX_FLIGHTS) {
            return Err(if plan.max_concurrent.is_some() { Full::Configured } else { Full::Server });
        }
        let order = (plan.order)();
        if order.is_empty() {
            return Err(Full::NoUpstream);
        }
        let flight = Flight {
            key: plan.key,
            block: plan.block,
            forward: plan.forward,
            waiters: vec![waiter()],
            order,
            addrs: plan.upstreams.into(),
            attempts: 1,
            id,
            edns: true,
            transport: plan.transport,
        };
        let ticket = self.next;
        self.next += 1;
        *count += 1;
        self.waiters += 1;
        entry.insert(ticket);
        let exchange = flight.exchange(ticket);
        self.open.insert(ticket, flight);
        Ok(Joined::Send(exchange))
    }

    /// The flight of a ticket.
    #[must_use]
    pub fn flight(&self, ticket: u64) -> Option<&Flight<C>> {
        self.open.get(&ticket)
    }

    /// Asks once more, with a new id. None when enough was asked.
    pub fn again(&mut self, ticket: u64, how: Again, id: u16) -> Option<Exchange> {
        let flight = self.open.get_mut(&ticket)?;
        match how {
            Again::OverTcp => flight.transport = Transport::Tcp,
            Again::WithoutEdns => flight.edns = false,
            Again::Elsewhere(transport) => {
                if flight.attempts >= ATTEMPTS {
                    return None;
                }
                flight.attempts += 1;
                (flight.edns, flight.transport) = (true, transport);
            }
        }
        flight.id = id;
        Some(flight.exchange(ticket))
    }

    /// Ends a flight.
    pub fn land(&mut self, ticket: u64) -> Option<Flight<C>> {
        let flight = self.open.remove(&ticket)?;
        self.by_key.remove(&(flight.block, flight.forward, flight.key.clone()));
        if let Some(count) = self.counts.get_mut(&(flight.block, flight.forward)) {
            *count -= 1;
        }
        self.waiters -= flight.waiters.len();
        Some(flight)
    }

    /// How many questions are being asked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl<C> Flight<C> {
    /// The attempt that it is at.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        let upstream = self.order[(self.attempts - 1) % self.order.len()];
        Attempt { upstream, addr: self.addrs[upstream], id: self.id, transport: self.transport, edns: self.edns }
    }

    fn exchange(&self, ticket: u64) -> Exchange {
        let Attempt { addr, id, transport, edns, .. } = self.attempt();
        let flags = flags(self.key.checking_disabled());
        Exchange {
            ticket: Ticket::Question(ticket),
            upstream: addr,
            transport,
            message: query(id, self.key.question(), edns, self.key.dnssec_ok(), flags),
            timeout: ATTEMPT_TIMEOUT,
        }
    }
}
