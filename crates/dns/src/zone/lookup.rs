//! Asking the zone.

use std::{borrow::Cow, net::IpAddr};

use podnet_model::PodKey;

use super::{Book, Origin, Zone};
use crate::{
    answer::{Alias, Answer, AnswerBuilder, Owner, Section},
    chain::{Fallthrough, PodNames},
    message::rtype,
    name::{Name, QueryName},
};

/// What the zone says about a question.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// These records.
    Records(Cow<'a, Answer>),
    /// The name is an alias; what it points to has to be found.
    Alias(&'a Alias),
    /// The zone's SOA record is what was asked for.
    Authority(Authority<'a>),
    /// The name exists and has no records of the type.
    NoData(Authority<'a>),
    /// The name does not exist.
    NoName(Authority<'a>),
}

/// The zone that an answer without records comes from.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// Its name.
    pub zone: &'a Name,
    /// The data of its SOA record.
    pub soa: &'a [u8],
    /// The time to live of its records, in seconds.
    pub ttl: u32,
}

impl Authority<'_> {
    /// Appends the SOA record to a response whose question is for `name`.
    pub fn write(&self, name: &QueryName, out: &mut Vec<u8>) {
        let pointer = 0xc000 | (crate::message::HEADER + self.offset(name)) as u16;
        out.extend_from_slice(&pointer.to_be_bytes());
        out.extend_from_slice(&rtype::SOA.to_be_bytes());
        out.extend_from_slice(&crate::message::CLASS_IN.to_be_bytes());
        out.extend_from_slice(&self.ttl.to_be_bytes());
        out.extend_from_slice(&(self.soa.len() as u16).to_be_bytes());
        out.extend_from_slice(self.soa);
    }

    /// The negative answer as records.
    #[must_use]
    pub fn answer(&self, name: &QueryName, rcode: crate::message::Rcode) -> Answer {
        let mut builder = AnswerBuilder::new(&Name::from_query(name));
        builder.push(Section::Authority, Owner::Ancestor(self.offset(name)), rtype::SOA, self.ttl, self.soa);
        Answer { rcode, ..builder.build() }
    }

    /// The SOA record as the answer to a question for it.
    #[must_use]
    pub fn itself(&self, name: &QueryName) -> Answer {
        let mut builder = AnswerBuilder::new(&Name::from_query(name));
        builder.push(Section::Answer, Owner::Ancestor(self.offset(name)), rtype::SOA, self.ttl, self.soa);
        builder.build()
    }

    fn offset(&self, name: &QueryName) -> usize {
        name.wire().len() - self.zone.wire().len()
    }
}

/// Zones of the cluster's names.
pub trait Names {
    /// What they say about a question; none when the name is in none of them.
    fn find(&self, name: &QueryName, qtype: u16) -> Option<Found<'_>>;

    /// The names that go on to the next plugin when they do not exist.
    fn fallthrough(&self) -> &Fallthrough;
}

impl Names for Zone {
    fn find(&self, name: &QueryName, qtype: u16) -> Option<Found<'_>> {
        for origin in &self.book.origins {
            if let Some(below) = name.within(&origin.name) {
                return Some(self.forward(origin, name, below, qtype));
            }
        }
        let (zone, soa) = self.reverse_origins.iter().find(|(zone, _)| name.within(zone).is_some())?;
        let authority = Authority { zone, soa, ttl: self.options.ttl };
        Some(self.book.reverse(name, qtype, authority, &self.options.fallthrough))
    }

    fn fallthrough(&self) -> &Fallthrough {
        &self.options.fallthrough
    }
}

impl Zone {
    /// The namespace of the pod that has an address; none where no pod has it, or pods of several namespaces do, as on a node's own
    /// network.
    #[must_use]
    pub fn namespace_of(&self, addr: IpAddr) -> Option<&str> {
        let (first, others) = self.pods.get(&addr)?.split_first()?;
        others.iter().all(|pod| pod.namespace == first.namespace).then(|| first.namespace.as_str())
    }

    /// The zone of Services that a name lies in, and how many labels stand before it.
    #[must_use]
    pub fn origin_of(&self, name: &QueryName) -> Option<(&Name, usize)> {
        self.book.origins.iter().find_map(|origin| Some((&origin.name, name.within(&origin.name)?)))
    }

    fn forward<'a>(&'a self, origin: &'a Origin, name: &QueryName, below: usize, qtype: u16) -> Found<'a> {
        let authority = origin.authority(self.options.ttl);
        if let Some(found) = origin.at(name, below, qtype, authority) {
            return found;
        }
        let exists = match (name.label(below.saturating_sub(1)), below) {
            (b"svc", 2) => self.book.namespace_exists(name.label(0)),
            (b"pod", 2) => self.options.pods != PodNames::Disabled && self.book.namespace_exists(name.label(0)),
            (b"pod", 3) => match self.pod_address(name.label(0), name.label(1)) {
                Some(addr) => return self.pod_answer(name, qtype, addr, authority),
                None => false,
            },
            _ => false,
        };
        if exists { Found::NoData(authority) } else { Found::NoName(authority) }
    }

    /// The address that a pod's name spells, where such a name exists.
    fn pod_address(&self, pod: &[u8], namespace: &[u8]) -> Option<IpAddr> {
        let addr = dashed_address(pod)?;
        match self.options.pods {
            PodNames::Disabled => None,
            PodNames::Insecure => self.book.namespace_exists(namespace).then_some(addr),
            PodNames::Verified => {
                let mut pods = self.pods.get(&addr)?.iter();
                let named = |pod: &PodKey| pod.namespace.as_str().as_bytes().eq_ignore_ascii_case(namespace);
                pods.any(|pod| named(pod) && self.book.exposed(&pod.namespace, &self.options)).then_some(addr)
            }
        }
    }

    fn pod_answer<'a>(&self, name: &QueryName, qtype: u16, addr: IpAddr, authority: Authority<'a>) -> Found<'a> {
        let asked = matches!((qtype, addr), (rtype::A, IpAddr::V4(_)) | (rtype::AAAA, IpAddr::V6(_)));
        if !asked {
            return Found::NoData(authority);
        }
        let mut builder = AnswerBuilder::new(&Name::from_query(name));
        builder.push_addr(Section::Answer, Owner::Question, self.options.ttl, addr);
        Found::Records(Cow::Owned(builder.build()))
    }
}

impl Origin {
    pub(super) fn authority(&self, ttl: u32) -> Authority<'_> {
        Authority { zone: &self.name, soa: &self.soa, ttl }
    }

    /// What stands at a name, which has `below` labels more than the zone; none when there is no such name.
    pub(super) fn at<'a>(
        &'a self,
        name: &QueryName,
        below: usize,
        qtype: u16,
        authority: Authority<'a>,
    ) -> Option<Found<'a>> {
        let entry = self.entries.get(name.wire())?;
        if let Some(alias) = &entry.alias {
            return Some(Found::Alias(alias));
        }
        let set = entry.sets.iter().find(|(rtype, _)| *rtype == qtype);
        Some(match set {
            Some((_, answer)) => Found::Records(Cow::Borrowed(answer)),
            None if below == 0 && qtype == rtype::SOA => Found::Authority(authority),
            None => Found::NoData(authority),
        })
    }
}

impl Book {
    /// What is said about a name in a reverse zone.
    pub(super) fn reverse<'a>(
        &self,
        name: &QueryName,
        qtype: u16,
        authority: Authority<'a>,
        fallthrough: &Fallthrough,
    ) -> Found<'a> {
        let Some(pointers) = name.reverse_address().and_then(|addr| self.pointers.get(&addr)) else {
            return match (name.labels() == authority.zone.labels(), qtype) {
                (true, rtype::SOA) => Found::Authority(authority),
                (true, _) => Found::NoData(authority),
                // Half an address has names below it, or may have: saying that it does not exist would deny those, too
                // (RFC 8020).
                (false, _) if name.reverse_address().is_none() && !fallthrough.holds(name) => Found::NoData(authority),
                (false, _) => Found::NoName(authority),
            };
        };
        if qtype != rtype::PTR {
            return Found::NoData(authority);
        }
        let frontends = pointers.iter().any(|pointer| pointer.frontend);
        let mut builder = AnswerBuilder::new(&Name::from_query(name));
        for pointer in pointers.iter().filter(|pointer| pointer.frontend == frontends) {
            builder.push(Section::Answer, Owner::Question, rtype::PTR, authority.ttl, pointer.name.wire());
        }
        Found::Records(Cow::Owned(builder.build()))
    }
}

/// `10-244-3-64` and `fd00--1` as addresses.
fn dashed_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    if text.bytes().filter(|byte| *byte == b'-').count() == 3
        && let Ok(addr) = text.replace('-', ".").parse::<std::net::Ipv4Addr>()
    {
        return Some(IpAddr::V4(addr));
    }
    text.replace('-', ":").parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
}
