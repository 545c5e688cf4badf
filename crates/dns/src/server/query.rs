//! A question on its way through the chain, and what comes back.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Instant,
};

use crate::{
    answer::{Answer, extended},
    chain::Port,
    corefile::Scheme,
    destination::Destination,
    message::{Expanded, Head, Rcode, Request, expand, question, rtype},
    name::{Name, QueryName},
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
    /// The port of the Corefile's that it came to, …
    pub port: u16,
    /// … what is spoken there, …
    pub scheme: Scheme,
    /// … and the address that this port is bound to; none: all of the machine's.
    pub bound: Option<IpAddr>,
    /// The address that it came to, as far as it is known.
    pub local: Option<IpAddr>,
    /// How long its connection is kept while nothing is asked, in tenths of a second; none: there is no connection of DNS itself.
    pub keepalive: Option<u16>,
}

impl Arrival {
    /// The listener that it came to.
    #[must_use]
    pub fn port(&self) -> Port {
        Port { scheme: self.scheme, address: self.bound, number: self.port }
    }
}

/// What a plugin may look at without keeping anything of it.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The name.
    pub name: &'a QueryName,
    /// The type.
    pub qtype: u16,
    /// The class: IN, or CH where the block's `chaos` answers that.
    pub qclass: u16,
    /// What the message said beside its question.
    pub head: &'a Head,
    /// Where it came from.
    pub arrival: &'a Arrival,
    /// When.
    pub now: Instant,
}

/// A question that is kept until its answer is known: plugins that ask others, or put answers together, work on it.
#[derive(Clone, Debug)]
pub struct Query {
    /// The name.
    pub name: QueryName,
    /// The type.
    pub qtype: u16,
    /// The class: IN, or CH where the block's `chaos` answers that.
    pub qclass: u16,
    /// What the message said beside its question.
    pub head: Head,
    /// The question with the spelling that was asked.
    pub question: Box<[u8]>,
    /// Where it came from.
    pub arrival: Arrival,
    /// When.
    pub now: Instant,
    /// The EDNS options that the client sent; none where they are too many.
    pub options: Box<[u8]>,
    /// What the client's message has beside its question and EDNS; mostly nothing.
    pub records: Vec<Expanded>,
    /// EDNS options that go to upstreams with it (`rewrite edns0`).
    pub onward: Box<[u8]>,
    /// How many questions of this server's own lie between it and the client's.
    pub depth: u8,
    /// It is one of a search path that is being followed already (`autopath`).
    pub searched: bool,
    /// Who was asked last, for those who count and tell.
    pub(crate) asked: Arc<Asked>,
}

impl Query {
    /// The question of a message.
    #[must_use]
    pub fn new(request: &Request<'_>, arrival: &Arrival, now: Instant) -> Self {
        Self {
            name: request.name.clone(),
            qtype: request.qtype,
            qclass: request.qclass,
            head: request.head,
            question: request.question.into(),
            arrival: *arrival,
            now,
            options: Some(request.options).filter(|options| options.len() <= MOST).unwrap_or_default().into(),
            records: request.records.map_or_else(Vec::new, |(counts, body)| beside(&request.name, counts, body)),
            onward: Box::default(),
            depth: 0,
            searched: false,
            asked: Arc::default(),
        }
    }

    /// Another question that has to be answered for this one: on behalf of the same client, in the same manner.
    #[must_use]
    pub fn instead(&self, name: &Name, qtype: u16) -> Self {
        Self {
            name: QueryName::from(name),
            qtype,
            question: question(name.wire(), qtype).into(),
            depth: self.depth.saturating_add(1),
            asked: Arc::default(),
            ..self.clone()
        }
    }

    /// The upstream that answered it.
    pub(crate) fn upstream(&self) -> Option<&Destination> {
        self.asked.upstream.get()
    }

    /// What plugins look at.
    #[must_use]
    pub fn look(&self) -> Look<'_> {
        Look {
            name: &self.name,
            qtype: self.qtype,
            qclass: self.qclass,
            head: &self.head,
            arrival: &self.arrival,
            now: self.now,
        }
    }
}

/// What a message may have beside its question, and in the options of its EDNS, in bytes each: more than any honest query has.
const MOST: usize = 4096;

/// The records behind a message's question, but for that of EDNS; none where they are too many.
fn beside(name: &QueryName, counts: [u16; 3], body: &[u8]) -> Vec<Expanded> {
    if body.len() > MOST {
        return Vec::new();
    }
    let all = Answer { counts, body: body.into(), ..Answer::code(Rcode::NOERROR) };
    let mut records = expand(&Name::from_query(name), &all);
    records.retain(|record| record.rtype != rtype::OPT);
    records
}

/// Who was asked for an answer.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The last link, by its place in the chain: the one that answered.
    pub(crate) link: AtomicUsize,
    /// The upstream that answered first.
    pub(crate) upstream: OnceLock<Destination>,
}

/// What a chain answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// It was cut by the one who was asked (TC).
    pub truncated: bool,
    /// It is known only here and now: the cache does not keep it. So is what this server itself is the authority of.
    pub fresh: bool,
}

impl Reply {
    /// An answer that this server knows by itself.
    #[must_use]
    pub fn own(answer: Answer) -> Self {
        Self { answer, truncated: false, fresh: true }
    }
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
    /// All upstreams are down, and the Corefile wants that to be told at once.
    #[error("every upstream is down")]
    AllDown,
    /// All upstreams lead back here.
    #[error("every upstream leads back to this server")]
    AllLoop,
    /// More questions are being asked than the Corefile's `max_concurrent` allows.
    #[error("more questions are being asked upstream than max_concurrent allows")]
    Configured,
    /// More questions are being asked than this server bears.
    #[error("too many questions are being asked upstream")]
    TooMany,
    /// The store of the zone's records did not answer (`etcd`).
    #[error("etcd did not answer, or not in time")]
    NoStore,
    /// The store has something for the name that is no record (`etcd`).
    #[error("what etcd has for the name, or below it, is no record")]
    BadRecord,
    /// The zone's file is missing, or no primary has sent it.
    #[error("the zone is not here: its file is missing, or its primary has not sent it")]
    NoZone,
    /// It is not signed, and the Corefile wants it to be (`tsig`).
    #[error("it is not signed as tsig requires")]
    Unsigned,
    /// Its signature is not what it should be.
    #[error("its signature (TSIG) is wrong")]
    BadSignature,
    /// A key could not sign (`dnssec`).
    #[error("the answer could not be signed (dnssec)")]
    NotSigned,
    /// Aliases lead nowhere.
    #[error("its aliases point at each other")]
    AliasLoop,
    /// It took longer than the Corefile's `cancel` lets it.
    #[error("it took longer than cancel allows")]
    Cancelled,
    /// What `rewrite` or `template` made of it is nothing that can be asked or told.
    #[error("what the Corefile makes of it is no name or record")]
    Malformed,
    /// The question is this server's own: whoever sent it on leads back here.
    #[error("it is a question of this server itself that came back")]
    Loop,
    /// The Corefile wants it not to be answered (`acl`, `erratic`).
    #[error("it is not answered, as the Corefile says")]
    Silent,
}

impl Failure {
    /// The code that tells the client.
    #[must_use]
    pub const fn rcode(self) -> Rcode {
        match self {
            Self::Configured | Self::Unsigned => Rcode::REFUSED,
            Self::BadSignature => Rcode::NOTAUTH,
            _ => Rcode::SERVFAIL,
        }
    }

    /// What the client is told: with the reason where it can be told one (RFC 8914).
    #[must_use]
    pub fn answer(self, head: &Head) -> Answer {
        let answer = Answer::code(self.rcode());
        if head.edns.is_none() {
            return answer;
        }
        let code = match self {
            Self::NotSynced => extended::NOT_READY,
            Self::NoAnswer | Self::AllDown | Self::NoStore => extended::NO_REACHABLE_AUTHORITY,
            _ => extended::OTHER,
        };
        answer.because(code, &self.to_string())
    }
}
