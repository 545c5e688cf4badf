//! `local`: names that mean this machine are nobody else's affair (RFC 6761 §6.3, RFC 6303 §4.1).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    chain::LocalOptions,
    message::rtype,
    metrics::Metrics,
    name::{Name, QueryName},
    server::{Debugger, Knowing, Look, Said},
};

/// The time to live of the records, in seconds: a week, since they never change.
const TTL: u32 = 604_800;
/// The zones, in wire form.
const ZONES: [&[u8]; 4] = [
    b"\x09localhost\0",
    b"\x010\x07in-addr\x04arpa\0",
    b"\x03127\x07in-addr\x04arpa\0",
    b"\x03255\x07in-addr\x04arpa\0",
];
const LOCALHOST: &[u8] = ZONES[0];
const PTR: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";

/// The plugin.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its options.
    pub options: LocalOptions,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who wants to know who asks such things.
    pub debug: Debugger,
}

impl Knowing for Local {
    fn say(&self, look: &Look<'_>) -> Said {
        let zone = (0..look.name.labels()).find(|&index| ZONES.contains(&look.name.suffix(index)));
        match zone {
            Some(labels) => {
                if labels > 0 && look.name.suffix(labels) == LOCALHOST {
                    self.count(look);
                }
                Said::Answer(within(look.name, labels, look.qtype))
            }
            // A search path makes `localhost.example.org` of `localhost`.
            None if self.options.localhost_prefix && look.name.label(0) == b"localhost" => {
                self.count(look);
                Said::Answer(addresses(look.name, look.qtype))
            }
            None => Said::Pass,
        }
    }
}

impl Local {
    /// Counts and tells who asks for more than `localhost` alone.
    fn count(&self, look: &Look<'_>) {
        self.metrics.localhost();
        self.debug.tell(|| format!("local: {} is asked for by {}", look.name, look.arrival.from.ip()));
    }
}

/// The answer for a name that is this machine. Where it has nothing of a type, it is a zone of its own that says so, as with CoreDNS.
fn addresses(name: &QueryName, qtype: u16) -> Answer {
    let owner = Name::from_query(name);
    let mut builder = AnswerBuilder::new(&owner);
    match qtype {
        rtype::A => builder.push_addr(Section::Answer, Owner::Question, TTL, IpAddr::V4(Ipv4Addr::LOCALHOST)),
        rtype::AAAA => builder.push_addr(Section::Answer, Owner::Question, TTL, IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => builder.push(Section::Authority, Owner::Question, rtype::SOA, TTL, &soa(&owner)),
    };
    builder.build()
}

/// The answer of one of the zones, whose name begins `labels` labels into the question's.
fn within(name: &QueryName, labels: usize, qtype: u16) -> Answer {
    let owner = Name::from_query(name);
    let zone = look_up(name, labels);
    let offset = name.wire().len() - zone.wire().len();
    let mut builder = AnswerBuilder::new(&owner);
    let apex = labels == 0;
    match qtype {
        rtype::A | rtype::AAAA if zone.wire() == LOCALHOST => return addresses(name, qtype),
        rtype::PTR if name.wire() == PTR => {
            builder.push(Section::Answer, Owner::Question, rtype::PTR, TTL, LOCALHOST);
        }
        rtype::NS if apex => {
            builder.push(Section::Answer, Owner::Question, rtype::NS, TTL, LOCALHOST);
        }
        rtype::SOA if apex => {
            builder.push(Section::Answer, Owner::Question, rtype::SOA, TTL, &soa(&zone));
        }
        _ => {
            builder.push(Section::Authority, Owner::Ancestor(offset), rtype::SOA, TTL, &soa(&zone));
            let exists = apex || name.wire() == PTR || zone.wire() == LOCALHOST;
            let rcode = if exists { crate::message::Rcode::NOERROR } else { crate::message::Rcode::NXDOMAIN };
            return Answer { rcode, ..builder.build() };
        }
    }
    builder.build()
}

fn look_up(name: &QueryName, labels: usize) -> Name {
    QueryName::parse(name.suffix(labels), 0).map_or_else(|_| Name::root(), |(zone, _)| Name::from_query(&zone))
}

/// RFC 6303 §3: the zone is its own master; nobody is written to, and nothing is refreshed.
fn soa(zone: &Name) -> Vec<u8> {
    let mut data = zone.wire().to_vec();
    data.extend_from_slice(b"\x06nobody\x07invalid\0");
    for value in [1, 3600, 1200, TTL, 10_800] {
        data.extend_from_slice(&value.to_be_bytes());
    }
    data
}
