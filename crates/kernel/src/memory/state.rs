//! What the kernel in memory holds.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use podnet_model::{Family, LinkName, Mac, wireguard::PublicKey};
use podnet_planner::{
    overlay::PeerEnd,
    ruleset::RuleSet,
    step::{FdbEntry, Neighbour, Peer, Route, RouteTarget, Step, Tunnel, Vxlan},
};
use rustix::io::Errno;

use crate::{
    executor::Observed,
    netlink::{NetlinkError, Operation},
};

/// Everything that steps and edits change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Devices that are not podnet's, with the subnets on their links.
    pub devices: BTreeMap<LinkName, Vec<IpNet>>,
    /// VXLAN devices by name.
    pub vxlans: BTreeMap<LinkName, Vxlan>,
    /// Tunnels by name.
    pub tunnels: BTreeMap<LinkName, Tunnel>,
    /// podnet's routes.
    pub routes: BTreeMap<IpNet, RouteTarget>,
    /// Permanent neighbours by device and address.
    pub neighbours: BTreeMap<(LinkName, IpAddr), Mac>,
    /// FDB entries by device and Ethernet address.
    pub fdb: BTreeMap<(LinkName, Mac), IpAddr>,
    /// WireGuard peers by device and key.
    pub peers: BTreeMap<(LinkName, PublicKey), PeerEnd>,
    /// Tables by family and name.
    pub tables: BTreeMap<(Family, String), RuleSet>,
}

impl State {
    /// Does a step; tells whether a device was made anew.
    pub(super) fn apply(&mut self, step: &Step) -> Result<bool, NetlinkError> {
        match step {
            Step::SetVxlan(wanted) => return self.set_vxlan(wanted),
            Step::SetTunnel(wanted) => return Ok(self.set_tunnel(wanted)),
            Step::RemoveLink(name) => self.remove_device(name),
            Step::SetRoute(route) => self.set_route(route)?,
            Step::RemoveRoute(route) => {
                self.routes.remove(&route.dst);
            }
            Step::SetNeighbour(Neighbour { device, addr, mac }) => {
                self.require(device, || Operation::new("make neighbour", addr))?;
                self.neighbours.insert((device.clone(), *addr), *mac);
            }
            Step::RemoveNeighbour(Neighbour { device, addr, .. }) => {
                self.neighbours.remove(&(device.clone(), *addr));
            }
            Step::SetFdb(FdbEntry { device, mac, remote }) => {
                let operation = || Operation::new("make FDB entry", mac);
                self.require(device, operation)?;
                if !self.vxlans.contains_key(device) {
                    return Err(refused(operation(), Errno::OPNOTSUPP));
                }
                self.fdb.insert((device.clone(), *mac), *remote);
            }
            Step::SetPeer(peer) => self.set_peer(peer)?,
            Step::RemovePeer(Peer { device, key, .. }) => {
                self.peers.remove(&(device.clone(), *key));
            }
            Step::RemoveFdb(FdbEntry { device, mac, remote }) => {
                let key = (device.clone(), *mac);
                if self.fdb.get(&key) == Some(remote) {
                    self.fdb.remove(&key);
                }
            }
        }
        Ok(false)
    }

    fn set_vxlan(&mut self, wanted: &Vxlan) -> Result<bool, NetlinkError> {
        let same = |vxlan: &Vxlan| (vxlan.vni, vxlan.port, vxlan.local) == (wanted.vni, wanted.port, wanted.local);
        let there = self.has_device(&wanted.name);
        let remade = there && !self.vxlans.get(&wanted.name).is_some_and(same);
        if remade {
            self.remove_device(&wanted.name);
        }
        // Of a family one identifier and port belong to one device of a namespace.
        let needs = |vxlan: &Vxlan| (vxlan.vni, vxlan.port, vxlan.local.is_ipv6());
        if self.vxlans.values().any(|other| other.name != wanted.name && needs(other) == needs(wanted)) {
            return Err(refused(Operation::new("make VXLAN device", &wanted.name), Errno::EXIST));
        }
        self.vxlans.insert(wanted.name.clone(), wanted.clone());
        Ok(remade)
    }

    fn set_tunnel(&mut self, wanted: &Tunnel) -> bool {
        let name = wanted.name();
        let same = |tunnel: &Tunnel| match (tunnel, wanted) {
            (Tunnel::Ipip(there), Tunnel::Ipip(wanted)) => there.local == wanted.local,
            (Tunnel::Wireguard(_), Tunnel::Wireguard(_)) | (Tunnel::Udp(_), Tunnel::Udp(_)) => true,
            _ => false,
        };
        let there = self.has_device(name);
        let remade = there && !self.tunnels.get(name).is_some_and(same);
        if remade {
            self.remove_device(name);
        }
        self.tunnels.insert(name.clone(), wanted.clone());
        remade
    }

    /// A range belongs to one peer of a device.
    fn set_peer(&mut self, peer: &Peer) -> Result<(), NetlinkError> {
        let operation = || Operation::new("set WireGuard peer", peer.key);
        self.require(&peer.device, operation)?;
        if !matches!(self.tunnels.get(&peer.device), Some(Tunnel::Wireguard(_))) {
            return Err(refused(operation(), Errno::OPNOTSUPP));
        }
        for ((device, _), end) in &mut self.peers {
            if *device == peer.device {
                end.ranges.retain(|range| !peer.ranges.contains(range));
            }
        }
        let end = PeerEnd { endpoint: peer.endpoint, ranges: peer.ranges.clone() };
        self.peers.insert((peer.device.clone(), peer.key), end);
        Ok(())
    }

    fn has_device(&self, name: &LinkName) -> bool {
        self.devices.contains_key(name) || self.vxlans.contains_key(name) || self.tunnels.contains_key(name)
    }

    /// All that was on a device goes with it.
    fn remove_device(&mut self, name: &LinkName) {
        self.devices.remove(name);
        self.vxlans.remove(name);
        self.tunnels.remove(name);
        self.routes.retain(|_, target| match target {
            RouteTarget::Device(device) | RouteTarget::OnLink { device, .. } => device != name,
            RouteTarget::Via(_) | RouteTarget::Blackhole => true,
        });
        self.neighbours.retain(|(device, _), _| device != name);
        self.fdb.retain(|(device, _), _| device != name);
        self.peers.retain(|(device, _), _| device != name);
    }

    fn set_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let operation = || Operation::new("make route to", route.dst);
        match &route.target {
            RouteTarget::Device(device) | RouteTarget::OnLink { device, .. } => self.require(device, operation)?,
            RouteTarget::Via(via) if !self.is_on_link(*via) => return Err(refused(operation(), Errno::NETUNREACH)),
            RouteTarget::Via(_) | RouteTarget::Blackhole => {}
        }
        self.routes.insert(route.dst, route.target.clone());
        Ok(())
    }

    fn is_on_link(&self, addr: IpAddr) -> bool {
        let by_device =
            self.routes.iter().filter(|(_, target)| matches!(target, RouteTarget::Device(_))).map(|(dst, _)| dst);
        self.devices.values().flatten().chain(by_device).any(|subnet| subnet.contains(&addr))
    }

    fn require(&self, device: &LinkName, operation: impl FnOnce() -> Operation) -> Result<(), NetlinkError> {
        if self.has_device(device) {
            return Ok(());
        }
        Err(NetlinkError::NoDevice { operation: operation(), device: device.to_string() })
    }

    pub(super) fn observe(&self, vxlans: &[&LinkName]) -> Observed {
        let routes = self.routes.iter().map(|(dst, target)| Route { dst: *dst, target: target.clone() });
        let neighbours = self.neighbours.iter().filter(|((device, _), _)| vxlans.contains(&device));
        let fdb = self.fdb.iter().filter(|((device, _), _)| vxlans.contains(&device));
        Observed {
            vxlans: self
                .vxlans
                .iter()
                .filter(|(name, _)| vxlans.contains(name))
                .map(|(name, vxlan)| (name.clone(), vxlan.clone()))
                .collect(),
            tunnels: self.tunnels.clone(),
            peers: self.peers.clone(),
            routes: routes.collect(),
            neighbours: neighbours
                .map(|((device, addr), mac)| Neighbour { device: device.clone(), addr: *addr, mac: *mac })
                .collect(),
            fdb: fdb
                .map(|((device, mac), remote)| FdbEntry { device: device.clone(), mac: *mac, remote: *remote })
                .collect(),
        }
    }
}

fn refused(operation: Operation, errno: Errno) -> NetlinkError {
    NetlinkError::Refused { operation, hint: None, errno }
}
