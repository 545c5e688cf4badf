//! Which endpoints are a Service port's backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{Endpoint, Family, NodeName, PortName, Protocol};

use super::Known;
use crate::ruleset::BackendAddress;

/// What an endpoint is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    /// It ends, and answers still: for when there is no other.
    LastResort,
    /// It is ready.
    Ready,
}

impl Known {
    /// The backends of the Service's port of this name and protocol: the ready endpoints, or where there is none, those that are
    /// ending and still serve (KEP-1669). An endpoint that several slices name is one, and as ready as the best of them says.
    pub(super) fn backends(&self, family: Family, name: &PortName, protocol: Protocol) -> BTreeSet<BackendAddress> {
        let mut found: BTreeMap<BackendAddress, Condition> = BTreeMap::new();
        for (backend, _, condition) in self.candidates(family, name, protocol) {
            let best = found.entry(backend).or_insert(condition);
            *best = condition.max(*best);
        }
        let best = found.values().max().copied();
        found.into_iter().filter(|(_, condition)| Some(*condition) == best).map(|(backend, _)| backend).collect()
    }

    /// The addresses, on this node, of all backends of all ports.
    pub(super) fn backends_on(&self, family: Family, node: &NodeName) -> BTreeSet<IpAddr> {
        let ports = self.service.iter().flat_map(|service| &service.ports);
        ports.flat_map(|port| self.backends_of_port_on(family, &port.name, port.protocol, node)).collect()
    }

    fn backends_of_port_on(
        &self,
        family: Family,
        name: &PortName,
        protocol: Protocol,
        node: &NodeName,
    ) -> BTreeSet<IpAddr> {
        let all = self.candidates(family, name, protocol);
        let here: BTreeSet<_> =
            all.filter(|(_, endpoint, _)| endpoint.node.as_ref() == Some(node)).map(|(backend, ..)| backend).collect();
        if here.is_empty() {
            return BTreeSet::new();
        }
        self.backends(family, name, protocol).intersection(&here).map(|backend| backend.addr).collect()
    }

    fn candidates(
        &self,
        family: Family,
        name: &PortName,
        protocol: Protocol,
    ) -> impl Iterator<Item = (BackendAddress, &Endpoint, Condition)> {
        let all_count = self.service.as_ref().is_some_and(|service| service.publish_not_ready);
        self.slices.values().flat_map(move |slice| {
            let ports = slice.ports.iter().filter(move |port| port.name == *name && port.protocol == protocol);
            ports.flat_map(move |port| {
                let endpoints = slice.endpoints.iter().filter(move |endpoint| Family::of(&endpoint.addr.0) == family);
                endpoints.filter_map(move |endpoint| {
                    let condition = endpoint_condition(endpoint, all_count)?;
                    Some((BackendAddress { addr: endpoint.addr.0, port: port.port.0 }, endpoint, condition))
                })
            })
        })
    }
}

const fn endpoint_condition(endpoint: &Endpoint, all_count: bool) -> Option<Condition> {
    if endpoint.ready || all_count {
        Some(Condition::Ready)
    } else if endpoint.serving && endpoint.terminating {
        Some(Condition::LastResort)
    } else {
        None
    }
}
