//! The server: packets in, packets out, and what to ask of others in between.
//!
//! [`Server::handle`] answers at once what the links of a chain know by themselves: the hosts table, the cluster's zone, the cache.
//! What takes time becomes a [`Later`], which the shell hands to [`Server::finish`]; that is a future without a runtime, sockets or
//! a clock of its own: it asks upstreams, and waits, through [`Outside`].

mod arrange;
mod block;
#[cfg(test)]
pub(crate) mod fixture;
mod link;
mod outside;
mod pen;
mod probe;
mod query;
#[cfg(test)]
mod tests;
mod view;

use std::{
    cmp::Reverse,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::future::ready;
use podnet_model::{Change, Namespace, labels::Labels};

pub use block::Parts;
pub use link::{Answering, Knowing, Link, Next, Own, Quick, Said};
pub use outside::{Exchange, Keep, Outside, Secure};
pub use pen::{FlagChange, Pen, Shape};
pub use query::{Arrival, Failure, Look, Query, Reply, Transport};

use crate::{
    answer::Answer,
    chain::Config,
    forward::Crew,
    message::{CLASS_IN, HEADER, Rcode, Reject, Request, rejection, rtype},
    metrics::{Gauges, Metrics},
    name::{Name, QueryName},
    server::{
        block::{Block, PlaceInLine},
        probe::Probe,
    },
    zone::{Cluster, External, Zone},
};

/// The most clients that wait for answers, all together; beyond it they are told SERVFAIL at once.
pub const MAX_WAITERS: usize = 20_000;
/// How many questions of its own the server asks itself for one of a client's: the aliases that are followed. As CoreDNS.
const MAX_DEPTH: u8 = 8;

/// What came of a packet.
#[derive(Debug)]
pub enum Outcome {
    /// The response is in the buffer.
    Answer,
    /// It takes time: [`Server::finish`] has the response.
    Later(Box<Later>),
    /// No response.
    Drop,
}

/// A question whose answer takes time.
#[derive(Debug)]
pub struct Later {
    query: Query,
    block: usize,
    /// The first link that has to do with it.
    link: usize,
    /// Held until the answer is there.
    _place: PlaceInLine,
}

/// Something that the Corefile's `log` and `errors` plugins, or the operator, want to hear of.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A query came (`log`).
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

/// Hears of events; called on the server's own path, so it has to be quick.
pub type Observer = Box<dyn Fn(&Event<'_>) + Send + Sync>;

/// A server that runs one loaded Corefile.
pub struct Server {
    blocks: Vec<Block>,
    turn: AtomicUsize,
    parts: Parts,
    observer: Observer,
    probes: Vec<Probe>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl Server {
    /// A server for a Corefile and what is known of the cluster. `serial` starts the zone's serial numbers: the time in seconds
    /// makes them rise across restarts.
    #[must_use]
    pub fn new(
        config: Config,
        cluster: &Cluster,
        serial: u32,
        metrics: Arc<Metrics>,
        outside: Arc<dyn Outside>,
        observer: Observer,
    ) -> Self {
        let parts =
            Parts { host: outside.host().into(), outside, metrics, waiting: Arc::default(), synced: Arc::default() };
        let blocks: Vec<Block> =
            config.blocks.into_iter().map(|chain| Block::new(chain, cluster, serial, &parts)).collect();
        let probes = probe::probes(&blocks, &*parts.outside);
        Self { blocks, turn: AtomicUsize::new(0), parts, observer, probes }
    }

    /// Takes a change of the cluster in. `cluster` is what all servers of this process share.
    pub fn apply(&self, cluster: &mut Cluster, change: &Change) {
        let touched = cluster.apply(change);
        if touched.services.is_empty() && touched.pod.is_none() {
            return;
        }
        self.zones().for_each(|zone| written(zone).update(&touched, cluster));
        self.externals().for_each(|zone| written(zone).update(&touched, cluster));
    }

    /// A namespace appeared, got other labels, or vanished (then without labels).
    pub fn namespace(&self, cluster: &mut Cluster, namespace: &Namespace, labels: Option<&Labels>) {
        cluster.namespace(namespace, labels);
        self.zones().for_each(|zone| written(zone).namespace(namespace, labels, cluster));
        self.externals().for_each(|zone| written(zone).namespace(namespace, labels, cluster));
    }

    /// The whole of the cluster's state has been taken in: what is not there does not exist.
    pub fn set_synced(&self) {
        self.parts.synced.store(true, Ordering::Release);
    }

    /// Whether it has.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.parts.synced()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Numbers that the metrics show beside the counters.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let kept = self.blocks.iter().map(Block::kept);
        let (cache_success, cache_denial) = kept.fold((0, 0), |sum, kept| (sum.0 + kept.0, sum.1 + kept.1));
        let flights = self.blocks.iter().flat_map(|block| &block.crews).map(Crew::asked).sum();
        Gauges { cache_success, cache_denial, flights, synced: self.synced() }
    }

    /// Answers a packet into `out`, or says that it takes time.
    pub fn handle(&self, packet: &[u8], arrival: &Arrival, now: Instant, out: &mut Vec<u8>) -> Outcome {
        let mut request = match Request::parse(packet, arrival.transport) {
            Ok(request) => request,
            Err(Reject::Drop) => {
                self.parts.metrics.dropped();
                return Outcome::Drop;
            }
            Err(Reject::Code { head, rcode, question_end }) => {
                self.parts.metrics.request(arrival.transport, arrival.from.is_ipv4(), 0);
                self.parts.metrics.response(rcode);
                rejection(&head, &packet[HEADER..question_end], rcode, out);
                return Outcome::Answer;
            }
        };
        self.parts.metrics.request(arrival.transport, arrival.from.is_ipv4(), request.qtype);
        let Some(index) = self.block(&request.look(arrival, now), packet.len()) else {
            return self.refuse(&request, Rcode::REFUSED, out);
        };
        let shape = &self.blocks[index].shape;
        if request.qclass != CLASS_IN && !shape.chaos {
            return self.refuse(&request, Rcode::REFUSED, out);
        }
        shape.apply(&mut request.head, arrival.transport);
        if self.blocks[index].log {
            let qtype = rtype::mnemonic(request.qtype);
            let (from, name, transport) = (arrival.from.ip(), &request.name, arrival.transport);
            (self.observer)(&Event::Query { from, name, qtype, transport });
        }
        if request.qtype == rtype::HINFO && self.notice_loop(&request.name) {
            // Passing it on would send it round once more.
            return self.refuse(&request, Rcode::SERVFAIL, out);
        }
        self.quick(index, &request, arrival, now, out)
    }

    /// Asks a chain's links, as long as they answer at once.
    fn quick(
        &self,
        index: usize,
        request: &Request<'_>,
        arrival: &Arrival,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let block = &self.blocks[index];
        let look = request.look(arrival, now);
        let mut pen = Pen::new(&request.head, request.question, &block.shape, &self.turn, out);
        let mut around = None;
        // What is told of a server itself is chaos' part alone.
        let fit = |link: &dyn Link| request.qclass == CLASS_IN || link.takes_chaos();
        for (place, link) in block.links.iter().enumerate().filter(|(_, link)| fit(&***link)) {
            match link.quick(&look, &mut pen) {
                Quick::Pass => {}
                Quick::Around => around = around.or(Some(place)),
                Quick::Done => {
                    self.parts.metrics.response(pen.rcode());
                    return Outcome::Answer;
                }
                Quick::Fail(Failure::Silent) => return Outcome::Drop,
                Quick::Fail(failure) => return self.fail(index, request, failure, out),
                Quick::Slow => {
                    let Some(waits) = self.parts.place(MAX_WAITERS) else {
                        self.parts.metrics.rejected();
                        return self.fail(index, request, Failure::TooMany, out);
                    };
                    let query = Query::new(request, arrival, now);
                    let link = around.unwrap_or(place);
                    return Outcome::Later(Box::new(Later { query, block: index, link, _place: waits }));
                }
            }
        }
        if request.qclass != CLASS_IN {
            return self.refuse(request, Rcode::REFUSED, out);
        }
        self.fail(index, request, Failure::NoPlugin, out)
    }

    /// The response to a question that takes time; none where the Corefile wants silence. Dropping the future gives it up; others who wait for the same answer get it all
    /// the same.
    pub async fn finish(self: Arc<Self>, later: Box<Later>) -> Option<Vec<u8>> {
        let Later { query, block, link, .. } = &*later;
        let next = Next { server: &self, block: *block, index: *link };
        let reply = match next.run(query).await {
            Ok(reply) => reply,
            Err(Failure::Silent) => return None,
            Err(failure) => {
                self.tell(*block, &query.name, failure);
                Reply::own(Answer::code(failure.rcode()))
            }
        };
        let mut out = Vec::new();
        Pen::new(&query.head, &query.question, &self.blocks[*block].shape, &self.turn, &mut out).reply(&reply);
        self.parts.metrics.response(reply.answer.rcode);
        Some(out)
    }

    /// Has the server answer a question of its own.
    fn look_up(self: &Arc<Self>, query: Query) -> Answering<'_> {
        if query.depth > MAX_DEPTH {
            return Box::pin(ready(Err(Failure::AliasLoop)));
        }
        let Some(block) = self.block(&query.look(), HEADER + query.question.len()) else {
            return Box::pin(ready(Err(Failure::NoPlugin)));
        };
        Box::pin(async move { Next { server: self, block, index: 0 }.run(&query).await })
    }

    /// The server block that a question belongs to: of those that take it, the one with the longest zone that its name lies in, and
    /// of several for one zone the first. `size` is that of the message, in bytes.
    fn block(&self, look: &Look<'_>, size: usize) -> Option<usize> {
        let keys = self.blocks.iter().enumerate();
        let keys = keys.flat_map(|(index, block)| block.keys.iter().map(move |key| (index, key)));
        keys.filter(|(_, key)| key.port == look.arrival.port && look.name.within(&key.zone).is_some())
            .filter(|(index, _)| view::takes(&self.blocks[*index].views, look, size))
            .min_by_key(|(_, key)| Reverse(key.zone.labels()))
            .map(|(index, _)| index)
    }

    fn zones(&self) -> impl Iterator<Item = &RwLock<Zone>> {
        self.blocks.iter().filter_map(|block| block.zone.as_deref())
    }

    fn externals(&self) -> impl Iterator<Item = &RwLock<External>> {
        self.blocks.iter().filter_map(|block| block.external.as_deref())
    }

    fn refuse(&self, request: &Request<'_>, rcode: Rcode, out: &mut Vec<u8>) -> Outcome {
        self.parts.metrics.response(rcode);
        rejection(&request.head, request.question, rcode, out);
        Outcome::Answer
    }

    fn fail(&self, block: usize, request: &Request<'_>, failure: Failure, out: &mut Vec<u8>) -> Outcome {
        self.tell(block, &request.name, failure);
        let answer = Answer::code(failure.rcode());
        let shape = &self.blocks[block].shape;
        Pen::new(&request.head, request.question, shape, &self.turn, out).answer(&answer);
        self.parts.metrics.response(answer.rcode);
        Outcome::Answer
    }

    fn tell(&self, block: usize, name: &QueryName, reason: Failure) {
        if self.blocks[block].errors {
            (self.observer)(&Event::Failed { name: &Name::from_query(name), reason });
        }
    }
}

fn written<T>(zone: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    zone.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lock whose holder panicked is still a lock over plain data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
