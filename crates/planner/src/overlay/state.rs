//! What stands on a node, as a value, and the steps from one such value to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use podnet_model::{LinkName, Mac, wireguard::PublicKey};

use crate::step::{FdbEntry, Neighbour, Peer, Route, RouteTarget, Step, Tunnel, Vxlan};

/// Devices, routes, neighbours and FDB entries of one node, each by its key in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// VXLAN devices by name.
    pub vxlans: BTreeMap<LinkName, Vxlan>,
    /// Tunnels by name.
    pub tunnels: BTreeMap<LinkName, Tunnel>,
    /// Routes by destination.
    pub routes: BTreeMap<IpNet, RouteTarget>,
    /// Neighbours by device and address.
    pub neighbours: BTreeMap<(LinkName, IpAddr), Mac>,
    /// FDB entries by device and MAC: to which peer frames go.
    pub fdb: BTreeMap<(LinkName, Mac), IpAddr>,
    /// WireGuard peers by device and key.
    pub peers: BTreeMap<(LinkName, PublicKey), PeerEnd>,
}

/// What a WireGuard peer is, beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEnd {
    /// Where its encrypted packets go.
    pub endpoint: SocketAddr,
    /// What goes to it, and what its packets may come from.
    pub ranges: BTreeSet<IpNet>,
}

impl State {
    /// Does to this value what the step does to a kernel. A device that is changed may have to be made anew, so that all that
    /// stood on it is gone.
    pub fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::SetVxlan(vxlan) => {
                if self.vxlans.get(&vxlan.name) != Some(&vxlan) {
                    self.remove_link(&vxlan.name);
                    self.vxlans.insert(vxlan.name.clone(), vxlan);
                }
            }
            Step::SetTunnel(tunnel) => {
                if self.tunnels.get(tunnel.name()) != Some(&tunnel) {
                    self.remove_link(tunnel.name());
                    self.tunnels.insert(tunnel.name().clone(), tunnel);
                }
            }
            Step::RemoveLink(name) => self.remove_link(&name),
            Step::SetRoute(route) => drop(self.routes.insert(route.dst, route.target)),
            Step::RemoveRoute(route) => drop(self.routes.remove(&route.dst)),
            Step::SetNeighbour(Neighbour { device, addr, mac }) => drop(self.neighbours.insert((device, addr), mac)),
            Step::RemoveNeighbour(Neighbour { device, addr, .. }) => drop(self.neighbours.remove(&(device, addr))),
            Step::SetFdb(FdbEntry { device, mac, remote }) => drop(self.fdb.insert((device, mac), remote)),
            Step::RemoveFdb(FdbEntry { device, mac, .. }) => drop(self.fdb.remove(&(device, mac))),
            Step::SetPeer(peer) => self.set_peer(peer),
            Step::RemovePeer(Peer { device, key, .. }) => drop(self.peers.remove(&(device, key))),
        }
    }

    /// A range belongs to one peer of a device.
    fn set_peer(&mut self, peer: Peer) {
        for ((device, _), end) in &mut self.peers {
            if *device == peer.device {
                end.ranges.retain(|range| !peer.ranges.contains(range));
            }
        }
        self.peers.insert((peer.device, peer.key), PeerEnd { endpoint: peer.endpoint, ranges: peer.ranges });
    }

    fn remove_link(&mut self, name: &LinkName) {
        self.vxlans.remove(name);
        self.tunnels.remove(name);
        self.routes.retain(|_, target| device_of(target) != Some(name));
        self.neighbours.retain(|(device, _), _| device != name);
        self.fdb.retain(|(device, _), _| device != name);
        self.peers.retain(|(device, _), _| device != name);
    }
}

/// The steps from `observed` to `desired`.
///
/// A device comes before what stands on it, FDB entries, neighbours and peers before the routes that need them; what is no longer wanted
/// goes afterwards, in the reverse order, so that a route that changes its way is replaced before its old way is taken down.
#[must_use]
pub fn diff(desired: &State, observed: &State) -> Vec<Step> {
    let mut there = observed.clone();
    let mut steps = Vec::new();
    for step in devices(desired, observed) {
        there.apply(&step);
        steps.push(step);
    }
    let doomed = doomed(desired, &there);
    for (key, remote) in missing(&desired.fdb, &there.fdb) {
        steps.push(Step::SetFdb(fdb(key, *remote)));
    }
    for (key, mac) in missing(&desired.neighbours, &there.neighbours) {
        steps.push(Step::SetNeighbour(neighbour(key, *mac)));
    }
    for (key, end) in missing(&desired.peers, &there.peers) {
        steps.push(Step::SetPeer(peer(key, end)));
    }
    // The kernel looks for the record that all routes by one next hop share through those of the device, the latest first: routes by one
    // next hop that come one after the other find theirs at once, where others walk past thousands.
    let mut routes: Vec<_> = missing(&desired.routes, &there.routes).collect();
    routes.sort_by_key(|(_, target)| *target);
    steps.extend(routes.into_iter().map(|(dst, target)| Step::SetRoute(route(dst, target))));
    for (dst, target) in surplus(&there.routes, &desired.routes) {
        steps.push(Step::RemoveRoute(route(dst, target)));
    }
    // Entries of a device that goes go with it.
    for (key, mac) in
        surplus(&there.neighbours, &desired.neighbours).filter(|((device, _), _)| !doomed.contains(&device))
    {
        steps.push(Step::RemoveNeighbour(neighbour(key, *mac)));
    }
    for (key, remote) in surplus(&there.fdb, &desired.fdb).filter(|((device, _), _)| !doomed.contains(&device)) {
        steps.push(Step::RemoveFdb(fdb(key, *remote)));
    }
    for (key, end) in surplus(&there.peers, &desired.peers).filter(|((device, _), _)| !doomed.contains(&device)) {
        steps.push(Step::RemovePeer(peer(key, end)));
    }
    steps.extend(doomed.into_iter().map(|name| Step::RemoveLink(name.clone())));
    steps
}

/// The steps that make devices or change them. A VXLAN device that is no longer wanted and has what a new one needs goes first: of a family
/// one identifier and port belong to one device.
fn devices(desired: &State, observed: &State) -> Vec<Step> {
    let needs = |vxlan: &Vxlan| (vxlan.vni, vxlan.port, vxlan.local.is_ipv6());
    let new = || missing(&desired.vxlans, &observed.vxlans).map(|(_, vxlan)| vxlan);
    let old = surplus(&observed.vxlans, &desired.vxlans);
    let in_the_way = old.filter(|(_, old)| new().any(|new| needs(new) == needs(old)));
    let removals = in_the_way.map(|(name, _)| Step::RemoveLink(name.clone()));
    let vxlans = new().map(|vxlan| Step::SetVxlan(vxlan.clone()));
    let tunnels = missing(&desired.tunnels, &observed.tunnels).map(|(_, tunnel)| Step::SetTunnel(tunnel.clone()));
    removals.chain(vxlans).chain(tunnels).collect()
}

/// Devices that are no longer wanted.
fn doomed<'a>(desired: &'a State, observed: &'a State) -> Vec<&'a LinkName> {
    let vxlans = surplus(&observed.vxlans, &desired.vxlans).map(|(name, _)| name);
    vxlans.chain(surplus(&observed.tunnels, &desired.tunnels).map(|(name, _)| name)).collect()
}

/// Entries of `desired` that `there` lacks or has otherwise.
fn missing<'a, K: Ord, V: PartialEq>(
    desired: &'a BTreeMap<K, V>,
    there: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    desired.iter().filter(|(key, value)| there.get(key) != Some(value))
}

/// Entries of `there` whose keys `desired` lacks.
fn surplus<'a, K: Ord, V>(
    there: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    there.iter().filter(|(key, _)| !desired.contains_key(key))
}

fn route(dst: &IpNet, target: &RouteTarget) -> Route {
    Route { dst: *dst, target: target.clone() }
}

fn neighbour((device, addr): &(LinkName, IpAddr), mac: Mac) -> Neighbour {
    Neighbour { device: device.clone(), addr: *addr, mac }
}

fn fdb((device, mac): &(LinkName, Mac), remote: IpAddr) -> FdbEntry {
    FdbEntry { device: device.clone(), mac: *mac, remote }
}

fn peer((device, key): &(LinkName, PublicKey), end: &PeerEnd) -> Peer {
    Peer { device: device.clone(), key: *key, endpoint: end.endpoint, ranges: end.ranges.clone() }
}

fn device_of(target: &RouteTarget) -> Option<&LinkName> {
    match target {
        RouteTarget::Device(device) | RouteTarget::OnLink { device, .. } => Some(device),
        RouteTarget::Via(_) | RouteTarget::Blackhole => None,
    }
}
