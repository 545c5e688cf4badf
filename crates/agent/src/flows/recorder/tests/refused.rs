//! What the log has of what Services refuse at sockets.

use std::{collections::HashMap, io::ErrorKind, process};

use podnet_kernel::sockets::{self, Sockets, cookie_of};
use podnet_model::{ClusterIp, Protocol, ServicePort, service::Port};
use podnet_planner::{
    ruleset::FrontendKey,
    services::ebpf::{Edits, Entry as Frontend, Serves},
};

use super::*;

/// A cgroup with this process in it. It goes with the value.
struct Group(Cgroup);

impl Group {
    fn new() -> Self {
        let group = Self(Cgroup::v2(format!("podnet-test-flows-refused-{}", process::id())).unwrap());
        group.0.create().unwrap();
        group.0.add_self().unwrap();
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Cgroup::v2("").and_then(|root| root.add_self());
        let _ = std::fs::remove_dir(self.0.path());
    }
}

/// The pod behind its interface.
struct Behind {
    device: u32,
    pod: NetNs,
}

impl Behind {
    fn addrs() -> Vec<IpAddr> {
        vec!["192.0.2.7".parse().unwrap()]
    }
}

impl Holders for Behind {
    fn senders(&self) -> Option<Senders> {
        Some([(self.device, Self::addrs())].into())
    }

    fn ends(&self) -> HashMap<LinkName, Vec<IpAddr>> {
        [(LinkName::from("pn0"), Self::addrs())].into()
    }

    fn behind(&self, _: &LinkName) -> Option<(u32, u64)> {
        Some((self.device, cookie_of(&self.pod).unwrap()))
    }
}

/// `shop/cart` at 10.96.0.7:53.
fn served() -> Arc<Known> {
    let known = known();
    let (protocol, port) = (Protocol::Udp, ServicePort(53));
    let ports = vec![Port { name: "dns".into(), protocol, port, node_port: None }];
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp("10.96.0.7".parse().unwrap())] };
    let service = Service::new(ServiceKey::new("shop", "cart"), kind, ports);
    known.learn(&Change::Service(service.key.clone(), Some(service)));
    known
}

#[test]
fn what_a_service_refuses_at_the_socket_is_in_the_log_though_no_packet_is_sent() {
    let (lab, group) = (Lab::new(), Group::new());
    let programs = Sockets::open(&group.0, sockets::Sizes::LEAST).unwrap();
    programs.attach().unwrap();
    let frontend = FrontendKey { addr: "10.96.0.7".parse().unwrap(), protocol: Protocol::Udp, port: 53 };
    let point = vec![(frontend, Frontend { list: 1, serves: Serves::Nobody, affinity: None })];
    programs.apply(&Edits { point, ..Edits::default() }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let find = || link::find(&mut RtSocket::open().unwrap(), &LinkName::from("pn0")).unwrap();
    let device = lab.node.run(find).unwrap().unwrap().index;
    let behind = || Behind { device, pod: lab.pod.clone() };
    let recorder = Recorder::new(counting(&lab), sinks(&settings), "node1".into(), (served(), behind()));
    let mut recorder = recorder.refusing(Some(group.0.clone()));
    let inside = lab.pod.run(|| UdpSocket::bind("192.0.2.7:4000").unwrap()).unwrap();
    let ask = || assert_eq!(inside.send_to(&[7], "10.96.0.7:53").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    ask();
    recorder.round(true, false);
    assert!(records(&settings, 4000).is_empty(), "nobody recorded by then");
    (0..2).for_each(|_| ask());
    recorder.round(true, true);
    let records = records(&settings, 4000);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.report, record.reporter, record.class), (Report::Start, Reporter::Source, Class::PodService));
    assert_eq!((record.verdict, record.cause), (Verdict::Refused, Some(Cause::NoBackend)));
    assert_eq!(record.source.pod.as_ref().map(|pod| &*pod.name), Some("web-1"));
    assert_eq!(record.service.as_ref().map(|asked| asked.service.to_string()).as_deref(), Some("shop/cart"));
    assert_eq!((record.sent.packets, record.sent.bytes, record.received.packets), (2, 0, 0));
    // What the programs counted until another mode took their place is read once more.
    let (mut refused, holders) = (Refused::of(Some(group.0.clone())), Asking::new(Box::new(behind())));
    let began = Instant::now();
    let mut counts = |seconds| {
        assert_eq!(refused.read(&holders, began + Duration::from_secs(seconds)), 0);
        refused.found().iter().map(|(refusal, _)| refusal.count).collect::<Vec<_>>()
    };
    assert_eq!(counts(0), [2]);
    ask();
    sockets::detach(&group.0, true).unwrap();
    assert_eq!(counts(1), [3]);
    assert!(counts(2).is_empty());
}
