//! Real traffic between two pods of a node, down to the lines of the log.

use std::{
    net::UdpSocket,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use podnet_flow::{Class, Report, Reporter};
use podnet_kernel::{flows::Sizes, netlink::RtSocket, netns::NetNs};
use podnet_model::{Change, LinkName, NodeAddr, Service, ServiceKey, node::Node, service::ServiceKind};
use serde_json::json;

use super::*;
use crate::flows::FlowLog;

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
    Sinks { log: Some(Log::open(log).unwrap()), past: None, tally, collectors: Collectors::default() }
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
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "web-1"},
        "spec": {"nodeName": "node1", "containers": []},
        "status": {"podIPs": [{"ip": "192.0.2.7"}]},
    }));
    known.event(kube::runtime::watcher::Event::Apply(pod.unwrap()), &mut Vec::new());
    known
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
        Recorder::new(Arc::new(flows.unwrap()), sinks(&settings), "node1".into(), known())
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
    let text = std::fs::read_to_string(&settings.path).unwrap();
    let records: Vec<Record> = text
        .lines()
        .map(|line| match serde_json::from_str(line).unwrap() {
            Item::Flow(record) => Record::clone(&record),
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .filter(|record| record.source.port == 4000)
        .collect();
    let [begun, later] = &records[..] else { panic!("{text}") };
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
    let mut recorder = Recorder::new(Arc::new(flows.unwrap()), sinks(&settings), "node1".into(), known());
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
}
