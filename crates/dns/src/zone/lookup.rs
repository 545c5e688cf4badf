//! Asking the zone.

use std::{borrow::Cow, net::IpAddr};

use podnet_model::Namespace;

use super::{
    Origin, SCHEMA_VERSION, Zone,
    known::{Known, Record},
    labels::{self, Deep},
    reverse::reverse_answer,
    servers,
    stand::{self, Stand, Stood},
};
use crate::{
    answer::{Alias, Answer, AnswerBuilder, Owner, Section},
    chain::{CLIENT_LABEL, Fallthrough, KubernetesOptions, PodNames},
    message::rtype,
    name::{Name, QueryName},
};

/// What the zone says about a question.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// These records.
    Records(Cow<'a, Answer>),
    /// The name is an alias; what it points to has to be found.
    Alias(Alias),
    /// The zone's SOA record is what was asked for.
    Authority(Authority<'a>),
    /// The name exists and has no records of the type.
    NoData(Authority<'a>),
    /// Whether the name exists is not known yet, whatever is known of the cluster itself.
    Unknown,
    /// The name does not exist.
    NoName(Authority<'a>),
}

/// The zone that an answer without records comes from.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// Its name.
    pub zone: &'a Name,
    /// The data of its SOA record, but for the serial number.
    pub soa: &'a [u8],
    /// The serial number.
    pub serial: u32,
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
        self.number(out);
    }

    /// Writes the serial number where it stands in a record that ends here: before four other numbers (RFC 1035 §3.3.13).
    fn number(&self, record: &mut [u8]) {
        if let Some(place) = record.len().checked_sub(20).and_then(|at| record.get_mut(at..at + 4)) {
            place.copy_from_slice(&self.serial.to_be_bytes());
        }
    }

    fn data(&self) -> Vec<u8> {
        let mut data = self.soa.to_vec();
        self.number(&mut data);
        data
    }

    /// The negative answer as records.
    #[must_use]
    pub fn answer(&self, name: &QueryName, rcode: crate::message::Rcode) -> Answer {
        let mut builder = AnswerBuilder::new(&Name::from_query(name));
        builder.push(Section::Authority, Owner::Ancestor(self.offset(name)), rtype::SOA, self.ttl, &self.data());
        Answer { rcode, ..builder.build() }
    }

    /// The SOA record as the answer to a question for it.
    #[must_use]
    pub fn itself(&self, name: &QueryName) -> Answer {
        let mut builder = AnswerBuilder::new(&Name::from_query(name));
        builder.push(Section::Answer, Owner::Ancestor(self.offset(name)), rtype::SOA, self.ttl, &self.data());
        builder.build()
    }

    fn offset(&self, name: &QueryName) -> usize {
        name.wire().len() - self.zone.wire().len()
    }
}

/// Zones of the cluster's names.
pub trait Names {
    /// What they say about a question; none when the name is in none of them. While it is looked at, the cluster stands still.
    fn find<R>(&self, name: &QueryName, qtype: u16, then: impl FnOnce(Option<Found<'_>>) -> R) -> R;

    /// The names that go on to the next plugin when they do not exist.
    fn fallthrough(&self) -> &Fallthrough;

    /// The time to live of all their records, in seconds.
    fn ttl(&self) -> u32;

    /// Whether some names are [`Found::Unknown`] yet.
    fn is_incomplete(&self) -> bool {
        false
    }

    /// Whether a zone of this name can be given away.
    fn gives(&self, _zone: &Name) -> bool {
        false
    }

    /// All records of such a zone.
    fn given(&self, _zone: &Name) -> Option<crate::authority::Zone> {
        None
    }

    /// What is told of a client's question for a name under a label (`metadata`).
    fn label(&self, _label: &str, _name: &QueryName, _client: IpAddr) -> Option<String> {
        None
    }
}

impl Names for Zone {
    fn find<R>(&self, name: &QueryName, qtype: u16, then: impl FnOnce(Option<Found<'_>>) -> R) -> R {
        let known = self.cluster.read();
        let serial = self.serial.wrapping_add(known.changes);
        if let Some((below, origin)) = self.origin(name) {
            if origin.in_set {
                let set = self.set.read();
                let authority = origin.authority(self.options.ttl, serial.wrapping_add(set.changes));
                return then(Some(self.in_set((&*known, &*set), origin, name, below, qtype, authority)));
            }
            let authority = origin.authority(self.options.ttl, serial);
            return then(Some(self.forward(&known, origin, name, below, qtype, authority)));
        }
        let Some(origin) = self.reverse_origins.iter().find(|origin| name.within(&origin.name).is_some()) else {
            return then(None);
        };
        let serial = serial.wrapping_add(self.changes_of_set());
        let authority = origin.authority(self.options.ttl, serial);
        let names = |addr| self.names_of_address(&known, addr);
        then(Some(reverse_answer(name, qtype, authority, &self.options.fallthrough, names)))
    }

    fn fallthrough(&self) -> &Fallthrough {
        &self.options.fallthrough
    }

    fn ttl(&self) -> u32 {
        self.options.ttl
    }

    fn is_incomplete(&self) -> bool {
        (self.verifies_pods() && self.cluster.read().awaits_pods) || (self.has_set() && !self.set.read().complete)
    }

    fn gives(&self, zone: &Name) -> bool {
        self.serves(zone)
    }

    fn given(&self, zone: &Name) -> Option<crate::authority::Zone> {
        self.whole(zone)
    }

    fn label(&self, label: &str, name: &QueryName, client: IpAddr) -> Option<String> {
        let wanted = label.strip_prefix("kubernetes/")?;
        match wanted {
            "client-namespace" => return Some(self.namespace_of(client)?.to_string()),
            "client-pod-name" => return Some(self.cluster.read().pods.only_at(client)?.name.to_string()),
            _ => {}
        }
        if let Some(key) = wanted.strip_prefix(CLIENT_LABEL) {
            let known = self.cluster.read();
            return known.pods.label(known.pods.only_at(client)?, key).map(str::to_owned);
        }
        let (_, origin) = self.origin(name)?;
        let deep = match (origin.in_set, self.options.zonal) {
            (true, _) => Deep::Clusters,
            (false, true) => Deep::Zones,
            (false, false) => Deep::Ports,
        };
        labels::told(wanted, &name.to_string(), &origin.name.to_string(), deep)
    }
}

impl Zone {
    /// The namespace of the pod that has an address; none where no pod has it, or pods of several namespaces do, as on a node's own
    /// network.
    #[must_use]
    pub fn namespace_of(&self, addr: IpAddr) -> Option<Namespace> {
        let known = self.cluster.read();
        let (first, others) = known.pods.at(addr).split_first()?;
        others.iter().all(|other| other.namespace == first.namespace).then(|| first.namespace.clone())
    }

    /// The zone of the cluster's own Services that a name lies in, and how many labels stand before it.
    #[must_use]
    pub fn origin_of(&self, name: &QueryName) -> Option<(&Name, usize)> {
        let mut own = self.origins.iter().filter(|origin| !origin.in_set);
        own.find_map(|origin| Some((&origin.name, name.within(&origin.name)?)))
    }

    /// The smallest zone of Services that a name lies in, and how many labels stand before it.
    fn origin(&self, name: &QueryName) -> Option<(usize, &Origin)> {
        let within = self.origins.iter().filter_map(|origin| Some((name.within(&origin.name)?, origin)));
        within.min_by_key(|(below, _)| *below)
    }

    fn forward<'a>(
        &'a self,
        known: &'a Known,
        origin: &'a Origin,
        name: &QueryName,
        below: usize,
        qtype: u16,
        authority: Authority<'a>,
    ) -> Found<'a> {
        let Some(parent) = below.checked_sub(1) else {
            return apex(origin, qtype, authority, || servers::inside(known));
        };
        let exists = match (name.label(parent), below) {
            (b"svc", 3..) => {
                let record = known.service(name.labels_between(below - 3, below - 1));
                if self.options.zonal && below > 3 && name.label(below - 4) == b"_zone" {
                    let zonal = record.and_then(|record| self.zonal(known, record, &origin.tail, name, below, qtype));
                    return stood(zonal, authority);
                }
                let stand = record.and_then(|record| self.stand(known, record, &origin.tail));
                return stood(stand.and_then(|stand| stand.at(name, below - 3, qtype)), authority);
            }
            (b"svc", 2) => namespace_exists(known, name.label(0), &self.options),
            (b"pod", 2) => {
                self.options.pods != PodNames::Disabled && namespace_exists(known, name.label(0), &self.options)
            }
            (b"pod", 3) => match self.pod_address(known, name.label(0), name.label(1)) {
                Some(addr) => return one_address(qtype, addr, authority),
                None if self.verifies_pods() && known.awaits_pods => return Found::Unknown,
                None => false,
            },
            (b"dns", 2) if name.label(0) == b"ns" => return addresses(&servers::inside(known), qtype, authority),
            (b"dns-version", 1) if qtype == rtype::TXT => return version(SCHEMA_VERSION, authority),
            (b"svc" | b"pod" | b"dns" | b"dns-version", 1) => true,
            _ => false,
        };
        if exists { Found::NoData(authority) } else { Found::NoName(authority) }
    }

    pub(super) fn stand<'a>(&'a self, known: &Known, record: &'a Record, tail: &'a [u8]) -> Option<Stand<'a>> {
        let stand = Stand::inside(record, &self.options, tail)?;
        shows(known, record, &self.options).then_some(stand)
    }

    /// The address that a pod's name spells, where such a name exists.
    fn pod_address(&self, known: &Known, pod: &[u8], namespace: &[u8]) -> Option<IpAddr> {
        let addr = dashed_address(pod)?;
        match self.options.pods {
            PodNames::Disabled => None,
            PodNames::Insecure => namespace_exists(known, namespace, &self.options).then_some(addr),
            PodNames::Verified => {
                let mut pods = known.pods.at(addr).iter();
                let named = pods.any(|pod| pod.namespace.as_str().as_bytes().eq_ignore_ascii_case(namespace));
                (named && exposed(known, namespace, &self.options)).then_some(addr)
            }
        }
    }
}

/// Whether names in a namespace are shown. Where labels decide it, the namespace itself has to be known.
pub(super) fn exposed(known: &Known, namespace: &[u8], options: &KubernetesOptions) -> bool {
    let named = |only: &Namespace| only.as_str().as_bytes().eq_ignore_ascii_case(namespace);
    options.namespaces.as_ref().is_none_or(|only| only.iter().any(named))
        && options.namespace_labels.as_ref().is_none_or(|selector| {
            known.labels(namespace).is_some_and(|labels| selector.matches(|key| labels.get(key).map(String::as_str)))
        })
}

/// Whether a Service is shown.
pub(super) fn shows(known: &Known, record: &Record, options: &KubernetesOptions) -> bool {
    let labels = options.labels.as_ref();
    let selected =
        |front: &super::packed::Front| labels.is_none_or(|selector| selector.matches(|key| front.label(key)));
    record.front.as_ref().is_some_and(selected) && exposed(known, record.namespace(), options)
}

/// Whether a namespace is known and shown; which of its Services are shown does not matter.
pub(super) fn namespace_exists(known: &Known, label: &[u8], options: &KubernetesOptions) -> bool {
    known.namespace(label) && exposed(known, label, options)
}

pub(super) fn stood<'a>(stood: Option<Stood<'a>>, authority: Authority<'a>) -> Found<'a> {
    match stood {
        Some(Stood::Records(answer)) => Found::Records(answer),
        Some(Stood::Alias(alias)) => Found::Alias(alias),
        Some(Stood::Nothing) => Found::NoData(authority),
        None => Found::NoName(authority),
    }
}

/// What is said about the zone's own name. With the name of its server come the addresses of that, as with CoreDNS.
pub(super) fn apex<'a>(
    origin: &Origin,
    qtype: u16,
    authority: Authority<'a>,
    server: impl FnOnce() -> Vec<IpAddr>,
) -> Found<'a> {
    match qtype {
        rtype::SOA => Found::Authority(authority),
        rtype::NS => {
            let name = &origin.name_server;
            let mut builder = AnswerBuilder::for_any();
            builder.push(Section::Answer, Owner::Question, rtype::NS, authority.ttl, name.wire());
            for addr in server() {
                builder.push_addr(Section::Additional, Owner::Other(name), authority.ttl, addr);
            }
            Found::Records(Cow::Owned(builder.build()))
        }
        _ => Found::NoData(authority),
    }
}

/// These addresses of the type that is asked for.
pub(super) fn addresses<'a>(addrs: &[IpAddr], qtype: u16, authority: Authority<'a>) -> Found<'a> {
    let asked = matches!(qtype, rtype::A | rtype::AAAA);
    let set = asked.then(|| stand::set(addrs.iter().copied(), qtype, authority.ttl)).flatten();
    set.map_or(Found::NoData(authority), |answer| Found::Records(Cow::Owned(answer)))
}

fn one_address(qtype: u16, addr: IpAddr, authority: Authority<'_>) -> Found<'_> {
    addresses(&[addr], qtype, authority)
}

/// `dns-version.<zone>`: the version of the schema that a zone follows.
pub(super) fn version<'a>(version: &str, authority: Authority<'a>) -> Found<'a> {
    let mut text = vec![version.len() as u8];
    text.extend_from_slice(version.as_bytes());
    let mut builder = AnswerBuilder::for_any();
    builder.push(Section::Answer, Owner::Question, rtype::TXT, authority.ttl, &text);
    Found::Records(Cow::Owned(builder.build()))
}

/// `10-244-3-64` and `fd00--1` as addresses.
pub(super) fn dashed_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    if text.bytes().filter(|byte| *byte == b'-').count() == 3
        && let Ok(addr) = text.replace('-', ".").parse::<std::net::Ipv4Addr>()
    {
        return Some(IpAddr::V4(addr));
    }
    text.replace('-', ":").parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
}
