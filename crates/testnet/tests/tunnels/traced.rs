//! The devices that a trace names, beside those where a packet from pod to pod was really counted, outside and inside of tunnels, also where a
//! Service leads it there.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use podnet_flow::probe::{Kind as Found, Probe, SNAP};
use podnet_kernel::{
    capture::{self, Tap, TapError},
    link,
    netlink::RtSocket,
    nft::NftSocket,
    probe,
};
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, Family, NodeName, Pod, PodAddr, PodKey, Protocol, Service, ServiceKey,
    ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    labels::Labels,
    limits::PodLimits,
    pod::AddressRequest,
    proxy::Mode,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    attachments, border,
    services::nftables,
    step::Step,
    trace::{Cluster, Facts, Hop, Kind, Link, Path, Place, Source, Target, Verdict},
};

use crate::{
    lab::{LINK, Lab, LabNode},
    namespace::Namespace,
};

/// On a loaded machine, and in an emulated one, a packet takes its time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of packets that wait to be looked at.
const ROOM: usize = 64 << 10;
const PORT: u16 = 80;
/// Where endpoints of Services are.
const BACKEND: u16 = 8080;

/// A device that a packet passed: the place, the device's name, and whether it left by it.
type Point = (String, String, bool);

impl Lab {
    /// A packet of each transport from the first node's pod to the other's, and from each pod to a Service whose endpoint is the other one, passes the
    /// devices that the trace names, and no others.
    pub(crate) fn passes_as_traced(&self) {
        self.is_as_traced(|node| node.pod_address);
    }

    /// The same by IPv6.
    pub(crate) fn passes_as_traced_by_ipv6(&self) {
        self.is_as_traced(|node| node.pod_address6);
    }

    fn is_as_traced(&self, address: impl Fn(&LabNode) -> IpAddr) {
        let [first, second] = &self.nodes[..] else { panic!("two nodes") };
        let addr = address(second);
        let family = Family::of(&addr);
        let cluster = self.traced();
        let mut places = Vec::new();
        for (number, node) in [(1, first), (2, second)] {
            serve(&cluster, &node_name(number), &node.namespace, family);
            places.push((format!("node{number}"), &node.namespace));
            places.push((format!("pod{number}"), &node.pod));
        }
        let to = |number, addr, protocol| (number, Target { addr, protocol, port: PORT });
        let [one, other] = [1, 2].map(|number| service_addr(number, family));
        for (from, target) in [
            to(1, addr, Protocol::Tcp),
            to(1, addr, Protocol::Udp),
            to(1, other, Protocol::Tcp),
            to(2, one, Protocol::Udp),
        ] {
            passes_as_traced(&cluster, &places, &pod_key(from), target);
        }
    }

    /// The lab as it is traced.
    fn traced(&self) -> Cluster {
        let mut changes = self.told.clone();
        for (number, node) in (1..).zip(&self.nodes) {
            let addrs = [node.pod_address, node.pod_address6];
            changes.push(pod(&pod_key(number), node_name(number), &addrs));
            let frontends = Family::ALL.map(|of| service_addr(number, of));
            changes.extend(service(&format!("service{number}"), frontends, &addrs));
        }
        let facts = (1..).zip(&self.nodes).map(|(number, node)| {
            let link = || Link::routed(LINK.into());
            let links = [node.pod_address, node.pod_address6].map(|addr| (addr, link()));
            let facts = Facts { links: links.into(), ..Facts::new("eth0".into(), 1500, Mode::Nftables) };
            (node_name(number), facts)
        });
        Cluster::new(changes, facts.collect())
    }
}

fn node_name(number: usize) -> NodeName {
    NodeName::from(&format!("node{number}"))
}

fn pod_key(number: usize) -> PodKey {
    PodKey::new("default", &format!("pod{number}"))
}

/// Of the Service whose endpoint is the pod of this number.
fn service_addr(number: usize, family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => format!("10.96.0.{number}"),
        Family::V6 => format!("fd00:96::{number}"),
    };
    text.parse().unwrap()
}

/// A Service with these addresses, and the pod with those as its only endpoint.
pub(crate) fn service(name: &str, addrs: [IpAddr; 2], pod: &[IpAddr]) -> Vec<Change> {
    let key = ServiceKey::new("default", name);
    let named = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let port =
        |(name, protocol): (&str, _)| Port { name: name.into(), protocol, port: ServicePort(PORT), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: addrs.map(ClusterIp).into() };
    let service = Change::Service(key.clone(), Some(Service::new(key.clone(), kind, named.map(port).into())));
    let slice = |addr: &IpAddr| {
        let port = |(name, protocol): (&str, _)| {
            let port = TargetPort(BACKEND);
            EndpointPort { name: name.into(), protocol, port }
        };
        let slice = EndpointSlice {
            key: SliceKey::new("default", &format!("{name}-{}", Family::of(addr))),
            service: key.clone(),
            ports: named.map(port).into(),
            endpoints: vec![Endpoint::new(PodAddr(*addr))],
            triggered: None,
            unproxied: false,
        };
        Change::Slice(slice.key.clone(), Some(slice))
    };
    std::iter::once(service).chain(pod.iter().map(slice)).collect()
}

/// Has a node do by nf_tables what it is planned to do for Services and pods.
pub(crate) fn serve(cluster: &Cluster, name: &NodeName, node: &Namespace, family: Family) {
    let planned = cluster.planned(name).unwrap();
    let mut socket = NftSocket::open_in(&node.netns).unwrap();
    let tables = [nftables::TABLE, border::TABLE].into_iter().zip(&planned.rules[family]);
    let pods = planned.ports.as_ref().map(|ports| (attachments::TABLE, &ports[family]));
    for (table, rules) in tables.chain(pods) {
        socket.replace(table, rules).unwrap();
    }
}

/// A packet from a pod passes the devices that the trace names, and no others. Nodes and pods are in namespaces by their names.
pub(crate) fn passes_as_traced(cluster: &Cluster, places: &[(String, &Namespace)], from: &PodKey, target: Target) {
    let trace = cluster.trace(&Source::Pod(from.clone()), target).unwrap();
    let [path] = &trace.paths[..] else { panic!("{} ways", trace.paths.len()) };
    assert_eq!(path.end.verdict, Verdict::Arrives, "{}", path.end.why);
    let expected = points(path);
    let counted = counted(places, from, target, &expected);
    assert_eq!(counted, expected, "{from} to {target:?}: counted, and traced");
}

/// A pod of a node.
pub(crate) fn pod(key: &PodKey, node: NodeName, addrs: &[IpAddr]) -> Change {
    let pod = Pod {
        key: key.clone(),
        uid: (&*key.name).into(),
        static_uid: None,
        searches: None,
        ndots: None,
        node: Some(node),
        labels: Labels::default(),
        host_network: false,
        addrs: addrs.iter().copied().map(PodAddr).collect(),
        finished: false,
        request: Ok(AddressRequest::default()),
        limits: Ok(PodLimits::default()),
    };
    Change::Pod(key.clone(), Some(pod))
}

/// The devices that a path names. Between the nodes nobody knows a packet that is encrypted.
fn points(path: &Path) -> BTreeSet<Point> {
    let mut encrypted = false;
    let point = |hop: &Hop| {
        encrypted = match hop.kind {
            Kind::Encapsulated => hop.stands.iter().any(|step| matches!(step, Step::SetPeer(_))),
            Kind::Decapsulated => false,
            _ => encrypted,
        };
        let place = match &hop.place {
            Place::Pod(pod, _) => pod.name.to_string(),
            Place::Node(node) => node.to_string(),
            Place::Underlay => return None,
        };
        let outbound = match hop.kind {
            Kind::Sent | Kind::Routed | Kind::Encapsulated => true,
            Kind::Received | Kind::Decapsulated | Kind::Delivered => false,
            Kind::Chosen | Kind::Translated | Kind::Masqueraded | Kind::Judged => return None,
        };
        let device = hop.device.as_ref()?.to_string();
        (!encrypted).then_some((place, device, outbound))
    };
    path.hops.iter().filter_map(point).collect()
}

/// Sends a packet from a pod and tells where it was counted, as soon as that is everywhere where it is expected, or the time is up.
fn counted(
    places: &[(String, &Namespace)],
    from: &PodKey,
    target: Target,
    expected: &BTreeSet<Point>,
) -> BTreeSet<Point> {
    /// No two packets have the same mark.
    static MARK: AtomicU64 = AtomicU64::new(0x706f_646e_7061_0001);
    let probe = Probe { protocol: target.protocol.into(), mark: MARK.fetch_add(1, Ordering::Relaxed) };
    let mut taps: Vec<_> = places.iter().flat_map(|(name, place)| taps(name, place, probe)).collect();
    let (_, sender) = places.iter().find(|(name, _)| **name == *from.name).expect("the pod has a place");
    let to = SocketAddr::new(target.addr, target.port);
    sender.netns.run(|| probe::send(probe, to, None)).unwrap().unwrap();
    let (mut counted, deadline) = (BTreeSet::new(), Instant::now() + PATIENCE);
    while !counted.is_superset(expected) && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        capture::wait(taps.iter().map(|(_, _, tap)| tap), left).unwrap();
        take_in(&mut taps, probe, &mut counted);
    }
    // Where it should not have passed it did so before it came to its end, maybe just after that device was looked at.
    take_in(&mut taps, probe, &mut counted);
    counted
}

/// Takes in what waits.
fn take_in(taps: &mut [(String, String, Tap)], probe: Probe, counted: &mut BTreeSet<Point>) {
    for (place, device, tap) in taps {
        let framing = tap.framing();
        while tap.receive().is_ok() {
            let is_it = |bytes: &[u8]| probe.recognise(framing, bytes).is_some_and(|found| found.kind == Found::Probe);
            let passed = tap.seen().filter(|seen| is_it(seen.bytes));
            counted.extend(passed.map(|seen| (place.clone(), device.clone(), seen.outbound)));
        }
    }
}

/// At all devices of a place that are up.
fn taps(name: &str, place: &Namespace, probe: Probe) -> Vec<(String, String, Tap)> {
    let links = link::list(&mut RtSocket::open_in(&place.netns).unwrap()).unwrap();
    let up: Vec<String> = links.iter().filter(|link| link.is_up).map(|link| link.name.to_string()).collect();
    let tap = |device: String| match Tap::choosing(&device, SNAP, ROOM, |framing| Some(probe.filter(framing))) {
        Ok(tap) => Some((name.to_owned(), device, tap)),
        // What the kernel makes in each namespace, for tunnels that nobody has.
        Err(TapError::NotEthernet { .. }) => None,
        Err(error) => panic!("{device} of {name}: {error}"),
    };
    place.netns.run(|| up.into_iter().filter_map(tap).collect()).unwrap()
}
