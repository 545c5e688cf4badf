//! Pods on one bridge, which take each other for neighbours on a wire.

use podnet_model::PodKey;

use super::{
    super::{Entry, Kind, Neighbourhood},
    Hop, POD_END, Path, Place, Planned, Translator, Traveller, Verdict, limited, objects, senders, translator,
};

/// Takes the bridge's own device out of a packet's way where it is not passed: what comes in by a port and is translated there, as `br_netfilter`
/// shows it to rules, goes from port to port where its new route leads to the same bridge (Linux, `br_nf_pre_routing_finish`). Only as long as
/// the kernel has not cached the neighbour's Ethernet header does it leave by that device.
pub(super) fn pass_by(planned: &Planned, traveller: &mut Traveller) -> bool {
    let addr = traveller.target.addr;
    let Some(bridge) = planned.link(addr).and_then(|link| link.bridge.as_ref()) else { return false };
    if !planned.facts.is_shown(addr) || translator(planned, traveller) != Some(Translator::Rules) {
        return false;
    }
    let here = Place::Node(planned.node.name.clone());
    let is_by_it = |hop: &Hop| hop.kind == Kind::Received && hop.place == here && hop.device.as_ref() == Some(bridge);
    let all = traveller.hops.len();
    traveller.hops.retain(|hop| !is_by_it(hop));
    traveller.hops.len() < all
}

/// Straight to who answers for the address on the bridge. Routes of the node have no say; rules, and of limits others than those of bandwidth,
/// only where `br_netfilter` shows it to them.
pub(super) fn to_neighbour(planned: &Planned, pod: &PodKey, to: &Neighbourhood<'_>, traveller: Traveller) -> Path {
    let (node, mtu) = (&planned.node.name, planned.overlay.pod_mtu());
    let (source, addr) = (traveller.source, traveller.target.addr);
    let within = |pod: &PodKey| Place::Pod(pod.clone(), node.clone());
    let at_node = |kind, what: String| Hop::new(Place::Node(node.clone()), kind, what);
    let (neighbour, port) = match to {
        Neighbourhood::Port(neighbour, port) => (neighbour, *port),
        Neighbourhood::Nobody(bridge) => {
            let what = format!("asks for {addr} on bridge {bridge}, and nobody answers");
            let asks = Hop::new(within(pod), Kind::Sent, what).of(objects::pod(pod));
            let why = format!("no pod has {addr}, which is of a block of node {node}");
            return traveller.hop(asks).ends(Verdict::Lost, why);
        }
    };
    let link = planned.link(source);
    let segment = link.and_then(|link| link.segments.iter().find(|segment| segment.contains(&addr)));
    let sent = Hop::new(within(pod), Kind::Sent, format!("from {source} to {}", traveller.to()));
    let sent = Hop { rule: segment.map(|segment| format!("{segment} dev {POD_END} scope link")), ..sent };
    let received = at_node(Kind::Received, "comes in by the pod's port of the bridge".to_owned());
    let received = match link {
        Some(link) => received.at(link.device.clone(), mtu).by(format!(
            "sender {source} of {} alone ({})",
            link.device,
            senders(link, source)
        )),
        None => received,
    };
    let out = at_node(Kind::Routed, format!("out by the port of its neighbour, pod {neighbour}"));
    let is_shown = planned.facts.is_shown(addr);
    let itself = if is_shown { "no route of the node" } else { "no route and no rule of the node" };
    let out = out.by(format!("the bridge itself: {itself}")).at(port.clone(), mtu);
    let limits = |addr| if is_shown { Entry::Limits(addr) } else { Entry::Bandwidth(addr) };
    let delivered = Hop::new(within(neighbour), Kind::Delivered, format!("at {}", traveller.to()));
    let mut traveller = traveller.hop(sent.at(POD_END.into(), mtu).of(objects::pod(pod)));
    traveller.hops.push(received.of(objects::pod(pod)).asking([Entry::Port(source), limits(source)]));
    match is_shown {
        true => traveller.hops.extend(limited::from_pod(planned, pod, source)),
        false => traveller.hops.extend(limited::by_bandwidth_from_pod(planned, pod, source)),
    }
    traveller.hops.push(out.of(objects::pod(neighbour)).asking([limits(addr)]));
    match is_shown {
        true => traveller.hops.extend(limited::to_pod(planned, neighbour, addr, false)),
        false => traveller.hops.extend(limited::by_bandwidth_to_pod(planned, neighbour, addr)),
    }
    traveller.hops.push(delivered.at(POD_END.into(), mtu).of(objects::pod(neighbour)));
    traveller.ends(Verdict::Arrives, format!("pod {neighbour} on node {node}"))
}
