//! The endpoints of a headless Service as SRV records tell them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{packed::Port, stand::Stand};
use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    message::rtype,
    name::{Name, QueryName},
};

/// The most endpoints that are looked at for one answer: no message has room for more records.
const MOST: usize = 2048;

/// Where an SRV record points to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: Name,
    pub(super) addrs: Vec<IpAddr>,
    pub(super) port: u16,
}

/// One endpoint's name and what is behind it.
#[derive(Debug, Default)]
struct Host<'a> {
    addrs: BTreeSet<IpAddr>,
    ports: BTreeSet<&'a Port>,
}

/// Where the ports of the Service's endpoints are: port by port, and by the endpoints' names.
pub(super) fn targets(stand: &Stand<'_>, wanted: impl Fn(&Port) -> bool) -> Vec<Target> {
    let mut hosts: BTreeMap<Name, Host<'_>> = BTreeMap::new();
    for (slice, endpoint) in stand.endpoints().take(MOST) {
        let Some(name) = stand.below(&stand.label(slice, endpoint)) else { continue };
        let host = hosts.entry(name).or_default();
        host.addrs.insert(endpoint.addr);
        host.ports.extend(slice.ports.iter().filter(|port| wanted(port)));
    }
    let mut targets: BTreeMap<(&str, &str), Vec<Target>> = BTreeMap::new();
    for (name, host) in &hosts {
        for port in &host.ports {
            let addrs = host.addrs.iter().copied().collect();
            let target = Target { name: name.clone(), addrs, port: port.number };
            targets.entry((&port.name, port.protocol)).or_default().push(target);
        }
    }
    targets.into_values().flatten().collect()
}

/// SRV records (RFC 2782) of one priority, the weight shared evenly, with the targets' addresses.
pub(super) fn locations(owner: &QueryName, targets: &[Target], ttl: u32) -> Answer {
    let weight = (100 / targets.len().max(1)).max(1) as u16;
    let mut builder = AnswerBuilder::new(&Name::from_query(owner));
    for target in targets {
        let mut data = Vec::with_capacity(6 + target.name.wire().len());
        for number in [0, weight, target.port] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data.extend_from_slice(target.name.wire());
        builder.push(Section::Answer, Owner::Question, rtype::SRV, ttl, &data);
    }
    let mut told = BTreeSet::new();
    for target in targets.iter().filter(|target| told.insert(&target.name)) {
        let at = if owner.within(&target.name).is_some() {
            Owner::Ancestor(owner.wire().len() - target.name.wire().len())
        } else {
            Owner::Other(&target.name)
        };
        for addr in &target.addrs {
            builder.push_addr(Section::Additional, at, ttl, *addr);
        }
    }
    builder.build()
}
