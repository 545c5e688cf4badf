//! Which endpoints are a Service port's backends.

use std::{cell::OnceCell, collections::BTreeMap, net::IpAddr, sync::Arc};

use podnet_model::{
    Endpoint, EndpointSlice, Family, NodeName, PortName, Protocol, endpoints::EndpointPort, service::TrafficPolicy,
};

use super::{
    Known,
    serving::Backend,
    zones::{ZoneList, Zones},
};
use crate::ruleset::BackendAddress;

/// What is kept of a slice: what counts on this node, and in little room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KnownSlice {
    ports: Box<[EndpointPort]>,
    endpoints: Box<[KnownEndpoint]>,
}

/// What is kept of an endpoint.
#[derive(Debug, PartialEq, Eq)]
struct KnownEndpoint {
    addr: IpAddr,
    /// None where it is good for nothing, unless the Service says that all count.
    state: Option<State>,
    /// It answers, whether it ends or not.
    serves: bool,
    local: bool,
    terminating: bool,
    node_hint: Hint,
    zones: Option<ZoneList>,
}

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It ends, and answers still: for when there is no other.
    LastResort,
    /// It is ready.
    Ready,
}

/// What an endpoint says about the nodes that it is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    None,
    Here,
    Elsewhere,
}

impl KnownSlice {
    /// The endpoints of the family; none where there is none.
    pub(super) fn new(slice: &EndpointSlice, family: Family, node: &NodeName, zones: &mut Zones) -> Option<Self> {
        if slice.unproxied {
            return None;
        }
        let own = slice.endpoints.iter().filter(|endpoint| Family::of(&endpoint.addr.0) == family);
        let endpoints: Box<[_]> = own.map(|endpoint| KnownEndpoint::new(endpoint, node, zones)).collect();
        // Nearly every slice comes here for the other family, too.
        (!endpoints.is_empty()).then(|| Self { ports: slice.ports.iter().cloned().collect(), endpoints })
    }
}

impl KnownEndpoint {
    fn new(endpoint: &Endpoint, node: &NodeName, zones: &mut Zones) -> Self {
        let state = match endpoint {
            Endpoint { ready: true, .. } => Some(State::Ready),
            Endpoint { serving: true, terminating: true, .. } => Some(State::LastResort),
            _ => None,
        };
        let node_hint = match endpoint.hints.nodes.as_slice() {
            [] => Hint::None,
            nodes if nodes.contains(node) => Hint::Here,
            _ => Hint::Elsewhere,
        };
        Self {
            addr: endpoint.addr.0,
            state,
            serves: endpoint.ready || endpoint.serving,
            local: endpoint.node.as_ref() == Some(node),
            terminating: endpoint.terminating,
            node_hint,
            zones: zones.list(&endpoint.hints.zones),
        }
    }

    fn behind(&self, port: &EndpointPort) -> Backend {
        let at = BackendAddress { addr: self.addr, port: port.port.0 };
        Backend { at, local: self.local, terminating: self.terminating }
    }
}

/// The backends of a port under each policy, sorted.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    all: Vec<Backend>,
    local: Vec<Backend>,
    /// Somebody serves, be it elsewhere.
    any: bool,
    /// Of UDP all endpoints that answer, whether new flows may come to them or not; sorted.
    answering: Vec<Backend>,
    /// What lasts, once it was asked for: by whether the policy inside is `Local`, and the one outside.
    lasting: [[OnceCell<Arc<[Backend]>>; 2]; 2],
}

impl Chosen {
    pub(super) fn of(&self, policy: TrafficPolicy) -> &[Backend] {
        match policy {
            TrafficPolicy::Cluster => &self.all,
            TrafficPolicy::Local => &self.local,
        }
    }

    pub(super) const fn anybody_serves(&self) -> bool {
        self.any
    }

    /// Of UDP the endpoints that answer and are no backends under either of two policies: what [`Serving::lasting`](super::Serving::lasting) is.
    /// All who ask for the same share it: a port may have hundreds of frontends.
    pub(super) fn lasting(&self, inside: TrafficPolicy, outside: TrafficPolicy) -> Arc<[Backend]> {
        let [row, place] = [inside, outside].map(|policy| usize::from(policy == TrafficPolicy::Local));
        self.lasting[row][place].get_or_init(|| self.find_lasting(inside, outside)).clone()
    }

    fn find_lasting(&self, inside: TrafficPolicy, outside: TrafficPolicy) -> Arc<[Backend]> {
        let is_one = |policy, at| self.of(policy).binary_search_by_key(&at, |backend| backend.at).is_ok();
        let is_none = |one: &&Backend| !is_one(inside, one.at) && !is_one(outside, one.at);
        let lasting: Vec<Backend> = self.answering.iter().filter(is_none).copied().collect();
        // Nearly every frontend has none: these share an empty list.
        if lasting.is_empty() { Arc::default() } else { lasting.into() }
    }

    /// The addresses of backends on this node, under whatever policy.
    pub(super) fn on_this_node(&self) -> impl Iterator<Item = IpAddr> {
        self.all.iter().chain(&self.local).filter(|backend| backend.local).map(|backend| backend.at.addr)
    }
}

/// A candidate: an endpoint that is good for something.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    state: State,
    backend: Backend,
    node_hint: Hint,
    zones: Option<&'a ZoneList>,
}

impl Known {
    /// The backends of the Service's port of this name and protocol. Under policy `Cluster` these are the ready endpoints that are meant for
    /// this node by their hints, or where there is none, those that are ending and still serve (KEP-1669). Under `Local` the same among those
    /// of this node, whatever their hints say. An endpoint that several slices name is one, and as ready as the best of them says.
    pub(super) fn choose(&self, name: &PortName, protocol: Protocol, zones: &Zones) -> Chosen {
        let mut found: BTreeMap<BackendAddress, Candidate> = BTreeMap::new();
        for candidate in self.candidates(name, protocol) {
            let best = found.entry(candidate.backend.at).or_insert(candidate);
            if candidate.state > best.state {
                *best = candidate;
            }
        }
        let found: Vec<Candidate> = found.into_values().collect();
        let topology = Topology::of(&found, zones);
        let pick = |fits: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<Backend> {
            found.iter().filter(|candidate| fits(candidate)).map(|candidate| candidate.backend).collect()
        };
        let is_ready = |candidate: &Candidate| candidate.state == State::Ready;
        let all = pick(&|candidate| is_ready(candidate) && topology.admits(candidate, zones));
        let local = pick(&|candidate| is_ready(candidate) && candidate.backend.local);
        Chosen {
            all: if all.is_empty() { pick(&|candidate| !is_ready(candidate)) } else { all },
            local: match local.is_empty() {
                true => pick(&|candidate| !is_ready(candidate) && candidate.backend.local),
                false => local,
            },
            any: !found.is_empty(),
            answering: if protocol == Protocol::Udp { self.answering(name, protocol) } else { Vec::new() },
            lasting: Default::default(),
        }
    }

    /// All endpoints of the Service's port of this name and protocol that answer, whatever hints and policies say and also where they end; sorted.
    fn answering(&self, name: &PortName, protocol: Protocol) -> Vec<Backend> {
        let all_count = self.all_count();
        let all = self.endpoints(name, protocol).filter(|(_, endpoint)| all_count || endpoint.serves);
        let mut found: Vec<Backend> = all.map(|(port, endpoint)| endpoint.behind(port)).collect();
        found.sort_unstable();
        found.dedup_by_key(|backend| backend.at);
        found
    }

    /// The addresses of ready endpoints on this node.
    pub(super) fn local_ready(&self) -> impl Iterator<Item = IpAddr> {
        let all_count = self.all_count();
        let endpoints = self.slices.iter().flat_map(|(_, slice)| &slice.endpoints);
        let ready = endpoints.filter(move |one| one.local && (all_count || one.state == Some(State::Ready)));
        ready.map(|endpoint| endpoint.addr)
    }

    /// Whether a slice names the backend, in whatever condition. The port's name does not count: where it changes, slices have the former one
    /// until their controller has written them.
    pub(super) fn names(&self, protocol: Protocol, at: BackendAddress) -> bool {
        self.slices.iter().any(|(_, slice)| {
            let is_port = |port: &EndpointPort| port.protocol == protocol && port.port.0 == at.port;
            slice.endpoints.iter().any(|endpoint| endpoint.addr == at.addr) && slice.ports.iter().any(is_port)
        })
    }

    /// Whether a slice names the address, with whatever port and in whatever condition.
    pub(super) fn names_address(&self, addr: IpAddr) -> bool {
        self.slices.iter().any(|(_, slice)| slice.endpoints.iter().any(|endpoint| endpoint.addr == addr))
    }

    fn candidates(&self, name: &PortName, protocol: Protocol) -> impl Iterator<Item = Candidate<'_>> {
        let all_count = self.all_count();
        self.endpoints(name, protocol).filter_map(move |(port, endpoint)| {
            let state = if all_count { State::Ready } else { endpoint.state? };
            let (backend, zones) = (endpoint.behind(port), endpoint.zones.as_ref());
            Some(Candidate { state, backend, node_hint: endpoint.node_hint, zones })
        })
    }

    /// What slices name for the Service's port of this name and protocol, in whatever condition.
    fn endpoints(&self, name: &PortName, protocol: Protocol) -> impl Iterator<Item = (&EndpointPort, &KnownEndpoint)> {
        self.slices.iter().flat_map(move |(_, slice)| {
            let ports = slice.ports.iter().filter(move |port| port.name == *name && port.protocol == protocol);
            ports.flat_map(move |port| slice.endpoints.iter().map(move |endpoint| (port, endpoint)))
        })
    }

    /// `publishNotReadyAddresses`: every endpoint is as good as a ready one.
    fn all_count(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.publish_not_ready)
    }
}

/// Which hints count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    SameNode,
    SameZone,
    Everywhere,
}

impl Topology {
    /// Hints count only where every ready endpoint has them and one of them is meant for here: else one of them is as good as another.
    fn of(found: &[Candidate<'_>], zones: &Zones) -> Self {
        let mut ready = found.iter().filter(|candidate| candidate.state == State::Ready);
        let all = |fits: &dyn Fn(&Candidate<'_>) -> bool| ready.clone().all(fits);
        let all_name_nodes = all(&|candidate| candidate.node_hint != Hint::None);
        let all_name_zones = all(&|candidate| candidate.zones.is_some());
        if all_name_nodes && ready.clone().any(|candidate| candidate.node_hint == Hint::Here) {
            Self::SameNode
        } else if all_name_zones && ready.any(|candidate| zones.has_own(candidate.zones)) {
            Self::SameZone
        } else {
            Self::Everywhere
        }
    }

    fn admits(self, candidate: &Candidate<'_>, zones: &Zones) -> bool {
        match self {
            Self::SameNode => candidate.node_hint == Hint::Here,
            Self::SameZone => zones.has_own(candidate.zones),
            Self::Everywhere => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_under_two_policies_is_found_once() {
        use TrafficPolicy::{Cluster, Local};
        let backend = |last: u8| {
            let at = BackendAddress { addr: [10, 0, 0, last].into(), port: 53 };
            Backend { at, local: false, terminating: false }
        };
        let [one, other, third] = [1, 2, 3].map(backend);
        let answering = vec![one, other, third];
        let chosen = Chosen { all: vec![one], local: vec![other], any: true, answering, ..Chosen::default() };
        for (inside, outside, expected) in [
            (Cluster, Cluster, &[other, third][..]),
            (Cluster, Local, &[third][..]),
            (Local, Cluster, &[third][..]),
            (Local, Local, &[one, third][..]),
        ] {
            let lasting = chosen.lasting(inside, outside);
            assert_eq!(&*lasting, expected, "{inside:?} {outside:?}");
            assert!(Arc::ptr_eq(&lasting, &chosen.lasting(inside, outside)));
        }
    }
}
