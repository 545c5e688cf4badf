//! Which way each block takes, from the objects alone.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use podnet_model::{
    BlockCidr, EncapMode, Family, LinkName, NetConf, Node, NodeAddr, NodeName, Pool, PoolName, flannel::Backend,
};

use super::{Overlay, Problem, vtep_next_hop};
use crate::step::RouteTarget;

/// How packets are carried to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As they are.
    Plain,
    Vxlan,
    Ipip,
    Wireguard,
    Udp,
    /// By somebody else.
    Foreign,
}

/// What a pool, or flannel's configuration, says.
struct Rule {
    /// Who says so.
    name: PoolName,
    vxlan: EncapMode,
    ipip: EncapMode,
    /// A way for every peer, before the modes.
    way: Option<Way>,
    /// It is flannel's configuration.
    is_flannels: bool,
}

impl From<&Pool> for Rule {
    fn from(pool: &Pool) -> Self {
        Self { name: pool.name.clone(), vxlan: pool.vxlan, ipip: pool.ipip, way: None, is_flannels: false }
    }
}

impl Rule {
    fn of_flannel(pool: &Pool, conf: &NetConf) -> Self {
        let way = match conf.backend {
            Backend::Vxlan { .. } | Backend::Ipip { .. } | Backend::HostGw => None,
            Backend::WireGuard { .. } => Some(Way::Wireguard),
            Backend::Udp { .. } => Some(Way::Udp),
            Backend::Alloc => Some(Way::Foreign),
        };
        Self { way, is_flannels: true, ..Self::from(pool) }
    }
}

impl Overlay {
    /// Where packets to a block go; nowhere when the owner is not believed to have the address or the MAC that the way
    /// needs (see [`Self::peer_problem`]).
    pub(super) fn target(&self, cidr: BlockCidr, owner: &NodeName) -> Result<Option<RouteTarget>, Problem> {
        if !is_v4(cidr) && !self.config.support.ipv6 {
            return Err(Problem::NoIpv6 { block: cidr });
        }
        if *owner == self.config.node {
            // A block of one address is its pod's own route.
            return Ok((cidr.0.prefix_len() < cidr.0.max_prefix_len()).then_some(RouteTarget::Blackhole));
        }
        if !is_v4(cidr) && !self.has_room {
            return Ok(None);
        }
        let rule = self.rule(cidr).ok_or_else(|| Problem::NoPool { block: cidr, owner: owner.clone() })?;
        let unknown = |node: &NodeName| Problem::UnknownNode { block: cidr, node: node.clone() };
        let peer = self.nodes.get(owner).ok_or_else(|| unknown(owner))?;
        let own = self.own_node().ok_or_else(|| unknown(&self.config.node))?;
        if let Some(node) = self.node_inside(cidr) {
            return Err(Problem::Loop { block: cidr, owner: owner.clone(), node });
        }
        let plain = self.plain_hop(own, peer, cidr);
        let same_subnet = plain.and_then(|(_, same_subnet)| same_subnet);
        let way = self.way(&rule, peer, same_subnet);
        if way == Way::Vxlan && self.same_mac(peer).is_some() {
            return Ok(None);
        }
        if rule.is_flannels && self.flannel_problem(peer).is_some() {
            return Ok(None);
        }
        let target = match way {
            Way::Plain => plain_target(plain),
            Way::Foreign => Ok(None),
            _ => self.tunnel_target(way, rule.is_flannels, peer, cidr),
        };
        match target {
            // That is told once, and not of each block.
            Err(Obstacle::OnlyV4(_)) if rule.is_flannels => Ok(None),
            // As is what is wrong with the peer.
            Err(Obstacle::NoPlainHop | Obstacle::NoCommonFamily { .. } | Obstacle::FlannelsNeedV6)
                if self.same_address(peer).is_some() =>
            {
                Ok(None)
            }
            target => target.map_err(|obstacle| obstacle.of(cidr, owner, &rule.name)),
        }
    }

    /// The peer's address that a block's packets can be sent to as they are, and whether it is on our subnet, where that is known. What
    /// is of IPv4 may have a next hop of IPv6 (RFC 8950), and not the other way round.
    fn plain_hop(&self, own: &Node, peer: &Node, block: BlockCidr) -> Option<(IpAddr, Option<bool>)> {
        let place = &self.config.underlay;
        let by_v4 = self.local_v4().and(self.v4_to(peer)).map(|addr| (IpAddr::V4(addr), place.subnet.or(own.subnet)));
        let by_v6 = self.local_v6().and(self.v6_to(peer)).map(|addr| (IpAddr::V6(addr), place.subnet6.or(own.subnet6)));
        let (addr, subnet) = if is_v4(block) { by_v4.or(by_v6) } else { by_v6 }?;
        Some((addr, subnet.map(|subnet| subnet.contains(&addr))))
    }

    fn tunnel_target(
        &self,
        way: Way,
        is_flannels: bool,
        peer: &Node,
        block: BlockCidr,
    ) -> Result<Option<RouteTarget>, Obstacle> {
        let (config, support) = (&self.config, self.config.support);
        // flannel's nodes have a device for each family, and listen for IPv6 on that of IPv6 alone.
        let by_v6 = is_flannels && way == Way::Vxlan && !is_v4(block);
        let outside = if by_v6 { Some(Family::V6) } else { self.outside(peer) };
        let outer = outside.and_then(|outside| Some((outside, self.addr_to(peer, outside)?)));
        let (outside, outer) = match outer {
            _ if by_v6 && self.local_v6().is_none() => return Err(Obstacle::FlannelsNeedV6),
            None if by_v6 => return Err(Obstacle::FlannelsNeedV6),
            None => return Err(Obstacle::NoCommonFamily { theirs: self.only_family(peer) }),
            Some(outer) => outer,
        };
        let has_v6 = !is_v4(block) || outer.is_ipv6();
        if has_v6 && !self.has_room {
            return Ok(None);
        }
        let via = if has_v6 { IpAddr::V6(vtep_next_hop(self.mac_of(peer, outside))) } else { outer };
        let on_link = |device: &LinkName, source| Some(RouteTarget::OnLink { device: device.clone(), via, source });
        // The peer takes what comes from this node's addresses and from its blocks, and nothing else. The kernel refuses a source of IPv6
        // that the node does not have, so that the object's word is not enough.
        let local =
            || if is_v4(block) { self.local_v4().map(IpAddr::V4) } else { config.underlay.addr6.map(IpAddr::V6) };
        match way {
            Way::Vxlan => Ok(on_link(&config.vxlan_devices[outside], None)),
            Way::Ipip if has_v6 => Err(Obstacle::OnlyV4("IPIP")),
            Way::Ipip if support.ipip => Ok(on_link(&config.ipip_device, None)),
            Way::Ipip => Err(Obstacle::Unsupported("IPIP")),
            Way::Wireguard if !support.wireguard => Err(Obstacle::Unsupported("WireGuard")),
            // This node has not published its own yet.
            Way::Wireguard if self.own_key().is_none() => Ok(None),
            Way::Wireguard => Ok(on_link(&config.wireguard_device, local())),
            Way::Udp if has_v6 => Err(Obstacle::OnlyV4("the UDP tunnel")),
            Way::Udp if support.tun => Ok(on_link(&config.udp_device, local())),
            Way::Udp => Err(Obstacle::Unsupported("TUN devices")),
            Way::Plain | Way::Foreign => Ok(None),
        }
    }

    /// The way to a peer that is, or is not, on our subnet; where the subnet is not known, it counts as another one.
    fn way(&self, rule: &Rule, peer: &Node, same_subnet: Option<bool>) -> Way {
        if let Some(way) = rule.way {
            return way;
        }
        if self.felix.wireguard && self.has_common_key(peer) {
            return Way::Wireguard;
        }
        let wanted = |mode: EncapMode| match mode {
            EncapMode::Always => true,
            EncapMode::CrossSubnet => same_subnet != Some(true),
            EncapMode::Never => false,
        };
        match (wanted(rule.vxlan), wanted(rule.ipip)) {
            (true, _) => Way::Vxlan,
            (false, true) => Way::Ipip,
            (false, false) => Way::Plain,
        }
    }

    /// What the smallest range around a block says; of equal ones the first pool by name, and a pool before flannel's configuration.
    fn rule(&self, block: BlockCidr) -> Option<Rule> {
        let around = self.pools.values().filter(|pool| pool.cidr.contains(&block.0));
        let pool = around.min_by_key(|pool| (u8::MAX - pool.cidr.prefix_len(), &pool.name));
        let flannels = self.net_confs.first_key_value().and_then(|(namespace, conf)| {
            let own = conf.pool(namespace, block.family()).filter(|own| own.cidr.contains(&block.0))?;
            let decides = pool.is_none_or(|pool| pool.cidr.prefix_len() < own.cidr.prefix_len());
            decides.then(|| Rule::of_flannel(&own, conf))
        });
        flannels.or_else(|| pool.map(Rule::from))
    }

    /// A node whose address on the underlay is in the range: what is sent to it there would be sent around for ever.
    fn node_inside(&self, cidr: BlockCidr) -> Option<NodeName> {
        let range = cidr.0.network()..=cidr.0.broadcast();
        self.by_addr.range(range).flat_map(|(_, names)| names.first()).next().cloned()
    }

    /// What is wrong with a peer: of several with one address or one MAC the first by name is believed, and this node before all. An
    /// address that a peer is not believed to have costs the ways that need it, and no others.
    pub(super) fn peer_problem(&self, peer: &Node) -> Option<Problem> {
        self.same_address(peer).or_else(|| self.same_mac(peer))
    }

    fn same_address(&self, peer: &Node) -> Option<Problem> {
        self.addrs_of(peer).find_map(|addr| {
            let holder = self.believed(self.by_addr.get(&addr)).filter(|holder| **holder != peer.name)?.clone();
            Some(Problem::SameAddress { node: peer.name.clone(), addr: NodeAddr(addr), holder })
        })
    }

    pub(super) fn same_mac(&self, peer: &Node) -> Option<Problem> {
        self.macs_of(peer).into_iter().find_map(|mac| {
            let holder = self.believed(self.by_mac.get(&mac)).filter(|holder| **holder != peer.name)?.clone();
            Some(Problem::SameMac { node: peer.name.clone(), mac, holder })
        })
    }

    /// Who of several is believed to have what only one can have.
    pub(super) fn believed<'a>(&self, group: Option<&'a BTreeSet<NodeName>>) -> Option<&'a NodeName> {
        let group = group?;
        group.get(&self.config.node).or_else(|| group.first())
    }

    /// What is wrong with a peer as one of flannel's nodes.
    pub(super) fn flannel_problem(&self, peer: &Node) -> Option<Problem> {
        self.other_backend(peer).or_else(|| self.no_key(peer))
    }

    /// A node of flannel's that is told to use another backend does not understand us.
    fn other_backend(&self, peer: &Node) -> Option<Problem> {
        let wanted = self.net_conf()?.backend.name();
        let theirs = &peer.lease.as_ref().filter(|lease| *lease.backend != *wanted)?.backend;
        Some(Problem::OtherBackend { node: peer.name.clone(), backend: theirs.clone(), wanted })
    }

    /// Where flannel's configuration says WireGuard there is no other way.
    fn no_key(&self, peer: &Node) -> Option<Problem> {
        let only = matches!(self.net_conf()?.backend, Backend::WireGuard { .. });
        (only && self.config.support.wireguard && !self.has_key(peer))
            .then(|| Problem::NoKey { node: peer.name.clone() })
    }

    fn has_key(&self, peer: &Node) -> bool {
        let first = |key| self.by_key.get(key).and_then(|names| names.first()) == Some(&peer.name);
        peer.wireguard_key.as_ref().is_some_and(first)
    }

    /// A peer to which packets go as they are although encryption is on.
    pub(super) fn unencrypted(&self, peer: &Node) -> Option<Problem> {
        let is = self.felix.wireguard && self.config.support.wireguard && !self.has_key(peer);
        is.then(|| Problem::NotEncrypted { node: peer.name.clone() })
    }

    fn pools_of_ipv6(&self) -> String {
        let flannels = self.net_confs.iter().filter_map(|(namespace, conf)| conf.pool(namespace, Family::V6));
        let pools = self.pools.values().filter(|pool| matches!(pool.cidr, IpNet::V6(_)) && !pool.disabled);
        let names: Vec<String> = pools.cloned().chain(flannels).map(|pool| pool.name.to_string()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// What is asked for as a whole and cannot be done: encryption, where the kernel lacks it, what flannel's configuration says of
    /// IPv6, and IPv6 where packets have no room for it.
    pub(super) fn own_problems(&self) -> impl Iterator<Item = Problem> + use<> {
        let unencrypted = self.encrypts() && !self.config.support.wireguard;
        let backend = self.net_conf().filter(|conf| conf.networks.v6.is_some()).map(|conf| conf.backend);
        let only_v4 = backend.filter(|backend| matches!(backend, Backend::Udp { .. } | Backend::Ipip { .. }));
        let flannels = Problem::FlannelsIpv6 { backend: only_v4.map_or("", |backend| backend.name()) };
        let by_v6 = self.local_v4().is_none() && self.local_v6().is_some();
        let small = !self.has_room && self.config.support.ipv6 && (self.has_ranges_of_ipv6() || by_v6);
        let narrow = Problem::SmallMtu { mtu: self.room_for_ipv6(), pools: self.pools_of_ipv6().into() };
        let problems = [(unencrypted, Problem::NoWireguard), (only_v4.is_some(), flannels), (small, narrow)];
        problems.into_iter().filter(|(is, _)| *is).map(|(_, problem)| problem)
    }
}

/// To a peer that packets are sent to as they are.
fn plain_target(hop: Option<(IpAddr, Option<bool>)>) -> Result<Option<RouteTarget>, Obstacle> {
    match hop {
        None => Err(Obstacle::NoPlainHop),
        Some((_, Some(false))) => Err(Obstacle::OtherSubnet),
        Some((addr, _)) => Ok(Some(RouteTarget::Via(addr))),
    }
}

const fn is_v4(block: BlockCidr) -> bool {
    matches!(block.0, IpNet::V4(_))
}

/// Why a way cannot be taken.
enum Obstacle {
    OtherSubnet,
    NoPlainHop,
    /// The only family of the peer's addresses.
    NoCommonFamily {
        theirs: Family,
    },
    FlannelsNeedV6,
    OnlyV4(&'static str),
    Unsupported(&'static str),
}

impl Obstacle {
    fn of(self, block: BlockCidr, owner: &NodeName, pool: &PoolName) -> Problem {
        let (owner, pool) = (owner.clone(), pool.clone());
        match self {
            Self::OtherSubnet => Problem::OtherSubnet { block, owner, pool },
            Self::NoPlainHop => {
                let family = if is_v4(block) { "IPv4 or IPv6" } else { "IPv6" };
                Problem::NoPlainHop { block, owner, pool, family }
            }
            Self::NoCommonFamily { theirs } => {
                let ours = if theirs == Family::V4 { Family::V6 } else { Family::V4 };
                Problem::NoCommonFamily { block, owner, theirs, ours }
            }
            Self::FlannelsNeedV6 => Problem::FlannelsNeedV6 { block, owner },
            Self::OnlyV4(what) => Problem::OnlyV4 { block, owner, pool, what },
            Self::Unsupported(what) => Problem::Unsupported { block, owner, pool, what },
        }
    }
}
