//! The devices of this node, and what its peers are on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net};
use podnet_model::{
    EncapMode, Family, LinkName, Mac, Node, Pool,
    flannel::{Backend, Lease},
    wireguard::{KeyPair, PublicKey},
};

use super::{
    IPIP_OVERHEAD, IPV6_EXTRA, Overlay, PeerEnd, UDP_OVERHEAD, VXLAN_OVERHEAD, WIREGUARD_MARK, WIREGUARD_OVERHEAD,
    vtep::vtep_of, vtep_mac,
};
use crate::step::{Ipip, RouteTarget, Tunnel, UdpTunnel, Vxlan, Wireguard};

/// A program that carries a TUN device's packets to other nodes in UDP, and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// The TUN device.
    pub device: LinkName,
    /// Where it listens: this node's address on the underlay.
    pub local: Ipv4Addr,
    /// UDP port of all nodes.
    pub port: u16,
    /// To which node packets to a range go, and from which ranges a node may send.
    pub ranges: BTreeMap<Ipv4Net, Ipv4Addr>,
}

impl Overlay {
    /// The VXLAN devices by the families outside, while some pool wants VXLAN and the node's own address is known. Where flannel's
    /// configuration does, its identifier and port hold for all, and the devices have flannel's addresses, by which flannel's nodes know
    /// whom to answer.
    pub(super) fn vxlans(&self) -> BTreeMap<LinkName, Vxlan> {
        let wanted = |pool: &Pool| pool.vxlan != EncapMode::Never;
        let flannels = self.net_conf().and_then(|conf| match conf.backend {
            Backend::Vxlan { vni, port, .. } => Some((vni, port)),
            _ => None,
        });
        if flannels.is_none() && !self.pools.values().any(wanted) {
            return BTreeMap::new();
        }
        let (vni, port) = flannels.unwrap_or((self.config.vni, self.config.port));
        let device = |outside: Family| {
            let local = match outside {
                Family::V4 => self.local_v4().map(IpAddr::V4),
                Family::V6 => self.local_v6().filter(|_| self.tunnels_by_v6()).map(IpAddr::V6),
            }?;
            let name = self.config.vxlan_devices[outside].clone();
            let mtu = self.mtu(VXLAN_OVERHEAD + if outside == Family::V6 { IPV6_EXTRA } else { 0 });
            let addrs = flannels.and_then(|_| self.flannel_addr(outside)).into_iter().collect();
            Some((name.clone(), Vxlan { name, vni, port, local, mac: vtep_mac(&self.config.node), mtu, addrs }))
        };
        Family::ALL.into_iter().filter_map(device).collect()
    }

    /// Whether tunnels go by IPv6 outside, all or some: where this node or another one has no IPv4, and where flannel's nodes count on it.
    fn tunnels_by_v6(&self) -> bool {
        let (v4, v6) = match self.own_node() {
            Some(_) => (self.local_v4().is_some(), self.local_v6().is_some()),
            None => (self.config.underlay.addr.is_some(), self.config.underlay.addr6.is_some()),
        };
        v6 && (!v4 || !self.of_ipv6_alone.is_empty() || self.has_flannels_vxlan_v6())
    }

    /// Whether flannel's nodes have VXLAN devices for IPv6.
    fn has_flannels_vxlan_v6(&self) -> bool {
        self.net_conf().is_some_and(|conf| conf.networks.v6.is_some() && matches!(conf.backend, Backend::Vxlan { .. }))
    }

    /// The tunnels that are wanted, while the node's own address is known and as far as the kernel can make them.
    pub(super) fn tunnels(&self) -> BTreeMap<LinkName, Tunnel> {
        let local_v4 = self.local_v4();
        let ipip = local_v4.filter(|_| self.wants_ipip()).map(|local| {
            Tunnel::Ipip(Ipip { name: self.config.ipip_device.clone(), local, mtu: self.mtu(IPIP_OVERHEAD) })
        });
        let wireguard = self.own_key().filter(|_| self.wants_wireguard() && self.has_local()).map(|key| {
            Tunnel::Wireguard(Wireguard {
                name: self.config.wireguard_device.clone(),
                port: self.wireguard_port(),
                mtu: self.mtu(WIREGUARD_OVERHEAD + self.extra()),
                mark: WIREGUARD_MARK,
                key: key.private.clone(),
            })
        });
        let udp = self
            .udp_port()
            .filter(|_| self.config.support.tun && local_v4.is_some())
            .map(|_| Tunnel::Udp(UdpTunnel { name: self.config.udp_device.clone(), mtu: self.mtu(UDP_OVERHEAD) }));
        [ipip, wireguard, udp].into_iter().flatten().map(|tunnel| (tunnel.name().clone(), tunnel)).collect()
    }

    /// The MTU of pods' interfaces: what the configuration says, or room for the largest encapsulation that may be used, whether a
    /// pod's own packets need it or not: a peer on another subnet makes no difference then.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        let conf = self.net_conf();
        let flannels_vxlan = conf.is_some_and(|conf| matches!(conf.backend, Backend::Vxlan { .. }));
        let with_vxlan = |pool: &Pool| pool.vxlan != EncapMode::Never;
        // Before the first pool is known, room for what most pools want.
        let unknown = conf.is_none() && self.pools.is_empty();
        let ways = [
            (WIREGUARD_OVERHEAD + self.extra(), self.encrypts()),
            (VXLAN_OVERHEAD + self.extra(), unknown || flannels_vxlan || self.pools.values().any(with_vxlan)),
            (UDP_OVERHEAD, self.udp_port().is_some()),
            (IPIP_OVERHEAD, self.wants_ipip()),
        ];
        let most = ways.into_iter().filter(|(_, wanted)| *wanted).map(|(overhead, _)| overhead).max();
        self.config.pod_mtu.unwrap_or_else(|| self.mtu(most.unwrap_or_default()))
    }

    /// The MTU of the narrowest of pods' interfaces and of the devices that carry IPv6.
    #[must_use]
    pub fn room_for_ipv6(&self) -> u32 {
        let vxlans = self.vxlans().into_values().map(|vxlan| vxlan.mtu);
        let wireguard = self.encrypts().then(|| self.mtu(WIREGUARD_OVERHEAD + self.extra()));
        vxlans.chain(wireguard).fold(self.pod_mtu(), u32::min)
    }

    fn mtu(&self, overhead: u32) -> u32 {
        self.config.underlay.mtu.saturating_sub(overhead)
    }

    /// How much more the outer headers may take than those of IPv4.
    fn extra(&self) -> u32 {
        if self.tunnels_by_v6() { IPV6_EXTRA } else { 0 }
    }

    fn wants_ipip(&self) -> bool {
        let wanted = |pool: &Pool| pool.ipip != EncapMode::Never && matches!(pool.cidr, IpNet::V4(_));
        let flannels = self.net_conf().is_some_and(|conf| matches!(conf.backend, Backend::Ipip { .. }));
        self.config.support.ipip && (flannels || self.pools.values().any(wanted))
    }

    fn udp_port(&self) -> Option<u16> {
        match self.net_conf()?.backend {
            Backend::Udp { port } => Some(port),
            _ => None,
        }
    }

    /// What the program behind the UDP tunnel needs, while there is one.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        let (device, port) = (self.config.udp_device.clone(), self.udp_port()?);
        self.planned.tunnels.get(&device)?;
        let ranges = self.planned.routes.iter().filter_map(|(dst, target)| match (dst, target) {
            (IpNet::V4(dst), RouteTarget::OnLink { device: at, via: IpAddr::V4(via), .. }) if *at == device => {
                Some((*dst, *via))
            }
            _ => None,
        });
        Some(Carrier { local: self.local_v4()?, port, ranges: ranges.collect(), device })
    }

    /// Whether packets are to be encrypted, at least to some nodes.
    pub(super) fn encrypts(&self) -> bool {
        self.felix.wireguard || self.flannels_wireguard_port().is_some()
    }

    fn flannels_wireguard_port(&self) -> Option<u16> {
        match self.net_conf()?.backend {
            Backend::WireGuard { port } => Some(port),
            _ => None,
        }
    }

    /// All nodes listen on one port.
    fn wireguard_port(&self) -> u16 {
        self.flannels_wireguard_port().unwrap_or(self.felix.wireguard_port)
    }

    /// The key that this node's own object shows, if it is one of ours.
    pub(super) fn own_key(&self) -> Option<&KeyPair> {
        let shown = self.own_node()?.wireguard_key?;
        self.keys.iter().find(|pair| pair.public == shown)
    }

    /// Whether this node has an address on the underlay.
    fn has_local(&self) -> bool {
        self.local_v4().is_some() || self.local_v6().is_some()
    }

    pub(super) fn local_v4(&self) -> Option<Ipv4Addr> {
        let own = self.own_node()?;
        self.config.underlay.addr.or(own.v4())
    }

    pub(super) fn local_v6(&self) -> Option<Ipv6Addr> {
        let own = self.own_node()?;
        self.config.underlay.addr6.or(own.v6())
    }

    /// Where a node gets its encapsulated packets.
    pub(super) fn outer(&self, node: &Node) -> Option<IpAddr> {
        self.addr_to(node, self.outside(node)?)
    }

    /// The family of encapsulated packets between this node and that one: IPv4 where both have an address of it; none where they have no
    /// family in common.
    pub(super) fn outside(&self, node: &Node) -> Option<Family> {
        let v4 = self.local_v4().is_some() && self.v4_of(node).is_some();
        let v6 = self.local_v6().is_some() && self.v6_of(node).is_some();
        if v4 { Some(Family::V4) } else { v6.then_some(Family::V6) }
    }

    /// The family of which a node has an address, of one that has but one.
    pub(super) fn only_family(&self, node: &Node) -> Family {
        if self.v4_of(node).is_some() { Family::V4 } else { Family::V6 }
    }

    /// A node's address by a family, where it is believed to be its own.
    pub(super) fn addr_to(&self, node: &Node, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4_to(node).map(IpAddr::V4),
            Family::V6 => self.v6_to(node).map(IpAddr::V6),
        }
    }

    /// A node's address by IPv4, where it is believed to be its own.
    pub(super) fn v4_to(&self, node: &Node) -> Option<Ipv4Addr> {
        self.v4_of(node).filter(|addr| self.is_its_own(node, IpAddr::V4(*addr)))
    }

    /// The same of IPv6.
    pub(super) fn v6_to(&self, node: &Node) -> Option<Ipv6Addr> {
        self.v6_of(node).filter(|addr| self.is_its_own(node, IpAddr::V6(*addr)))
    }

    fn is_its_own(&self, node: &Node, addr: IpAddr) -> bool {
        self.believed(self.by_addr.get(&addr)).is_none_or(|holder| *holder == node.name)
    }

    /// A node's address by IPv4: as it told flannel's nodes, where there are such.
    pub(super) fn v4_of(&self, node: &Node) -> Option<Ipv4Addr> {
        self.lease_of(node).and_then(|lease| lease.public_ip).or(node.v4())
    }

    /// The same by IPv6.
    pub(super) fn v6_of(&self, node: &Node) -> Option<Ipv6Addr> {
        self.lease_of(node).and_then(|lease| lease.public_ipv6).or(node.v6())
    }

    /// What a peer told flannel's nodes, where there are such.
    fn lease_of<'a>(&self, node: &'a Node) -> Option<&'a Lease> {
        node.lease.as_ref().filter(|_| self.net_conf().is_some() && node.name != self.config.node)
    }

    /// All its addresses on the underlay.
    pub(super) fn addrs_of(&self, node: &Node) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = (self.v4_of(node).map(IpAddr::V4), self.v6_of(node).map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }

    /// The Ethernet address of a node's VXLAN device of a family outside: as it told flannel's nodes, where there are such.
    pub(super) fn mac_of(&self, node: &Node, outside: Family) -> Mac {
        self.lease_of(node).and_then(|lease| lease.vtep_macs[outside]).unwrap_or_else(|| vtep_mac(&node.name))
    }

    /// Those of both its devices.
    pub(super) fn macs_of(&self, node: &Node) -> BTreeSet<Mac> {
        Family::ALL.into_iter().map(|outside| self.mac_of(node, outside)).collect()
    }

    /// Whether next hops inside VXLAN by IPv4 have to be made of MACs: the peers' addresses outside cannot be those of IPv6 packets. What
    /// is of flannel's range goes by IPv6.
    pub(super) fn wants_vtep_next_hops(&self) -> bool {
        let is_v6 = |pool: &Pool| matches!(pool.cidr, IpNet::V6(_));
        self.has_room && self.config.support.ipv6 && self.pools.values().any(is_v6)
    }

    /// The MAC that stands behind a next hop inside VXLAN of a family outside.
    pub(super) fn neighbour(&self, outside: Family, next_hop: IpAddr) -> Option<Mac> {
        match next_hop {
            IpAddr::V4(_) if outside == Family::V6 => None,
            IpAddr::V4(_) => {
                let holder = self.nodes.get(self.by_addr.get(&next_hop)?.first()?)?;
                let leads_there = self.vtep(holder, outside) == Some(next_hop);
                leads_there.then(|| self.mac_of(holder, outside))
            }
            IpAddr::V6(next_hop) => {
                let wanted = match outside {
                    Family::V4 => self.vtep_next_hops,
                    Family::V6 => self.has_room && self.config.support.ipv6,
                };
                let mac = vtep_of(next_hop).filter(|_| wanted)?;
                self.remote(outside, mac).map(|_| mac)
            }
        }
    }

    /// The address that frames to a peer's MAC are sent to, by a family outside.
    pub(super) fn remote(&self, outside: Family, mac: Mac) -> Option<IpAddr> {
        let holder = self.nodes.get(self.by_mac.get(&mac)?.first()?)?;
        self.vtep(holder, outside).filter(|_| self.mac_of(holder, outside) == mac)
    }

    /// Where frames can be sent to this node by a family outside: a peer, with an address outside and MACs that are its alone.
    fn vtep(&self, node: &Node, outside: Family) -> Option<IpAddr> {
        let is_peer = node.name != self.config.node && self.same_mac(node).is_none();
        let both_by_v6 = || self.has_flannels_vxlan_v6() && self.local_v6().is_some();
        let is_so = self.outside(node) == Some(outside) || (outside == Family::V6 && both_by_v6());
        self.addr_to(node, outside).filter(|_| is_peer && is_so)
    }

    /// The WireGuard peer of that key: it gets what is routed to it, and may send from there and from its own addresses.
    pub(super) fn peer(&self, key: PublicKey) -> Option<PeerEnd> {
        let holder = self.nodes.get(self.by_key.get(&key)?.first()?)?;
        if !self.is_wireguard_peer(holder) {
            return None;
        }
        let addr = self.outer(holder)?;
        let device = &self.config.wireguard_device;
        let through_it =
            |target: &RouteTarget| matches!(target, RouteTarget::OnLink { device: at, .. } if at == device);
        let blocks = self.by_owner.get(&holder.name).into_iter().flatten();
        let ranges = blocks
            .filter(|cidr| matches!(self.target(**cidr, &holder.name), Ok(Some(target)) if through_it(&target)))
            .map(|cidr| cidr.0)
            .chain(self.addrs_of(holder).filter(|addr| self.is_its_own(holder, *addr)).map(IpNet::from));
        Some(PeerEnd { endpoint: SocketAddr::new(addr, self.wireguard_port()), ranges: ranges.collect() })
    }

    /// Whether packets to this node are encrypted: see [`Self::has_common_key`], and there is an address to send them to.
    pub(super) fn is_wireguard_peer(&self, node: &Node) -> bool {
        self.has_common_key(node) && self.outer(node).is_some()
    }

    /// Whether packets to this node are to be encrypted: it has a key of its own, and so have we. Where they cannot be sent so, they are
    /// not sent in the clear.
    pub(super) fn has_common_key(&self, node: &Node) -> bool {
        let first = |key: &PublicKey| self.by_key.get(key).and_then(|names| names.first()) == Some(&node.name);
        let has_key = node.wireguard_key.as_ref().is_some_and(first);
        has_key && node.name != self.config.node && self.wants_wireguard() && self.own_key().is_some()
    }
}
