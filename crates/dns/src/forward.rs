//! Asking upstreams: whom, in which order, how often, and who waits for the answer.
//!
//! Clients that ask what is being asked already wait for the same flight, whoever of them is served first.

mod ask;
mod bailiwick;
mod budget;
mod cookie;
mod denials;
pub(crate) mod flights;
mod host;
mod journey;
mod manners;
mod private;
mod proofs;
#[cfg(test)]
mod tests;
mod trust;
mod upstreams;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};

pub use host::{HostError, host_addrs, host_query};
pub use upstreams::Upstreams;

use crate::{
    answer::Answer,
    cache::Key,
    chain::{Config, ForwardOptions, Plugin, UpstreamAddr, UpstreamTransport},
    forward::{
        flights::{Flights, Full},
        journey::journey,
        proofs::Proofs,
    },
    message::{CLASS_IN, Head, UDP_SIZE, Upstream, question, rtype},
    name::Name,
    server::{Failure, Look, Parts, Query, Reply, Secure, lock},
};

/// How often a question is sent before its clients get SERVFAIL; more often where there are more upstreams.
pub const ATTEMPTS: usize = 3;
/// The longest that an upstream may be silent until another one is asked besides; checks of upstreams end after it.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a question is asked in all: it ends before a stub resolver's own five seconds do (resolv.conf(5), `timeout`).
pub const PATIENCE: Duration = Duration::from_millis(4500);
/// The most questions in flight where the Corefile sets no `max_concurrent`.
pub const MAX_FLIGHTS: usize = 1000;

/// A query as we send it: EDNS where `edns` says so.
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

/// What it takes to ask an upstream over TLS; none where it is asked in plain. The certificate has to be for the name that the Corefile
/// says, or else for that by which it writes the upstream, be it a host's name or an address.
fn secure(options: &ForwardOptions, upstream: &UpstreamAddr) -> Option<Secure> {
    let own = match &upstream.transport {
        UpstreamTransport::Tls { server_name } => server_name.clone(),
        UpstreamTransport::Https { .. } | UpstreamTransport::Grpc { encrypted: true } => None,
        UpstreamTransport::Plain | UpstreamTransport::Grpc { encrypted: false } => return None,
    };
    let name = own.or_else(|| options.tls_server_name.clone()).or_else(|| upstream.host.clone());
    Some(Secure { files: options.tls.clone(), name })
}

/// What it takes to ask all upstreams over TLS that a configuration names.
pub fn secured(config: &Config) -> impl Iterator<Item = Secure> {
    let plugins = config.blocks.iter().flat_map(|chain| &chain.plugins);
    plugins.flat_map(|plugin| {
        let options = match plugin {
            Plugin::Forward(options) => options.clone(),
            Plugin::Grpc(options) => options.as_forward(),
            Plugin::Etcd(options) => {
                return options.tls.iter().map(|files| Secure { files: files.clone(), name: None }).collect();
            }
            _ => return Vec::new(),
        };
        options.upstreams.iter().filter_map(|upstream| secure(&options, upstream)).collect::<Vec<_>>()
    })
}

/// Whether a client would rather be asked for over TCP.
#[must_use]
pub fn wants_tcp(head: &Head) -> bool {
    head.limit == u16::MAX
}

/// What an upstream's answer is for all who wait for it.
type Landed = Result<Arc<Upstream>, Failure>;

/// The upstreams of one `forward` plugin, with the questions that they are being asked.
#[derive(Clone)]
pub struct Crew {
    upstreams: Arc<Upstreams>,
    flights: Arc<Flights<Key, Landed>>,
    /// What is proved not to exist, where the Corefile wants that to be used.
    proofs: Option<Arc<Proofs>>,
    parts: Parts,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("upstreams", &self.upstreams).finish_non_exhaustive()
    }
}

impl Crew {
    /// Upstreams that are asked nothing yet.
    #[must_use]
    pub fn new(upstreams: Arc<Upstreams>, parts: Parts) -> Self {
        let options = upstreams.options();
        // Where another answer may follow a denial, there is no use in being quick with one.
        let last = options.next.is_empty() && !options.next_on_nodata && options.failover.is_empty();
        let proofs = (options.nsec > 0 && last).then(|| Arc::new(Proofs::new(options)));
        Self { upstreams, flights: Arc::default(), proofs, parts }
    }

    /// The upstreams.
    #[must_use]
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Has those that failed asked whether they are up again, where that is due.
    pub fn check(&self) {
        self.upstreams.check(&self.parts);
    }

    /// How many questions they are being asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.flights.len()
    }

    /// The denial of what is proved not to exist. Who checks signatures itself (CD) gets what the upstream says.
    #[must_use]
    pub fn denied(&self, look: &Look<'_>) -> Option<Answer> {
        let proofs = self.proofs.as_ref().filter(|_| look.qclass == CLASS_IN && !look.head.checking_disabled())?;
        let denied = lock(&proofs.denials).deny(look.name, look.qtype, look.head.dnssec_ok(), look.now)?;
        if proofs.is_private(look.name) {
            return None;
        }
        self.parts.metrics.upstreams.denied();
        Some(denied)
    }

    /// Asks a question, or waits for the answer where it is being asked already.
    ///
    /// # Errors
    /// When nobody answered, may be asked, or too much is being asked.
    pub async fn ask(&self, query: &Query, tcp: bool) -> Result<Reply, Failure> {
        let (signed, unchecked) = (query.head.dnssec_ok(), query.head.checking_disabled());
        // Proofs come to those who ask for signatures.
        let proves = self.proofs.is_some() && !unchecked;
        let ask = question(query.name.wire(), query.qtype);
        let key = Key::new(&ask, signed || proves, unchecked).with(&query.onward);
        let upstream = self.fly(&key, tcp)?.await?;
        if let Some(from) = upstream.from.clone() {
            let _ = query.asked.upstream.set(from);
        }
        let mut answer = upstream.answer.clone();
        if proves && !signed {
            answer = denials::plain(&Name::from_query(&query.name), query.qtype, &answer);
        }
        Ok(Reply { answer, truncated: upstream.truncated, fresh: false })
    }

    /// The answer to a question, which is asked unless it is already. What it proves is taken in once for all who wait.
    fn fly(&self, key: &Key, tcp: bool) -> Result<impl Future<Output = Landed> + Send + use<>, Failure> {
        let configured = self.upstreams.options().max_concurrent;
        let journey = || -> BoxFuture<'static, Landed> {
            let (crew, asked) = (self.clone(), key.clone());
            let journey = journey(Arc::clone(&self.upstreams), self.parts.clone(), key.clone(), tcp);
            Box::pin(journey.inspect(move |landed| {
                // Who checks signatures itself (CD) is told what nobody has looked at.
                if let Ok(upstream) = landed
                    && !asked.checking_disabled()
                {
                    crew.take_in(&asked, upstream);
                }
            }))
        };
        self.flights.join(key, configured.unwrap_or(MAX_FLIGHTS), journey).map_err(|Full| {
            self.parts.metrics.rejected();
            if configured.is_some() { Failure::Configured } else { Failure::TooMany }
        })
    }
}
