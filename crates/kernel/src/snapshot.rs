//! What a node's kernel has of what a plan can be compared with, as a value: whoever is on the machine takes it, and an agent sends it.

pub mod served;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    net::IpAddr,
};

use podnet_model::{Family, LinkName};
use podnet_planner::{
    attachments, border,
    limits::{Found, egress_device, rules as limits},
    overlay::{PeerEnd, State},
    ruleset::{RuleSet, Set},
    services::nftables,
    step::{FdbEntry, Neighbour, Peer, Route, Tunnel, Vxlan},
    trace::POD_END,
};
use serde::{Deserialize, Serialize};

use crate::{
    executor::{self, Observed},
    forwarding::FORWARDING6,
    link::{self, Link},
    neigh,
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    nft::{Fault, ForwardChain, Listed, NftError, NftSocket},
    sysctl::{self, SysctlError},
    tc,
};

use served::Served;
pub use told::{MOST_BYTES, MOST_PODS, Told, Unreadable, Unwritable};

/// Elements of sets that are told of one node at most: those of about 10,000 Services with ten endpoints each, which take some 50 MB as they are
/// sent.
pub const MOST_ELEMENTS: usize = 400_000;
/// Devices, routes and neighbours, together, that are told of one pod at most: who may change a pod's network may make any number of them.
pub const MOST_INSIDE: usize = if cfg!(test) { 64 } else { 1000 };
/// Whether the namespace forwards IPv4.
pub const FORWARDING4: &str = "net/ipv4/ip_forward";
/// The settings that are told.
const SETTINGS: [&str; 2] = [FORWARDING4, FORWARDING6];
/// The tables that are told, those with few elements first: they find room in any case.
const TABLES: [&str; 4] = [border::TABLE, attachments::TABLE, limits::TABLE, nftables::TABLE];

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// All devices.
    pub devices: Vec<Device>,
    /// VXLAN devices that are up, of the names that were asked for.
    pub vxlans: Vec<Vxlan>,
    /// podnet's other tunnels that are up, but for WireGuard's: they have the node's private key.
    pub tunnels: Vec<Tunnel>,
    /// podnet's routes.
    pub routes: Vec<Route>,
    /// All permanent neighbours, whoever made them: those on VXLAN devices, and those by which the node reaches its pods; of a pod those at its
    /// end of the link.
    pub neighbours: Vec<Neighbour>,
    /// Permanent FDB entries of the VXLAN devices.
    pub fdb: Vec<FdbEntry>,
    /// WireGuard's peers.
    pub peers: Vec<Peer>,
    /// Settings of the namespace by their paths below `/proc/sys`, as far as the kernel has them.
    pub settings: BTreeMap<String, String>,
    /// None on a kernel without nf_tables.
    pub rules: Option<Rules>,
    /// How the traffic of pods' links is shaped, of those where it is; none where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shaped: Option<Vec<(LinkName, Found)>>,
    /// What serves Services beside; [`Snapshot::take`] does not look for it.
    pub served: Served,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name.
    pub name: LinkName,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// It was set up by its administrator (`IFF_UP`).
    pub is_up: bool,
}

/// What is in nf_tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// podnet's tables, by family and name as `nft` writes them.
    tables: BTreeMap<String, Listed>,
    /// Other people's chains that drop what is forwarded and what none of their rules accepts.
    pub walls: Vec<ForwardChain>,
}

/// Why it is not known what there is.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Devices, routes, neighbours.
    #[error("cannot look at devices and routes")]
    Netlink(#[from] NetlinkError),
    /// Rules.
    #[error("cannot look at the rules")]
    Rules(#[from] NftError),
    /// Settings.
    #[error("cannot look at the settings")]
    Settings(#[from] SysctlError),
    /// There is too much inside of a pod.
    #[error("{0} devices, routes and neighbours are in it, of which {MOST_INSIDE} are told at most")]
    Crowded(usize),
}

impl Snapshot {
    /// Looks at a node's namespace; `vxlans` are the VXLAN devices' names, and so many elements of sets are taken at most.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn take(netns: &NetNs, vxlans: &[&LinkName], elements: usize) -> Result<Self, SnapshotError> {
        let mut socket = RtSocket::open_in(netns)?;
        let links = link::list(&mut socket)?;
        let mut observed = executor::observe(&mut socket, vxlans)?;
        observed.neighbours.extend(neighbours(&mut socket, &links)?);
        let devices: Vec<Device> = links.into_iter().map(Device::from).collect();
        let shaped = shaped(&mut socket, &devices);
        let settings = settings(netns)?;
        let rules = Rules::read(&mut NftSocket::open_in(netns)?, elements)?;
        Ok(Self { devices, settings, rules, shaped, ..Self::of(observed) })
    }

    /// Looks into a pod's own namespace: at its devices, podnet's routes there, and the permanent neighbours at its end of the link. None of podnet's
    /// tables is there, and nothing else is looked at.
    ///
    /// # Errors
    /// What the kernel refused; [`SnapshotError::Crowded`] where there is more than [`MOST_INSIDE`].
    pub fn inside(netns: &NetNs) -> Result<Self, SnapshotError> {
        let mut socket = RtSocket::open_in(netns)?;
        let devices: Vec<Device> = link::list(&mut socket)?.into_iter().map(Device::from).collect();
        let Observed { routes, neighbours, .. } = executor::observe(&mut socket, &[&LinkName::from(POD_END)])?;
        let count = devices.len() + routes.len() + neighbours.len();
        if count > MOST_INSIDE {
            return Err(SnapshotError::Crowded(count));
        }
        let (routes, neighbours) = (routes.into_iter().collect(), neighbours.into_iter().collect());
        Ok(Self { devices, routes, neighbours, ..Self::default() })
    }

    fn of(observed: Observed) -> Self {
        let is_told = |tunnel: &Tunnel| !matches!(tunnel, Tunnel::Wireguard(_));
        let peer = |((device, key), PeerEnd { endpoint, ranges })| Peer { device, key, endpoint, ranges };
        Self {
            vxlans: observed.vxlans.into_values().collect(),
            tunnels: observed.tunnels.into_values().filter(is_told).collect(),
            routes: observed.routes.into_iter().collect(),
            neighbours: observed.neighbours.into_iter().collect(),
            fdb: observed.fdb.into_iter().collect(),
            peers: observed.peers.into_iter().map(peer).collect(),
            ..Self::default()
        }
    }

    /// As the planner compares it with its plan.
    #[must_use]
    pub fn observed(&self) -> State {
        let vxlans = self.vxlans.iter().cloned().map(|vxlan| (vxlan.name.clone(), vxlan));
        let tunnels = self.tunnels.iter().cloned().map(|tunnel| (tunnel.name().clone(), tunnel));
        let peers = self.peers.iter().cloned().map(|Peer { device, key, endpoint, ranges }| {
            let end = PeerEnd { endpoint, ranges };
            ((device, key), end)
        });
        State {
            vxlans: vxlans.collect(),
            tunnels: tunnels.collect(),
            routes: self.routes.iter().cloned().map(|route| (route.dst, route.target)).collect(),
            neighbours: self.neighbours.iter().map(|it| ((it.device.clone(), it.addr), it.mac)).collect(),
            fdb: self.fdb.iter().map(|it| ((it.device.clone(), it.mac), it.remote)).collect(),
            peers: peers.collect(),
        }
    }
}

impl From<Link> for Device {
    fn from(Link { name, mtu, is_up, .. }: Link) -> Self {
        Self { name, mtu, is_up }
    }
}

/// On all of these devices. Nobody but who administers the node makes any, and what is told has a bound in bytes ([`MOST_BYTES`]).
fn neighbours(socket: &mut RtSocket, links: &[Link]) -> Result<Vec<Neighbour>, NetlinkError> {
    let names: BTreeMap<u32, &LinkName> = links.iter().map(|link| (link.index, &link.name)).collect();
    let all = neigh::list_all(socket)?.into_iter();
    let named =
        all.filter_map(|(index, addr, mac)| Some(Neighbour { device: (*names.get(&index)?).clone(), addr, mac }));
    Ok(named.collect())
}

/// Of pods' links. Kernels without `CONFIG_NET_SCHED` tell nothing.
fn shaped(socket: &mut RtSocket, devices: &[Device]) -> Option<Vec<(LinkName, Found)>> {
    let names = devices.iter().map(|device| &device.name);
    let hosts: Vec<LinkName> = names.filter(|name| egress_device(name).is_some()).cloned().collect();
    let found = tc::observe(socket, &hosts).ok()?.links.into_iter();
    Some(found.filter(|(_, found)| *found != Found::default()).collect())
}

fn settings(netns: &NetNs) -> Result<BTreeMap<String, String>, SysctlError> {
    let mut found = BTreeMap::new();
    for key in SETTINGS {
        match sysctl::read(netns, key) {
            Ok(value) => drop(found.insert(key.to_owned(), value)),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Rules {
    fn read(socket: &mut NftSocket, mut elements: usize) -> Result<Option<Self>, NftError> {
        if !socket.is_there()? {
            return Ok(None);
        }
        let mut tables = BTreeMap::new();
        for (family, table) in Family::ALL.into_iter().flat_map(|family| TABLES.map(|table| (family, table))) {
            if let Some(listed) = socket.listed(family, table, &mut elements)? {
                tables.insert(Called(family, table).to_string(), listed);
            }
        }
        let mut walls = socket.forward_chains(&TABLES)?;
        walls.retain(|chain| chain.drops);
        Ok(Some(Self { tables, walls }))
    }

    /// As a kernel tells of these tables that were just made, by their names, where nobody else has any: for whoever compares without a kernel.
    #[must_use]
    pub fn of<'a>(tables: impl IntoIterator<Item = (&'a str, &'a RuleSet)>) -> Self {
        let listed = |(table, rules): (&str, &RuleSet)| (Called(rules.family, table).to_string(), Listed::of(rules));
        Self { tables: tables.into_iter().map(listed).collect(), walls: Vec::new() }
    }

    /// What of a table in which all of a node's pods are is not as these rules want it, of those at these addresses (see
    /// [`Listed::differences_of`]).
    #[must_use]
    pub fn differences_of(&self, table: &str, rules: &RuleSet, addrs: &BTreeSet<IpAddr>) -> Vec<Fault> {
        match self.tables.get(&Called(rules.family, table).to_string()) {
            Some(listed) => listed.differences_of(table, rules, addrs),
            // Who has nothing to say needs no table.
            None if rules.sets.values().all(Set::is_empty) => Vec::new(),
            None => vec![Fault::missing(format!("there is no table {table} that does anything"))],
        }
    }

    /// What of a table is not as these rules want it, in words (see [`Listed::differences`]).
    #[must_use]
    pub fn differences(&self, table: &str, rules: &RuleSet) -> Vec<String> {
        match self.tables.get(&Called(rules.family, table).to_string()) {
            Some(listed) => listed.differences(table, rules),
            None => vec![format!("there is no table {table} that does anything")],
        }
    }

    /// What of a table is not told, in words, as there is too much of it.
    #[must_use]
    pub fn unlisted(&self, table: &str, rules: &RuleSet) -> Vec<String> {
        let listed = self.tables.get(&Called(rules.family, table).to_string());
        let all = listed.into_iter().flat_map(|listed| listed.unlisted(rules));
        let untold = listed.filter(|listed| !listed.tells_rules());
        let untold = untold.map(|_| format!("table {table} has more rules than are told"));
        all.map(|(name, count)| format!("{name} of table {table} has {count} elements, which are too many to be told"))
            .chain(untold)
            .collect()
    }
}

/// A table, as `nft` names it.
struct Called<'a>(Family, &'a str);

impl Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.0 {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        write!(f, "{family} {}", self.1)
    }
}

#[cfg(test)]
mod tests;
