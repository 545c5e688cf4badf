//! Steps to requests.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::LinkName;
use podnet_planner::step::{FdbEntry, Neighbour, Peer, ROUTE_PROTOCOL, Route, RouteTarget, Step};

use super::{Applied, Set, StepFailed, tunnel, vxlan};
use crate::{
    fdb,
    link::{self, LinkRef},
    neigh,
    netlink::{NetlinkError, Operation, Request, RtSocket},
    route::{self, Target},
    wireguard::WireguardSocket,
};

/// A list of steps on its way to the kernel.
pub(super) struct Batch<'a> {
    socket: &'a mut RtSocket,
    steps: &'a [Step],
    /// Index of each device by name, as it will be when the pending requests are done.
    devices: BTreeMap<LinkName, Option<u32>>,
    pending: Vec<(usize, Request)>,
    /// Opened when it is needed.
    wireguard: Option<WireguardSocket>,
    applied: Applied,
    /// Devices that could not be made, and the first failure.
    unmade: BTreeSet<LinkName>,
    failed: Option<StepFailed>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(socket: &'a mut RtSocket, steps: &'a [Step]) -> Self {
        Self {
            socket,
            steps,
            devices: BTreeMap::new(),
            pending: Vec::new(),
            wireguard: None,
            applied: Applied::default(),
            unmade: BTreeSet::new(),
            failed: None,
        }
    }

    /// A device that cannot be made keeps only what stands on it from being done.
    pub(super) fn run(mut self) -> Result<Applied, StepFailed> {
        let done = self.run_steps();
        match self.failed {
            Some(failed) => Err(failed),
            None => done.map(|()| self.applied),
        }
    }

    fn run_steps(&mut self) -> Result<(), StepFailed> {
        let steps = self.steps;
        self.resolve().map_err(|source| failed(steps, 0, source))?;
        for (index, step) in steps.iter().enumerate() {
            if device(step).is_some_and(|device| self.unmade.contains(device)) {
                continue;
            }
            self.enqueue(index, step).or_else(|source| {
                // The steps before it come first, and so does their failure.
                self.flush()?;
                Err(failed(steps, index, source))
            })?;
            match step {
                Step::SetVxlan(wanted) => {
                    self.flush()?;
                    let set = vxlan::set(self.socket, wanted);
                    self.know(index, &wanted.name, set);
                }
                Step::SetTunnel(wanted) => {
                    self.flush()?;
                    let set = tunnel::set(self.socket, wanted);
                    self.know(index, wanted.name(), set);
                }
                Step::SetPeer(peer) | Step::RemovePeer(peer) => {
                    self.flush()?;
                    self.change_peer(step, peer).map_err(|source| failed(steps, index, source))?;
                }
                _ => {}
            }
        }
        self.flush()
    }

    fn change_peer(&mut self, step: &Step, peer: &Peer) -> Result<(), NetlinkError> {
        let is_removal = matches!(step, Step::RemovePeer(_));
        if self.index(&peer.device).is_none() {
            let operation = || Operation::new("set WireGuard peer", peer.key);
            return if is_removal { Ok(()) } else { self.device(&peer.device, operation).map(|_| ()) };
        }
        let socket = match &mut self.wireguard {
            Some(socket) => socket,
            none => none.insert(WireguardSocket::open_in(self.socket.netns())?),
        };
        if is_removal { socket.remove_peer(peer) } else { socket.set_peer(peer) }
    }

    fn know(&mut self, index: usize, name: &LinkName, set: Result<Set, NetlinkError>) {
        match set {
            Ok(set) => {
                self.devices.insert(name.clone(), Some(set.index));
                self.applied.remade.extend(set.remade.then(|| name.clone()));
            }
            Err(source) => {
                self.unmade.insert(name.clone());
                self.failed.get_or_insert_with(|| failed(self.steps, index, source));
            }
        }
    }

    /// Asks for all devices that the steps name, at once.
    fn resolve(&mut self) -> Result<(), NetlinkError> {
        let mut names: Vec<&LinkName> = self.steps.iter().filter_map(device).collect();
        names.sort_unstable();
        names.dedup();
        let requests: Vec<Request> = names.iter().map(|name| link::request::find(LinkRef::from(*name))).collect();
        let replies = self.socket.exchange(&requests)?;
        for (name, messages) in names.into_iter().zip(replies) {
            let found = messages.into_iter().find_map(link::from_message).map(|link| link.index);
            self.devices.insert(name.clone(), found);
        }
        Ok(())
    }

    /// Setting something on a device that is not there fails; removing something from it is done already.
    fn enqueue(&mut self, index: usize, step: &Step) -> Result<(), NetlinkError> {
        let request = match step {
            Step::SetVxlan(_) | Step::SetTunnel(_) | Step::SetPeer(_) | Step::RemovePeer(_) => None,
            Step::RemoveLink(name) => {
                self.devices.insert(name.clone(), None);
                Some(link::request::delete(LinkRef::from(name)))
            }
            Step::SetRoute(route) => Some(route::set(&self.kernel_route(route)?)),
            // By its target too: another one of ours to the same destination, as a pod's that got a returned address, stays.
            Step::RemoveRoute(route) => match self.kernel_route(route) {
                Ok(route) => Some(route::removal_of(&route)),
                // It went with its device.
                Err(_) => None,
            },
            Step::SetNeighbour(Neighbour { device, addr, mac }) => {
                Some(neigh::set(self.device(device, || Operation::new("make neighbour", addr))?, *addr, *mac))
            }
            Step::RemoveNeighbour(Neighbour { device, addr, .. }) => {
                self.index(device).map(|link| neigh::removal(link, *addr))
            }
            Step::SetFdb(FdbEntry { device, mac, remote }) => {
                Some(fdb::set(self.device(device, || Operation::new("make FDB entry", mac))?, *mac, *remote))
            }
            Step::RemoveFdb(FdbEntry { device, mac, remote }) => {
                self.index(device).map(|link| fdb::removal(link, *mac, *remote))
            }
        };
        self.pending.extend(request.map(|request| (index, request)));
        Ok(())
    }

    fn kernel_route(&self, route: &Route) -> Result<route::Route, NetlinkError> {
        let operation = || Operation::new("make route", route.dst);
        let target = match &route.target {
            RouteTarget::Device(device) => Target::Device(self.device(device, operation)?),
            RouteTarget::OnLink { device, via, .. } => {
                Target::Gateway { device: Some(self.device(device, operation)?), via: *via, onlink: true }
            }
            RouteTarget::Via(via) => Target::Gateway { device: None, via: *via, onlink: false },
            RouteTarget::Blackhole => Target::Blackhole,
        };
        let source = match &route.target {
            RouteTarget::OnLink { source, .. } => *source,
            _ => None,
        };
        Ok(route::Route { dst: route.dst, target, protocol: ROUTE_PROTOCOL, source })
    }

    fn index(&self, device: &LinkName) -> Option<u32> {
        self.devices.get(device).copied().flatten()
    }

    fn device(&self, device: &LinkName, operation: impl FnOnce() -> Operation) -> Result<u32, NetlinkError> {
        self.index(device).ok_or_else(|| NetlinkError::NoDevice { operation: operation(), device: device.to_string() })
    }

    fn flush(&mut self) -> Result<(), StepFailed> {
        let (places, requests): (Vec<usize>, Vec<Request>) = self.pending.drain(..).unzip();
        self.socket.perform_all(&requests).map_err(|error| {
            let place = places.get(error.index).copied().unwrap_or_default();
            failed(self.steps, place, error.source)
        })
    }
}

fn failed(steps: &[Step], index: usize, source: NetlinkError) -> StepFailed {
    // A list without steps has no requests either; were there ever one, the name of no link is as good as any.
    let step = steps.get(index).cloned().unwrap_or(Step::RemoveLink("".into()));
    StepFailed { index, step: Box::new(step), source: Box::new(source) }
}

/// The device whose index a step needs.
fn device(step: &Step) -> Option<&LinkName> {
    match step {
        Step::SetRoute(route) | Step::RemoveRoute(route) => match &route.target {
            RouteTarget::Device(device) | RouteTarget::OnLink { device, .. } => Some(device),
            RouteTarget::Via(_) | RouteTarget::Blackhole => None,
        },
        Step::SetNeighbour(neighbour) | Step::RemoveNeighbour(neighbour) => Some(&neighbour.device),
        Step::SetFdb(entry) | Step::RemoveFdb(entry) => Some(&entry.device),
        Step::SetPeer(peer) | Step::RemovePeer(peer) => Some(&peer.device),
        Step::SetVxlan(_) | Step::SetTunnel(_) | Step::RemoveLink(_) => None,
    }
}
