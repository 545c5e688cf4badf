//! A Service as a zone shows it: the names that it has there, and their records.

mod shown;

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use smallvec::SmallVec;

use super::{
    hosts::{self, Target},
    known::{Built, Record},
    packed::{Endpoint, Front, Port, Slice},
};
use crate::{
    answer::{Alias, Answer, AnswerBuilder, Owner, Section},
    message::rtype,
    name::{Name, QueryName},
};

/// A Service in a zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand<'a> {
    pub(super) record: &'a Record,
    pub(super) front: &'a Front,
    face: Face<'a>,
    /// Its endpoints have names.
    with_hosts: bool,
    /// Endpoints without a hostname are called as their pod.
    by_pod: bool,
    /// It is a Service of a cluster set: what stands below it stands below the cluster that it is in.
    in_set: bool,
    /// Only the endpoints in this zone of the topology.
    in_zone: Option<&'a str>,
    /// Its addresses are those that are kept as records.
    kept: bool,
    pub(super) ttl: u32,
    /// What stands behind the name and the namespace.
    tail: &'a [u8],
}

/// What stands at a Service's own name.
#[derive(Clone, Copy, Debug)]
enum Face<'a> {
    /// These addresses, and the Service's ports.
    Addrs(&'a [IpAddr]),
    /// The endpoints' addresses and ports.
    Headless,
    /// An alias, and whether the Service's ports lead to it, too.
    Alias(&'a Name, bool),
}

/// What stands at a name.
#[derive(Debug)]
pub(super) enum Stood<'a> {
    Records(Cow<'a, Answer>),
    Alias(Alias),
    /// The name exists, and has no records of the type.
    Nothing,
}

impl<'a> Stand<'a> {
    /// What stands at a name that has `above` labels before the Service's own; none where there is no such name.
    pub(super) fn at(&self, name: &QueryName, above: usize, qtype: u16) -> Option<Stood<'a>> {
        match (above, name.label(0)) {
            (0, _) => Some(self.own(name, qtype)),
            (1, [b'_', ..]) => {
                let ports = self.ports();
                let known =
                    ports.into_iter().any(|port| !port.name.is_empty() && name.label(0) == port.protocol.as_bytes());
                known.then_some(Stood::Nothing)
            }
            (1, label) if self.in_set => self.has_cluster(label).then_some(Stood::Nothing),
            (1, label) => self.host(name, label, b"", qtype),
            (2, label) if self.in_set && !label.starts_with(b"_") => self.host(name, label, name.label(1), qtype),
            (2, [b'_', port @ ..]) => {
                let targets = self.port(port, name.label(1));
                (!targets.is_empty()).then(|| self.locations(name, qtype, &targets))
            }
            _ => None,
        }
    }

    /// The names of an address here, and whether they are the Service's own.
    pub(super) fn names_of(&self, addr: IpAddr) -> (bool, SmallVec<[Name; 1]>) {
        match self.face {
            Face::Addrs(addrs) if addrs.contains(&addr) => (true, self.base().into_iter().collect()),
            _ if self.with_hosts => {
                let some =
                    self.record.slices.iter().flat_map(|slice| slice.at(addr).iter().map(move |one| (slice, one)));
                let mut names: SmallVec<[Name; 1]> = some
                    .filter(|(slice, endpoint)| self.tells(slice, endpoint))
                    .filter_map(|(slice, endpoint)| self.below(slice, endpoint))
                    .collect();
                names.sort_unstable();
                names.dedup();
                (false, names)
            }
            _ => (false, SmallVec::new()),
        }
    }

    /// Tells all names that have records.
    pub(super) fn names(&self, mut tell: impl FnMut(Name)) {
        self.base().into_iter().for_each(&mut tell);
        for port in self.ports().into_iter().filter(|port| !port.name.is_empty()) {
            let labels = [&[port.name.len() as u8 + 1], &b"_"[..], port.name.as_bytes(), &[port.protocol.len() as u8]];
            let labels = [&labels.concat(), port.protocol.as_bytes()].concat();
            Name::joined(&[&labels, &self.record.base, self.tail]).into_iter().for_each(&mut tell);
        }
        if self.with_hosts {
            self.endpoints().filter_map(|(slice, endpoint)| self.below(slice, endpoint)).for_each(&mut tell);
        }
    }

    /// What stands at the Service's own name.
    pub(super) fn own(&self, name: &QueryName, qtype: u16) -> Stood<'a> {
        match (self.face, qtype) {
            (Face::Alias(target, _), _) => {
                Stood::Alias(Alias { owner: Name::from_query(name), target: target.clone(), ttl: self.ttl })
            }
            (_, rtype::A | rtype::AAAA) => self.addresses(qtype).map_or(Stood::Nothing, Stood::Records),
            (_, rtype::SRV) => self.locations(name, qtype, &self.all_ports()),
            _ => Stood::Nothing,
        }
    }

    /// The address records of the Service's own name.
    fn addresses(&self, qtype: u16) -> Option<Cow<'a, Answer>> {
        if !self.kept {
            return set(self.addrs().into_iter(), qtype, self.ttl).map(Cow::Owned);
        }
        let sets = || {
            let addrs = self.addrs();
            let sets = [rtype::A, rtype::AAAA].into_iter();
            sets.filter_map(|qtype| Some((qtype, set(addrs.iter().copied(), qtype, self.ttl)?))).collect()
        };
        let built = self.record.built.get_or_init(|| Box::new(Built { ttl: self.ttl, sets: sets() }));
        if built.ttl != self.ttl {
            return set(self.addrs().into_iter(), qtype, self.ttl).map(Cow::Owned);
        }
        built.sets.iter().find(|(rtype, _)| *rtype == qtype).map(|(_, answer)| Cow::Borrowed(answer))
    }

    fn addrs(&self) -> Vec<IpAddr> {
        match self.face {
            Face::Addrs(addrs) => addrs.to_vec(),
            _ => {
                let mut addrs: Vec<IpAddr> = self.endpoints().map(|(_, endpoint)| endpoint.addr).collect();
                addrs.sort_unstable();
                addrs.dedup();
                addrs
            }
        }
    }

    /// Whether endpoints that are told, and have names, are in a cluster of the set.
    fn has_cluster(&self, cluster: &[u8]) -> bool {
        self.with_hosts && self.endpoints().any(|(slice, _)| slice.cluster.as_bytes() == cluster)
    }

    /// What stands at the name of an endpoint of a cluster; without a name the cluster is this one.
    fn host(&self, name: &QueryName, label: &[u8], cluster: &[u8], qtype: u16) -> Option<Stood<'a>> {
        let mut some = self.called(label).filter(|(slice, _)| slice.cluster.as_bytes() == cluster).peekable();
        some.peek()?;
        let (mut addrs, mut ports): (Vec<IpAddr>, Vec<&Port>) = (Vec::new(), Vec::new());
        for (slice, endpoint) in some {
            addrs.push(endpoint.addr);
            ports.extend(&slice.ports);
        }
        addrs.sort_unstable();
        addrs.dedup();
        if matches!(qtype, rtype::A | rtype::AAAA) {
            let set = set(addrs.into_iter(), qtype, self.ttl);
            return Some(set.map_or(Stood::Nothing, |answer| Stood::Records(Cow::Owned(answer))));
        }
        ports.sort_unstable();
        ports.dedup();
        let target = |port: &&Port| Target { name: Name::from_query(name), addrs: addrs.clone(), port: port.number };
        Some(self.locations(name, qtype, &ports.iter().map(target).collect::<Vec<_>>()))
    }

    /// The endpoints that a label calls.
    fn called<'b>(&self, label: &'b [u8]) -> impl Iterator<Item = (&'a Slice, &'a Endpoint)> + use<'a, 'b> {
        let stand = *self;
        let text = std::str::from_utf8(label).unwrap_or_default();
        let dashed = super::lookup::dashed_address(label);
        let slices = stand.record.slices.iter().filter(move |_| stand.with_hosts);
        slices.flat_map(move |slice| {
            let by_name = slice.called(text).map(move |endpoint| (slice, endpoint));
            let by_addr = dashed.map_or(&[][..], |addr| slice.at(addr));
            let by_pod = if stand.by_pod { &slice.endpoints[..] } else { &[] };
            let others = by_addr.iter().chain(by_pod).map(move |endpoint| (slice, endpoint));
            by_name.chain(others).filter(move |(slice, endpoint)| {
                // By whichever way it was found, it is called so.
                stand.tells(slice, endpoint) && stand.label(slice, endpoint).as_bytes() == label
            })
        })
    }

    /// Where a named port of the Service is.
    fn port(&self, port: &[u8], protocol: &[u8]) -> Vec<Target> {
        let is_it = |one: &Port| one.name.as_bytes() == port && one.protocol.as_bytes() == protocol && !port.is_empty();
        match self.face {
            Face::Headless => hosts::targets(self, is_it),
            _ => self.front.ports.iter().filter(|port| is_it(port)).filter_map(|port| self.own_target(port)).collect(),
        }
    }

    fn all_ports(&self) -> Vec<Target> {
        match self.face {
            Face::Headless => hosts::targets(self, |_| true),
            _ => self.front.ports.iter().filter_map(|port| self.own_target(port)).collect(),
        }
    }

    fn own_target(&self, port: &Port) -> Option<Target> {
        match self.face {
            Face::Alias(target, true) => Some(Target { name: target.clone(), addrs: Vec::new(), port: port.number }),
            Face::Alias(..) => None,
            Face::Addrs(addrs) => Some(Target { name: self.base()?, addrs: addrs.to_vec(), port: port.number }),
            Face::Headless => None,
        }
    }

    /// The ports that may have a name here.
    fn ports(&self) -> SmallVec<[&'a Port; 8]> {
        match self.face {
            Face::Alias(_, false) => SmallVec::new(),
            Face::Headless => {
                let shown =
                    self.record.slices.iter().filter(|slice| slice.endpoints.iter().any(|one| self.tells(slice, one)));
                shown.flat_map(|slice| &slice.ports).collect()
            }
            _ => self.front.ports.iter().collect(),
        }
    }

    fn locations(&self, name: &QueryName, qtype: u16, targets: &[Target]) -> Stood<'a> {
        if qtype != rtype::SRV || targets.is_empty() {
            return Stood::Nothing;
        }
        Stood::Records(Cow::Owned(hosts::locations(name, targets, self.ttl)))
    }

    /// The endpoints that are told.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&'a Slice, &'a Endpoint)> + use<'a> {
        let stand = *self;
        let all = stand.record.slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |one| (slice, one)));
        all.filter(move |(slice, endpoint)| stand.tells(slice, endpoint))
    }

    fn tells(&self, slice: &Slice, endpoint: &Endpoint) -> bool {
        (endpoint.ready || self.front.publish_not_ready)
            && self.in_zone.is_none_or(|zone| slice.zone(endpoint) == Some(zone))
    }

    /// What an endpoint is called: its hostname, its pod's name where the Corefile says so, or its address with dashes.
    pub(super) fn label<'b>(&self, slice: &'b Slice, endpoint: &Endpoint) -> Cow<'b, str> {
        let hostname = slice.hostname(endpoint);
        if !hostname.is_empty() {
            return Cow::Borrowed(hostname);
        }
        let pod = if self.by_pod { slice.pod(endpoint) } else { "" };
        if pod.is_empty() { Cow::Owned(dashed(endpoint.addr)) } else { Cow::Borrowed(pod) }
    }

    /// The Service's own name.
    fn base(&self) -> Option<Name> {
        Name::joined(&[&self.record.base, self.tail])
    }

    /// The name of an endpoint: below the Service's own, or below its cluster's in a cluster set.
    pub(super) fn below(&self, slice: &Slice, endpoint: &Endpoint) -> Option<Name> {
        let label = self.label(slice, endpoint);
        let mut labels: SmallVec<[u8; 128]> = SmallVec::new();
        for label in [&*label, &*slice.cluster].into_iter().take(1 + usize::from(self.in_set)) {
            labels.push(u8::try_from(label.len()).ok()?);
            labels.extend_from_slice(label.as_bytes());
        }
        Name::joined(&[&labels, &self.record.base, self.tail])
    }
}

/// The records of one type for a name's addresses.
pub(super) fn set(addrs: impl Iterator<Item = IpAddr>, qtype: u16, ttl: u32) -> Option<Answer> {
    let mut builder = AnswerBuilder::for_any();
    for addr in addrs.filter(|addr| addr.is_ipv4() == (qtype == rtype::A)) {
        builder.push_addr(Section::Answer, Owner::Question, ttl, addr);
    }
    let answer = builder.build();
    (answer.counts[0] > 0).then_some(answer)
}

/// An address as a label.
pub(super) fn dashed(addr: IpAddr) -> String {
    let mut label = String::with_capacity(16);
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            let _ = write!(label, "{a}-{b}-{c}-{d}");
        }
        IpAddr::V6(addr) => {
            label = addr.to_string().replace([':', '.'], "-");
            // A label does not end in a dash.
            if label.ends_with('-') {
                label.push('0');
            }
        }
    }
    label
}
