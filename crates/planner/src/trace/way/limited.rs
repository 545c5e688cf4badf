//! What limits pods: where a packet passes it, and what becomes of those that are too many.
//!
//! One packet is never too many, as every limit is at least one; so a limit ends no way of a trace.

use std::net::IpAddr;

use podnet_model::{
    LinkName, PodKey,
    limits::{Bandwidth, Limits, PacketRate, annotations as by},
};

use super::{super::Kind, Hop, Place, Planned, objects};
use crate::limits::{egress_device, rules};

/// What comes from a pod passes its bandwidth first, as it comes in, and then rules.
pub(super) fn from_pod(planned: &Planned, pod: &PodKey, addr: IpAddr) -> Vec<Hop> {
    let Some(direction) = Direction::sent(planned, pod, addr) else { return Vec::new() };
    direction.shaped().into_iter().chain(direction.counted("prerouting from-pods")).collect()
}

/// What goes to a pod passes rules first, of the node's own packets others (`is_own`), and its bandwidth as it leaves by the pod's link.
pub(super) fn to_pod(planned: &Planned, pod: &PodKey, addr: IpAddr, is_own: bool) -> Vec<Hop> {
    let Some(direction) = Direction::received(planned, pod, addr) else { return Vec::new() };
    let chain = if is_own { "output of-the-node → to-pods" } else { "forward forwarded → to-pods" };
    direction.counted(chain).chain(direction.shaped()).collect()
}

/// What comes from a pod and passes no rules, as to its neighbours on a bridge, passes its bandwidth alone.
pub(super) fn by_bandwidth_from_pod(planned: &Planned, pod: &PodKey, addr: IpAddr) -> Option<Hop> {
    Direction::sent(planned, pod, addr)?.shaped()
}

/// What goes to a pod past rules, as from its neighbours on a bridge.
pub(super) fn by_bandwidth_to_pod(planned: &Planned, pod: &PodKey, addr: IpAddr) -> Option<Hop> {
    Direction::received(planned, pod, addr)?.shaped()
}

/// One direction of a pod's traffic, which may be limited.
struct Direction<'a> {
    planned: &'a Planned,
    pod: &'a PodKey,
    addr: IpAddr,
    limits: &'a Limits,
    words: &'static str,
    /// What asks for its limits.
    bandwidth: [&'static str; 2],
    packets: &'static str,
    connections: &'static str,
    /// Where its packets wait, and in what.
    device: Option<LinkName>,
    qdisc: &'static str,
}

impl<'a> Direction<'a> {
    fn sent(planned: &'a Planned, pod: &'a PodKey, addr: IpAddr) -> Option<Self> {
        let limits = planned.limits(addr)?.as_ref().ok()?;
        Some(Self {
            planned,
            pod,
            addr,
            limits: &limits.egress,
            words: "from the pod",
            bandwidth: by::EGRESS_BANDWIDTH,
            packets: by::EGRESS_PACKETS,
            connections: by::EGRESS_CONNECTIONS,
            device: planned.link(addr).and_then(|link| egress_device(&link.device)),
            qdisc: "qdisc tbf, handle 88:, of a device that all of it is led through",
        })
    }

    fn received(planned: &'a Planned, pod: &'a PodKey, addr: IpAddr) -> Option<Self> {
        let limits = planned.limits(addr)?.as_ref().ok()?;
        Some(Self {
            planned,
            pod,
            addr,
            limits: &limits.ingress,
            words: "to the pod",
            bandwidth: by::INGRESS_BANDWIDTH,
            packets: by::INGRESS_PACKETS,
            connections: by::INGRESS_CONNECTIONS,
            device: planned.link(addr).map(|link| link.device.clone()),
            qdisc: "qdisc tbf, handle 88:",
        })
    }

    fn shaped(&self) -> Option<Hop> {
        let (Bandwidth { rate, .. }, [one, other]) = (self.limits.bandwidth?, self.bandwidth);
        let what = format!("at most {rate} bits/s {}: what finds no room to wait is dropped", self.words);
        let hop = self.hop(format!("{what} (annotation {one} or {other})")).by(self.qdisc);
        // Of the device that packets are led through the MTU is the kernel's own affair.
        Some(Hop { device: self.device.clone(), mtu: None, ..hop })
    }

    /// Packets and connections, by rules that are reached so.
    fn counted(&self, chain: &str) -> impl Iterator<Item = Hop> {
        let Self { limits, words, packets, connections, .. } = self;
        let table = |comment: &str| format!("nftables, table {}, {chain}: {comment}", rules::TABLE);
        let rate = limits.packets.map(|PacketRate { rate, burst }| {
            let what = format!("at most {rate} packets/s {words}, {burst} at once: more are dropped");
            self.hop(format!("{what} (annotation {packets})")).by(table("more packets than the pod may have"))
        });
        let most = limits.connections.map(|most| {
            let what = format!("at most {most} connections {words} at once: more are refused");
            self.hop(format!("{what} (annotation {connections})")).by(table("more connections than the pod may have"))
        });
        rate.into_iter().chain(most)
    }

    fn hop(&self, what: String) -> Hop {
        let hop = Hop::new(Place::Node(self.planned.node.name.clone()), Kind::Judged, what);
        let hop = hop.of(objects::pod(self.pod));
        match self.planned.link(self.addr) {
            Some(link) => hop.at(link.device.clone(), self.planned.overlay.pod_mtu()),
            None => hop,
        }
    }
}
