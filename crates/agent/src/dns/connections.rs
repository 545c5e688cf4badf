//! Connections to upstreams: kept for a while, and shared by questions that are asked at the same time (RFC 7766 §6.2.1).

mod line;
mod requests;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use podnet_dns::{Carrier, Destination, Exchange, Secure, metrics::Metrics};

use line::Line;
use requests::Requests;

/// The most questions on one connection at once; beyond it another one is opened.
const SHARED: usize = 64;
/// The most connections to one upstream. Beyond it those that are there are shared by more.
const MOST: usize = 32;
/// For how long a connection that was opened for a question that is asked again serves other such questions: where many are, they must not
/// become as many connections.
const NEW: Duration = Duration::from_secs(1);

/// Whom a connection leads to, and how it is secured.
type Place = (Destination, Option<Arc<Secure>>);

/// The connections that are open.
#[derive(Debug)]
pub(super) struct Connections {
    open: Mutex<HashMap<Place, Vec<Arc<Line>>>>,
    requests: Requests,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// None yet.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { open: Mutex::default(), requests: Requests::default(), metrics }
    }

    /// Sends a message over a connection that is there or a new one, and waits for the answer.
    ///
    /// # Errors
    /// When there is no connection, or it ends before the answer comes.
    pub(super) async fn exchange(&self, exchange: &Exchange) -> io::Result<Vec<u8>> {
        let proto = match exchange.carrier {
            Carrier::Dns => None,
            Carrier::Https { .. } => Some("https"),
            Carrier::Grpc => Some("grpc"),
        };
        if let Some(proto) = proto {
            return self.requests.exchange(exchange, proto, &self.metrics).await;
        }
        let (line, kept) = self.line(exchange, |line| !exchange.fresh || (line.is_new() && !is_alone(exchange)))?;
        let mut answered = line.ask(exchange).await;
        if answered.is_err() && kept && line.was_open() {
            // The other side may close a connection at any time: that says nothing about the question.
            answered = self.line(exchange, |_| false)?.0.ask(exchange).await;
        }
        self.trim(exchange);
        answered
    }

    /// A connection for a message, and whether it was there already: one that `suits` it, or a new one as long as there may be more.
    fn line(&self, exchange: &Exchange, suits: impl Fn(&Line) -> bool) -> io::Result<(Arc<Line>, bool)> {
        let proto = if exchange.secure.is_some() { "tcp-tls" } else { "tcp" };
        let mut open = lock(&self.open);
        open.retain(|_, lines| {
            lines.retain(|line| !line.closed());
            !lines.is_empty()
        });
        let lines = open.entry(place(exchange)).or_default();
        // Those who wait for an answer on it still get it.
        lines.extract_if(.., |line| line.is_older_than(exchange.keep.age)).for_each(|line| line.retire());
        let full = lines.len() >= MOST;
        let free = lines.iter().filter(|line| line.takes_more()).map(|line| (line.load(), line));
        let free = free.filter(|(load, line)| full || (*load < SHARED && suits(line)));
        let free = free.min_by_key(|(load, _)| *load).map(|(_, line)| Arc::clone(line));
        self.metrics.upstreams.connection(&exchange.upstream, proto, free.is_some());
        if let Some(line) = free {
            return Ok((line, true));
        }
        if full {
            return Err(io::Error::other("all connections to the upstream are silent, and there may be no more"));
        }
        let line = Line::open(place(exchange), exchange.keep.idle, exchange.fresh && !is_alone(exchange));
        lines.push(Arc::clone(&line));
        Ok((line, false))
    }

    /// Closes what is idle beyond the number that the Corefile allows.
    fn trim(&self, exchange: &Exchange) {
        let Some(most) = exchange.keep.most else { return };
        let open = lock(&self.open);
        let Some(lines) = open.get(&place(exchange)) else { return };
        let idle = lines.iter().filter(|line| !line.closed() && line.load() == 0);
        idle.skip(most).for_each(|line| line.end());
    }
}

/// What is needed to speak TLS with another server, from the files that the Corefile names.
///
/// # Errors
/// When a file cannot be read, or is not what it should be.
pub(super) fn client(secure: &Secure) -> io::Result<Arc<rustls::ClientConfig>> {
    tls::client(secure, &[])
}

/// Tells what is wrong with what is needed to speak TLS with an upstream, before it is asked.
pub(super) fn check(secure: &Secure) -> Result<(), String> {
    client(secure).map(drop).map_err(|error| error.to_string())
}

fn place(exchange: &Exchange) -> Place {
    (exchange.upstream.clone(), exchange.secure.clone())
}

/// Whether a message is to have a connection for itself ([`Exchange::plain`]).
fn is_alone(exchange: &Exchange) -> bool {
    exchange.fresh && exchange.keep.most == Some(0)
}

/// A lock whose holder panicked is still a lock over plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
