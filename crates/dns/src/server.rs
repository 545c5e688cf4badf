//! The server: packets in, packets out, and what to ask upstream in between.
//!
//! [`Server::handle`] answers at once what the hosts table, the cluster's zone and the cache know. What has to be asked becomes an
//! [`Exchange`]; the shell performs it and reports with [`Server::upstream_answered`] or [`Server::upstream_failed`], which say
//! whom to answer. `C` is the shell's way back to a client.

mod exchange;
#[cfg(test)]
pub(crate) mod fixture;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use podnet_model::{Change, Namespace};

pub use crate::forward::{Exchange, Ticket};
use crate::{
    cache::Cache,
    chain::{Chain, Config},
    forward::{Flights, Upstreams},
    message::{Rcode, Reject, Request, rejection, rtype},
    metrics::{Gauges, Metrics},
    name::{Name, QueryName},
    zone::{Cluster, Zone},
};

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// Where a packet came from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The client.
    pub from: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// The port of the Corefile's that it came to.
    pub port: u16,
}

/// What came of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response is in the buffer.
    Answer,
    /// The client gets its response with somebody else's exchange.
    Wait,
    /// The client gets its response when this exchange ends.
    Forward(Exchange),
    /// No response.
    Drop,
}

/// A response for a client that waited.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<C> {
    /// The way back to it.
    pub client: C,
    /// The response.
    pub message: Vec<u8>,
}

/// What follows from the end of an exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<C> {
    /// These are answered.
    Done(Vec<Reply<C>>),
    /// Another exchange is needed.
    Again(Exchange),
    /// The message was not the answer that is waited for: go on listening.
    Ignored,
}

/// Something that the Corefile's `log` and `errors` plugins, or the operator, want to hear of.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A query was answered or passed on (`log`).
    Query {
        /// Who asked.
        from: IpAddr,
        /// What for.
        name: &'a QueryName,
        /// Of which type.
        qtype: &'static str,
        /// How.
        transport: Transport,
    },
    /// A query ends with SERVFAIL or REFUSED (`errors`).
    Failed {
        /// The name that was asked for, in lower-case wire form.
        name: &'a Name,
        /// Why.
        reason: Failure,
    },
    /// An upstream asks this server: it is no longer asked.
    Loop {
        /// The upstream.
        upstream: SocketAddr,
    },
}

/// Why a question could not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No plugin of the chain is responsible.
    #[error("no plugin answers for this name")]
    NoPlugin,
    /// The cluster's state is not known yet.
    #[error("the cluster's state is not known yet")]
    NotSynced,
    /// No upstream answered.
    #[error("no upstream answered")]
    NoAnswer,
    /// All upstreams lead back here.
    #[error("every upstream leads back to this server")]
    AllLoop,
    /// Too many questions are being asked.
    #[error("too many questions are being asked upstream")]
    TooMany,
    /// Aliases lead nowhere.
    #[error("its aliases point at each other")]
    AliasLoop,
}

/// Random numbers: ids of queries and choices.
pub type Random = Box<dyn Fn() -> u16 + Send + Sync>;
/// Hears of events; called on the server's own path, so it has to be quick.
pub type Observer = Box<dyn Fn(&Event<'_>) + Send + Sync>;

/// A server that runs one loaded Corefile.
pub struct Server<C> {
    blocks: Vec<Block>,
    flights: Mutex<Flights<C>>,
    synced: AtomicBool,
    turn: AtomicUsize,
    random: Random,
    observer: Observer,
    metrics: Arc<Metrics>,
    probes: Vec<Probe>,
}

/// A name that only this server asks for: who asks it for that name, forwards to it.
struct Probe {
    name: Name,
    block: usize,
    forward: usize,
    upstream: usize,
}

/// One server block at work.
struct Block {
    chain: Chain,
    zone: Option<RwLock<Zone>>,
    cache: Option<Mutex<Cache>>,
    forwards: Vec<Upstreams>,
}

impl<C> fmt::Debug for Server<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl<C> Server<C> {
    /// A server for a Corefile and what is known of the cluster. `serial` starts the zone's serial numbers: the time in seconds
    /// makes them rise across restarts.
    #[must_use]
    pub fn new(
        config: Config,
        cluster: &Cluster,
        serial: u32,
        metrics: Arc<Metrics>,
        random: Random,
        observer: Observer,
    ) -> Self {
        let blocks: Vec<Block> = config.blocks.into_iter().map(|chain| Block::new(chain, cluster, serial)).collect();
        let probes = probes(&blocks, &random);
        Self {
            blocks,
            flights: Mutex::default(),
            synced: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            random,
            observer,
            metrics,
            probes,
        }
    }

    /// Takes a change of the cluster in. `cluster` is what all servers of this process share.
    pub fn apply(&self, cluster: &mut Cluster, change: &Change) {
        let touched = cluster.apply(change);
        if touched.services.is_empty() && touched.pod.is_none() {
            return;
        }
        for zone in self.zones() {
            zone.write().unwrap_or_else(PoisonError::into_inner).update(&touched, cluster);
        }
    }

    /// A namespace appeared or vanished.
    pub fn namespace(&self, cluster: &mut Cluster, namespace: &Namespace, exists: bool) {
        cluster.namespace(namespace, exists);
        for zone in self.zones() {
            zone.write().unwrap_or_else(PoisonError::into_inner).namespace(namespace, exists);
        }
    }

    /// The whole of the cluster's state has been taken in: what is not there does not exist.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Whether it has.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Numbers that the metrics show beside the counters.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let caches = self.blocks.iter().filter_map(|block| block.cache.as_ref());
        let entries = caches.map(|cache| lock(cache).entries());
        let (cache_success, cache_denial) = entries.fold((0, 0), |sum, entries| (sum.0 + entries.0, sum.1 + entries.1));
        Gauges { cache_success, cache_denial, flights: self.flights().len(), synced: self.synced() }
    }

    /// Answers a packet into `out`, or says what has to happen first.
    pub fn handle(
        &self,
        packet: &[u8],
        arrival: &Arrival,
        now: Instant,
        client: impl FnOnce() -> C,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let request = match Request::parse(packet, arrival.transport) {
            Ok(request) => request,
            Err(Reject::Drop) => {
                self.metrics.dropped();
                return Outcome::Drop;
            }
            Err(Reject::Code { head, rcode, question_end }) => {
                self.metrics.request(arrival.transport, arrival.from.is_ipv4(), 0);
                self.metrics.response(rcode);
                rejection(&head, &packet[crate::message::HEADER..question_end], rcode, out);
                return Outcome::Answer;
            }
        };
        self.metrics.request(arrival.transport, arrival.from.is_ipv4(), request.qtype);
        let Some(index) = self.block(&request.name, arrival.port) else {
            self.metrics.response(Rcode::REFUSED);
            rejection(&request.head, request.question, Rcode::REFUSED, out);
            return Outcome::Answer;
        };
        if self.blocks[index].chain.log {
            let qtype = rtype::mnemonic(request.qtype);
            let (from, name, transport) = (arrival.from.ip(), &request.name, arrival.transport);
            (self.observer)(&Event::Query { from, name, qtype, transport });
        }
        if request.qtype == rtype::HINFO && self.notice_loop(&request.name) {
            // Passing it on would send it round once more.
            self.metrics.response(Rcode::SERVFAIL);
            rejection(&request.head, request.question, Rcode::SERVFAIL, out);
            return Outcome::Answer;
        }
        self.resolve(index, &request, arrival, now, client, out)
    }

    /// The server block that a name belongs to: the one with the longest zone that it lies in.
    fn block(&self, name: &QueryName, port: u16) -> Option<usize> {
        let keys = self.blocks.iter().enumerate();
        let keys = keys.flat_map(|(index, block)| block.chain.keys.iter().map(move |key| (index, key)));
        keys.filter(|(_, key)| key.port == port && name.within(&key.zone).is_some())
            .max_by_key(|(_, key)| key.zone.labels())
            .map(|(index, _)| index)
    }

    fn zones(&self) -> impl Iterator<Item = &RwLock<Zone>> {
        self.blocks.iter().filter_map(|block| block.zone.as_ref())
    }

    fn flights(&self) -> MutexGuard<'_, Flights<C>> {
        lock(&self.flights)
    }

    fn failed(&self, block: usize, name: &Name, reason: Failure) {
        if self.blocks[block].chain.errors {
            (self.observer)(&Event::Failed { name, reason });
        }
    }
}

impl Block {
    fn new(chain: Chain, cluster: &Cluster, serial: u32) -> Self {
        Self {
            zone: chain.kubernetes.clone().map(|options| RwLock::new(Zone::new(options, cluster, serial))),
            cache: chain.cache.clone().map(|options| Mutex::new(Cache::new(options))),
            forwards: chain.forwards.iter().cloned().map(Upstreams::new).collect(),
            chain,
        }
    }
}

fn probes(blocks: &[Block], random: &Random) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (block, runtime) in blocks.iter().enumerate().filter(|(_, block)| block.chain.loop_check) {
        for (forward, upstreams) in runtime.forwards.iter().enumerate() {
            for upstream in 0..upstreams.addrs().len() {
                let label = format!("{:04x}{:04x}{:04x}{:04x}", random(), random(), random(), random());
                if let Ok(name) = upstreams.options().from.child(&label) {
                    probes.push(Probe { name, block, forward, upstream });
                }
            }
        }
    }
    probes
}

/// A lock whose holder panicked is still a lock over plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
