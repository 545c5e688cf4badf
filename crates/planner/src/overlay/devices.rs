//! The devices of this node, and what its peers are on them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use ipnet::{IpNet, Ipv4Net};
use podnet_model::{
    EncapMode, LinkName, Mac, Node, Pool,
    flannel::Backend,
    wireguard::{KeyPair, PublicKey},
};

use super::{
    IPIP_OVERHEAD, Overlay, PeerEnd, UDP_OVERHEAD, VXLAN_OVERHEAD, WIREGUARD_MARK, WIREGUARD_OVERHEAD, vtep_mac,
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
    /// The VXLAN device, while some pool wants VXLAN and the node's own address is known. Where flannel's configuration does, its
    /// identifier and port hold for all, and the device has flannel's address, by which flannel's nodes know whom to answer.
    pub(super) fn vxlan(&self) -> Option<Vxlan> {
        let wanted = |pool: &Pool| pool.vxlan != EncapMode::Never && matches!(pool.cidr, IpNet::V4(_));
        let flannels = self.net_conf().and_then(|conf| match conf.backend {
            Backend::Vxlan { vni, port, .. } => Some((vni, port)),
            _ => None,
        });
        let local = self.local().filter(|_| flannels.is_some() || self.pools.values().any(wanted))?;
        let (vni, port) = flannels.unwrap_or((self.config.vni, self.config.port));
        Some(Vxlan {
            name: self.config.vxlan_device.clone(),
            vni,
            port,
            local,
            mac: vtep_mac(&self.config.node),
            mtu: self.mtu(VXLAN_OVERHEAD),
            addr: flannels.and_then(|_| self.flannel_addr()),
        })
    }

    /// The tunnels that are wanted, while the node's own address is known and as far as the kernel can make them.
    pub(super) fn tunnels(&self) -> BTreeMap<LinkName, Tunnel> {
        let Some(local) = self.local() else { return BTreeMap::new() };
        let ipip = self
            .wants_ipip()
            .then(|| Tunnel::Ipip(Ipip { name: self.config.ipip_device.clone(), local, mtu: self.mtu(IPIP_OVERHEAD) }));
        let wireguard = self.own_key().filter(|_| self.wants_wireguard()).map(|key| {
            Tunnel::Wireguard(Wireguard {
                name: self.config.wireguard_device.clone(),
                port: self.wireguard_port(),
                mtu: self.mtu(WIREGUARD_OVERHEAD),
                mark: WIREGUARD_MARK,
                key: key.private.clone(),
            })
        });
        let udp = self
            .udp_port()
            .filter(|_| self.config.support.tun)
            .map(|_| Tunnel::Udp(UdpTunnel { name: self.config.udp_device.clone(), mtu: self.mtu(UDP_OVERHEAD) }));
        [ipip, wireguard, udp].into_iter().flatten().map(|tunnel| (tunnel.name().clone(), tunnel)).collect()
    }

    /// The MTU of pods' interfaces: what the configuration says, or room for the largest encapsulation that may be used, whether a
    /// pod's own packets need it or not: a peer on another subnet makes no difference then.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        let conf = self.net_conf();
        let v4 = || self.pools.values().filter(|pool| matches!(pool.cidr, IpNet::V4(_)));
        let flannels_vxlan = conf.is_some_and(|conf| matches!(conf.backend, Backend::Vxlan { .. }));
        // Before the first pool is known, room for what most pools want.
        let unknown = conf.is_none() && self.pools.is_empty();
        let ways = [
            (WIREGUARD_OVERHEAD, self.encrypts()),
            (VXLAN_OVERHEAD, unknown || flannels_vxlan || v4().any(|pool| pool.vxlan != EncapMode::Never)),
            (UDP_OVERHEAD, self.udp_port().is_some()),
            (IPIP_OVERHEAD, self.wants_ipip()),
        ];
        let most = ways.into_iter().filter(|(_, wanted)| *wanted).map(|(overhead, _)| overhead).max();
        self.config.pod_mtu.unwrap_or_else(|| self.mtu(most.unwrap_or_default()))
    }

    fn mtu(&self, overhead: u32) -> u32 {
        self.config.underlay_mtu.saturating_sub(overhead)
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
        Some(Carrier { local: self.local()?, port, ranges: ranges.collect(), device })
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

    /// This node's address on the underlay.
    pub(super) fn local(&self) -> Option<Ipv4Addr> {
        match self.own_node()?.addr.0 {
            IpAddr::V4(addr) => Some(self.config.underlay_addr.unwrap_or(addr)),
            IpAddr::V6(_) => self.config.underlay_addr,
        }
    }

    /// Where a node gets its encapsulated packets: as it told flannel's nodes, where there are such.
    pub(super) fn outer(&self, node: &Node) -> IpAddr {
        let lease = node.lease.as_ref().filter(|_| self.net_conf().is_some() && node.name != self.config.node);
        lease.map_or(node.addr.0, |lease| lease.public_ip.into())
    }

    /// The Ethernet address of a node's VXLAN device: as it told flannel's nodes, where there are such.
    pub(super) fn mac_of(&self, node: &Node) -> Mac {
        let lease = node.lease.as_ref().filter(|_| self.net_conf().is_some() && node.name != self.config.node);
        lease.and_then(|lease| lease.vtep_mac).unwrap_or_else(|| vtep_mac(&node.name))
    }

    /// The MAC that stands behind a peer's address.
    pub(super) fn neighbour(&self, addr: IpAddr) -> Option<Mac> {
        let holder = self.nodes.get(self.by_addr.get(&addr)?.first()?)?;
        self.is_vtep(holder).then(|| self.mac_of(holder))
    }

    /// The address that frames to a peer's MAC are sent to.
    pub(super) fn remote(&self, mac: Mac) -> Option<IpAddr> {
        let holder = self.nodes.get(self.by_mac.get(&mac)?.first()?)?;
        self.is_vtep(holder).then(|| self.outer(holder))
    }

    /// Whether frames can be sent to this node: a peer, with an IPv4 address and a MAC that are its alone.
    fn is_vtep(&self, node: &Node) -> bool {
        node.name != self.config.node && self.peer_problem(node).is_none() && self.outer(node).is_ipv4()
    }

    /// The WireGuard peer of that key: it gets what is routed to it, and may send from there and from its own address.
    pub(super) fn peer(&self, key: PublicKey) -> Option<PeerEnd> {
        let holder = self.nodes.get(self.by_key.get(&key)?.first()?)?;
        if !self.is_wireguard_peer(holder) {
            return None;
        }
        let IpAddr::V4(addr) = self.outer(holder) else { return None };
        let device = &self.config.wireguard_device;
        let through_it =
            |target: &RouteTarget| matches!(target, RouteTarget::OnLink { device: at, .. } if at == device);
        let blocks = self.by_owner.get(&holder.name).into_iter().flatten();
        let ranges = blocks
            .filter(|cidr| matches!(self.target(**cidr, &holder.name), Ok(Some(target)) if through_it(&target)))
            .map(|cidr| cidr.0)
            .chain([IpNet::from(IpAddr::V4(addr))]);
        Some(PeerEnd { endpoint: SocketAddrV4::new(addr, self.wireguard_port()), ranges: ranges.collect() })
    }

    /// Whether packets to this node can be encrypted: it has a key of its own, and so have we.
    pub(super) fn is_wireguard_peer(&self, node: &Node) -> bool {
        let first = |key: &PublicKey| self.by_key.get(key).and_then(|names| names.first()) == Some(&node.name);
        let has_key = node.wireguard_key.as_ref().is_some_and(first);
        let usable = !matches!(self.peer_problem(node), Some(super::Problem::SameAddress { .. }));
        has_key && usable && node.name != self.config.node && self.wants_wireguard() && self.own_key().is_some()
    }
}
