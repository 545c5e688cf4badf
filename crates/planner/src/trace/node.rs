//! One node, planned as its agent plans it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use podnet_model::{
    Change, Dual, Family, LinkName, Mac, Node, NodeAddr, NodeName, Pod, PodKey, ProxyConfig,
    cni::PortMapping,
    limits::{InvalidLimit, PodLimits},
    proxy::Mode,
    wireguard::{KeyPair, PrivateKey},
};
use serde::{Deserialize, Serialize};

use crate::{
    attachments::{Attached, Attachments},
    border::{Border, BorderConfig},
    ipam::Handle,
    overlay::{Overlay, OverlayConfig, Place, Support},
    proxy::RuleSettings,
    ruleset::{
        FrontendKey, RuleSet,
        walk::{Routing, Way},
    },
    services::{
        Services, ServicesConfig,
        nftables::Nftables,
        userspace::{Led, Userspace},
    },
    step::RouteTarget,
};

/// What the objects of the cluster do not tell of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// The device with the node's address on the underlay.
    pub device: LinkName,
    /// That device's MTU in bytes.
    pub mtu: u32,
    /// The node's own address there, where it is not the one that its peers know.
    pub addr: Option<Ipv4Addr>,
    /// The same by IPv6.
    pub addr6: Option<Ipv6Addr>,
    /// The MTU of pods' interfaces; none lets it follow from the underlay and the encapsulation.
    pub pod_mtu: Option<u32>,
    /// A node whose lease has expired counts as gone there.
    pub without_lost_nodes: bool,
    /// Which tunnels the node's kernel can make.
    pub support: Support,
    /// The mode that Services are served in.
    pub mode: Mode,
    /// Further addresses of the node, at which NodePorts may be.
    pub addrs: Vec<IpAddr>,
    /// Destinations to which pods keep their own address, in spite of `natOutgoing`.
    pub no_nat_cidrs: Vec<IpNet>,
    /// Mode `ebpf` serves the node's own processes at the socket too.
    pub serves_node_at_sockets: bool,
    /// The links of pods' addresses, as far as they are known.
    pub links: BTreeMap<IpAddr, Link>,
    /// Whether what passes a bridge is shown to rules of IPv4, and to those of IPv6 (`br_netfilter`).
    #[serde(default)]
    pub shows_bridged: [bool; 2],
}

impl Facts {
    /// A node of which nothing is known but its device.
    #[must_use]
    pub const fn new(device: LinkName, mtu: u32, mode: Mode) -> Self {
        Self {
            device,
            mtu,
            addr: None,
            addr6: None,
            pod_mtu: None,
            without_lost_nodes: false,
            support: Support::ALL,
            mode,
            addrs: Vec::new(),
            no_nat_cidrs: Vec::new(),
            serves_node_at_sockets: false,
            links: BTreeMap::new(),
            shows_bridged: [false; 2],
        }
    }

    /// Whether what goes to this address is shown to rules as it passes a bridge.
    #[must_use]
    pub fn is_shown(&self, to: IpAddr) -> bool {
        self.shows_bridged[usize::from(to.is_ipv6())]
    }
}

/// How a pod is joined to its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The node's end of its link.
    pub device: LinkName,
    /// The bridge whose port that is; none where packets are routed to it.
    pub bridge: Option<LinkName>,
    /// The Ethernet address that the pod sends with; none where that is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Ranges whose addresses the pod takes for those of neighbours on the bridge, and asks for there. Older programs tell of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<IpNet>,
    /// Ports of the node that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
}

impl Link {
    /// One by which the node routes, of which nothing more is known.
    #[must_use]
    pub const fn routed(device: LinkName) -> Self {
        Self { device, bridge: None, mac: None, segments: Vec::new(), ports: Vec::new() }
    }

    /// The device that the node's route leads to.
    #[must_use]
    pub fn route_device(&self) -> &LinkName {
        self.bridge.as_ref().unwrap_or(&self.device)
    }
}

/// A node as it is planned.
#[derive(Debug)]
pub struct Planned {
    /// Its object.
    pub node: Node,
    /// What is known of it beside.
    pub facts: Facts,
    /// Routes, tunnels and what belongs to them.
    pub overlay: Overlay,
    /// What is done for Services.
    pub services: Dual<Services>,
    /// The tables of Services and of the border, of each family.
    pub rules: Dual<[RuleSet; 2]>,
    /// Whether the border's table is in force: that of IPv4 always, that of IPv6 where the cluster has any of it.
    pub bordered: Dual<bool>,
    /// The tables of pods, where ports of the node lead to some or some share a segment, as far as their links are known. Who sends is asked
    /// nothing there.
    pub ports: Option<Dual<RuleSet>>,
    /// The node's addresses.
    pub addrs: BTreeSet<IpAddr>,
    pods: BTreeMap<IpAddr, PodKey>,
    /// Of those of its pods that have any, or whose annotations are wrong.
    limits: BTreeMap<IpAddr, Result<PodLimits, InvalidLimit>>,
    /// What mode `userspace` leads to where its sockets are, beside the node's own network.
    led: BTreeSet<Led>,
}

/// Where a node's routing table sends packets to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// To the node itself.
    Own,
    /// To a pod of this node.
    Pod(PodKey),
    /// As podnet's route to this range says.
    Route(IpNet, RouteTarget),
    /// As the underlay's routes say, which are not podnet's.
    Underlay,
}

impl Planned {
    /// Plans the node by all objects of the cluster.
    #[must_use]
    pub fn new(node: &Node, facts: Facts, proxy: &ProxyConfig, changes: &[Change]) -> Self {
        let overlay = overlay(node, &facts, changes);
        let known: Vec<NodeAddr> = [Some(node.addr), node.addr6].into_iter().flatten().collect();
        // Its rules are about the addresses that it has itself, also where its peers reach it at others.
        let own = |known: &NodeAddr| match known.0 {
            IpAddr::V4(_) => facts.addr.map_or(*known, |addr| NodeAddr(addr.into())),
            IpAddr::V6(_) => facts.addr6.map_or(*known, |addr| NodeAddr(addr.into())),
        };
        let underlay: Vec<NodeAddr> = known.iter().map(own).collect();
        let further = facts.addrs.iter().copied().map(NodeAddr).filter(|addr| !underlay.contains(addr));
        let all: Vec<NodeAddr> = underlay.iter().copied().chain(further).collect();
        let settings = RuleSettings::of(proxy, facts.mode);
        let mut services = Dual::from_fn(|family| {
            let mut services = Services::new(ServicesConfig::new(family, node.name.clone(), all.clone()));
            settings.configure(&mut services);
            services
        });
        let mut borders = Dual::from_fn(|family| {
            let no_nat_cidrs = facts.no_nat_cidrs.clone();
            Border::new(BorderConfig { family, node_addrs: underlay.clone(), pod_cidrs: Vec::new(), no_nat_cidrs })
        });
        for family in Family::ALL {
            for change in changes.iter().chain([&settings.range_of_pods(family)]) {
                services[family].apply(change);
                borders[family].apply(change);
            }
        }
        let rules = Dual::from_fn(|family| {
            let services = &services[family];
            let mut rendered = Nftables::new(services);
            rendered.note(services, &services.whole());
            [rendered.desired(services), borders[family].desired()]
        });
        let bordered = Dual::from_fn(|family| family == Family::V4 || borders[family].is_needed());
        let led = match facts.mode {
            Mode::Userspace => Family::ALL.into_iter().flat_map(|family| led(&services[family])).collect(),
            _ => BTreeSet::new(),
        };
        let internal = [node.internal, node.internal6].into_iter().flatten();
        let addrs = all.iter().copied().chain(known).chain(internal).map(|addr| addr.0).collect();
        let by_addr =
            || pods_of(&node.name, changes).flat_map(|(key, pod)| pod.addrs.iter().map(move |addr| (addr.0, key, pod)));
        let pods = by_addr().map(|(addr, key, _)| (addr, key.clone())).collect();
        let is_limited = |pod: &Pod| pod.limits.as_ref().map_or(true, |limits| !limits.is_empty());
        let limited = by_addr().filter(|(.., pod)| is_limited(pod));
        let limits = limited.map(|(addr, _, pod)| (addr, pod.limits.clone())).collect();
        let ports = ports(&facts.links);
        Self { pods, limits, node: node.clone(), facts, overlay, services, rules, bordered, ports, addrs, led }
    }

    /// Where packets to an address go.
    #[must_use]
    pub fn lookup(&self, addr: IpAddr) -> Lookup {
        if self.addrs.contains(&addr) || addr.is_loopback() {
            return Lookup::Own;
        }
        if let Some(pod) = self.pods.get(&addr) {
            return Lookup::Pod(pod.clone());
        }
        let routes = self.overlay.desired().routes.iter().filter(|(range, _)| range.contains(&addr));
        match routes.max_by_key(|(range, _)| range.prefix_len()) {
            Some((range, target)) => Lookup::Route(*range, target.clone()),
            None => Lookup::Underlay,
        }
    }

    /// The node's first address of a family: what it puts in place of a source, and what it sends with.
    #[must_use]
    pub fn addr(&self, family: Family) -> Option<IpAddr> {
        self.services[family].config().primary()
    }

    /// Whether mode `userspace` leads what is sent there away from the node's own network; no other mode does.
    #[must_use]
    pub fn leads(&self, to: &FrontendKey) -> bool {
        let port = Led::Port { addr: to.addr, protocol: to.protocol, port: to.port };
        self.led.contains(&Led::Address(to.addr)) || self.led.contains(&port)
    }

    /// The link of a pod's address, where it is known.
    #[must_use]
    pub fn link(&self, addr: IpAddr) -> Option<&Link> {
        self.facts.links.get(&addr)
    }

    /// How the pod with this address is limited, or why its annotations are refused; none where it has no limits.
    #[must_use]
    pub fn limits(&self, addr: IpAddr) -> Option<&Result<PodLimits, InvalidLimit>> {
        self.limits.get(&addr)
    }

    /// The table of all pods of a family, as far as their links are known.
    #[must_use]
    pub fn attached(&self, family: Family) -> RuleSet {
        let links = &self.facts.links;
        let mut attachments = attachments(links.iter());
        attachments.on_segments(segments(links));
        attachments.desired(family)
    }

    /// The pods of this node that have addresses.
    pub fn pods(&self) -> impl Iterator<Item = (&IpAddr, &PodKey)> {
        self.pods.iter()
    }
}

impl Routing for Planned {
    fn route(&self, destination: IpAddr) -> Way {
        match self.lookup(destination) {
            Lookup::Own => Way::Local,
            // The kernel drops it where it looks the route up, and no rule sees it.
            Lookup::Route(_, RouteTarget::Blackhole) => Way::Unreachable,
            Lookup::Pod(_) | Lookup::Route(..) | Lookup::Underlay => Way::Forward,
        }
    }
}

/// The private key is known to the node alone and no route depends on it: the one here is none.
fn overlay(node: &Node, facts: &Facts, changes: &[Change]) -> Overlay {
    let (addr, addr6) = (facts.addr, facts.addr6);
    let underlay = Place { addr, addr6, ..Place::on(facts.device.clone(), facts.mtu) };
    let config = OverlayConfig {
        support: facts.support,
        underlay,
        pod_mtu: facts.pod_mtu,
        without_lost_nodes: facts.without_lost_nodes,
        ..OverlayConfig::new(node.name.clone(), facts.device.clone(), facts.mtu)
    };
    let mut overlay = Overlay::new(config);
    let keys = node.wireguard_key.map(|public| KeyPair { public, private: PrivateKey([0; 32]) });
    overlay.set_keys(keys.into_iter().collect());
    for change in changes {
        overlay.apply(change);
    }
    overlay
}

/// The tables of pods that have ports of the node or share a segment, by their links.
fn ports(links: &BTreeMap<IpAddr, Link>) -> Option<Dual<RuleSet>> {
    let told = || links.iter().filter(|(_, link)| !link.ports.is_empty() || !link.segments.is_empty());
    told().next()?;
    let mut attachments = attachments(told());
    // Who would answer a neighbour past what the node translated is asked by the node.
    attachments.on_segments(segments(links));
    Some(Dual::from_fn(|family| attachments.desired(family)))
}

/// What pods on bridges take for neighbours' addresses.
fn segments(links: &BTreeMap<IpAddr, Link>) -> BTreeSet<IpNet> {
    links.values().flat_map(|link| link.segments.iter().copied()).collect()
}

/// What is attached by these links. Who sends is known of those that are routed and whose Ethernet addresses are told.
fn attachments<'a>(links: impl Iterator<Item = (&'a IpAddr, &'a Link)>) -> Attachments {
    let mut pods: BTreeMap<&LinkName, Attached> = BTreeMap::new();
    for (addr, Link { device, bridge, mac, ports, .. }) in links {
        let new = || Attached {
            device: device.clone(),
            mac: mac.unwrap_or(Mac([0; 6])),
            addrs: Vec::new(),
            ports: ports.clone(),
            // As of a port of a bridge, which is checked elsewhere.
            segment: (bridge.is_some() || mac.is_none()).then(Vec::new),
        };
        pods.entry(device).or_insert_with(new).addrs.push(*addr);
    }
    let mut attachments = Attachments::default();
    for (device, pod) in pods {
        // A port that is another's already leads nowhere else.
        let _ = attachments.add(Handle::from(device.as_str()), pod);
    }
    attachments
}

fn led(services: &Services) -> Vec<Led> {
    Userspace::new(services).whole(services).more
}

/// Those that have a network of their own.
fn pods_of<'a>(node: &'a NodeName, changes: &'a [Change]) -> impl Iterator<Item = (&'a PodKey, &'a Pod)> {
    let pods = changes.iter().filter_map(|change| match change {
        Change::Pod(key, Some(pod)) => Some((key, pod)),
        _ => None,
    });
    pods.filter(move |(_, pod)| pod.node.as_ref() == Some(node) && !pod.host_network && !pod.finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_about_the_address_that_a_node_has_itself_where_its_peers_reach_it_at_another() {
        let [known, own] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(10, 0, 0, 1)].map(IpAddr::from);
        let node = Node::new("node1".into(), NodeAddr(known));
        let facts = Facts { addr: Some(Ipv4Addr::new(10, 0, 0, 1)), ..Facts::new("eth0".into(), 1500, Mode::Nftables) };
        let planned = Planned::new(&node, facts, &ProxyConfig::default(), &[]);
        assert_eq!(planned.addr(Family::V4), Some(own));
        assert_eq!([known, own].map(|addr| planned.lookup(addr)), [Lookup::Own, Lookup::Own]);
    }
}
