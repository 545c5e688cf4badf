//! Where the cluster's name servers are reached, which the zones' NS records name.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    known::{Known, Record},
    packed::{Front, Kind},
};

/// The Service that cluster DNS stands behind in most distributions: where none is known that has this server as an endpoint.
const DNS_SERVICE: &[u8] = b"\x08kube-dns\x0bkube-system";

/// `ns.dns.<zone>` has the addresses of the Services that lead to this server, whatever they are called, or else this machine's.
pub(super) fn inside(known: &Known) -> Vec<IpAddr> {
    or_here(known, own_addrs(&services(known)))
}

/// `ns1.<apex>.<zone>` has those at which they are reached from outside of the cluster; where they have none, their own.
pub(super) fn outside(known: &Known) -> Vec<IpAddr> {
    let services = services(known);
    let fronts = services.iter().filter_map(|record| record.front.as_ref());
    let outside: BTreeSet<IpAddr> = fronts.flat_map(|front| front.outside_addrs().iter().copied()).collect();
    or_here(known, if outside.is_empty() { own_addrs(&services) } else { outside })
}

fn or_here(known: &Known, addrs: BTreeSet<IpAddr>) -> Vec<IpAddr> {
    if addrs.is_empty() { known.here.to_vec() } else { addrs.into_iter().collect() }
}

/// The Services that lead to this server.
fn services(known: &Known) -> Vec<&Record> {
    let mut services: Vec<&Record> = Vec::new();
    for addr in &known.here {
        services.extend(known.holders(*addr).filter(|record| leads_to(record, *addr)));
    }
    if services.is_empty() {
        services.extend(known.service(DNS_SERVICE));
    }
    services
}

/// Whether questions that come to a Service go to an address: one for metrics alone has no port of UDP.
fn leads_to(record: &Record, addr: IpAddr) -> bool {
    let takes_questions = |front: &Front| front.ports.iter().any(|port| port.protocol == "_udp");
    record.front.as_ref().is_some_and(takes_questions) && record.slices.iter().any(|slice| !slice.at(addr).is_empty())
}

/// The Services' own addresses; of a headless one those of its endpoints.
fn own_addrs(services: &[&Record]) -> BTreeSet<IpAddr> {
    let mut addrs = BTreeSet::new();
    for record in services {
        let Some(front) = &record.front else { continue };
        addrs.extend(front.own_addrs());
        if front.kind == Kind::Headless {
            let endpoints = record.slices.iter().flat_map(|slice| &slice.endpoints);
            let told = endpoints.filter(|endpoint| endpoint.ready || front.publish_not_ready);
            addrs.extend(told.map(|endpoint| endpoint.addr));
        }
    }
    addrs
}
