//! What the log has of what limits dropped.

use std::sync::atomic::AtomicU64;

use podnet_flow::Direction;
use podnet_kernel::tc::Dropped;

use super::*;
use crate::flows::senders::Loss;

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
