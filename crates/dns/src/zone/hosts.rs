//! The endpoints of a headless Service as SRV records tell them.

use std::{collections::BTreeSet, net::IpAddr};

use smallvec::SmallVec;

use super::{
    packed::{Endpoint, Port, Slice},
    stand::Stand,
};
use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    message::rtype,
    name::{MAX_NAME, Name, QueryName},
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

/// Where the ports of the Service's endpoints are: port by port, and by the endpoints' names.
pub(super) fn targets<'a>(stand: &Stand<'a>, wanted: impl Fn(&Port) -> bool) -> Vec<Target> {
    let named =
        |(slice, endpoint): (&'a Slice, &'a Endpoint)| Some((stand.below(slice, endpoint)?, endpoint.addr, slice));
    let mut all: Vec<(Name, IpAddr, &'a Slice)> = stand.endpoints().take(MOST).filter_map(named).collect();
    all.sort_unstable_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    let mut targets: Vec<(&'a Port, Target)> = Vec::with_capacity(all.len());
    // What is called alike is one host.
    for host in all.chunk_by(|one, other| one.0 == other.0) {
        let mut addrs: Vec<IpAddr> = host.iter().map(|(_, addr, _)| *addr).collect();
        addrs.dedup();
        let mut ports: SmallVec<[&'a Port; 4]> = host.iter().flat_map(|(.., slice)| &slice.ports).collect();
        ports.retain(|port| wanted(port));
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            targets.push((port, Target { name: host[0].0.clone(), addrs: addrs.clone(), port: port.number }));
        }
    }
    targets.sort_by_key(|(port, _)| (&port.name, port.protocol));
    targets.into_iter().map(|(_, target)| target).collect()
}

/// SRV records (RFC 2782) of one priority, the weight shared evenly, with the targets' addresses.
pub(super) fn locations(owner: &QueryName, targets: &[Target], ttl: u32) -> Answer {
    let weight = (100 / targets.len().max(1)).max(1) as u16;
    let mut builder = AnswerBuilder::new(&Name::from_query(owner));
    let mut data = Vec::with_capacity(6 + MAX_NAME);
    for target in targets {
        data.clear();
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
