//! Real traffic between two pods of a node, down to the lines of the log.

mod limits;
mod other_node;
mod refused;
mod services;

use std::{
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use podnet_flow::{Cause, Class, Report, Reporter, Verdict};
use podnet_kernel::{flows::Sizes, link, netlink::RtSocket, netns::NetNs};
use podnet_model::{Change, LinkName, NodeAddr, Service, ServiceKey, node::Node, service::ServiceKind};
use serde_json::json;

use super::*;
use crate::flows::{
    FlowLog,
    senders::{Devices, Senders},
};

/// Labs that were made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A node with a pod in a namespace of its own, which goes with the value.
struct Lab {
    node: NetNs,
    pod: NetNs,
    paths: [String; 2],
}

impl Lab {
    fn new() -> Self {
        let own = std::process::id();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let paths = ["node", "pod"].map(|name| format!("/run/netns/podnet-test-flows-{name}-{own}-{number}"));
        let [node, pod] = [0, 1].map(|number| NetNs::create(&paths[number]).unwrap());
        let name = Path::new(&paths[1]).file_name().unwrap().to_str().unwrap().to_owned();
        let lab = Self { node, pod, paths };
        lab.node.run(|| ip(&format!("link add pn0 type veth peer name eth0 netns {name}"))).unwrap();
        lab.node.run(|| ["addr add 192.0.2.1/24 dev pn0", "link set pn0 up"].into_iter().for_each(ip)).unwrap();
        let inside = ["addr add 192.0.2.7/24 dev eth0", "link set eth0 up"];
        lab.pod.run(|| inside.into_iter().for_each(ip)).unwrap();
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = NetNs::remove(path);
        }
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn sinks(log: &FlowLog) -> Sinks {
    let tally = Arc::new(Mutex::new(Tally::new(10)));
    Sinks { log: Some(Log::open(log, "node1".into()).unwrap()), past: None, tally, collectors: Collectors::default() }
}

fn known() -> Arc<Known> {
    let known = Known::of_node("node1".into(), None);
    known.learn(&Change::Node("node1".into(), Some(Node::new("node1".into(), NodeAddr("192.0.2.1".parse().unwrap())))));
    let service = Service::new(
        ServiceKey::new("shop", "cart"),
        ServiceKind::Virtual { cluster_ips: vec![podnet_model::ClusterIp("10.96.0.7".parse().unwrap())] },
        Vec::new(),
    );
    known.learn(&Change::Service(service.key.clone(), Some(service)));
    tell(&known, "web-1", "192.0.2.7");
    known
}

fn tell(known: &Known, pod: &str, ip: &str) {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": pod, "namespace": "shop", "uid": pod},
        "spec": {"nodeName": "node1", "containers": []},
        "status": {"podIPs": [{"ip": ip}]},
    }));
    known.event(kube::runtime::watcher::Event::Apply(pod.unwrap()), &mut Vec::new());
}

/// What is in the log of flows that began at a port.
fn records(log: &FlowLog, port: u16) -> Vec<Record> {
    let text = std::fs::read_to_string(&log.path).unwrap();
    let record = |line: &str| match serde_json::from_str(line).unwrap() {
        Item::Flow(record) => Record::clone(&record),
        item => panic!("{item:?}"),
    };
    text.lines().map(record).filter(|record| record.source.port == port).collect()
}

/// Pods' addresses by their interfaces.
struct Fixed(Senders);

impl Holders for Fixed {
    fn senders(&self) -> Option<Senders> {
        Some(self.0.clone())
    }
}

/// Counts at the pod's interface.
fn counting(lab: &Lab) -> Arc<Flows> {
    let flows = lab.node.run(|| {
        let (socket, device) = (&mut RtSocket::open().unwrap(), LinkName::from("pn0"));
        let flows = Flows::open(socket, &[], None, Sizes { entries: 100, ring: 1 << 16 }).unwrap();
        assert!(flows.attach(socket, &device).unwrap());
        flows
    });
    Arc::new(flows.unwrap())
}

/// Nobody's addresses, and the interfaces of a namespace.
struct In(NetNs);

impl Holders for In {
    fn senders(&self) -> Option<Senders> {
        Some(Senders::new())
    }

    fn devices(&self) -> Option<Devices> {
        let links = self.0.run(|| link::list(&mut RtSocket::open().unwrap()).unwrap()).unwrap();
        Some(links.into_iter().map(|link| (link.index, link.name)).collect())
    }
}

#[test]
fn what_a_pod_says_is_in_the_log_once_with_its_name_also_over_a_restart() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let device = LinkName::from("pn0");
    let recorder = |sizes| {
        let flows = lab.node.run(|| {
            let socket = &mut RtSocket::open().unwrap();
            let flows = Flows::open(socket, std::slice::from_ref(&device), None, sizes).unwrap();
            assert!(flows.attach(socket, &device).unwrap());
            flows
        });
        Recorder::new(Arc::new(flows.unwrap()), sinks(&settings), "node1".into(), (known(), ()))
    };
    let sizes = Sizes { entries: 100, ring: 1 << 16 };
    let mut first = recorder(sizes);
    let inside = lab.pod.run(|| UdpSocket::bind("192.0.2.7:4000").unwrap()).unwrap();
    let outside = lab.node.run(|| UdpSocket::bind("192.0.2.1:5000").unwrap()).unwrap();
    let say = || {
        inside.send_to(&[7; 100], "192.0.2.1:5000").unwrap();
        let (_, from) = outside.recv_from(&mut [0; 200]).unwrap();
        outside.send_to(&[7; 50], from).unwrap();
        inside.recv_from(&mut [0; 200]).unwrap();
    };
    say();
    first.round(true, false);
    say();
    drop(first);
    say();
    let mut next = recorder(sizes);
    next.round(true, true);
    let records = records(&settings, 4000);
    let [begun, later] = &records[..] else { panic!("{records:?}") };
    assert_eq!((begun.report, begun.reporter, begun.class), (Report::Start, Reporter::Source, Class::PodNode));
    assert_eq!((begun.sent.packets, begun.sent.bytes, begun.received.bytes), (1, 128, 78));
    assert_eq!(begun.source.pod.as_ref().map(|pod| &*pod.name), Some("web-1"));
    assert_eq!(begun.destination.node.as_ref().map(NodeName::as_str), Some("node1"));
    // Whoever reads on tells the same flow, with all that passed since it began.
    assert_eq!((later.report, later.id, later.sent.packets), (Report::Update, begun.id, 3));
}

#[test]
fn what_found_no_room_is_told_with_the_pod_that_it_is_of() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: true };
    let device = LinkName::from("pn0");
    let flows = lab.node.run(|| {
        let socket = &mut RtSocket::open().unwrap();
        let flows = Flows::open(socket, &[], None, Sizes { entries: 4, ring: 1 << 16 }).unwrap();
        assert!(flows.attach(socket, &device).unwrap());
        flows
    });
    let holders = In(lab.node.clone());
    let mut recorder = Recorder::new(Arc::new(flows.unwrap()), sinks(&settings), "node1".into(), (known(), holders));
    let outside = lab.node.run(|| UdpSocket::bind("192.0.2.1:5000").unwrap()).unwrap();
    for port in 4000..4020 {
        let inside = lab.pod.run(|| UdpSocket::bind(("192.0.2.7", port)).unwrap()).unwrap();
        inside.send_to(&[7; 100], "192.0.2.1:5000").unwrap();
        // What is read there was counted on its way.
        outside.recv_from(&mut [0; 200]).unwrap();
    }
    recorder.round(true, true);
    let text = std::fs::read_to_string(&settings.path).unwrap();
    let items: Vec<Item> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [Item::Gap(gap)] = &items[..] else { panic!("what is with a node is not wanted there: {text}") };
    assert_eq!(gap.pod.as_ref().map(|pod| &*pod.name), Some("web-1"), "{gap:?}");
    assert!(gap.packets >= 16, "{gap:?}");
    // One packet of each; an estimate.
    assert!(gap.flows.abs_diff(gap.packets) <= 1, "{gap:?}");
    let interface = gap.device.as_ref().and_then(|device| device.name.as_ref());
    assert_eq!(interface.map(LinkName::as_str), Some("pn0"), "{gap:?}");
}

#[test]
fn what_is_open_as_its_pod_goes_is_told_as_ended_and_its_room_is_free() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let flows = counting(&lab);
    let holders = In(lab.node.clone());
    let mut recorder = Recorder::new(flows.clone(), sinks(&settings), "node1".into(), (known(), holders));
    let _listener = lab.node.run(|| TcpListener::bind("192.0.2.1:80").unwrap()).unwrap();
    let stream = lab.pod.run(|| TcpStream::connect("192.0.2.1:80").unwrap()).unwrap();
    let port = stream.local_addr().unwrap().port();
    (0..2).for_each(|_| recorder.round(true, false));
    let reports = || records(&settings, port).iter().map(|record| record.report).collect::<Vec<_>>();
    assert_eq!(reports(), [Report::Start]);
    lab.node.run(|| ip("link del pn0")).unwrap();
    recorder.round(true, false);
    assert_eq!(reports(), [Report::Start, Report::End]);
    assert!(flows.entries().unwrap().is_empty());
    let Some(last) = records(&settings, port).pop() else { panic!("no record") };
    assert_eq!((last.verdict, last.source.pod.is_some()), (Verdict::Forwarded, true), "{last:?}");
}

#[test]
fn what_ends_is_told_before_the_map_is_read_again() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let flows = counting(&lab);
    let mut recorder = Recorder::new(flows.clone(), sinks(&settings), "node1".into(), (known(), ()));
    let listener = lab.node.run(|| TcpListener::bind("192.0.2.1:80").unwrap()).unwrap();
    let stream = lab.pod.run(|| TcpStream::connect("192.0.2.1:80").unwrap()).unwrap();
    let port = stream.local_addr().unwrap().port();
    drop(stream);
    drop(listener.accept().unwrap());
    let deadline = Instant::now() + Duration::from_secs(5);
    recorder.round(false, false);
    while records(&settings, port).is_empty() {
        assert!(Instant::now() < deadline, "no reading is needed");
        thread::sleep(Duration::from_millis(10));
        recorder.round(false, false);
    }
    let records = records(&settings, port);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.report, record.verdict), (Report::End, Verdict::Forwarded), "{record:?}");
    assert!(flows.entries().unwrap().is_empty(), "it is out of the map");
}

#[test]
fn that_an_agent_was_killed_is_told_once_by_the_next_one() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: true };
    let mark = directory.path().join("flow-recording");
    let flows = counting(&lab);
    let record = |is_last| {
        let recorder = Recorder::new(flows.clone(), sinks(&settings), "node1".into(), (known(), ()));
        recorder.marking(&mark).round(true, is_last);
        let text = std::fs::read_to_string(&settings.path).unwrap();
        let gap = |line: &str| match serde_json::from_str(line).unwrap() {
            Item::Gap(gap) => gap,
            item => panic!("{item:?}"),
        };
        text.lines().map(gap).collect::<Vec<Gap>>()
    };
    assert!(record(true).is_empty() && !mark.exists(), "it ended by itself");
    let before = Timestamp::now();
    assert!(record(false).is_empty() && mark.exists());
    let full = FlowLog { path: "/dev/full".into(), ..settings.clone() };
    Recorder::new(flows.clone(), sinks(&full), "node1".into(), (known(), ())).marking(&mark).round(true, true);
    assert!(mark.exists(), "that there is a gap found no room in the log");
    let told = record(true);
    let [gap] = &told[..] else { panic!("{told:?}") };
    assert_eq!((gap.at, gap.node.as_str()), (GapAt::Agent, "node1"));
    assert!(gap.start < before && before <= gap.end, "{before} {gap:?}");
    assert_eq!(record(true), told);
}

#[test]
fn what_an_earlier_agent_left_untold_is_in_a_gap_also_where_its_maps_cannot_be_gone_on_with() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let (none, killed, ended, whole) = ((None, None), (Some(at(1000)), None), (None, Some(at(700))), at(1020));
    let rows = [
        // There was none, or it ended by itself.
        (none, (true, false), true, None),
        (none, (false, false), true, None),
        (ended, (true, false), true, None),
        (ended, (false, false), true, None),
        // It was killed, and counting went on, or ended.
        (killed, (true, false), true, Some((at(911), whole))),
        (killed, (true, false), false, Some((at(992), whole))),
        (killed, (false, false), true, Some((at(911), at(1001)))),
        // It was another version, which counted on also since it ended.
        (none, (false, true), true, Some((at(931), whole))),
        (none, (false, true), false, Some((at(931), whole))),
        (ended, (false, true), true, Some((at(611), whole))),
        (killed, (false, true), false, Some((at(911), whole))),
    ];
    for (left, before, is_sent, expected) in rows {
        assert_eq!(untold(left, before, is_sent, whole), expected, "{left:?} {before:?} {is_sent}");
    }
}

#[test]
fn what_found_no_room_is_told_with_its_pod_also_where_others_have_all_the_room() {
    let lab = Lab::new();
    let inside = Path::new(&lab.paths[1]).file_name().unwrap().to_str().unwrap();
    let link = format!("link add pn1 type veth peer name eth1 netns {inside}");
    let on_node = [link.as_str(), "addr add 198.51.100.1/24 dev pn1", "link set pn1 up"];
    lab.node.run(|| on_node.into_iter().for_each(ip)).unwrap();
    let in_pod = ["addr add 198.51.100.7/24 dev eth1", "link set eth1 up"];
    lab.pod.run(|| in_pod.into_iter().for_each(ip)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: true };
    let counting = lab.node.run(|| {
        let socket = &mut RtSocket::open().unwrap();
        let flows = Flows::open(socket, &[], None, Sizes { entries: 4, ring: 1 << 16 }).unwrap();
        let mut own = Senders::new();
        for (device, addr) in [("pn0", "192.0.2.7"), ("pn1", "198.51.100.7")] {
            let device = LinkName::from(device);
            assert!(flows.attach(socket, &device).unwrap());
            let index = podnet_kernel::link::find(socket, &device).unwrap().unwrap().index;
            own.insert(index, vec![addr.parse().unwrap()]);
        }
        (Arc::new(flows), own)
    });
    let (flows, own) = counting.unwrap();
    let known = known();
    tell(&known, "web-2", "198.51.100.7");
    let mut recorder = Recorder::new(flows, sinks(&settings), "node1".into(), (known, Fixed(own)));
    for (from, to, count) in [("192.0.2.7", "192.0.2.1:5000", 10), ("198.51.100.7", "198.51.100.1:5000", 3)] {
        let outside = lab.node.run(|| UdpSocket::bind(to).unwrap()).unwrap();
        for port in 4000..4000 + count {
            let inside = lab.pod.run(|| UdpSocket::bind((from, port)).unwrap()).unwrap();
            inside.send_to(&[7; 100], to).unwrap();
            // What is read there was counted on its way.
            outside.recv_from(&mut [0; 200]).unwrap();
        }
    }
    recorder.round(true, true);
    let text = std::fs::read_to_string(&settings.path).unwrap();
    let missing = |line: &str| match serde_json::from_str(line).unwrap() {
        Item::Gap(gap) => (gap.pod.map(|pod| pod.name.to_string()), gap.packets),
        item => panic!("{item:?}"),
    };
    let mut missing: Vec<_> = text.lines().map(missing).collect();
    missing.sort();
    assert_eq!(missing, [(Some("web-1".to_owned()), 6), (Some("web-2".to_owned()), 3)]);
}

#[test]
fn what_nobody_takes_is_in_the_log_with_what_refused_or_dropped_it() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let device = LinkName::from("pn0");
    let counting = lab.node.run(|| {
        let socket = &mut RtSocket::open().unwrap();
        let flows = Flows::open(socket, &[], None, Sizes { entries: 100, ring: 1 << 16 }).unwrap();
        assert!(flows.attach(socket, &device).unwrap());
        (Arc::new(flows), podnet_kernel::link::find(socket, &device).unwrap().unwrap().index)
    });
    let (flows, index) = counting.unwrap();
    let own = Fixed([(index, vec!["192.0.2.7".parse().unwrap()])].into());
    let mut recorder = Recorder::new(flows.clone(), sinks(&settings), "node1".into(), (known(), own));
    let bind = |at: &'static str| lab.pod.run(|| UdpSocket::bind(at).unwrap()).unwrap();
    // Nobody listens there, which the node says at once.
    let inside = bind("192.0.2.7:4000");
    inside.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    inside.connect("192.0.2.1:5001").unwrap();
    inside.send(&[7; 100]).unwrap();
    assert_eq!(inside.recv(&mut [0; 200]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    lab.pod.run(|| ip("addr add 198.51.100.9/32 dev eth0")).unwrap();
    bind("198.51.100.9:4001").send_to(&[7; 100], "192.0.2.1:5000").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !flows.entries().unwrap().iter().any(|entry| entry.key.local_port == 4001) {
        assert!(Instant::now() < deadline, "it is not counted");
        thread::yield_now();
    }
    recorder.round(true, true);
    let told = |port| {
        let records = records(&settings, port);
        let [record] = &records[..] else { panic!("{records:?}") };
        let pod = record.source.pod.as_ref().map(|pod| pod.name.to_string());
        (record.verdict, record.cause, pod, record.source.ip)
    };
    let (pod, addr) = (Some("web-1".to_owned()), |text: &str| text.parse::<IpAddr>().unwrap());
    assert_eq!(told(4000), (Verdict::Refused, Some(Cause::PortClosed), pod.clone(), addr("192.0.2.7")));
    assert_eq!(told(4001), (Verdict::Dropped, Some(Cause::SpoofGuard), pod, addr("198.51.100.9")));
}
