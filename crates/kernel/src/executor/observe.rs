//! What of ours is there: a restarted agent plans from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{LinkName, wireguard::PublicKey};
use podnet_planner::overlay::PeerEnd;
use podnet_planner::{
    overlay::State,
    step::{DEVICE_PREFIX, FdbEntry, Neighbour, ROUTE_PROTOCOL, Route, RouteTarget, Tunnel, Vxlan},
};

use super::{tunnel, vxlan::is_planned};
use crate::{
    addr, fdb,
    link::{self, Link},
    neigh,
    netlink::{NetlinkError, RtSocket},
    route::{self, Target},
};

/// What a node's namespace holds that is podnet's, as the planner says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// VXLAN devices of the names that were asked for.
    pub vxlans: BTreeMap<LinkName, Vxlan>,
    /// Tunnels whose names begin with [`DEVICE_PREFIX`], by name.
    pub tunnels: BTreeMap<LinkName, Tunnel>,
    /// Routes of protocol [`ROUTE_PROTOCOL`]: those to other nodes and those to this node's pods.
    pub routes: BTreeSet<Route>,
    /// Permanent neighbours on the VXLAN devices.
    pub neighbours: BTreeSet<Neighbour>,
    /// Permanent FDB entries of the VXLAN devices.
    pub fdb: BTreeSet<FdbEntry>,
    /// Peers of WireGuard devices among the tunnels, by device and key.
    pub peers: BTreeMap<(LinkName, PublicKey), PeerEnd>,
}

/// As the planner compares it with its plan.
impl From<Observed> for State {
    fn from(observed: Observed) -> Self {
        Self {
            vxlans: observed.vxlans,
            tunnels: observed.tunnels,
            peers: observed.peers,
            routes: observed.routes.into_iter().map(|route| (route.dst, route.target)).collect(),
            neighbours: observed.neighbours.into_iter().map(|entry| ((entry.device, entry.addr), entry.mac)).collect(),
            fdb: observed.fdb.into_iter().map(|entry| ((entry.device, entry.mac), entry.remote)).collect(),
        }
    }
}

/// Looks at the socket's namespace; `vxlans` are the VXLAN devices' names.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn observe(socket: &mut RtSocket, vxlans: &[&LinkName]) -> Result<Observed, NetlinkError> {
    let links = link::list(socket)?;
    let names: BTreeMap<u32, &LinkName> = links.iter().map(|link| (link.index, &link.name)).collect();
    let routes = route::list(socket, ROUTE_PROTOCOL)?;
    let routes = routes.iter().filter_map(|route| planned(route, &names)).collect();
    let mut observed = Observed { routes, ..Observed::default() };
    for link in links.iter().filter(|link| link.name.as_str().starts_with(DEVICE_PREFIX)) {
        let Some((tunnel, peers)) = tunnel::observed(socket, link)? else { continue };
        observed.tunnels.insert(link.name.clone(), tunnel);
        observed.peers.extend(peers.into_iter().map(|(key, end)| ((link.name.clone(), key), end)));
    }
    for link in links.iter().filter(|link| vxlans.contains(&&link.name)) {
        observe_vxlan(socket, link, &mut observed)?;
    }
    Ok(observed)
}

fn observe_vxlan(socket: &mut RtSocket, link: &Link, observed: &mut Observed) -> Result<(), NetlinkError> {
    let device = || link.name.clone();
    observed.vxlans.extend(vxlan(socket, link)?.map(|vxlan| (device(), vxlan)));
    let neighbours = neigh::list(socket, link.index)?;
    observed.neighbours.extend(neighbours.into_iter().map(|(addr, mac)| Neighbour { device: device(), addr, mac }));
    let entries = fdb::list(socket, link.index)?;
    observed.fdb.extend(entries.into_iter().map(|(mac, remote)| FdbEntry { device: device(), mac, remote }));
    Ok(())
}

/// A device that the planner cannot name (another kind, no local address, learning) counts as none: it will be made anew.
fn vxlan(socket: &mut RtSocket, link: &Link) -> Result<Option<Vxlan>, NetlinkError> {
    let Some(parameters) = link.vxlan.filter(|parameters| !parameters.learning) else { return Ok(None) };
    let (Some(local), Some(mac)) = (parameters.local, link.mac) else { return Ok(None) };
    let addrs = addr::list(socket, link.index)?.into_iter().map(|addr| addr.addr()).filter(|addr| is_planned(*addr));
    let addrs: BTreeSet<IpAddr> = addrs.collect();
    let (vni, port) = (parameters.vni, parameters.port);
    Ok(link.is_up.then(|| Vxlan { name: link.name.clone(), vni, port, local, mac, mtu: link.mtu, addrs }))
}

fn planned(route: &route::Route, names: &BTreeMap<u32, &LinkName>) -> Option<Route> {
    let name = |index: u32| names.get(&index).map(|name| (*name).clone());
    let target = match route.target {
        Target::Device(index) => RouteTarget::Device(name(index)?),
        Target::Gateway { device: Some(index), via, onlink: true } => {
            RouteTarget::OnLink { device: name(index)?, via, source: route.source }
        }
        Target::Gateway { via, .. } => RouteTarget::Via(via),
        Target::Blackhole => RouteTarget::Blackhole,
    };
    Some(Route { dst: route.dst, target })
}
