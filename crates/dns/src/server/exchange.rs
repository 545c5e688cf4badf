//! The ends of exchanges.

use std::{net::SocketAddr, time::Instant};

use super::{Event, Failure, Probe, Progress, Reply, Server, Transport, lock};
use crate::{
    answer::{Answer, behind_aliases},
    forward::{ATTEMPT_TIMEOUT, Again, Exchange, Flight, Ticket, query},
    message::{Rcode, Upstream, flag, question, records, rtype, u16_at},
    name::{Name, QueryName},
};

impl<C> Server<C> {
    /// An upstream's message came in for an exchange, from the given address.
    pub fn upstream_answered(&self, ticket: Ticket, from: SocketAddr, message: &[u8], now: Instant) -> Progress<C> {
        let number = match ticket {
            Ticket::Question(number) => number,
            Ticket::Check { block, forward, upstream } => {
                self.blocks[block].forwards[forward].succeeded(upstream);
                return Progress::Done(Vec::new());
            }
            Ticket::Loop => return Progress::Done(Vec::new()),
        };
        let mut flights = self.flights();
        let Some(flight) = flights.flight(number) else { return Progress::Done(Vec::new()) };
        let attempt = flight.attempt();
        // What is not from whom we asked, or not with our id, is somebody's guess: the true answer may still come.
        if from != attempt.addr || u16_at(message, 0) != Some(attempt.id) {
            return Progress::Ignored;
        }
        let upstreams = &self.blocks[flight.block].forwards[flight.forward];
        let Ok(response) = Upstream::parse(message, flight.key.question()) else {
            // A broken message with the right id may be an attempt to poison; over TCP nobody else can have sent it.
            let udp = attempt.transport == Transport::Udp;
            let formerr = u16_at(message, 2).is_some_and(|word| word & flag::RCODE == Rcode::FORMERR.0);
            if formerr && attempt.edns {
                // A server from before EDNS answers with the bare header (RFC 6891 §7).
                if let Some(exchange) = flights.again(number, Again::WithoutEdns, (self.random)()) {
                    return Progress::Again(exchange);
                }
            }
            drop(flights);
            return if udp { Progress::Ignored } else { self.upstream_failed(ticket, now) };
        };
        upstreams.succeeded(attempt.upstream);
        let again = if response.truncated && attempt.transport == Transport::Udp {
            Some(Again::OverTcp)
        } else if attempt.edns && !response.edns && matches!(response.answer.rcode, Rcode::FORMERR | Rcode::NOTIMP) {
            Some(Again::WithoutEdns)
        } else {
            None
        };
        if let Some(exchange) = again.and_then(|how| flights.again(number, how, (self.random)())) {
            return Progress::Again(exchange);
        }
        let landed = flights.land(number);
        drop(flights);
        self.metrics.forwarded(attempt.addr, response.answer.rcode.mnemonic());
        match landed {
            Some(flight) => Progress::Done(self.deliver(flight, &response, now)),
            None => Progress::Done(Vec::new()),
        }
    }

    /// An exchange ended without an answer: a timeout, or an error of the socket.
    pub fn upstream_failed(&self, ticket: Ticket, _now: Instant) -> Progress<C> {
        let number = match ticket {
            Ticket::Question(number) => number,
            Ticket::Check { block, forward, upstream } => {
                self.blocks[block].forwards[forward].check_failed(upstream);
                return Progress::Done(Vec::new());
            }
            Ticket::Loop => return Progress::Done(Vec::new()),
        };
        let mut flights = self.flights();
        let Some(flight) = flights.flight(number) else { return Progress::Done(Vec::new()) };
        let attempt = flight.attempt();
        let upstreams = &self.blocks[flight.block].forwards[flight.forward];
        upstreams.suspected(attempt.upstream);
        self.metrics.forwarded(attempt.addr, "failed");
        let force_tcp = upstreams.options().force_tcp;
        let transport = if force_tcp { Transport::Tcp } else { Transport::Udp };
        if let Some(exchange) = flights.again(number, Again::Elsewhere(transport), (self.random)()) {
            return Progress::Again(exchange);
        }
        let landed = flights.land(number);
        drop(flights);
        let Some(flight) = landed else { return Progress::Done(Vec::new()) };
        if let Ok((name, _)) = QueryName::parse(flight.key.question(), 0) {
            self.failed(flight.block, &Name::from_query(&name), Failure::NoAnswer);
        }
        let replies = flight.waiters.into_iter().map(|waiter| {
            let mut message = Vec::new();
            self.metrics.response(Rcode::SERVFAIL);
            records(&waiter.head, &waiter.question, &Answer::code(Rcode::SERVFAIL), true, 0, &mut message);
            Reply { client: waiter.client, message }
        });
        Progress::Done(replies.collect())
    }

    /// Checks of upstreams that failed, where they are due. To be called at least twice a second.
    #[must_use]
    pub fn checks(&self, now: Instant) -> Vec<Exchange> {
        let mut checks = Vec::new();
        for (block, runtime) in self.blocks.iter().enumerate() {
            for (forward, upstreams) in runtime.forwards.iter().enumerate() {
                checks.extend(upstreams.checks(block, forward, now, &self.random));
            }
        }
        checks
    }

    /// Questions by which a forwarding loop is noticed (`loop`): to be sent once, when the server starts to listen.
    #[must_use]
    pub fn loop_probes(&self) -> Vec<Exchange> {
        let probe = |probe: &Probe| {
            let ask = question(probe.name.wire(), rtype::HINFO);
            Some(Exchange {
                ticket: Ticket::Loop,
                upstream: *self.blocks[probe.block].forwards[probe.forward].addrs().get(probe.upstream)?,
                transport: Transport::Udp,
                message: query((self.random)(), &ask, false, false, flag::RD),
                timeout: ATTEMPT_TIMEOUT,
            })
        };
        self.probes.iter().filter_map(probe).collect()
    }

    /// Whether a name is one that only this server asks for; who forwarded it here is no longer asked.
    pub(super) fn notice_loop(&self, name: &QueryName) -> bool {
        let Some(probe) = self.probes.iter().find(|probe| probe.name.wire() == name.wire()) else { return false };
        let upstreams = &self.blocks[probe.block].forwards[probe.forward];
        upstreams.looped(probe.upstream);
        if let Some(&upstream) = upstreams.addrs().get(probe.upstream) {
            (self.observer)(&Event::Loop { upstream });
        }
        true
    }

    fn deliver(&self, flight: Flight<C>, response: &Upstream, now: Instant) -> Vec<Reply<C>> {
        let block = &self.blocks[flight.block];
        let asked = QueryName::parse(flight.key.question(), 0).ok().map(|(name, _)| name);
        let target = asked.as_ref().map_or_else(Name::root, Name::from_query);
        let replies = flight.waiters.into_iter().enumerate().map(|(turn, waiter)| {
            let mut message = Vec::new();
            let turn = if block.chain.loadbalance { turn } else { 0 };
            if waiter.aliases.is_empty() {
                records(&waiter.head, &waiter.question, &response.answer, true, turn, &mut message);
            } else {
                let answer = behind_aliases(&waiter.aliases, &target, &response.answer);
                records(&waiter.head, &waiter.question, &answer, true, 0, &mut message);
            }
            if response.truncated {
                message[2] |= (flag::TC >> 8) as u8;
            }
            self.metrics.response(response.answer.rcode);
            Reply { client: waiter.client, message }
        });
        let replies = replies.collect();
        if let Some(cache) = &block.cache {
            let mut cache = lock(cache);
            if asked.is_some_and(|name| cache.options().covers(&name)) {
                cache.insert(flight.key, response, now);
            }
        }
        replies
    }
}
