//! The way to the other nodes' pods: devices, routes, neighbours and FDB entries of one node.
//!
//! Routes follow blocks. A block of this node is a blackhole, so that an address that no pod has is dropped here and not sent
//! around; a pod's own route is longer and wins. So is a block whose node is gone, until somebody else owns it. For a block of another node, its pool says the way:
//!
//! | `vxlanMode`, `ipipMode`  | the peer is on our subnet | it is not                |
//! |--------------------------|---------------------------|--------------------------|
//! | both `Never`             | through the peer          | no route (see below)     |
//! | one of them `CrossSubnet`| through the peer          | VXLAN, IPIP              |
//! | one of them `Always`     | VXLAN, IPIP               | VXLAN, IPIP              |
//!
//! Linux refuses a gateway that is not on a link of its own, so that "through a peer on another subnet" cannot be written down:
//! there the routing table of the underlay decides, and a [`Problem`] says so. A node that does not publish its subnet counts
//! every peer as on another subnet for `CrossSubnet`, and as on its own for `Never`.
//!
//! VXLAN needs no address of its own: the next hop inside is the peer's address on the underlay (`onlink`), a neighbour entry
//! gives it the peer's [VTEP MAC](vtep_mac), and an FDB entry sends that MAC to the same address outside. An IPIP device without a
//! remote end sends to the next hop by itself.
//!
//! Blocks of IPv6 take the same ways. Plain routes need IPv6 addresses of both nodes, and those are what says who is on our subnet.
//! Encapsulated packets go by IPv4 as those of IPv4 blocks do, so that pods have IPv6 on an underlay without it; to a peer that has not
//! got IPv4, or where this node has not, both families go by IPv6. A VXLAN device is of one family outside: there are two where both are
//! needed. The next hop inside is a [link-local address made of the peer's MAC](vtep_next_hop) where a family meets another one.
//! IPIP and the UDP tunnel carry IPv4 by IPv4 only.
//!
//! An address that another node borrowed has a route of its own to that node.
//!
//! With WireGuard on (FelixConfiguration), packets to every node that has published a key go through it, whatever the pool says; to a
//! node without one they go as the pool says, and a [`Problem`] says that they are not encrypted. The device has the key that this
//! node's own object shows, so that peers and device change keys by the same event. Encrypted packets go to addresses on the
//! underlay; a block that holds such an address gets no route at all, so that no tunnel's packets can enter a tunnel.
//!
//! `net-conf.json` is a pool like the others, or one for each family: its range, its backend for it, and nodes' `spec.podCIDR`s in it for
//! blocks. flannel's nodes have a VXLAN device for each family, and send what is of IPv6 by IPv6.
//!
//! What is planned depends on the objects alone, never on the order in which they came. Each change replans its own keys.

mod config;
mod damage;
mod devices;
mod flannel;
mod problem;
mod rules;
mod state;
mod take;
mod vtep;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{
    Block, BlockCidr, Change, Family, Felix, LinkName, Mac, Namespace, NetConf, Node, NodeName, Pool, PoolName,
    wireguard::{KeyPair, PublicKey},
};

use crate::step::{RouteTarget, Step};

pub use config::{
    IPIP_OVERHEAD, IPV6_EXTRA, IPV6_LEAST_MTU, OverlayConfig, Place, Support, UDP_OVERHEAD, VXLAN_OVERHEAD, VXLAN_PORT,
    WIREGUARD_MARK, WIREGUARD_OVERHEAD,
};
pub use devices::Carrier;
pub use flannel::FlannelWords;
pub use problem::Problem;
pub use state::{PeerEnd, State, diff};
pub use vtep::{vtep_mac, vtep_next_hop};

/// The overlay of one node.
#[derive(Clone, Debug)]
pub struct Overlay {
    config: OverlayConfig,
    nodes: BTreeMap<NodeName, Node>,
    pools: BTreeMap<PoolName, Pool>,
    blocks: BTreeMap<BlockCidr, Block>,
    /// Each block's owner, of those that have one, and the reverse.
    owners: BTreeMap<BlockCidr, NodeName>,
    by_owner: BTreeMap<NodeName, BTreeSet<BlockCidr>>,
    by_addr: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    by_mac: BTreeMap<Mac, BTreeSet<NodeName>>,
    /// Other nodes that have an address of IPv6 and none of IPv4.
    of_ipv6_alone: BTreeSet<NodeName>,
    by_key: BTreeMap<PublicKey, BTreeSet<NodeName>>,
    /// What nodes' `spec.podCIDRs` are, within the range of [`Self::net_conf`].
    leases: BTreeMap<BlockCidr, BTreeSet<NodeName>>,
    net_confs: BTreeMap<Namespace, NetConf>,
    felix: Felix,
    /// This node's keys.
    keys: Vec<KeyPair>,
    /// Next hops inside VXLAN are made of MACs, also where the outer packets are of IPv4.
    vtep_next_hops: bool,
    /// Packets have room enough for IPv6.
    has_room: bool,
    planned: State,
    problems: BTreeMap<BlockCidr, Problem>,
}

/// The keys that a change may have touched.
#[derive(Default)]
struct Touched {
    blocks: BTreeSet<BlockCidr>,
    nodes: BTreeSet<NodeName>,
    addrs: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
    keys: BTreeSet<PublicKey>,
}

impl Overlay {
    /// An overlay that knows of no object yet and plans nothing.
    #[must_use]
    pub fn new(config: OverlayConfig) -> Self {
        Self {
            config,
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            blocks: BTreeMap::new(),
            owners: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            by_addr: BTreeMap::new(),
            by_mac: BTreeMap::new(),
            of_ipv6_alone: BTreeSet::new(),
            by_key: BTreeMap::new(),
            leases: BTreeMap::new(),
            net_confs: BTreeMap::new(),
            felix: Felix::default(),
            keys: Vec::new(),
            vtep_next_hops: false,
            has_room: true,
            planned: State::default(),
            problems: BTreeMap::new(),
        }
    }

    /// What it was made with.
    #[must_use]
    pub const fn config(&self) -> &OverlayConfig {
        &self.config
    }

    /// Takes a change over and answers with the steps from the old plan to the new one. Changes of other kinds of objects have none.
    pub fn apply(&mut self, change: &Change) -> Vec<Step> {
        let mut touched = Touched::default();
        match change {
            Change::Block(cidr, Some(block)) if self.blocks.get(cidr) == Some(block) => return Vec::new(),
            Change::Node(name, node) => self.take_node(name, node.as_ref(), &mut touched),
            Change::Pool(name, pool) => self.take_pool(name, pool.as_ref(), &mut touched),
            Change::Block(cidr, block) => self.take_block(*cidr, block.as_ref(), &mut touched),
            Change::NetConf(namespace, conf) => self.take_net_conf(namespace, *conf, &mut touched),
            Change::Felix(felix) => self.take_felix(*felix, &mut touched),
            _ => return Vec::new(),
        }
        self.replan(touched)
    }

    /// Takes this node's WireGuard keys over; the one that the node's own object shows is used. Answers with the steps to the new plan.
    pub fn set_keys(&mut self, keys: Vec<KeyPair>) -> Vec<Step> {
        self.keys = keys;
        // Where the device changes, all that stands on it is planned anew.
        self.replan(Touched::default())
    }

    /// Whether this node shall publish a WireGuard key: encryption is on, and the kernel can do it.
    #[must_use]
    pub fn wants_wireguard(&self) -> bool {
        self.config.support.wireguard && self.encrypts()
    }

    /// This node's object.
    #[must_use]
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&self.config.node)
    }

    /// flannel's configuration; of several the first by namespace.
    #[must_use]
    pub fn net_conf(&self) -> Option<&NetConf> {
        self.net_confs.values().next()
    }

    /// The node's place on the underlay changed.
    pub fn set_underlay(&mut self, place: Place) -> Vec<Step> {
        let mut touched = Touched::default();
        let ends = |place: &Place| (place.addr, place.addr6, place.subnet, place.subnet6);
        if ends(&place) != ends(&self.config.underlay) {
            self.touch_all(&mut touched);
        }
        self.config.underlay = place;
        self.replan(touched)
    }

    /// All that should be there.
    #[must_use]
    pub const fn desired(&self) -> &State {
        &self.planned
    }

    /// The steps from what was found on the node to what should be there.
    ///
    /// `observed` may hold more than the overlay's: routes straight to a device (pods') and entries of other devices are left
    /// alone.
    #[must_use]
    pub fn repair(&self, observed: &State) -> Vec<Step> {
        diff(&self.planned, &self.ours(observed))
    }

    /// What of the things found is the overlay's to decide about.
    fn ours(&self, observed: &State) -> State {
        let is_one = |name: &LinkName| self.config.vxlan_names().contains(&name);
        let mut ours = observed.clone();
        ours.vxlans.retain(|name, _| is_one(name));
        ours.routes.retain(|_, target| !matches!(target, RouteTarget::Device(_)));
        ours.neighbours.retain(|(at, _), _| is_one(at));
        ours.fdb.retain(|(at, _), _| is_one(at));
        ours.peers.retain(|(at, _), _| *at == self.config.wireguard_device);
        ours
    }

    /// The ranges of the pools: where pods are.
    pub fn pod_ranges(&self) -> impl Iterator<Item = IpNet> + '_ {
        let flannels = self.net_confs.values().flat_map(NetConf::ranges);
        self.pools.values().map(|pool| pool.cidr).chain(flannels)
    }

    /// Whether pods have IPv6 addresses, so that the node has to forward IPv6.
    #[must_use]
    pub fn carries_ipv6(&self) -> bool {
        self.config.support.ipv6 && self.has_ranges_of_ipv6()
    }

    fn has_ranges_of_ipv6(&self) -> bool {
        self.pod_ranges().any(|range| matches!(range, IpNet::V6(_)))
    }

    /// What cannot be planned and why, each object once, in a fixed order.
    pub fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let nodes = self.nodes.values().filter(|node| node.name != self.config.node);
        let peers = nodes.filter_map(|node| {
            let wrong = node.wrong.clone().map(|wrong| Problem::WrongAnnotation { node: node.name.clone(), wrong });
            self.peer_problem(node).or(wrong).or_else(|| self.flannel_problem(node)).or_else(|| self.unencrypted(node))
        });
        self.own_problems().chain(peers).chain(self.problems.values().cloned())
    }

    /// Plans the touched keys anew and answers with the difference.
    fn replan(&mut self, mut touched: Touched) -> Vec<Step> {
        let (vxlans, tunnels) = (self.vxlans(), self.tunnels());
        let has_room = self.room_for_ipv6() >= IPV6_LEAST_MTU;
        let room_changes = mem::replace(&mut self.has_room, has_room) != has_room;
        let next_hops = self.wants_vtep_next_hops();
        let next_hops_change = mem::replace(&mut self.vtep_next_hops, next_hops) != next_hops;
        if vxlans != self.planned.vxlans || tunnels != self.planned.tunnels || next_hops_change || room_changes {
            touched.nodes.extend(self.nodes.keys().cloned());
            touched.blocks.extend(self.block_cidrs());
            touched.keys.extend(self.by_key.keys());
            touched.addrs.extend(self.planned.neighbours.keys().map(|(_, addr)| *addr));
            touched.macs.extend(self.planned.fdb.keys().map(|(_, mac)| *mac));
        }
        for name in &touched.nodes {
            touched.blocks.extend(self.by_owner.get(name).into_iter().flatten());
            let Some(node) = self.nodes.get(name) else { continue };
            touched.addrs.extend(self.addrs_of(node));
            touched.macs.extend(self.macs_of(node));
            touched.keys.extend(node.wireguard_key);
        }
        touched.addrs.extend(touched.macs.iter().map(|mac| IpAddr::from(vtep_next_hop(*mac))));
        // What goes to a peer is a part of the peer.
        let owners = touched.blocks.iter().filter_map(|cidr| self.owner(*cidr));
        touched.keys.extend(owners.filter_map(|owner| self.nodes.get(owner)?.wireguard_key));
        let (vxlans_before, tunnels_before) =
            (mem::take(&mut self.planned.vxlans), mem::take(&mut self.planned.tunnels));
        let mut before = State { vxlans: vxlans_before, tunnels: tunnels_before, ..State::default() };
        let mut after = State { vxlans, tunnels, ..State::default() };
        for outside in Family::ALL {
            let device = &self.config.vxlan_devices[outside];
            let is_there = after.vxlans.contains_key(device);
            for addr in &touched.addrs {
                let key = (device.clone(), *addr);
                move_entry(&mut self.planned.neighbours, &mut before.neighbours, &key);
                let mac = is_there.then(|| self.neighbour(outside, *addr)).flatten();
                after.neighbours.extend(mac.map(|mac| (key, mac)));
            }
            for mac in &touched.macs {
                let key = (device.clone(), *mac);
                move_entry(&mut self.planned.fdb, &mut before.fdb, &key);
                let remote = is_there.then(|| self.remote(outside, *mac)).flatten();
                after.fdb.extend(remote.map(|remote| (key, remote)));
            }
        }
        for cidr in touched.blocks {
            move_entry(&mut self.planned.routes, &mut before.routes, &cidr.0);
            self.problems.remove(&cidr);
            match self.owner(cidr).map(|owner| self.target(cidr, owner)) {
                Some(Ok(target)) => after.routes.extend(target.map(|target| (cidr.0, target))),
                Some(Err(problem)) => {
                    // Otherwise the packets would go out by the default route, and perhaps come back.
                    let no_loop = problem.is_owner_gone(&self.config.node).then_some((cidr.0, RouteTarget::Blackhole));
                    after.routes.extend(no_loop);
                    self.problems.insert(cidr, problem);
                }
                None => {}
            }
        }
        let device = &self.config.wireguard_device;
        for key in touched.keys {
            let end = after.tunnels.get(device).and_then(|_| self.peer(key));
            let key = (device.clone(), key);
            move_entry(&mut self.planned.peers, &mut before.peers, &key);
            after.peers.extend(end.map(|end| (key, end)));
        }
        let steps = diff(&after, &before);
        self.planned.vxlans = after.vxlans;
        self.planned.tunnels = after.tunnels;
        self.planned.neighbours.extend(after.neighbours);
        self.planned.fdb.extend(after.fdb);
        self.planned.routes.extend(after.routes);
        self.planned.peers.extend(after.peers);
        steps
    }
}

fn move_entry<K: Ord + Clone, V>(from: &mut BTreeMap<K, V>, to: &mut BTreeMap<K, V>, key: &K) {
    if let Some(value) = from.remove(key) {
        to.insert(key.clone(), value);
    }
}

#[cfg(test)]
mod tests;
