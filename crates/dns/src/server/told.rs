//! What is told of a question when it has its response: counters, and the lines of `log`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Arrival, Event, Look, Server, Transport, block::Block};
use crate::{
    chain::{LogClass, LogField, LogFormat, LogOptions, LogPiece, Port},
    destination::Destination,
    forward::Crew,
    message::{CLASS_CH, HEADER, Head, PLAIN_UDP_SIZE, Rcode, flag, rtype, u16_at, uncompressed, walk},
    metrics::{Counted, Counts, Gauges, Metrics, Place},
    name::{Name, QueryName},
};

/// The counters of questions that belong to no block, for each port.
pub(super) fn strays(blocks: &[Block], metrics: &Metrics) -> Vec<(Port, Arc<Counts>)> {
    let ports: BTreeSet<Port> = blocks.iter().flat_map(|block| &block.keys).map(|(_, port)| *port).collect();
    let place = |port: Port| Place { server: port.to_string(), zone: "dropped".to_owned(), view: String::new() };
    ports.into_iter().map(|port| (port, metrics.counts(place(port)))).collect()
}

/// A question that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) name: &'a QueryName,
    pub(super) qtype: u16,
    pub(super) qclass: u16,
    pub(super) head: &'a Head,
    pub(super) arrival: &'a Arrival,
    /// The question's size in bytes.
    pub(super) size: usize,
    /// The length of its question section in bytes.
    pub(super) question: usize,
    pub(super) response: &'a [u8],
    pub(super) took: Duration,
    /// The link that answered.
    pub(super) link: Option<usize>,
    /// The upstream that did.
    pub(super) upstream: Option<&'a Destination>,
}

impl Server {
    /// Numbers that the metrics show beside the counters.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let mut cache: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut signatures: BTreeMap<String, usize> = BTreeMap::new();
        for block in &self.blocks {
            for (labels, (success, denial)) in block.kept() {
                let sum = cache.entry(labels).or_default();
                *sum = (sum.0 + success, sum.1 + denial);
            }
            for (labels, sets) in block.signatures() {
                *signatures.entry(labels).or_default() += sets;
            }
        }
        let looping = self.blocks.iter().flat_map(|block| &block.crews).map(|crew| crew.upstreams().looping()).sum();
        let flights = self.blocks.iter().flat_map(|block| &block.crews).map(Crew::asked).sum();
        let plugins = self.blocks.iter().flat_map(Block::enabled).collect();
        let hosts = self.blocks.iter().filter_map(|block| block.hosts);
        let hosts = hosts.reduce(|one, other| (one.0 + other.0, one.1.max(other.1)));
        let member_bytes =
            self.blocks.iter().filter_map(|block| block.members.as_ref()).map(|members| members.bytes()).sum();
        let (synced, version) = (self.synced(), self.version.clone());
        Gauges { cache, hosts, signatures, flights, looping, member_bytes, synced, plugins, version }
    }

    /// How long ago something was.
    pub(super) fn since(&self, then: Instant) -> Duration {
        self.parts.outside.now().saturating_duration_since(then)
    }

    /// Counts a question that belongs to no block, or that could not be read as one.
    pub(super) fn stray(&self, qtype: u16, arrival: &Arrival, size: usize, rcode: Rcode, response_size: usize) {
        let Some((_, counts)) = self.strays.iter().find(|(port, _)| *port == arrival.port()) else { return };
        let (took, plugin) = (Duration::ZERO, None);
        counts.count(&Counted { arrival, qtype, size, dnssec_ok: false, rcode, response_size, took, plugin });
    }

    /// Counts a question of a block, and tells of it where the block's `log` wants that.
    pub(super) fn told(&self, index: usize, key: usize, told: &Told<'_>) {
        let block = &self.blocks[index];
        block.counts[key].count(&Counted {
            arrival: told.arrival,
            qtype: told.qtype,
            size: told.size,
            dnssec_ok: told.head.dnssec_ok(),
            rcode: told.rcode(),
            response_size: told.response.len(),
            took: told.took,
            plugin: told.link.and_then(|link| block.places.get(link).copied()),
        });
        let mut rules = block.log.iter();
        let rule = rules.find(|rule| rule.names.iter().any(|zone| told.name.within(zone).is_some()));
        if let Some(rule) = rule.filter(|rule| told.wanted(rule)) {
            let label = |label: &str| match (label, told.upstream) {
                ("forward/upstream", Some(upstream)) if self.tells(index, told.name) => Some(upstream.to_string()),
                ("log/class", _) if self.tells(index, told.name) => Some(told.class_name().to_owned()),
                ("log/type", _) if self.tells(index, told.name) => Some(told.kind().to_owned()),
                _ => self.label(index, label, &told.look(self.parts.outside.now())),
            };
            (self.observer)(&Event::Answered { line: &told.line(&rule.format, &label) });
        }
    }
}

impl Told<'_> {
    fn look(&self, now: Instant) -> Look<'_> {
        let Self { name, qtype, qclass, head, arrival, .. } = *self;
        Look { name, qtype, qclass, head, arrival, now }
    }

    fn flags(&self) -> u16 {
        u16_at(self.response, 2).unwrap_or(0)
    }

    fn rcode(&self) -> Rcode {
        Rcode(self.flags() & flag::RCODE)
    }

    /// Whether a rule wants the line: the answer is of its classes, or took long enough to be of interest anyway.
    fn wanted(&self, rule: &LogOptions) -> bool {
        let long = rule.min_duration.is_some_and(|least| self.took > least);
        let narrowed = rule.min_duration.is_some() && rule.classes.is_empty();
        long || !narrowed && (rule.classes.is_empty() || rule.classes.contains(&self.class()))
    }

    fn class(&self) -> LogClass {
        match self.rcode() {
            Rcode::NXDOMAIN => LogClass::Denial,
            Rcode::NOERROR if u16_at(self.response, 6) == Some(0) && !self.delegates() => LogClass::Denial,
            Rcode::NOERROR => LogClass::Success,
            _ => LogClass::Error,
        }
    }

    /// The class as `log` calls it.
    fn class_name(&self) -> &'static str {
        match self.class() {
            LogClass::Success => "success",
            LogClass::Denial => "denial",
            LogClass::Error => "error",
        }
    }

    /// What kind of response it is, as CoreDNS calls it.
    fn kind(&self) -> &'static str {
        let is_empty = u16_at(self.response, 6) == Some(0);
        match (self.class(), self.rcode()) {
            (LogClass::Success, _) if is_empty => "DELEGATION",
            (LogClass::Success, _) => "NOERROR",
            (LogClass::Denial, Rcode::NXDOMAIN) => "NXDOMAIN",
            (LogClass::Denial, _) => "NODATA",
            (LogClass::Error, Rcode::SERVFAIL | Rcode::NOTIMP) => "SERVERERROR",
            (LogClass::Error, _) => "OTHERERROR",
        }
    }

    /// Whether it names the servers of a zone below: that is an answer, too.
    fn delegates(&self) -> bool {
        let mut records = walk(self.response, HEADER + self.question).map_while(Result::ok);
        records.any(|record| record.section == 1 && record.rtype == rtype::NS)
    }

    /// The response's size in bytes with its names spelled out; as it is sent where its records cannot be read.
    fn uncompressed(&self) -> usize {
        uncompressed(self.response, HEADER + self.question).unwrap_or(self.response.len())
    }

    fn line(&self, format: &LogFormat, label: &dyn Fn(&str) -> Option<String>) -> String {
        let mut line = String::with_capacity(128);
        for piece in &format.0 {
            match piece {
                LogPiece::Text(text) => line.push_str(text),
                LogPiece::Field(field) => self.field(*field, &mut line),
                LogPiece::Metadata(wanted) => line.push_str(label(wanted).as_deref().unwrap_or("-")),
            }
        }
        line
    }

    fn field(&self, field: LogField, out: &mut String) {
        let _ = match field {
            LogField::Type => match rtype::mnemonic(self.qtype) {
                "other" => write!(out, "TYPE{}", self.qtype),
                known => write!(out, "{known}"),
            },
            LogField::Name => write!(out, "{}", Name::from_query(self.name)),
            LogField::Class => write!(out, "{}", if self.qclass == CLASS_CH { "CH" } else { "IN" }),
            LogField::Proto => write!(out, "{}", proto(self.arrival.transport)),
            LogField::Remote => address(self.arrival.from.ip(), out),
            LogField::Local => match self.arrival.local {
                Some(local) => address(local, out),
                None => write!(out, "-"),
            },
            LogField::Size => write!(out, "{}", self.size),
            LogField::Port => write!(out, "{}", self.arrival.from.port()),
            LogField::Duration => write!(out, "{}s", self.took.as_secs_f64()),
            LogField::Rcode => write!(out, "{}", self.rcode().mnemonic()),
            LogField::ResponseSize => write!(out, "{}", self.uncompressed()),
            LogField::Flags => write!(out, "{}", flags(self.flags())),
            LogField::Bufsize => {
                write!(out, "{}", self.head.edns.map_or(PLAIN_UDP_SIZE, |edns| edns.size.max(PLAIN_UDP_SIZE)))
            }
            LogField::DnssecOk => write!(out, "{}", self.head.dnssec_ok()),
            LogField::Id => write!(out, "{}", self.head.id),
            LogField::Opcode => write!(out, "{}", (self.head.flags & flag::OPCODE) >> 11),
        };
    }
}

const fn proto(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

fn address(ip: IpAddr, out: &mut String) -> std::fmt::Result {
    match ip {
        IpAddr::V4(ip) => write!(out, "{ip}"),
        IpAddr::V6(ip) => write!(out, "[{ip}]"),
    }
}

/// The flags of a header (RFC 1035 §4.1.1, RFC 4035 §3.1.6), such as `qr,aa,rd`.
fn flags(flags: u16) -> String {
    let names = [(15, "qr"), (10, "aa"), (9, "tc"), (8, "rd"), (7, "ra"), (6, "z"), (5, "ad"), (4, "cd")];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name).collect();
    set.join(",")
}
