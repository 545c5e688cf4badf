//! Which way each key takes, from the objects alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use podnet_model::{Block, BlockCidr, EncapMode, LinkName, Mac, Node, NodeName, Pool};

use super::{IPIP_OVERHEAD, Overlay, Problem, VXLAN_OVERHEAD, vtep_mac};
use crate::step::{Ipip, RouteTarget, Tunnel, Vxlan};

/// How packets are carried to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As they are.
    Plain,
    Vxlan,
    Ipip,
}

impl Overlay {
    /// The device, while some pool wants VXLAN and the node's own address is known.
    pub(super) fn vxlan(&self) -> Option<Vxlan> {
        let wanted = |pool: &Pool| pool.vxlan != EncapMode::Never && matches!(pool.cidr, IpNet::V4(_));
        let local = self.local().filter(|_| self.pools.values().any(wanted))?;
        Some(Vxlan {
            name: self.config.vxlan_device.clone(),
            vni: self.config.vni,
            port: self.config.port,
            local,
            mac: vtep_mac(&self.config.node),
            mtu: self.config.underlay_mtu.saturating_sub(VXLAN_OVERHEAD),
            addr: None,
        })
    }

    /// The tunnels that pools want, while the node's own address is known.
    pub(super) fn tunnels(&self) -> BTreeMap<LinkName, Tunnel> {
        let wanted = |pool: &Pool| pool.ipip != EncapMode::Never && matches!(pool.cidr, IpNet::V4(_));
        let local = self.local().filter(|_| self.config.support.ipip && self.pools.values().any(wanted));
        let ipip = local.map(|local| {
            let mtu = self.config.underlay_mtu.saturating_sub(IPIP_OVERHEAD);
            Tunnel::Ipip(Ipip { name: self.config.ipip_device.clone(), local, mtu })
        });
        ipip.into_iter().map(|tunnel| (tunnel.name().clone(), tunnel)).collect()
    }

    fn local(&self) -> Option<Ipv4Addr> {
        match self.nodes.get(&self.config.node)?.addr.0 {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }

    /// The MAC that stands behind a peer's address.
    pub(super) fn neighbour(&self, addr: IpAddr) -> Option<Mac> {
        let holder = self.nodes.get(self.by_addr.get(&addr)?.first()?)?;
        self.is_vtep(holder).then(|| vtep_mac(&holder.name))
    }

    /// The address that frames to a peer's MAC are sent to.
    pub(super) fn remote(&self, mac: Mac) -> Option<IpAddr> {
        let holder = self.nodes.get(self.by_mac.get(&mac)?.first()?)?;
        self.is_vtep(holder).then_some(holder.addr.0)
    }

    /// Whether frames can be sent to this node: a peer, with an IPv4 address and a MAC that are its alone.
    fn is_vtep(&self, node: &Node) -> bool {
        node.name != self.config.node && self.peer_problem(node).is_none() && node.addr.0.is_ipv4()
    }

    /// What is wrong with a peer: of several with one address or one MAC the first by name is believed, and this node before all.
    pub(super) fn peer_problem(&self, peer: &Node) -> Option<Problem> {
        let first = |group: Option<&BTreeSet<NodeName>>| {
            let group = group?;
            if group.contains(&self.config.node) { Some(self.config.node.clone()) } else { group.first().cloned() }
        };
        let (addr, mac) = (peer.addr, vtep_mac(&peer.name));
        let node = peer.name.clone();
        if let Some(holder) = first(self.by_addr.get(&addr.0)).filter(|holder| *holder != node) {
            return Some(Problem::SameAddress { node, addr, holder });
        }
        let holder = first(self.by_mac.get(&mac)).filter(|holder| *holder != node)?;
        Some(Problem::SameMac { node, mac, holder })
    }

    /// Where packets to a block go; nowhere when nobody owns it, or the owner is not believed (see [`Self::peer_problem`]).
    pub(super) fn target(&self, block: &Block) -> Result<Option<RouteTarget>, Problem> {
        let cidr = block.cidr;
        let Some(owner) = &block.owner else { return Ok(None) };
        if matches!(cidr.0, IpNet::V6(_)) {
            return Err(Problem::Family { block: cidr });
        }
        if *owner == self.config.node {
            // A block of one address is its pod's own route.
            return Ok((cidr.0.prefix_len() < cidr.0.max_prefix_len()).then_some(RouteTarget::Blackhole));
        }
        let pool = self.pool_of(cidr).ok_or_else(|| Problem::NoPool { block: cidr, owner: owner.clone() })?;
        let unknown = |node: &NodeName| Problem::UnknownNode { block: cidr, node: node.clone() };
        let peer = self.nodes.get(owner).ok_or_else(|| unknown(owner))?;
        let own = self.nodes.get(&self.config.node).ok_or_else(|| unknown(&self.config.node))?;
        let same_subnet = own.subnet.map(|subnet| subnet.contains(&peer.addr.0));
        let way = way(pool, same_subnet);
        match self.peer_problem(peer) {
            Some(Problem::SameAddress { .. }) => return Ok(None),
            Some(Problem::SameMac { .. }) if way == Way::Vxlan => return Ok(None),
            _ => {}
        }
        if !peer.addr.0.is_ipv4() || (way != Way::Plain && self.local().is_none()) {
            return Err(Problem::Underlay { block: cidr, owner: owner.clone() });
        }
        let on_link = |device: &LinkName| Some(RouteTarget::OnLink { device: device.clone(), via: peer.addr.0 });
        match way {
            Way::Vxlan => Ok(on_link(&self.config.vxlan_device)),
            Way::Ipip if !self.config.support.ipip => {
                Err(Problem::Unsupported { block: cidr, owner: owner.clone(), pool: pool.name.clone(), what: "IPIP" })
            }
            Way::Ipip => Ok(on_link(&self.config.ipip_device)),
            Way::Plain if same_subnet == Some(false) => {
                Err(Problem::OtherSubnet { block: cidr, owner: owner.clone(), pool: pool.name.clone() })
            }
            Way::Plain => Ok(Some(RouteTarget::Via(peer.addr.0))),
        }
    }

    /// The smallest pool around a block; of equal ones the first by name.
    fn pool_of(&self, block: BlockCidr) -> Option<&Pool> {
        let around = self.pools.values().filter(|pool| pool.cidr.contains(&block.0));
        around.min_by_key(|pool| (u8::MAX - pool.cidr.prefix_len(), &pool.name))
    }
}

/// What a pool says of a peer that is, or is not, on our subnet; where the subnet is not known, it counts as another one.
fn way(pool: &Pool, same_subnet: Option<bool>) -> Way {
    let wanted = |mode: EncapMode| match mode {
        EncapMode::Always => true,
        EncapMode::CrossSubnet => same_subnet != Some(true),
        EncapMode::Never => false,
    };
    match (wanted(pool.vxlan), wanted(pool.ipip)) {
        (true, _) => Way::Vxlan,
        (false, true) => Way::Ipip,
        (false, false) => Way::Plain,
    }
}
