//! The devices that a trace names, beside those where a packet from pod to pod was really counted, outside and inside of tunnels.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use podnet_flow::probe::{Kind as Found, Probe, SNAP};
use podnet_kernel::{
    capture::{self, Tap, TapError},
    link,
    netlink::RtSocket,
    probe,
};
use podnet_model::{
    Change, NodeName, Pod, PodAddr, PodKey, Protocol, labels::Labels, limits::PodLimits, pod::AddressRequest,
    proxy::Mode,
};
use podnet_planner::{
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

/// A device that a packet passed: the place, the device's name, and whether it left by it.
type Point = (String, String, bool);

impl Lab {
    /// A packet of each transport from the first node's pod to the other's passes the devices that the trace names, and no others.
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
        let cluster = self.traced();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let target = Target { addr, protocol, port: PORT };
            let trace = cluster.trace(&Source::Pod(pod_key(1)), target).unwrap();
            let [path] = &trace.paths[..] else { panic!("{} ways", trace.paths.len()) };
            assert_eq!(path.end.verdict, Verdict::Arrives, "{}", path.end.why);
            let expected = points(path);
            let counted = counted([first, second], protocol, (addr, PORT).into(), &expected);
            assert_eq!(counted, expected, "{protocol} to {addr}: counted, and traced");
        }
    }

    /// The lab as it is traced.
    fn traced(&self) -> Cluster {
        let mut changes = self.told.clone();
        changes.extend((1..).zip(&self.nodes).map(|(number, node)| pod(number, node)));
        let facts = (1..).zip(&self.nodes).map(|(number, node)| {
            let link = || Link { device: LINK.into(), bridge: None, ports: Vec::new() };
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

fn pod(number: usize, node: &LabNode) -> Change {
    let key = pod_key(number);
    let pod = Pod {
        key: key.clone(),
        uid: (&*key.name).into(),
        static_uid: None,
        searches: None,
        ndots: None,
        node: Some(node_name(number)),
        labels: Labels::default(),
        host_network: false,
        addrs: [node.pod_address, node.pod_address6].map(PodAddr).into(),
        finished: false,
        request: Ok(AddressRequest::default()),
        limits: Ok(PodLimits::default()),
    };
    Change::Pod(key, Some(pod))
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

/// Sends a packet from the first pod and tells where it was counted, as soon as that is everywhere where it is expected, or the time is up.
fn counted(
    nodes: [&LabNode; 2],
    protocol: Protocol,
    to: std::net::SocketAddr,
    expected: &BTreeSet<Point>,
) -> BTreeSet<Point> {
    /// No two packets have the same mark.
    static MARK: AtomicU64 = AtomicU64::new(0x706f_646e_7061_0001);
    let probe = Probe { protocol, mark: MARK.fetch_add(1, Ordering::Relaxed) };
    let places = nodes
        .iter()
        .zip(["1", "2"])
        .flat_map(|(node, number)| [(format!("node{number}"), &node.namespace), (format!("pod{number}"), &node.pod)]);
    let mut taps: Vec<_> = places.flat_map(|(name, place)| taps(&name, place, probe)).collect();
    nodes[0].pod.netns.run(|| probe::send(probe, to, None)).unwrap().unwrap();
    let (mut counted, deadline) = (BTreeSet::new(), Instant::now() + PATIENCE);
    while !counted.is_superset(expected) && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        capture::wait(taps.iter().map(|(_, _, tap)| tap), left).unwrap();
        for (place, device, tap) in &mut taps {
            let framing = tap.framing();
            while tap.receive().is_ok() {
                let is_it =
                    |bytes: &[u8]| probe.recognise(framing, bytes).is_some_and(|found| found.kind == Found::Probe);
                let passed = tap.seen().filter(|seen| is_it(seen.bytes));
                counted.extend(passed.map(|seen| (place.clone(), device.clone(), seen.outbound)));
            }
        }
    }
    counted
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
