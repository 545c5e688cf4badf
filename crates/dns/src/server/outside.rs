//! What the server asks of its surroundings: it sends nothing, waits for nothing and knows no time by itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;

use podnet_model::Namespace;

use crate::{
    chain::{EtcdOptions, TlsFiles},
    destination::Destination,
    etcd::{Entry, Keys, Store},
    message::{HEADER, Rcode, flag, u16_at},
    name::Name,
    plugin::Challenges,
};

use super::{Debugger, Transport};

/// A message that has to be sent to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whom to ask, from a socket of its own with a random port.
    pub upstream: Destination,
    /// How.
    pub transport: Transport,
    /// What carries it over a connection.
    pub carrier: Carrier,
    /// What is needed to speak TLS on the connection (RFC 7858).
    pub secure: Option<Arc<Secure>>,
    /// What becomes of the connection.
    pub keep: Keep,
    /// It was asked in vain before: not over a connection that is there, which may be dead.
    pub fresh: bool,
    /// The message; over TCP its length has to go before it.
    pub message: Vec<u8>,
    /// When to give up.
    pub timeout: Duration,
    /// Who hears of what comes and is no answer to it.
    pub debug: Debugger,
}

/// What carries messages over a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// DNS itself (RFC 7766).
    #[default]
    Dns,
    /// Requests of HTTP (RFC 8484).
    Https {
        /// The path of the URL.
        path: String,
        /// By GET rather than by POST.
        get: bool,
    },
    /// Calls of gRPC, as CoreDNS speaks it.
    Grpc,
}

/// How a server is asked over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Secure {
    /// Certificates, in PEM.
    pub files: TlsFiles,
    /// The name that the server's certificate is for; none: its address.
    pub name: Option<Name>,
}

/// How long connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// This long without a query.
    pub idle: Duration,
    /// This long at most, with queries; none: for as long as they last.
    pub age: Option<Duration>,
    /// The most to one upstream; none: any number.
    pub most: Option<usize>,
}

impl Exchange {
    /// A message to a server in plain text, whose connection, if there is one, is for this message alone.
    #[must_use]
    pub fn plain(upstream: SocketAddr, transport: Transport, message: Vec<u8>, timeout: Duration) -> Self {
        let keep = Keep { idle: Duration::ZERO, age: None, most: Some(0) };
        let upstream = upstream.into();
        let (carrier, debug) = (Carrier::Dns, Debugger::default());
        Self { upstream, transport, carrier, secure: None, keep, fresh: true, message, timeout, debug }
    }

    /// Whether a message that came from the upstream can be what is waited for: with the query's id, for the query's question.
    ///
    /// What is not is somebody's guess, and the true answer may still come. The bare header with which servers from before EDNS
    /// refuse it (RFC 6891 §7) can be the answer, too.
    #[must_use]
    pub fn accepts(&self, message: &[u8]) -> bool {
        let Some(flags) = u16_at(message, 2) else { return false };
        if message.get(..2) != self.message.get(..2) || flags & flag::QR == 0 {
            return false;
        }
        if flags & flag::RCODE == Rcode::FORMERR.0 {
            return true;
        }
        let Ok((_, end)) = crate::name::QueryName::parse(&self.message, HEADER) else { return false };
        let (asked, told) = (self.message.get(HEADER..end + 4), message.get(HEADER..end + 4));
        u16_at(message, 4) == Some(1) && asked.zip(told).is_some_and(|(asked, told)| asked.eq_ignore_ascii_case(told))
    }
}

/// The search path of a pod that has the cluster's: `NAMESPACE.svc.DOMAIN`, `svc.DOMAIN`, `DOMAIN`, and what stands behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSearch {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// What its node, and the pod itself (`dnsConfig.searches`), have beside.
    pub behind: Vec<Name>,
}

/// A store that never answers: for surroundings that have none.
struct NoStore;

impl Store for NoStore {
    fn find(&self, _: Keys) -> BoxFuture<'static, io::Result<Vec<Entry>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// Takes the messages of a long answer one by one; false: that was the last one.
pub type Take = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// The surroundings of a server.
pub trait Outside: Send + Sync {
    /// Sends a message and waits for the first one that the exchange accepts.
    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, io::Result<Vec<u8>>>;
    /// Sends a message over a connection and hands on the messages that come back, until `take` wants no more. The timeout is for
    /// each of them.
    fn converse(&self, exchange: Exchange, take: Take) -> BoxFuture<'static, io::Result<()>>;
    /// Is done after a time.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
    /// Does something that nobody waits for.
    fn spawn(&self, work: BoxFuture<'static, ()>);
    /// What this machine is called.
    fn host(&self) -> String;
    /// The time.
    fn now(&self) -> Instant;
    /// The time of the day, in seconds since 1970: what cookies carry, and what signatures are about.
    fn unix(&self) -> u64;
    /// A number that nobody can guess: ids of queries, and choices.
    fn random(&self) -> u64;
    /// The store that a Corefile's `etcd` names.
    fn store(&self, _options: &EtcdOptions) -> Arc<dyn Store> {
        Arc::new(NoStore)
    }
    /// What authorities are to be told that ask whether domains are this server's (`tls { acme … }`).
    fn challenges(&self) -> Option<Arc<Challenges>> {
        None
    }
    /// The search path of a client, where it is known that its resolver has just that one (`searchpath`).
    fn search_of(&self, _client: IpAddr) -> Option<Arc<ClientSearch>> {
        None
    }
    /// Whether a namespace that [`Outside::search_of`] told has a Service of this name, in lower case (`searchpath`). Who does not
    /// know says that it has.
    fn has_service(&self, _namespace: &Namespace, _name: &[u8]) -> bool {
        true
    }
}
