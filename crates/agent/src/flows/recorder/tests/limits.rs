//! What the log has of what limits dropped.

use std::{cell::RefCell, sync::atomic::AtomicU64};

use podnet_flow::{Beyond, Direction};
use podnet_kernel::{nft::NftSocket, tc::Dropped};
use podnet_model::{
    Family,
    limits::{Limits as OfPod, PodLimits},
};
use podnet_planner::limits::rules;

use super::*;
use crate::flows::senders::{Loss, noted};

/// One pod's interface with its address, and how many packets to it its limit has dropped.
struct Limited {
    index: u32,
    packets: Arc<AtomicU64>,
}

impl Holders for Limited {
    fn senders(&self) -> Option<Senders> {
        Some([(self.index, vec!["192.0.2.7".parse().unwrap()])].into())
    }

    fn devices(&self) -> Option<Devices> {
        Some([(self.index, LinkName::from("pn0"))].into())
    }

    fn dropped(&self) -> Option<Vec<Loss>> {
        let packets = self.packets.load(Ordering::Relaxed);
        let dropped = Dropped { device: self.index, direction: Direction::Ingress, packets };
        Some(vec![Loss { dropped, counted: None }])
    }
}

#[test]
fn what_a_limit_drops_while_flows_are_recorded_is_in_the_log_with_its_pod_and_interface() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: true };
    let find = || podnet_kernel::link::find(&mut RtSocket::open().unwrap(), &LinkName::from("pn0")).unwrap();
    let (index, packets) = (lab.node.run(find).unwrap().unwrap().index, Arc::new(AtomicU64::new(5)));
    let limited = Limited { index, packets: Arc::clone(&packets) };
    let mut recorder = Recorder::new(counting(&lab), sinks(&settings), "node1".into(), (known(), limited));
    recorder.round(true, false);
    packets.store(17, Ordering::Relaxed);
    let text = || std::fs::read_to_string(&settings.path).unwrap();
    recorder.round(true, false);
    assert_eq!(text(), "", "not each time that something is read");
    recorder.round(true, true);
    let items: Vec<Item> = text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [Item::Drops(drops)] = &items[..] else { panic!("{items:?}") };
    assert_eq!((drops.cause, drops.direction, drops.packets), (Cause::Limit, Direction::Ingress, 12));
    assert_eq!(drops.pod.as_ref().map(|pod| &*pod.name), Some("web-1"));
    assert_eq!(drops.device.as_ref().and_then(|device| device.name.as_ref()).map(LinkName::as_str), Some("pn0"));
    assert!(drops.start < drops.end, "{drops:?}");
}

/// One pod's interface with its address, and the rules of its namespace.
struct Ruled {
    index: u32,
    rules: RefCell<NftSocket>,
}

impl Holders for Ruled {
    fn senders(&self) -> Option<Senders> {
        Some([(self.index, vec!["192.0.2.7".parse().unwrap()])].into())
    }

    fn beyond(&self) -> Option<Beyond> {
        Some(noted(&mut self.rules.borrow_mut()).unwrap())
    }
}

#[test]
fn a_connection_that_a_limit_refuses_is_in_the_log_with_that_cause() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let find = || podnet_kernel::link::find(&mut RtSocket::open().unwrap(), &LinkName::from("pn0")).unwrap();
    let index = lab.node.run(find).unwrap().unwrap().index;
    let mut socket = NftSocket::open_in(&lab.node).unwrap();
    let egress = OfPod { connections: Some(1), ..OfPod::default() };
    let limits = PodLimits { egress, ..PodLimits::default() };
    let table = rules::rules(Family::V4, [("192.0.2.7".parse().unwrap(), &limits)]).unwrap();
    socket.replace(rules::TABLE, &table).unwrap();
    let ruled = Ruled { index, rules: RefCell::new(socket) };
    let mut recorder = Recorder::new(counting(&lab), sinks(&settings), "node1".into(), (known(), ruled));
    let _listener = lab.node.run(|| TcpListener::bind("192.0.2.1:5000").unwrap()).unwrap();
    let connect = || lab.pod.run(|| TcpStream::connect("192.0.2.1:5000")).unwrap();
    let _open = connect().unwrap();
    assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let told = || -> Vec<(Verdict, Option<Cause>)> {
        let text = std::fs::read_to_string(&settings.path).unwrap();
        let outcome = |line: &str| match serde_json::from_str(line).unwrap() {
            Item::Flow(record) => Some((record.verdict, record.cause)),
            _ => None,
        };
        text.lines().filter_map(outcome).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while told().iter().all(|(verdict, _)| *verdict != Verdict::Refused) {
        assert!(Instant::now() < deadline, "{:?}", told());
        recorder.round(true, false);
        thread::yield_now();
    }
    recorder.round(true, true);
    let (refused, others): (Vec<_>, Vec<_>) = told().into_iter().partition(|(verdict, _)| *verdict == Verdict::Refused);
    assert_eq!(refused, [(Verdict::Refused, Some(Cause::Limit))]);
    assert!(!others.is_empty() && others.iter().all(|(_, cause)| cause.is_none()), "{others:?}");
}
