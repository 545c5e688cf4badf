//! Services whose endpoints change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, PodAddr, Protocol, Service, ServiceKey, ServicePort, SliceKey,
    TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    border::BorderConfig,
    services::{ServicesConfig, packet_table},
};

/// How many Services there are, where a mode can do with so many.
pub(super) const SERVICES: u32 = 1_000;
/// As many as this of them have half of the changes, and half of the connections: so that both meet.
const BUSY: u32 = 6;
/// How many endpoints a Service has at first.
const ENDPOINTS: u32 = 10;
/// How many addresses the endpoints of one Service come from.
const CANDIDATES: u32 = 16;
/// Every so many-th Service loses all its endpoints now and then.
const FICKLE: u32 = 10;
/// Where clients are.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 1);
/// Where endpoints are.
pub(super) const BACKENDS: &str = "10.128.0.0/14";
const FIRST_BACKEND: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 233, 0, 0);
/// The port of Services and of endpoints.
pub(super) const PORT: u16 = 80;
pub(super) const TARGET_PORT: u16 = 8080;
/// The first so many Services have another port too, for connections that last.
pub(super) const TALKING: u32 = 20;
pub(super) const TALK_PORT: u16 = 81;
pub(super) const TARGET_TALK_PORT: u16 = 8081;
/// And one of UDP.
pub(super) const ASK_PORT: u16 = 53;
pub(super) const TARGET_ASK_PORT: u16 = 5353;

/// The endpoints that Services have at the moment.
pub(super) struct Cluster {
    /// Ready ones, by Service.
    pub(super) ready: BTreeMap<u32, BTreeSet<Ipv4Addr>>,
    services: u32,
    random: Random,
}

impl Cluster {
    /// Of so many Services.
    pub(super) fn new(services: u32) -> Self {
        let all = |service| (service, (0..ENDPOINTS).map(|number| backend(service, number)).collect());
        Self { ready: (0..services).map(all).collect(), services, random: Random(0x9e37_79b9_7f4a_7c15) }
    }

    /// All objects as they are.
    pub(super) fn all(&self) -> Vec<Change> {
        (0..self.services).flat_map(|number| [service(number), self.slice(number)]).collect()
    }

    /// Changes an endpoint of a Service.
    pub(super) fn change(&mut self) -> (u32, Change) {
        let service = self.random.service(self.services);
        let candidate = backend(service, self.random.below(CANDIDATES));
        let all_go = is_fickle(service) && self.random.below(3) == 0;
        let ready = self.ready.entry(service).or_default();
        if all_go && !ready.is_empty() {
            ready.clear();
        } else if !ready.remove(&candidate) || ready.is_empty() {
            ready.insert(candidate);
        }
        (service, self.slice(service))
    }

    fn slice(&self, service: u32) -> Change {
        let key = SliceKey::new("default", &format!("s{service}-1"));
        let slice = EndpointSlice {
            key: key.clone(),
            service: ServiceKey::new("default", &format!("s{service}")),
            ports: ports(service)
                .map(|(name, protocol, _, target)| EndpointPort {
                    name: name.into(),
                    protocol,
                    port: TargetPort(target),
                })
                .collect(),
            endpoints: self.ready[&service].iter().map(|addr| endpoint(*addr)).collect(),
            triggered: None,
            unproxied: false,
        };
        Change::Slice(key, Some(slice))
    }
}

pub(super) fn config() -> (ServicesConfig, BorderConfig) {
    let pods = [format!("{CLIENT}/32"), BACKENDS.to_owned()];
    let pod_cidrs: Vec<_> = pods.iter().map(|range| range.parse().unwrap()).collect();
    let (services, border) = packet_table::config("node1");
    (ServicesConfig { pod_cidrs: pod_cidrs.clone(), ..services }, BorderConfig { pod_cidrs, ..border })
}

/// The address of a Service.
pub(super) fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_SERVICE.to_bits() + 1 + service)
}

/// An address of one Service alone.
fn backend(service: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_BACKEND.to_bits() + 1 + service * CANDIDATES + number)
}

/// Whether it loses all its endpoints now and then.
pub(super) const fn is_fickle(service: u32) -> bool {
    service.is_multiple_of(FICKLE)
}

/// Where the endpoints of a Service may be.
pub(super) fn candidates(service: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..CANDIDATES).map(move |number| backend(service, number))
}

/// The name, the protocol, the Service's and the endpoints' number of each port.
fn ports(service: u32) -> impl Iterator<Item = (&'static str, Protocol, u16, u16)> {
    let more =
        [("talk", Protocol::Tcp, TALK_PORT, TARGET_TALK_PORT), ("ask", Protocol::Udp, ASK_PORT, TARGET_ASK_PORT)];
    let more = more.into_iter().filter(move |_| service < TALKING);
    [("web", Protocol::Tcp, PORT, TARGET_PORT)].into_iter().chain(more)
}

fn service(number: u32) -> Change {
    let key = ServiceKey::new("default", &format!("s{number}"));
    let port = |(name, protocol, port, _): (&str, _, u16, u16)| Port {
        name: name.into(),
        protocol,
        port: ServicePort(port),
        node_port: None,
    };
    let ports = ports(number).map(port).collect();
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(IpAddr::V4(cluster_ip(number)))] };
    Change::Service(key.clone(), Some(Service::new(key, kind, ports)))
}

fn endpoint(addr: Ipv4Addr) -> Endpoint {
    Endpoint { node: Some("node2".into()), ..Endpoint::new(PodAddr(IpAddr::V4(addr))) }
}

/// xorshift64*: the same each time, for a failure that can be had again.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// One of so many Services.
    pub(super) fn service(&mut self, services: u32) -> u32 {
        let among = if self.below(2) == 0 { BUSY } else { services };
        self.below(among)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).expect("below 2^32")
    }
}
