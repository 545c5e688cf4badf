//! Running the chain over one question.

use std::{borrow::Cow, net::IpAddr, time::Instant};

use super::{Arrival, Block, Failure, Outcome, Server, Transport, lock};
use crate::{
    answer::{Alias, Answer, AnswerBuilder, Owner, Section, behind_aliases},
    cache::Key,
    forward::{Full, Joined, Plan, Waiter, wants_tcp},
    message::{Head, Rcode, Request, negative, question, records, rtype},
    name::{Name, QueryName},
    zone::{Authority, Found},
};

/// How many aliases are followed within this server; as CoreDNS.
const MAX_ALIASES: usize = 8;

/// What the local plugins of a chain say.
enum Local<'a> {
    Records(Cow<'a, Answer>),
    Authority(Authority<'a>),
    Negative(Authority<'a>, Rcode),
    Alias(&'a Alias),
    /// None of them answers.
    Pass,
    Fail(Failure),
}

/// What an alias led to.
enum Chased {
    Answer(Answer),
    Ask { block: usize, name: Name },
    Fail(Failure),
}

impl<C> Server<C> {
    pub(super) fn resolve(
        &self,
        index: usize,
        request: &Request<'_>,
        arrival: &Arrival,
        now: Instant,
        client: impl FnOnce() -> C,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let block = &self.blocks[index];
        let (head, asked) = (&request.head, request.question);
        let recursion = !block.forwards.is_empty();
        let local = self.local(block, &request.name, request.qtype, |local| match local {
            Local::Records(answer) => {
                records(head, asked, &answer, recursion, self.turn(block, &answer), out);
                Ok(answer.rcode)
            }
            Local::Authority(authority) => {
                let soa = |out: &mut Vec<u8>| authority.write(&request.name, out);
                negative(head, asked, Rcode::NOERROR, recursion, true, out, soa);
                Ok(Rcode::NOERROR)
            }
            Local::Negative(authority, rcode) => {
                let soa = |out: &mut Vec<u8>| authority.write(&request.name, out);
                negative(head, asked, rcode, recursion, false, out, soa);
                Ok(rcode)
            }
            Local::Alias(alias) => Err(Next::Chase(alias.clone())),
            Local::Pass => Err(Next::Pass),
            Local::Fail(failure) => Err(Next::Fail(failure)),
        });
        let waiting = Waiting { head, asked, index, aliases: Vec::new(), client };
        match local {
            Ok(rcode) => {
                self.metrics.response(rcode);
                Outcome::Answer
            }
            Err(Next::Fail(failure)) => self.fail(&waiting, &Name::from_query(&request.name), failure, out),
            Err(Next::Chase(alias)) => self.chase(waiting, alias, request.qtype, arrival, now, out),
            Err(Next::Pass) => self.ask(waiting, index, &request.name, request.qtype, arrival, now, out),
        }
    }

    /// The turn of an answer's addresses.
    fn turn(&self, block: &Block, answer: &Answer) -> usize {
        match answer.rotation {
            Some(_) if block.chain.loadbalance => self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            _ => 0,
        }
    }

    /// Asks hosts, then kubernetes.
    fn local<R>(&self, block: &Block, name: &QueryName, qtype: u16, then: impl FnOnce(Local<'_>) -> R) -> R {
        if let Some(hosts) = &block.chain.hosts
            && (qtype == rtype::PTR || hosts.zones.iter().any(|zone| name.within(zone).is_some()))
        {
            match hosts.table.answer(name, qtype) {
                Some(answer) => return then(Local::Records(Cow::Owned(answer))),
                None if hosts.fallthrough.holds(name) => {}
                // There is no SOA to say NXDOMAIN with; CoreDNS does the same.
                None => return then(Local::Fail(Failure::NoPlugin)),
            }
        }
        let Some(zone) = &block.zone else { return then(Local::Pass) };
        let zone = zone.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        match zone.find(name, qtype) {
            None => then(Local::Pass),
            Some(Found::Records(answer)) => then(Local::Records(answer)),
            Some(Found::Authority(authority)) => then(Local::Authority(authority)),
            Some(Found::NoData(authority)) => then(Local::Negative(authority, Rcode::NOERROR)),
            Some(Found::Alias(alias)) => then(Local::Alias(alias)),
            Some(Found::NoName(_)) if zone.options().fallthrough.holds(name) => then(Local::Pass),
            Some(Found::NoName(_)) if !self.synced() => then(Local::Fail(Failure::NotSynced)),
            Some(Found::NoName(authority)) => then(Local::Negative(authority, Rcode::NXDOMAIN)),
        }
    }

    /// Follows an alias through the whole server, as CoreDNS does with an ExternalName.
    fn chase(
        &self,
        mut waiting: Waiting<'_, impl FnOnce() -> C>,
        alias: Alias,
        qtype: u16,
        arrival: &Arrival,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut target = alias.target.clone();
        waiting.aliases.push(alias);
        if qtype == rtype::CNAME {
            let answer = behind_aliases(&waiting.aliases, &target, &Answer::code(Rcode::NOERROR));
            return self.write(&waiting, &answer, out);
        }
        while waiting.aliases.len() <= MAX_ALIASES {
            match self.follow(&target, qtype, arrival.port) {
                Ok(Chased::Answer(answer)) => {
                    let answer = behind_aliases(&waiting.aliases, &target, &answer);
                    return self.write(&waiting, &answer, out);
                }
                Ok(Chased::Ask { block, name }) => {
                    return self.ask(waiting, block, &QueryName::from(&name), qtype, arrival, now, out);
                }
                Ok(Chased::Fail(failure)) => return self.fail(&waiting, &target, failure, out),
                Err(next) => {
                    target = next.target.clone();
                    waiting.aliases.push(next);
                }
            }
        }
        self.fail(&waiting, &target, Failure::AliasLoop, out)
    }

    /// What the server says about an alias' target; the error is the next alias.
    fn follow(&self, target: &Name, qtype: u16, port: u16) -> Result<Chased, Alias> {
        let name = QueryName::from(target);
        let Some(index) = self.block(&name, port) else { return Ok(Chased::Fail(Failure::NoPlugin)) };
        self.local(&self.blocks[index], &name, qtype, |local| {
            Ok(match local {
                Local::Records(answer) => Chased::Answer(answer.into_owned()),
                Local::Authority(authority) => Chased::Answer(authority.answer(&name, Rcode::NOERROR)),
                Local::Negative(authority, rcode) => Chased::Answer(authority.answer(&name, rcode)),
                Local::Alias(alias) => return Err(alias.clone()),
                Local::Pass => Chased::Ask { block: index, name: target.clone() },
                Local::Fail(failure) => Chased::Fail(failure),
            })
        })
    }

    /// Answers from the cache, or has an upstream asked.
    #[expect(clippy::too_many_arguments, reason = "one step of the chain, with all that a packet carries")]
    fn ask(
        &self,
        waiting: Waiting<'_, impl FnOnce() -> C>,
        index: usize,
        name: &QueryName,
        qtype: u16,
        arrival: &Arrival,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let block = &self.blocks[index];
        let forward = block.forwards.iter().position(|forward| forward.options().covers(name));
        let Some(forward) = forward else {
            if block.chain.whoami {
                return self.write(&waiting, &who_am_i(name, arrival), out);
            }
            return self.fail(&waiting, &Name::from_query(name), Failure::NoPlugin, out);
        };
        let head = *waiting.head;
        let key = Key::new(question(name.wire(), qtype), head.dnssec_ok(), head.checking_disabled());
        if let Some(cache) = block.cache.as_ref().filter(|_| block.chain.cache.as_ref().is_some_and(|o| o.covers(name)))
        {
            let mut cache = lock(cache);
            let found = cache.find(&key, now);
            self.metrics.cache(found.map(|(half, _)| half));
            if let Some((_, kept)) = found {
                if waiting.aliases.is_empty() {
                    let turn = self.turn(block, &kept.answer);
                    records(&head, waiting.asked, &kept.answer, true, turn, out);
                    kept.age(out, waiting.asked.len(), now);
                    self.metrics.response(kept.answer.rcode);
                    return Outcome::Answer;
                }
                let answer = behind_aliases(&waiting.aliases, &Name::from_query(name), &kept.aged(now));
                drop(cache);
                return self.write(&waiting, &answer, out);
            }
        }
        self.depart(waiting, key, (index, forward), name, out)
    }

    fn depart(
        &self,
        waiting: Waiting<'_, impl FnOnce() -> C>,
        key: Key,
        (block, forward): (usize, usize),
        name: &QueryName,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let upstreams = &self.blocks[block].forwards[forward];
        let options = upstreams.options();
        let tcp = options.force_tcp || (wants_tcp(waiting.head) && !options.prefer_udp);
        let plan = Plan {
            key,
            block,
            forward,
            upstreams: upstreams.addrs(),
            order: &|| upstreams.order((self.random)()),
            transport: if tcp { Transport::Tcp } else { Transport::Udp },
            max_concurrent: options.max_concurrent,
        };
        let Waiting { head, asked, index, aliases, client } = waiting;
        let waiter = || Waiter { head: *head, question: asked.into(), aliases, block: index, client: client() };
        let joined = self.flights().join(plan, waiter, (self.random)());
        let (rcode, failure) = match joined {
            Ok(Joined::Waiting) => return Outcome::Wait,
            Ok(Joined::Send(exchange)) => return Outcome::Forward(exchange),
            Err(Full::Configured) => (Rcode::REFUSED, Failure::TooMany),
            Err(Full::Server) => (Rcode::SERVFAIL, Failure::TooMany),
            Err(Full::NoUpstream) => (Rcode::SERVFAIL, Failure::AllLoop),
        };
        if failure == Failure::TooMany {
            self.metrics.rejected();
        }
        self.failed(index, &Name::from_query(name), failure);
        self.metrics.response(rcode);
        records(head, asked, &Answer::code(rcode), true, 0, out);
        Outcome::Answer
    }

    fn write(&self, waiting: &Waiting<'_, impl FnOnce() -> C>, answer: &Answer, out: &mut Vec<u8>) -> Outcome {
        let recursion = !self.blocks[waiting.index].forwards.is_empty();
        self.metrics.response(answer.rcode);
        records(waiting.head, waiting.asked, answer, recursion, 0, out);
        Outcome::Answer
    }

    fn fail(
        &self,
        waiting: &Waiting<'_, impl FnOnce() -> C>,
        name: &Name,
        failure: Failure,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.failed(waiting.index, name, failure);
        self.write(waiting, &Answer::code(Rcode::SERVFAIL), out)
    }
}

/// What follows when the local plugins did not answer.
enum Next {
    Chase(Alias),
    Pass,
    Fail(Failure),
}

/// A client on its way through the chain.
struct Waiting<'a, F> {
    head: &'a Head,
    asked: &'a [u8],
    index: usize,
    aliases: Vec<Alias>,
    client: F,
}

/// The `whoami` plugin: the client's address, and its port and transport as an SRV record, in the additional section.
fn who_am_i(name: &QueryName, arrival: &Arrival) -> Answer {
    let owner = Name::from_query(name);
    let mut builder = AnswerBuilder::new(&owner);
    let from = match arrival.from.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    builder.push_addr(Section::Additional, Owner::Question, 0, from);
    let transport = if arrival.transport == Transport::Udp { "_udp" } else { "_tcp" };
    if let Ok(location) = owner.child(transport) {
        let mut data = vec![0, 0, 0, 0];
        data.extend_from_slice(&arrival.from.port().to_be_bytes());
        data.push(0);
        builder.push(Section::Additional, Owner::Other(&location), rtype::SRV, 0, &data);
    }
    builder.build()
}
