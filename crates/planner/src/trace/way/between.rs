//! From one node to another one, or out of the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{LinkName, NodeName};

use super::{super::Kind, Cluster, Hop, Path, Place, Planned, Traveller, Verdict, objects};
use crate::{
    overlay::{IPIP_OVERHEAD, IPV6_EXTRA, UDP_OVERHEAD, VXLAN_OVERHEAD, WIREGUARD_OVERHEAD},
    step::{FdbEntry, Neighbour, Peer, Route, RouteTarget, Step, Tunnel, Vxlan},
};

/// The rule of a hop that is none of podnet's: nobody plans it.
pub const BY_UNDERLAY: &str = "the underlay's routes";

/// How a packet is carried: the device, its MTU, where the outer packet goes, and what has to stand for it.
struct Outer {
    what: String,
    rule: String,
    mtu: u32,
    remote: IpAddr,
    cost: String,
    stands: Vec<Step>,
}

impl Cluster {
    /// By a route of podnet's.
    pub(super) fn to_peer(
        &self,
        planned: &Planned,
        range: IpNet,
        target: &RouteTarget,
        traveller: Traveller,
    ) -> Vec<Path> {
        let place = || Place::Node(planned.node.name.clone());
        let route = Step::SetRoute(Route { dst: range, target: target.clone() });
        let object = self.object_of_range(range);
        let routed =
            |what: String| Hop::new(place(), Kind::Routed, what).of(object.clone()).standing(vec![route.clone()]);
        match target {
            RouteTarget::Via(via) => {
                let owner = self.node_of(*via);
                let name = owner.map_or_else(|| via.to_string(), |owner| format!("node {owner}"));
                let hop = routed(format!("to {name}, as it is")).by(format!("{range} via {via}"));
                let hop = hop.at(planned.facts.device.clone(), planned.facts.mtu);
                self.come(owner, *via, traveller.hop(hop), None)
            }
            RouteTarget::OnLink { device, via, .. } => {
                let hop = routed(format!("into {device}")).by(format!("{range} via {via} dev {device} onlink"));
                let Some(outer) = outer(planned, device, *via, traveller.target.addr) else {
                    let why = format!("node {} has no tunnel {device} to {via}", planned.node.name);
                    return vec![traveller.hop(hop).ends(Verdict::Lost, why)];
                };
                let traveller = traveller.hop(hop.at(device.clone(), outer.mtu));
                let hop = Hop::new(place(), Kind::Encapsulated, outer.what).by(outer.rule).standing(outer.stands);
                let hop = hop.at(planned.facts.device.clone(), planned.facts.mtu);
                let owner = self.node_of(outer.remote);
                let hop = hop.of(owner.map(objects::node)).costing(outer.cost);
                self.come(owner, outer.remote, traveller.hop(hop), Some(device))
            }
            RouteTarget::Device(_) | RouteTarget::Blackhole => self.by_underlay(planned, traveller),
        }
    }

    /// To the node at an address of the underlay, in a tunnel or as it is.
    fn come(
        &self,
        node: Option<&NodeName>,
        addr: IpAddr,
        traveller: Traveller,
        tunnel: Option<&LinkName>,
    ) -> Vec<Path> {
        let peer = node.and_then(|name| self.planned(name));
        let (Some(name), Some(peer)) = (node, peer) else {
            return vec![traveller.ends(Verdict::Lost, format!("no node has {addr}"))];
        };
        let place = Place::Node(name.clone());
        let received = Hop::new(place.clone(), Kind::Received, "comes in from the underlay").of(objects::node(name));
        let mut traveller = traveller.hop(received.at(peer.facts.device.clone(), peer.facts.mtu));
        if let Some(device) = tunnel {
            let state = peer.overlay.desired();
            let there =
                (state.vxlans.get(device).map(|vxlan| (vxlan.mtu, Step::SetVxlan(vxlan.clone())))).or_else(|| {
                    state.tunnels.get(device).map(|tunnel| (tunnel_mtu(tunnel), Step::SetTunnel(tunnel.clone())))
                });
            let Some((mtu, stands)) = there else {
                let why = format!("node {name} has no {device} to take the packet out of its tunnel");
                return vec![traveller.ends(Verdict::Lost, why)];
            };
            let hop = Hop::new(place, Kind::Decapsulated, "taken out of the tunnel").at(device.clone(), mtu);
            let hop = match stands {
                // A private key is the node's alone to know.
                Step::SetTunnel(Tunnel::Wireguard(_)) => hop.costing("each packet is decrypted"),
                stands => hop.standing(vec![stands]),
            };
            traveller = traveller.hop(hop.of(objects::node(name)));
        }
        self.arrive(name, traveller)
    }

    /// By the routes of the underlay, which are not podnet's.
    pub(super) fn by_underlay(&self, planned: &Planned, traveller: Traveller) -> Vec<Path> {
        let (addr, node) = (traveller.target.addr, &planned.node.name);
        let routed = |what: String| {
            let hop = Hop::new(Place::Node(node.clone()), Kind::Routed, what).by(BY_UNDERLAY);
            hop.at(planned.facts.device.clone(), planned.facts.mtu)
        };
        if let Some(peer) = self.node_of(addr).cloned() {
            let hop = routed(format!("to node {peer}")).of(objects::node(&peer));
            return self.come(Some(&peer), addr, traveller.hop(hop), None);
        }
        if planned.overlay.pod_ranges().any(|range| range.contains(&addr)) {
            let hop = routed("by the underlay, which does not know pods".to_owned());
            let why = self.without_route(planned, addr);
            return vec![traveller.hop(hop).ends(Verdict::NoRoute, why)];
        }
        let own = traveller.source;
        let answers = self.pod_of(own).is_some() && self.pool_of(own).is_some_and(|pool| !pool.nat_outgoing);
        let mut why = format!("out of the cluster, from {own} by {} of node {node}", planned.facts.device);
        if answers {
            why.push_str(" (a pod's own address: answers need a route to it outside)");
        }
        vec![traveller.hop(routed("out of the cluster".to_owned())).ends(Verdict::Leaves, why)]
    }

    /// Why a node has no route to an address of a pool.
    fn without_route(&self, planned: &Planned, addr: IpAddr) -> String {
        let node = &planned.node.name;
        let Some(block) = self.block_of(addr) else {
            return format!("no block holds {addr}: no node gave it to a pod, so node {node} has no route to it");
        };
        let text = block.cidr.to_string();
        let problem = planned.overlay.problems().map(|problem| problem.to_string());
        let about = problem.into_iter().find(|problem| problem.contains(&format!("block {text} ")));
        about.unwrap_or_else(|| format!("node {node} has no route to block {text}"))
    }
}

const fn tunnel_mtu(tunnel: &Tunnel) -> u32 {
    match tunnel {
        Tunnel::Ipip(ipip) => ipip.mtu,
        Tunnel::Wireguard(wireguard) => wireguard.mtu,
        Tunnel::Udp(udp) => udp.mtu,
    }
}

/// What a tunnel of the node makes of a packet; none where there is nothing that carries it.
fn outer(planned: &Planned, device: &LinkName, via: IpAddr, inner: IpAddr) -> Option<Outer> {
    let state = planned.overlay.desired();
    if let Some(vxlan) = state.vxlans.get(device) {
        return by_vxlan(planned, vxlan, via);
    }
    let tunnel = state.tunnels.get(device)?;
    let own = if via.is_ipv4() { planned.node.v4().map(IpAddr::V4) } else { planned.node.v6().map(IpAddr::V6) };
    let own = own.map_or_else(|| "this node".to_owned(), |own| own.to_string());
    let (kind, remote, overhead, mut stands) = match tunnel {
        Tunnel::Ipip(_) => ("IPIP", via, IPIP_OVERHEAD, vec![Step::SetTunnel(tunnel.clone())]),
        Tunnel::Udp(_) => ("UDP", via, UDP_OVERHEAD, vec![Step::SetTunnel(tunnel.clone())]),
        Tunnel::Wireguard(_) => {
            let of_device = state.peers.iter().filter(|((at, _), _)| at == device);
            let takes = |ranges: &std::collections::BTreeSet<IpNet>| ranges.iter().any(|range| range.contains(&inner));
            let ((_, key), end) = of_device.into_iter().find(|(_, end)| takes(&end.ranges))?;
            let (endpoint, ranges) = (end.endpoint, end.ranges.clone());
            let peer = Step::SetPeer(Peer { device: device.clone(), key: *key, endpoint, ranges });
            ("WireGuard", endpoint.ip(), WIREGUARD_OVERHEAD, vec![peer])
        }
    };
    stands.retain(|step| !matches!(step, Step::SetTunnel(Tunnel::Wireguard(_))));
    let extra = if remote.is_ipv6() { IPV6_EXTRA } else { 0 };
    let more = if matches!(tunnel, Tunnel::Wireguard(_)) { "; each packet is encrypted" } else { "" };
    Some(Outer {
        what: format!("in {kind}, from {own} to {remote}"),
        rule: format!("{kind} device {device}"),
        mtu: tunnel_mtu(tunnel),
        remote,
        cost: format!("{} bytes of headers{more}", overhead + extra),
        stands,
    })
}

fn by_vxlan(planned: &Planned, vxlan: &Vxlan, via: IpAddr) -> Option<Outer> {
    let state = planned.overlay.desired();
    let mac = *state.neighbours.get(&(vxlan.name.clone(), via))?;
    let remote = *state.fdb.get(&(vxlan.name.clone(), mac))?;
    let extra = if remote.is_ipv6() { IPV6_EXTRA } else { 0 };
    let device = || vxlan.name.clone();
    Some(Outer {
        what: format!("in VXLAN {}, from {} to {remote}, UDP port {}", vxlan.vni, vxlan.local, vxlan.port),
        rule: format!("neighbour {via} lladdr {mac}, fdb {mac} dst {remote}"),
        mtu: vxlan.mtu,
        remote,
        cost: format!("{} bytes of headers", VXLAN_OVERHEAD + extra),
        stands: vec![
            Step::SetVxlan(vxlan.clone()),
            Step::SetNeighbour(Neighbour { device: device(), addr: via, mac }),
            Step::SetFdb(FdbEntry { device: device(), mac, remote }),
        ],
    })
}
