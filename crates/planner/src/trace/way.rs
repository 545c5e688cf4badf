//! The packet's way: out of its sender, through a node's rules, by a route to another node or into a pod.

mod between;
mod bridged;
mod limited;
mod rules;
mod sockets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::{Family, HOST_MAC, NodeName, Pod, PodKey, Protocol, proxy::Mode};

use super::{
    Cluster, End, Entry, Hop, Kind, Link, Path, Place, Planned, Source, Target, Trace, Unknown, Verdict, node::Lookup,
    objects,
};
use crate::{
    ruleset::{BackendAddress, walk::Direction},
    step::{Neighbour, Route, RouteTarget, Step},
};

pub use between::BY_UNDERLAY;

/// A packet passes so many nodes at most: more would be a circle.
const NODES: usize = 8;

/// The gateway of pods with links of their own, and what everything is to it, by family.
const GATEWAYS: [(IpAddr, IpNet); 2] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)), IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))),
];

/// The pod's end of its link, as it is called there.
pub const POD_END: &str = "eth0";

/// What is sent.
#[derive(Clone, Copy, Debug)]
struct Asked {
    target: Target,
    is_echo: bool,
}

/// A packet on its way, one of the ways that it can go.
#[derive(Clone, Debug)]
struct Traveller {
    source: IpAddr,
    target: Target,
    share: f64,
    hops: Vec<Hop>,
    passed: usize,
    /// The node that it is at sent it itself: to the node's own addresses it goes by the loopback.
    is_own: bool,
    /// It asks for an echo: protocol and port of its target mean nothing.
    is_echo: bool,
}

impl Traveller {
    const fn new(source: IpAddr, asked: Asked) -> Self {
        let Asked { target, is_echo } = asked;
        Self { source, target, share: 1.0, hops: Vec::new(), passed: 0, is_own: false, is_echo }
    }

    /// Where it goes, as people write it.
    fn to(&self) -> String {
        if self.is_echo { self.target.addr.to_string() } else { at(self.target.addr, self.target.port).to_string() }
    }

    fn hop(mut self, hop: Hop) -> Self {
        self.hops.push(hop);
        self
    }

    fn ends(self, verdict: Verdict, why: impl Into<String>) -> Path {
        let destination = BackendAddress { addr: self.target.addr, port: self.target.port };
        let end = End { verdict, why: why.into() };
        Path { share: self.share, hops: self.hops, end, destination, source: self.source }
    }
}

impl Cluster {
    /// Follows the first packet of a connection.
    ///
    /// # Errors
    /// Where there is nobody who could send it.
    pub fn trace(&self, from: &Source, target: Target) -> Result<Trace, Unknown> {
        self.follow(from, Asked { target, is_echo: false })
    }

    /// Follows the first echo request of a ping (ICMP, ICMPv6). Where it arrives its port is 0.
    ///
    /// # Errors
    /// Where there is nobody who could send it.
    pub fn ping(&self, from: &Source, addr: IpAddr) -> Result<Trace, Unknown> {
        self.follow(from, Asked { target: Target { addr, protocol: Protocol::Udp, port: 0 }, is_echo: true })
    }

    fn follow(&self, from: &Source, asked: Asked) -> Result<Trace, Unknown> {
        let mut paths = match from {
            Source::Pod(key) => {
                let pod = self.pods().get(key).ok_or_else(|| Unknown::Pod(key.clone()))?;
                self.out_of_pod(pod, asked)?
            }
            Source::Node(name) => self.out_of_node(self.known(name)?, asked)?,
            Source::World(addr, entry) => {
                let entry = self.known(entry)?;
                let traveller = Traveller::new(*addr, asked);
                let what = format!("sent by {addr} to {}", traveller.to());
                let traveller = traveller.hop(Hop::new(Place::Underlay, Kind::Sent, what));
                let node = &entry.node.name;
                let received = Hop::new(Place::Node(node.clone()), Kind::Received, "comes in from outside");
                let received = received.of(objects::node(node)).at(entry.facts.device.clone(), entry.facts.mtu);
                self.arrive(node, traveller.hop(received))
            }
        };
        paths.sort_by(|one, other| {
            other.share.total_cmp(&one.share).then_with(|| one.destination.cmp(&other.destination))
        });
        Ok(Trace { paths })
    }

    fn known(&self, name: &NodeName) -> Result<&Planned, Unknown> {
        self.planned(name).ok_or_else(|| Unknown::Node(name.clone()))
    }

    fn out_of_pod(&self, pod: &Pod, asked: Asked) -> Result<Vec<Path>, Unknown> {
        let target = asked.target;
        let node = pod.node.as_ref().ok_or_else(|| Unknown::Unscheduled(pod.key.clone()))?;
        let planned = self.known(node)?;
        if pod.host_network {
            return self.out_of_node(planned, asked);
        }
        let family = Family::of(&target.addr);
        let source = pod.addrs.iter().map(|addr| addr.0).find(|addr| Family::of(addr) == family);
        let source = source.ok_or_else(|| Unknown::NoAddress {
            pod: pod.key.clone(),
            family,
            has: match pod.addrs.as_slice() {
                [] => "none".to_owned(),
                addrs => addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            },
        })?;
        let place = Place::Pod(pod.key.clone(), node.clone());
        let (open, ended) = sockets::choose(planned, &place, Traveller::new(source, asked));
        let mut paths = ended;
        for traveller in open {
            if pod.addrs.iter().any(|addr| addr.0 == traveller.target.addr) {
                let hop = Hop::new(place.clone(), Kind::Delivered, "to itself").at("lo".into(), LOOPBACK_MTU);
                paths.push(traveller.hop(hop).ends(Verdict::Arrives, format!("pod {} itself", pod.key)));
                continue;
            }
            if let Some(to) = planned.neighbourhood(traveller.source, traveller.target.addr) {
                paths.push(bridged::to_neighbour(planned, &pod.key, &to, traveller));
                continue;
            }
            let traveller = by_link(planned, &pod.key, traveller);
            paths.extend(self.through(planned, Direction::FromPod, &traveller));
        }
        Ok(paths)
    }

    fn out_of_node(&self, planned: &Planned, asked: Asked) -> Result<Vec<Path>, Unknown> {
        let target = asked.target;
        let family = Family::of(&target.addr);
        let node = &planned.node.name;
        let source = if target.addr.is_loopback() { Some(target.addr) } else { planned.addr(family) };
        let source = source.ok_or_else(|| Unknown::NodeFamily { node: node.clone(), family })?;
        let place = Place::Node(node.clone());
        let traveller = Traveller { is_own: true, ..Traveller::new(source, asked) };
        let (open, mut paths) = match planned.facts.serves_node_at_sockets {
            true => sockets::choose(planned, &place, traveller),
            false => (vec![traveller], Vec::new()),
        };
        for mut traveller in open {
            // Who was sent elsewhere before there was a packet sends none from a loopback address.
            if traveller.source.is_loopback() && !traveller.target.addr.is_loopback() {
                traveller.source = planned.addr(family).unwrap_or(source);
            }
            let from = traveller.source;
            let sent = Hop::new(place.clone(), Kind::Sent, format!("sent by a process of the node, from {from}"));
            let traveller = traveller.hop(sent.of(objects::node(node)));
            paths.extend(self.through(planned, Direction::FromHost, &traveller));
        }
        Ok(paths)
    }

    /// A packet comes to a node by the underlay or out of a tunnel.
    fn arrive(&self, name: &NodeName, traveller: Traveller) -> Vec<Path> {
        let Some(planned) = self.planned(name) else {
            return vec![traveller.ends(Verdict::Lost, format!("node {name} is not known"))];
        };
        if traveller.passed >= NODES {
            return vec![traveller.ends(Verdict::Lost, "it goes in a circle: its hop limit would end it")];
        }
        let traveller = Traveller { passed: traveller.passed + 1, is_own: false, ..traveller };
        self.through(planned, Direction::FromOutside, &traveller)
    }

    /// Takes the route of a node that the packet's address of now has.
    fn route_on(&self, planned: &Planned, traveller: Traveller) -> Vec<Path> {
        let addr = traveller.target.addr;
        let place = || Place::Node(planned.node.name.clone());
        match planned.lookup(addr) {
            Lookup::Own => {
                let what = match traveller.is_echo {
                    true => format!("answered by the node at {addr}"),
                    false => format!("to a process of the node at {}", traveller.to()),
                };
                let hop = Hop::new(place(), Kind::Delivered, what).of(objects::node(&planned.node.name));
                let hop = if traveller.is_own { hop.at("lo".into(), LOOPBACK_MTU) } else { hop };
                vec![traveller.hop(hop).ends(Verdict::Arrives, format!("node {}", planned.node.name))]
            }
            Lookup::Pod(key) => vec![into_pod(planned, &key, traveller)],
            Lookup::Route(range, RouteTarget::Blackhole) => {
                let hop = Hop::new(place(), Kind::Routed, "to nowhere: no pod of this node has the address");
                let route = Step::SetRoute(Route { dst: range, target: RouteTarget::Blackhole });
                let hop = hop.by(format!("blackhole {range}")).of(self.object_of_range(range)).standing(vec![route]);
                let why = format!("no pod has {addr}, which is of a block of node {}", planned.node.name);
                vec![traveller.hop(hop).ends(Verdict::Lost, why)]
            }
            Lookup::Route(range, target) => self.to_peer(planned, range, &target, traveller),
            Lookup::Underlay => self.by_underlay(planned, traveller),
        }
    }
}

/// Of the loopback device, as the kernel makes it.
const LOOPBACK_MTU: u32 = 65_536;

fn by_link(planned: &Planned, pod: &PodKey, traveller: Traveller) -> Traveller {
    let mtu = planned.overlay.pod_mtu();
    let (node, source) = (&planned.node.name, traveller.source);
    let link = planned.link(source);
    let what = format!("from {source} to {}", traveller.to());
    let sent = Hop::new(Place::Pod(pod.clone(), node.clone()), Kind::Sent, what).at(POD_END.into(), mtu);
    let (gateway, everywhere) = GATEWAYS[usize::from(source.is_ipv6())];
    let (rule, stands) = match link.and_then(|link| link.bridge.as_ref()) {
        // What its gateway is the network's configuration says, which the node alone knows.
        Some(bridge) => (format!("default via the gateway on bridge {bridge}"), Vec::new()),
        None => (format!("default via {gateway} dev {POD_END}"), out_by(gateway, everywhere)),
    };
    let received = Hop::new(Place::Node(node.clone()), Kind::Received, "comes in by the node's end of the pod's link");
    let received = received.of(objects::pod(pod));
    let received = match link {
        Some(link) => {
            let rule = format!("sender {source} of {} alone, all else is dropped", link.device);
            received.at(link.device.clone(), mtu).by(format!("{rule} ({})", senders(link, source)))
        }
        None => Hop { mtu: Some(mtu), ..received },
    };
    // Who sends by a bridge is checked where the bridge takes it in.
    let is_on_bridge = link.is_some_and(|link| link.bridge.is_some());
    let sender = if is_on_bridge { Entry::Port(source) } else { Entry::Sender(source) };
    let received = received.asking([sender, Entry::Limits(source)]);
    let mut traveller = traveller.hop(sent.by(rule).of(objects::pod(pod)).standing(stands)).hop(received);
    traveller.hops.extend(limited::from_pod(planned, pod, source));
    match link.and_then(|link| link.bridge.as_ref()) {
        Some(bridge) => {
            let hop = Hop::new(Place::Node(node.clone()), Kind::Received, "comes in by the bridge");
            traveller.hop(hop.of(objects::pod(pod)).at(bridge.clone(), mtu))
        }
        None => traveller,
    }
}

/// Where it is asked who may send with an address.
const fn senders(link: &Link, source: IpAddr) -> &'static str {
    match (link.bridge.is_some(), source) {
        (false, _) => "table podnet-pods, set senders",
        (true, IpAddr::V4(_)) => "table bridge podnet-pods, set senders4",
        (true, IpAddr::V6(_)) => "table bridge podnet-pods, set senders6",
    }
}

/// What has to stand in a pod that has a link of its own.
fn out_by(gateway: IpAddr, everywhere: IpNet) -> Vec<Step> {
    let target = RouteTarget::OnLink { device: POD_END.into(), via: gateway, source: None };
    let neighbour = Neighbour { device: POD_END.into(), addr: gateway, mac: HOST_MAC };
    vec![Step::SetRoute(Route { dst: everywhere, target }), Step::SetNeighbour(neighbour)]
}

fn into_pod(planned: &Planned, pod: &PodKey, mut traveller: Traveller) -> Path {
    let (node, addr, mtu) = (&planned.node.name, traveller.target.addr, planned.overlay.pod_mtu());
    let is_past_bridge = bridged::pass_by(planned, &mut traveller);
    let routed = Hop::new(Place::Node(node.clone()), Kind::Routed, format!("to the link of pod {pod}"));
    let routed = match planned.link(addr) {
        Some(link) => {
            let device = link.route_device().clone();
            let route = Route { dst: addr.into(), target: RouteTarget::Device(device.clone()) };
            let rule = format!("{addr} dev {device} scope link");
            // On a bridge it is a neighbour of the bridge's own device.
            let neighbour = link.mac.map(|mac| Neighbour { device: device.clone(), addr, mac });
            let rule = match &neighbour {
                Some(Neighbour { mac, .. }) => format!("{rule}, neighbour {addr} lladdr {mac}"),
                None => rule,
            };
            let stands = [Step::SetRoute(route)].into_iter().chain(neighbour.map(Step::SetNeighbour)).collect();
            let device = if is_past_bridge { link.device.clone() } else { device };
            routed.at(device, mtu).by(rule).standing(stands)
        }
        None => Hop { mtu: Some(mtu), ..routed.by(format!("{addr} dev (the pod's link) scope link")) },
    };
    let place = Place::Pod(pod.clone(), node.clone());
    let what = format!("at {}", traveller.to());
    let delivered = Hop::new(place, Kind::Delivered, what).at(POD_END.into(), mtu).of(objects::pod(pod));
    // IPVS sends what it translated as the node does its own packets.
    let is_own = traveller.is_own || translator(planned, &traveller) == Some(Translator::Server);
    let mut traveller = traveller.hop(routed.of(objects::pod(pod)).asking([Entry::Limits(addr)]));
    if let Some(link) = planned.link(addr).filter(|link| link.bridge.is_some() && !is_past_bridge) {
        let port = Hop::new(Place::Node(node.clone()), Kind::Routed, format!("out by the port of pod {pod}"));
        traveller.hops.push(port.at(link.device.clone(), mtu).of(objects::pod(pod)));
    }
    traveller.hops.extend(limited::to_pod(planned, pod, addr, is_own));
    traveller.hop(delivered).ends(Verdict::Arrives, format!("pod {pod} on node {node}"))
}

/// Who translated a packet's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translator {
    /// Rules, as it came in.
    Rules,
    /// A virtual server of IPVS.
    Server,
    /// The agent, which passes connections on.
    Agent,
}

/// Who translated its destination on the node that it is at, where somebody did.
fn translator(planned: &Planned, traveller: &Traveller) -> Option<Translator> {
    let here = Place::Node(planned.node.name.clone());
    let met = traveller.hops.iter().rfind(|hop| hop.kind == Kind::Translated && hop.place == here)?;
    // Ports of the node that lead to pods are rules in every mode.
    let is_port = met.entries.iter().any(|entry| matches!(entry, Entry::Ports(_)));
    Some(match planned.facts.mode {
        Mode::Ipvs if !is_port => Translator::Server,
        Mode::Userspace if !is_port => Translator::Agent,
        _ => Translator::Rules,
    })
}

/// Address and port as people write them.
fn at(addr: IpAddr, port: u16) -> std::net::SocketAddr {
    (addr, port).into()
}
