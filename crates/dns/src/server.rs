//! The server: packets in, packets out, and what to ask of others in between.
//!
//! [`Server::handle`] answers at once what the links of a chain know by themselves: the hosts table, the cluster's zone, the cache.
//! What takes time becomes a [`Later`], which the shell hands to [`Server::finish`]; that is a future without a runtime, sockets or
//! a clock of its own: it asks upstreams, and waits, through [`Outside`].

mod allowance;
mod arrange;
mod block;
mod debugger;
mod event;
mod fetched;
#[cfg(test)]
pub(crate) mod fixture;
mod gate;
mod giving;
mod guard;
mod link;
mod members;
mod metadata;
mod outside;
mod parts;
mod pen;
mod probe;
mod query;
mod queue;
mod readiness;
mod recovery;
mod reporter;
mod signed;
#[cfg(test)]
mod tests;
mod told;
mod transfer;
mod view;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::future::ready;

pub use debugger::Debugger;
pub use event::{Event, Observer};
pub use giving::Transfer;
pub use link::{Answering, Gift, Given, Knowing, Link, Next, Own, Quick, Said};
pub use members::Members;
pub use outside::{Carrier, ClientSearch, Exchange, Keep, Outside, Secure, Take};
pub use parts::Parts;
pub(crate) use parts::PlaceInLine;
pub use pen::{FlagChange, Pen, Shape};
pub use query::{Arrival, Failure, Look, Query, Reply, Transport};
pub use recovery::panicked;

use crate::{
    chain::{Config, Port},
    message::{CLASS_IN, HEADER, Head, Rcode, Reject, Request, rejection},
    metrics::{Counts, Metrics},
    name::QueryName,
    server::{
        block::Block,
        guard::Leaving,
        probe::Probe,
        queue::Queue,
        readiness::Readiness,
        recovery::Recovery,
        signed::{Seal, Signer},
        told::Told,
    },
    zone::Cluster,
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
    /// A zone is given away, over the connection: [`Transfer::send`] makes the messages.
    Transfer(Box<Transfer>),
    /// No response.
    Drop,
}

/// A question whose answer takes time.
#[derive(Debug)]
pub struct Later {
    query: Query,
    block: usize,
    /// Of the block's.
    key: usize,
    /// The first link that has to do with it.
    link: usize,
    /// The size of the client's message in bytes.
    size: usize,
    /// Signs the response.
    signer: Option<Box<Signer>>,
    /// Held until the answer is there.
    _place: PlaceInLine,
}

/// A server that runs one loaded Corefile.
pub struct Server {
    blocks: Vec<Block>,
    strays: Vec<(Port, Arc<Counts>)>,
    turn: AtomicUsize,
    parts: Parts,
    observer: Arc<Observer>,
    probes: Vec<Probe>,
    readiness: Readiness,
    /// Which Corefile it is, where that is looked at again.
    version: Option<String>,
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
        let observer = Arc::new(observer);
        let debug = Debugger::new(config.process.debug.then(|| Arc::clone(&observer)));
        let recovery = Recovery::new(&config, &metrics, &observer);
        let challenges = if config.acme().is_empty() { None } else { outside.challenges() };
        let parts = Parts {
            challenges,
            host: outside.host().into(),
            outside,
            metrics,
            debug,
            waiting: Arc::default(),
            synced: Arc::default(),
            given: Arc::default(),
            fetching: Queue::new(fetched::MEMBERS_AT_ONCE),
            keys: Arc::new(signed::keys(&config.blocks)),
            recovery,
        };
        let readiness = Readiness::new(config.process.monitor);
        let version = config.process.reload.map(|_| config.version);
        let blocks: Vec<Block> =
            config.blocks.into_iter().map(|chain| Block::new(chain, cluster, serial, &parts)).collect();
        let probes = probe::probes(&blocks, &*parts.outside);
        let strays = told::strays(&blocks, &parts.metrics);
        Self { blocks, strays, turn: AtomicUsize::new(0), parts, observer, probes, readiness, version }
    }

    /// Takes over what another server's caches hold, where the same questions come to caches with the same options: for a server that
    /// asks the same of others, only elsewhere.
    pub fn inherit(&self, from: &Self) {
        let pairs = self.blocks.iter().zip(&from.blocks);
        for (here, there) in pairs.filter(|(here, there)| here.keys == there.keys) {
            let (Some(here), Some(there)) = (&here.cache, &there.cache) else { continue };
            here.inherit(there);
        }
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

    /// Answers a packet without signature into `out`, or says that it takes time.
    fn answer(&self, packet: &[u8], seal: Seal, arrival: &Arrival, now: Instant, out: &mut Vec<u8>) -> Outcome {
        let sealed = |mut head: Head| {
            head.signature = seal.signature;
            head.limit = head.limit.saturating_sub(seal.room);
            head
        };
        let mut request = match Request::parse(packet, arrival.transport) {
            Ok(request) => request,
            Err(Reject::Drop) => {
                self.parts.metrics.dropped();
                self.parts.debug.dump(|| format!("what {} sent is no query", arrival.from), packet);
                return Outcome::Drop;
            }
            Err(Reject::Code { head, rcode, question_end }) => {
                let head = sealed(head);
                if let Some(outcome) = self.of_zones(packet, arrival, &head, now, out) {
                    return outcome;
                }
                let why = || format!("what {} sent is answered with {}", arrival.from, rcode.mnemonic());
                self.parts.debug.dump(why, packet);
                self.turn_away(head, &packet[HEADER..question_end], rcode, arrival, out);
                self.stray(0, arrival, packet.len(), rcode, out.len());
                return Outcome::Answer;
            }
        };
        request.head = sealed(request.head);
        let Some((index, key)) = self.block(&request.look(arrival, now), packet.len()) else {
            rejection(&request.head, request.question, Rcode::REFUSED, out);
            self.stray(request.qtype, arrival, packet.len(), Rcode::REFUSED, out.len());
            return Outcome::Answer;
        };
        self.blocks[index].shape.apply(&mut request.head, arrival.transport);
        if let Some(edns) = request.head.edns.as_mut().filter(|edns| edns.keepalive.is_some()) {
            edns.keepalive = arrival.keepalive;
        }
        let mut link = None;
        let mut outcome = self.guarded(index, &mut request, arrival, now, &mut link, out);
        match &mut outcome {
            Outcome::Answer => {
                let Request { ref head, ref name, qtype, qclass, question, .. } = request;
                let (size, question, took) = (packet.len(), question.len(), self.since(now));
                let response = out.as_slice();
                self.told(
                    index,
                    key,
                    &Told { name, qtype, qclass, head, arrival, size, question, response, took, link, upstream: None },
                );
            }
            Outcome::Later(later) => (later.key, later.size) = (key, packet.len()),
            Outcome::Drop | Outcome::Transfer(_) => {
                self.blocks[index].counts[key].asked(arrival, request.qtype, packet.len());
            }
        }
        outcome
    }

    /// Asks a chain's links, as long as they answer at once.
    fn quick(
        &self,
        index: usize,
        request: &Request<'_>,
        arrival: &Arrival,
        now: Instant,
        answered: &mut Option<usize>,
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
                    block.bound(place, request, out);
                    *answered = Some(place);
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
                    return Outcome::Later(Box::new(Later {
                        query,
                        block: index,
                        key: 0,
                        link,
                        size: 0,
                        signer: None,
                        _place: waits,
                    }));
                }
            }
        }
        if request.qclass != CLASS_IN {
            return refuse(request, Rcode::REFUSED, out);
        }
        self.fail(index, request, Failure::NoPlugin, out)
    }

    /// The response to a question that takes time; none where the Corefile wants silence.
    async fn finished(self: &Arc<Self>, later: &mut Later) -> Option<Vec<u8>> {
        let Later { query, block, key, link, size, signer, .. } = later;
        let next = Next { server: self, block: *block, index: *link };
        let (reply, failed) = match next.run(query).await {
            Ok(reply) => (reply, false),
            Err(Failure::Silent) => {
                self.blocks[*block].counts[*key].asked(&query.arrival, query.qtype, *size);
                return None;
            }
            Err(failure) => {
                self.tell(*block, &query.name, query.qtype, failure);
                (Reply::own(failure.answer(&query.head)), true)
            }
        };
        let mut out = Vec::new();
        Pen::new(&query.head, &query.question, &self.blocks[*block].shape, &self.turn, &mut out).reply(&reply);
        let Query { ref name, qtype, qclass, ref head, ref question, ref arrival, now, .. } = *query;
        let leaving = Leaving { head, question, name, arrival, now: self.parts.outside.now() };
        if !self.blocks[*block].guard.lets_out(&leaving, &mut out) {
            self.blocks[*block].counts[*key].asked(arrival, qtype, *size);
            return None;
        }
        let (question, took) = (question.len(), self.since(now));
        // A code that this server sends because nobody answered is no plugin's.
        let link = Some(query.asked.link.load(Ordering::Relaxed)).filter(|_| !failed);
        let told = Told {
            name,
            qtype,
            qclass,
            head,
            arrival,
            size: *size,
            question,
            response: &out,
            took,
            link,
            upstream: query.upstream(),
        };
        self.told(*block, *key, &told);
        if let Some(signer) = signer {
            signer.sign(&mut out);
        }
        Some(out)
    }

    /// Has the server answer a question of its own.
    fn look_up(self: &Arc<Self>, query: Query) -> Answering<'_> {
        if query.depth > MAX_DEPTH {
            return Box::pin(ready(Err(Failure::AliasLoop)));
        }
        let Some((block, _)) = self.block(&query.look(), HEADER + query.question.len()) else {
            return Box::pin(ready(Err(Failure::NoPlugin)));
        };
        Box::pin(async move { Next { server: self, block, index: 0 }.run(&query).await })
    }

    fn fail(&self, block: usize, request: &Request<'_>, failure: Failure, out: &mut Vec<u8>) -> Outcome {
        self.tell(block, &request.name, request.qtype, failure);
        let answer = failure.answer(&request.head);
        let shape = &self.blocks[block].shape;
        Pen::new(&request.head, request.question, shape, &self.turn, out).answer(&answer);
        Outcome::Answer
    }

    fn tell(&self, block: usize, name: &QueryName, qtype: u16, reason: Failure) {
        if let Some(reporter) = &self.blocks[block].reporter {
            reporter.failed(name, qtype, reason, &self.parts.outside, &self.observer);
        }
    }
}

fn refuse(request: &Request<'_>, rcode: Rcode, out: &mut Vec<u8>) -> Outcome {
    rejection(&request.head, request.question, rcode, out);
    Outcome::Answer
}

/// A lock whose holder panicked is still a lock over plain data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
