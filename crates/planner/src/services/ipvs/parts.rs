//! What one frontend needs.

use podnet_model::Protocol;

use super::{
    super::{Backends, FrontendKind, Serving},
    marks::Marks,
    sets::{PROTOCOLS, Sets, halves},
};
use crate::{
    ipvs::{Element, Scheduler, Scheduling, Server, ServerKey, SetName},
    ruleset::FrontendKey,
};

/// The virtual servers and elements of one frontend.
pub(super) struct Parts {
    key: FrontendKey,
    /// The virtual server of the address: what everybody comes to who is not told apart.
    server: Server,
    /// That of this node and its pods, with its mark, where they are.
    pub(super) inside: Option<(u32, Server)>,
    /// Each with the set that it is in.
    pub(super) elements: Vec<(SetName, Element, Option<u32>)>,
}

impl Parts {
    pub(super) fn of(
        key: &FrontendKey,
        serving: &Serving,
        sets: &Sets,
        scheduling: Scheduling,
        marks: &mut Marks,
    ) -> Self {
        let persistence = persistence(serving);
        let server = weighed(key, Scheduling { persistence, ..scheduling }, &serving.outside, serving);
        let inside = tells_apart(serving).then(|| {
            // With persistence the kernel does not translate the port where it is a mark that leads here: so it is the address's hash.
            let hashed = Scheduling { scheduler: Scheduler::Maglev, fallback: true, port: false, persistence: None };
            let scheduling = if persistence.is_some() { hashed } else { scheduling };
            (marks.of(key), weighed(key, scheduling, &serving.inside, serving))
        });
        let mut parts = Self { key: *key, server, inside, elements: Vec::new() };
        parts.add_addresses(serving, sets);
        parts.add_verdicts(serving, sets);
        for backend in serving.backends().filter(|backend| backend.local) {
            let at = backend.at;
            parts.add(&sets.loop_back, Element::PortFrom(at.addr, key.protocol, at.port, at.addr));
        }
        parts
    }

    /// The virtual servers' keys.
    pub(super) fn servers(&self) -> impl Iterator<Item = ServerKey> {
        let inside = self.inside.as_ref().map(|(mark, _)| ServerKey::Mark(*mark));
        [ServerKey::Address(self.key)].into_iter().chain(inside)
    }

    /// The virtual servers that have a real one. Who comes to a frontend without is refused by the rules: what this host sends itself comes to
    /// virtual servers before, and TCP would not hear of their refusal.
    pub(super) fn into_servers(self) -> impl Iterator<Item = (ServerKey, Server)> {
        let inside = self.inside.map(|(mark, server)| (ServerKey::Mark(mark), server));
        let both = [(ServerKey::Address(self.key), self.server)].into_iter().chain(inside);
        both.filter(|(_, server)| !server.reals.is_empty())
    }

    fn add(&mut self, set: &SetName, element: Element) {
        self.elements.push((set.clone(), element, None));
    }

    fn itself(&self) -> Element {
        Element::Port(self.key.addr, self.key.protocol, self.key.port)
    }

    /// What sort of address it is at, and who is masqueraded.
    fn add_addresses(&mut self, serving: &Serving, sets: &Sets) {
        let itself = self.itself();
        self.add(&sets.servers, itself);
        let (all, element) = match serving.kind {
            FrontendKind::ClusterIp => return self.add(&sets.cluster_ip, itself),
            FrontendKind::ExternalIp => (&sets.external, itself),
            FrontendKind::LoadBalancer => (&sets.load_balancer, itself),
            FrontendKind::NodePort => {
                let of_protocol = PROTOCOLS.into_iter().zip(&sets.node_ports);
                let Some((_, all)) = of_protocol.into_iter().find(|(protocol, _)| *protocol == self.key.protocol)
                else {
                    return;
                };
                let by_port = self.key.protocol != Protocol::Sctp;
                (all, if by_port { Element::PortAlone(self.key.port) } else { itself })
            }
        };
        if serving.kind != FrontendKind::NodePort {
            self.add(&sets.elsewhere, Element::Address(self.key.addr));
        }
        let [every, local] = all;
        self.add(every, element);
        if serving.keeps_source {
            self.add(local, element);
        }
        if let Some(mark) = self.inside.as_ref().map(|(mark, _)| *mark) {
            let with_mark = |set: &SetName| (set.clone(), itself, Some(mark));
            self.elements.extend([&sets.inside, &sets.marked].map(with_mark));
        }
    }

    /// Who is not served.
    fn add_verdicts(&mut self, serving: &Serving, sets: &Sets) {
        let itself = self.itself();
        match (&serving.inside, &serving.outside) {
            (Backends::Reject, _) => self.add(&sets.rejected, itself),
            (Backends::Drop, _) => self.add(&sets.dropped, itself),
            (Backends::Of(_), Backends::Drop | Backends::Reject) => self.add(&sets.dropped_outside, itself),
            (Backends::Of(_), Backends::Of(_)) => {}
        }
        if let Some(sources) = &serving.sources {
            self.add(&sets.guarded, itself);
            let FrontendKey { addr, protocol, port } = self.key;
            for range in sources.iter().flat_map(|range| halves(*range)) {
                self.add(&sets.sources, Element::PortFromRange(addr, protocol, port, range));
            }
        }
    }
}

/// With the backends of a side. Those of UDP that end have the weight 0: no flow begins there, and those that lead there go on until they go,
/// when the kernel forgets these (`expire_nodest_conn`).
fn weighed(key: &FrontendKey, scheduling: Scheduling, side: &Backends, serving: &Serving) -> Server {
    let mut server = Server::from((scheduling, side));
    // The destination's hash leads to one real server, and where that has the weight 0 to no other one instead (`ip_vs_dh_schedule`).
    let lets_end = key.protocol == Protocol::Udp && scheduling.scheduler != Scheduler::DestinationHash;
    if lets_end && !server.reals.is_empty() {
        server.reals.extend(serving.ending(side).map(|backend| (backend.at, 0)));
    }
    server
}

fn persistence(serving: &Serving) -> Option<u32> {
    serving.affinity.filter(|seconds| *seconds > 0)
}

/// Whether this node and its pods have a virtual server of their own. Not only while they have other backends: a virtual server that goes leaves
/// its connections without one.
fn tells_apart(serving: &Serving) -> bool {
    serving.kind != FrontendKind::ClusterIp && serving.keeps_source
}

/// Whether this node and its pods stay with a backend by their address alone, without timeout and whatever scheduler is configured.
pub(super) fn hashes_insiders(serving: &Serving) -> bool {
    tells_apart(serving) && persistence(serving).is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use podnet_model::{Change, EndpointSlice};

    use super::{
        super::{
            super::{Backend, Services, ServicesConfig, packet_table},
            Ipvs,
        },
        *,
    };
    use crate::ruleset::BackendAddress;

    #[test]
    fn of_udp_a_backend_of_the_other_side_that_ends_has_the_weight_0() {
        let at = |last: u8| BackendAddress { addr: [10, 0, 0, last].into(), port: 53 };
        let backend = |last, terminating| Backend { at: at(last), local: terminating, terminating };
        // As where the one of this node ends and policy Local leaves those outside no other.
        let serving = Serving {
            service: podnet_model::ServiceKey::new("default", "dns"),
            port: "dns".into(),
            kind: FrontendKind::NodePort,
            inside: Backends::Of([backend(1, false)].into()),
            outside: Backends::Of([backend(2, true)].into()),
            keeps_source: true,
            affinity: None,
            lasting: [backend(3, true), backend(4, false)].into(),
            sources: None,
        };
        let scheduling =
            Scheduling { scheduler: Scheduler::RoundRobin, fallback: false, port: false, persistence: None };
        let of = |protocol| {
            let key = FrontendKey { addr: [192, 0, 2, 1].into(), protocol, port: 53 };
            [&serving.inside, &serving.outside].map(|side| weighed(&key, scheduling, side, &serving).reals)
        };
        let inside = BTreeMap::from([(at(1), 1), (at(2), 0), (at(3), 0)]);
        assert_eq!(of(Protocol::Udp), [inside, BTreeMap::from([(at(2), 1), (at(3), 0)])]);
        assert_eq!(of(Protocol::Tcp), [1, 2].map(|last| BTreeMap::from([(at(last), 1)])));
    }

    #[test]
    fn a_backend_of_udp_that_ends_has_the_weight_0_until_it_answers_no_more() {
        let config = ServicesConfig { loopback: Vec::new(), ..packet_table::config("node1").0 };
        let mut services = Services::new(config);
        let changes = packet_table::changes();
        changes.iter().for_each(|change| drop(services.apply(change)));
        let dns = changes.iter().find_map(|change| match change {
            Change::Slice(key, Some(slice)) if &*key.name == "dns-1" => Some(slice.clone()),
            _ => None,
        });
        let dns: EndpointSlice = dns.unwrap();
        let weights = |ipvs: &Ipvs, protocol| -> Vec<u32> {
            let key = FrontendKey { addr: packet_table::address("dns").unwrap(), protocol, port: 53 };
            ipvs.state().servers[&ServerKey::Address(key)].reals.values().copied().collect()
        };
        let mut ipvs = Ipvs::new(&services, Scheduler::RoundRobin);
        assert_eq!(weights(&ipvs, Protocol::Udp), [1, 1]);
        for (serving, of_udp, by_hash) in [(true, vec![0, 1], vec![1]), (false, vec![1], vec![1])] {
            let mut ends = dns.clone();
            let first = &mut ends.endpoints[0];
            (first.ready, first.serving, first.terminating) = (false, serving, true);
            let plan = services.apply(&Change::Slice(ends.key.clone(), Some(ends)));
            ipvs.edits(&services, &plan);
            assert_eq!((weights(&ipvs, Protocol::Udp), weights(&ipvs, Protocol::Tcp)), (of_udp, vec![1]));
            let hashed = Ipvs::new(&services, Scheduler::DestinationHash);
            assert_eq!(weights(&hashed, Protocol::Udp), by_hash);
        }
    }

    #[test]
    fn services_with_affinity_and_a_policy_local_are_told_of_as_long_as_they_are_there() {
        let config = ServicesConfig { loopback: Vec::new(), ..packet_table::config("node1").0 };
        let mut services = Services::new(config);
        let changes = packet_table::changes();
        changes.iter().for_each(|change| drop(services.apply(change)));
        let mut ipvs = Ipvs::new(&services, Scheduler::RoundRobin);
        let told = |ipvs: &Ipvs| ipvs.hashed().map(|service| service.name.to_string()).collect::<BTreeSet<String>>();
        assert_eq!(told(&ipvs), ["guard", "stickylocal"].map(str::to_owned).into());
        for change in packet_table::removals(&changes) {
            let plan = services.apply(&change);
            ipvs.note(&services, &plan);
        }
        assert_eq!(told(&ipvs), BTreeSet::new());
    }
}
