//! Records of services.

use std::collections::{BTreeMap, BTreeSet};

use super::{Host, Service};
use crate::{
    answer::Section,
    authority::kind,
    message::{Expanded, rtype},
    name::Name,
};

/// The share of a service that says nothing of it.
const WEIGHT: u64 = 100;
/// The longest string of a text (RFC 1035 §3.3.14).
const STRING: usize = 255;

/// Records, and the names that they point to whose addresses are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointing {
    /// The records, with those addresses that are known.
    pub records: Vec<Expanded>,
    /// Names whose addresses are to be looked up.
    pub targets: Vec<Name>,
}

/// A record of the answer.
#[must_use]
pub fn record(owner: &Name, rtype: u16, ttl: u32, rdata: Vec<u8>) -> Expanded {
    Expanded { section: Section::Answer, owner: owner.clone(), rtype, ttl, rdata }
}

/// The record of one service itself for a question of type A, AAAA or TXT; none: it has none.
#[must_use]
pub fn own(service: &Service, owner: &Name, qtype: u16) -> Option<Expanded> {
    let (kind, data) = match (&service.host, qtype) {
        (Host::Address(_), rtype::A | rtype::AAAA) => address(service)?,
        (Host::Text, rtype::TXT) => (rtype::TXT, strings(&service.text)),
        _ => return None,
    };
    (kind == qtype).then(|| record(owner, kind, service.ttl, data))
}

fn address(service: &Service) -> Option<(u16, Vec<u8>)> {
    match service.host {
        Host::Address(std::net::IpAddr::V4(v4)) => Some((rtype::A, v4.octets().to_vec())),
        Host::Address(std::net::IpAddr::V6(v6)) => Some((rtype::AAAA, v6.octets().to_vec())),
        _ => None,
    }
}

fn strings(text: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(text.len() + 1 + text.len() / STRING);
    for string in text.as_bytes().chunks(STRING) {
        data.push(string.len() as u8);
        data.extend_from_slice(string);
    }
    data
}

/// Locations (SRV, RFC 2782). The weights of one priority are shares of a hundred, at least 1.
#[must_use]
pub fn locations(services: &[Service], owner: &Name) -> Pointing {
    let weight = |service: &Service| if service.weight == 0 { WEIGHT } else { u64::from(service.weight) };
    let mut sums: BTreeMap<u16, u64> = BTreeMap::new();
    for service in services {
        *sums.entry(service.priority).or_default() += weight(service);
    }
    pointing(services, owner, rtype::SRV, |service, target| {
        let share = (100 * weight(service) / sums[&service.priority]).max(1) as u16;
        let numbers = [service.priority, share, service.port];
        let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        data.extend_from_slice(target.wire());
        data
    })
}

/// Mail exchangers (MX).
#[must_use]
pub fn exchangers(services: &[Service], owner: &Name) -> Pointing {
    let services: Vec<Service> = services.iter().filter(|service| service.mail).cloned().collect();
    pointing(&services, owner, kind::MX, |service, target| {
        [&service.priority.to_be_bytes()[..], target.wire()].concat()
    })
}

/// Name servers (NS): they have to be at addresses.
#[must_use]
pub fn name_servers(services: &[Service], owner: &Name) -> Pointing {
    let at_addresses = services.iter().filter(|service| matches!(service.host, Host::Address(_)));
    let services: Vec<Service> = at_addresses.cloned().collect();
    pointing(&services, owner, rtype::NS, |_, target| target.wire().to_vec())
}

fn pointing(services: &[Service], owner: &Name, rtype: u16, data: impl Fn(&Service, &Name) -> Vec<u8>) -> Pointing {
    let mut made = Pointing::default();
    let (mut told, mut known, mut wanted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut addresses = Vec::new();
    for service in services {
        let Some(target) = service.target() else { continue };
        let data = data(service, &target);
        if told.insert(data.clone()) {
            made.records.push(record(owner, rtype, service.ttl, data));
        }
        match address(service) {
            Some((rtype, data)) if known.insert((target.clone(), data.clone())) => {
                let section = Section::Additional;
                addresses.push(Expanded { section, owner: target, rtype, ttl: service.ttl, rdata: data });
            }
            Some(_) => {}
            None if wanted.insert(target.clone()) => made.targets.push(target),
            None => {}
        }
    }
    made.records.append(&mut addresses);
    made
}
