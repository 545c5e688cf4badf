//! Where Services are asked, and which of these places have somebody to answer this node's pods: by EndpointSlices, as `planner::services` has it.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use podnet_flow::Transport;
use podnet_model::{
    Endpoint, EndpointSlice, Family, NodeName, PortName, Protocol, Service, ServiceKey, SliceKey,
    service::{Port, ServiceKind, TrafficPolicy},
};

/// Where a Service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: SocketAddr,
    pub(super) transport: Transport,
    port: (PortName, Protocol),
    /// Only endpoints of this node count.
    local: bool,
    /// Endpoints count whether they are ready or not.
    unready: bool,
    /// Another program serves it.
    is_anothers: bool,
}

/// All places of a Service: of its ports of all nodes the unspecified addresses of its families. Policies are those for this node and its pods,
/// which come to all endpoints but for ClusterIPs.
pub(super) fn places(service: &Service) -> Vec<Place> {
    let ServiceKind::Virtual { cluster_ips } = &service.kind else { return Vec::new() };
    let own = cluster_ips.iter().map(|ip| (ip.0, service.internal_policy == TrafficPolicy::Local));
    let ingress = service.ingress.iter().map(|ingress| ingress.addr);
    let others = service.external_ips.iter().copied().chain(ingress).map(|addr| (addr, false));
    let place = |(addr, local): (IpAddr, bool), port: &Port, number: u16| Place {
        at: SocketAddr::new(addr, number),
        transport: Transport(port.protocol.number()),
        port: (port.name.clone(), port.protocol),
        local,
        unready: service.publish_not_ready,
        is_anothers: service.proxy.is_some(),
    };
    let at = |at: (IpAddr, bool)| service.ports.iter().map(move |port| place(at, port, port.port.0));
    let at_nodes = cluster_ips.iter().flat_map(|ip| {
        let unspecified: IpAddr =
            if ip.0.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let ports = service.ports.iter().filter_map(|port| Some((port, port.node_port?.0)));
        ports.map(move |(port, number)| place((unspecified, false), port, number))
    });
    own.chain(others).flat_map(at).chain(at_nodes).collect()
}

/// What endpoints of a slice are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    /// Of any node, and of this one, that are good for something.
    good: [bool; 2],
    /// In whatever condition.
    any: [bool; 2],
}

impl Answers {
    fn add(&mut self, endpoint: &Endpoint, own: Option<&NodeName>) {
        let is_good = endpoint.ready || endpoint.serving && endpoint.terminating;
        let is_local = own.is_some() && endpoint.node.as_ref() == own;
        for ((good, any), counts) in self.good.iter_mut().zip(&mut self.any).zip([true, is_local]) {
            *good |= counts && is_good;
            *any |= counts;
        }
    }
}

/// What is kept of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    ports: Vec<(PortName, Protocol)>,
    families: [(Family, Answers); 2],
}

/// Who answers for Services.
#[derive(Debug, Default)]
pub(super) struct Served {
    services: HashMap<ServiceKey, BTreeMap<SliceKey, Kept>>,
    owners: HashMap<SliceKey, ServiceKey>,
    /// All slices were told of once: until then nobody is known to be missing.
    is_listed: bool,
}

impl Served {
    /// All slices there are were told of.
    pub(super) fn listed(&mut self) {
        self.is_listed = true;
    }

    /// Takes a slice in; whether that may change whom somebody answers for.
    pub(super) fn learn(&mut self, key: &SliceKey, slice: Option<&EndpointSlice>, own: Option<&NodeName>) -> bool {
        let owner = slice.map(|slice| slice.service.clone());
        let kept = slice.filter(|slice| !slice.unproxied).map(|slice| Kept::new(slice, own));
        let former = self.owners.get(key).cloned().filter(|former| owner.as_ref() != Some(former));
        let changed = former.is_some_and(|former| self.forget(&former, key));
        match (owner, kept) {
            (Some(owner), Some(kept)) => {
                self.owners.insert(key.clone(), owner.clone());
                let before = self.services.entry(owner).or_default().insert(key.clone(), kept.clone());
                changed || before.as_ref() != Some(&kept)
            }
            (Some(owner), None) => self.forget(&owner, key) || changed,
            (None, _) => changed,
        }
    }

    fn forget(&mut self, owner: &ServiceKey, key: &SliceKey) -> bool {
        self.owners.remove(key);
        let Some(slices) = self.services.get_mut(owner) else { return false };
        let was_there = slices.remove(key).is_some();
        if slices.is_empty() {
            self.services.remove(owner);
        }
        was_there
    }

    /// Whether nobody answers there, for all that is known.
    pub(super) fn is_unserved(&self, service: &ServiceKey, place: &Place) -> bool {
        if !self.is_listed || place.is_anothers {
            return false;
        }
        let family = Family::of(&place.at.ip());
        let serves = |kept: &Kept| {
            let of_family = kept.families.iter().filter(|(of, _)| *of == family);
            let mut answers = of_family.map(|(_, answers)| if place.unready { answers.any } else { answers.good });
            kept.ports.contains(&place.port) && answers.any(|[any, local]| if place.local { local } else { any })
        };
        self.services.get(service).is_none_or(|slices| !slices.values().any(serves))
    }
}

impl Kept {
    fn new(slice: &EndpointSlice, own: Option<&NodeName>) -> Self {
        let mut families = Family::ALL.map(|family| (family, Answers::default()));
        for endpoint in &slice.endpoints {
            for (family, answers) in &mut families {
                if Family::of(&endpoint.addr.0) == *family {
                    answers.add(endpoint, own);
                }
            }
        }
        Self { ports: slice.ports.iter().map(|port| (port.name.clone(), port.protocol)).collect(), families }
    }
}

#[cfg(test)]
mod tests {
    use podnet_model::{
        ClusterIp, PodAddr, ServicePort, TargetPort,
        endpoints::EndpointPort,
        service::{Ingress, Port},
    };

    use super::*;

    const OWN: &str = "node1";

    fn service(local: bool) -> Service {
        let kind = ServiceKind::Virtual {
            cluster_ips: ["10.96.0.7", "fd02::7"].map(|ip| ClusterIp(ip.parse().unwrap())).into(),
        };
        let (name, protocol, port) = ("http".into(), Protocol::Tcp, ServicePort(80));
        let port = Port { name, protocol, port, node_port: None };
        let mut service = Service::new(ServiceKey::new("shop", "cart"), kind, vec![port]);
        service.ingress = vec![Ingress { addr: "192.0.2.7".parse().unwrap(), is_proxy: false }];
        if local {
            service.internal_policy = TrafficPolicy::Local;
        }
        service
    }

    fn slice(port: &str, endpoints: &[(&str, &str, bool)]) -> EndpointSlice {
        let endpoint = |(addr, node, ready): &(&str, &str, bool)| {
            let addr = PodAddr(addr.parse().unwrap());
            Endpoint { node: Some((*node).into()), ready: *ready, serving: *ready, ..Endpoint::new(addr) }
        };
        EndpointSlice {
            key: SliceKey::new("shop", "cart-1"),
            service: ServiceKey::new("shop", "cart"),
            ports: vec![EndpointPort { name: port.into(), protocol: Protocol::Tcp, port: TargetPort(8080) }],
            endpoints: endpoints.iter().map(endpoint).collect(),
            triggered: None,
            unproxied: false,
        }
    }

    /// The addresses at which nobody answers.
    fn unserved(served: &Served, service: &Service) -> Vec<String> {
        let places = places(service).into_iter().filter(|place| served.is_unserved(&service.key, place));
        places.map(|place| place.at.ip().to_string()).collect()
    }

    fn with(slice: &EndpointSlice) -> Served {
        let mut served = Served::default();
        served.learn(&slice.key, Some(slice), Some(&OWN.into()));
        served.listed();
        served
    }

    #[test]
    fn nobody_answers_where_no_endpoint_of_the_family_and_port_is_good_for_anything() {
        let all = ["10.96.0.7", "fd02::7", "192.0.2.7"];
        let cart = service(false);
        let mut served = Served::default();
        assert_eq!(unserved(&served, &cart), [""; 0], "it is not known yet");
        served.listed();
        assert_eq!(unserved(&served, &cart), all);
        let v4 = [("10.0.0.1", OWN, true)];
        assert_eq!(unserved(&with(&slice("http", &v4)), &cart), ["fd02::7"]);
        assert_eq!(unserved(&with(&slice("metrics", &v4)), &cart), all);
        let unready = slice("http", &[("10.0.0.1", OWN, false), ("fd00::1", OWN, false)]);
        assert_eq!(unserved(&with(&unready), &cart), all);
        let mut ending = unready.clone();
        ending.endpoints.iter_mut().for_each(|one| (one.serving, one.terminating) = (true, true));
        assert_eq!(unserved(&with(&ending), &cart), [""; 0]);
        let whatever = Service { publish_not_ready: true, ..cart.clone() };
        assert_eq!(unserved(&with(&unready), &whatever), [""; 0]);
        assert_eq!(unserved(&with(&EndpointSlice { unproxied: true, ..ending }), &cart), all);
        let anothers = Service { proxy: Some("other".into()), ..cart };
        assert_eq!(unserved(&with(&unready), &anothers), [""; 0]);
    }

    #[test]
    fn a_policy_leaves_only_endpoints_of_this_node_behind_cluster_ips() {
        let elsewhere = slice("http", &[("10.0.1.1", "node2", true), ("fd00:1::1", OWN, true)]);
        assert_eq!(unserved(&with(&elsewhere), &service(true)), ["10.96.0.7"]);
        assert_eq!(unserved(&with(&elsewhere), &service(false)), [""; 0]);
    }

    #[test]
    fn ports_of_nodes_are_places_of_each_family_where_all_endpoints_answer() {
        let mut cart = service(true);
        cart.ports[0].node_port = Some(podnet_model::NodePort(30080));
        let at_nodes = |place: &Place| place.at.ip().is_unspecified();
        let at = places(&cart).into_iter().filter(at_nodes).map(|place| place.at.to_string()).collect::<Vec<_>>();
        assert_eq!(at, ["0.0.0.0:30080", "[::]:30080"]);
        let elsewhere = |port| with(&slice(port, &[("10.0.1.1", "node2", true)]));
        assert_eq!(unserved(&elsewhere("http"), &cart), ["10.96.0.7", "fd02::7", "::"]);
        assert_eq!(unserved(&elsewhere("metrics"), &cart), ["10.96.0.7", "fd02::7", "192.0.2.7", "0.0.0.0", "::"]);
    }

    #[test]
    fn only_what_changes_who_is_served_is_a_change_and_what_goes_is_forgotten() {
        let (own, slice) = (OWN.into(), slice("http", &[("10.0.0.1", OWN, true)]));
        let mut served = Served::default();
        let mut learn =
            |slice: Option<&EndpointSlice>| served.learn(&SliceKey::new("shop", "cart-1"), slice, Some(&own));
        assert!(learn(Some(&slice)) && !learn(Some(&slice)));
        let mut more = slice.clone();
        more.endpoints.push(more.endpoints[0].clone());
        assert!(!learn(Some(&more)), "one of it is enough");
        let moved = EndpointSlice { service: ServiceKey::new("shop", "till"), ..more };
        assert!(learn(Some(&moved)) && learn(None) && !learn(None));
        assert!(served.services.is_empty() && served.owners.is_empty());
    }
}
