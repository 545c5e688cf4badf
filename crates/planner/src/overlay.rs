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
//! An address that another node borrowed has a route of its own to that node.
//!
//! What is planned depends on the objects alone, never on the order in which they came. Each change replans its own keys.

mod damage;
mod problem;
mod rules;
mod state;
mod vtep;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{Block, BlockCidr, Change, LinkName, Loan, Mac, Node, NodeName, Pool, PoolName};

use crate::step::{RouteTarget, Step};

pub use problem::Problem;
pub use state::{State, diff};
pub use vtep::vtep_mac;

/// Bytes that VXLAN adds to a packet inside IPv4: 20 IP, 8 UDP, 8 VXLAN, 14 inner Ethernet (RFC 7348 section 5).
pub const VXLAN_OVERHEAD: u32 = 50;

/// Bytes that IPIP adds: another IPv4 header (RFC 2003).
pub const IPIP_OVERHEAD: u32 = 20;

/// What a node's overlay is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// This node.
    pub node: NodeName,
    /// The device with the node's address on the underlay.
    pub underlay_device: LinkName,
    /// That device's MTU in bytes.
    pub underlay_mtu: u32,
    /// The name of the VXLAN device.
    pub vxlan_device: LinkName,
    /// The name of the IPIP device.
    pub ipip_device: LinkName,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// A node whose lease has expired counts as gone: its routes leave before its Node object does.
    pub without_lost_nodes: bool,
    /// Which tunnels the kernel can make.
    pub support: Support,
}

/// Kinds of tunnels that this node's kernel can make; VXLAN it always can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// IPIP: its module is there.
    pub ipip: bool,
}

impl Support {
    /// All of them.
    pub const ALL: Self = Self { ipip: true };
}

impl OverlayConfig {
    /// The defaults: devices `podnet.vxlan` and `podnet.ipip`, VNI 4096 (as Calico has it, above the range of VLANs) and port 4789
    /// (RFC 7348); the kernel can make every kind of tunnel.
    #[must_use]
    pub fn new(node: NodeName, underlay_device: LinkName, underlay_mtu: u32) -> Self {
        Self {
            node,
            underlay_device,
            underlay_mtu,
            vxlan_device: "podnet.vxlan".into(),
            ipip_device: "podnet.ipip".into(),
            vni: 4096,
            port: 4789,
            without_lost_nodes: false,
            support: Support::ALL,
        }
    }
}

/// The overlay of one node.
#[derive(Clone, Debug)]
pub struct Overlay {
    config: OverlayConfig,
    nodes: BTreeMap<NodeName, Node>,
    pools: BTreeMap<PoolName, Pool>,
    blocks: BTreeMap<BlockCidr, Block>,
    by_owner: BTreeMap<NodeName, BTreeSet<BlockCidr>>,
    by_addr: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    by_mac: BTreeMap<Mac, BTreeSet<NodeName>>,
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
            by_owner: BTreeMap::new(),
            by_addr: BTreeMap::new(),
            by_mac: BTreeMap::new(),
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
            _ => return Vec::new(),
        }
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
        let device = &self.config.vxlan_device;
        let mut ours = observed.clone();
        ours.vxlan = ours.vxlan.filter(|vxlan| vxlan.name == *device);
        ours.routes.retain(|_, target| !matches!(target, RouteTarget::Device(_)));
        ours.neighbours.retain(|(at, _), _| at == device);
        ours.fdb.retain(|(at, _), _| at == device);
        ours
    }

    /// The ranges of the pools: where pods are.
    pub fn pod_ranges(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.pools.values().map(|pool| pool.cidr)
    }

    /// What cannot be planned and why, each object once, in a fixed order.
    pub fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let nodes = self.nodes.values().filter(|node| node.name != self.config.node);
        nodes.filter_map(|node| self.peer_problem(node)).chain(self.problems.values().cloned())
    }

    fn take_node(&mut self, name: &NodeName, node: Option<&Node>, touched: &mut Touched) {
        let is_gone = |node: &&Node| self.config.without_lost_nodes && node.lost && node.name != self.config.node;
        let node = node.filter(|node| !is_gone(node));
        // A node's object changes all the time, its place in the network seldom.
        let place = |node: &Node| (node.addr, node.subnet);
        if self.nodes.get(name).map(place) == node.map(place) {
            return;
        }
        let mac = vtep_mac(name);
        let old = self.nodes.get(name).map(|old| old.addr.0);
        // Whoever shares an address or a MAC with it may win or lose it now: before the change and after it.
        self.touch_sharers(old, mac, touched);
        if let Some(addr) = old {
            remove_from(&mut self.by_addr, &addr, name);
            remove_from(&mut self.by_mac, &mac, name);
        }
        match node {
            Some(node) => {
                self.by_addr.entry(node.addr.0).or_default().insert(name.clone());
                self.by_mac.entry(mac).or_default().insert(name.clone());
                self.nodes.insert(name.clone(), node.clone());
            }
            None => drop(self.nodes.remove(name)),
        }
        self.touch_sharers(node.map(|node| node.addr.0), mac, touched);
        touched.nodes.insert(name.clone());
        if *name == self.config.node {
            touched.nodes.extend(self.nodes.keys().cloned());
            touched.blocks.extend(self.blocks.keys());
        }
    }

    fn touch_sharers(&self, addr: Option<IpAddr>, mac: Mac, touched: &mut Touched) {
        touched.addrs.extend(addr);
        touched.macs.insert(mac);
        let by_addr = addr.and_then(|addr| self.by_addr.get(&addr));
        touched.nodes.extend(by_addr.into_iter().chain(self.by_mac.get(&mac)).flatten().cloned());
    }

    fn take_pool(&mut self, name: &PoolName, pool: Option<&Pool>, touched: &mut Touched) {
        let old = match pool {
            Some(pool) => self.pools.insert(name.clone(), pool.clone()),
            None => self.pools.remove(name),
        };
        for cidr in old.iter().chain(pool).map(|pool| pool.cidr) {
            let from = BlockCidr(cidr.trunc());
            touched.blocks.extend(
                self.blocks
                    .range(from..)
                    .map(|(block, _)| *block)
                    .take_while(|block| cidr.contains(&block.0.network())),
            );
        }
    }

    /// A lent address is like a block of its own, of the node that borrowed it; being smaller, it wins over the block that it is of.
    fn take_block(&mut self, cidr: BlockCidr, block: Option<&Block>, touched: &mut Touched) {
        let lent_before = self.take_one_block(cidr, block, touched).map(|old| old.loans).unwrap_or_default();
        let lent = block.map(|block| block.loans.as_slice()).unwrap_or_default();
        let host = |loan: &Loan| BlockCidr(IpNet::from(IpAddr::V4(loan.addr)));
        for gone in lent_before.iter().filter(|before| !lent.iter().any(|loan| loan.addr == before.addr)) {
            self.take_one_block(host(gone), None, touched);
        }
        for loan in lent.iter().filter(|loan| host(loan) != cidr) {
            let of_borrower = Block::new(host(loan), Some(loan.node.clone()));
            self.take_one_block(of_borrower.cidr, Some(&of_borrower), touched);
        }
    }

    fn take_one_block(&mut self, cidr: BlockCidr, block: Option<&Block>, touched: &mut Touched) -> Option<Block> {
        let old = match block {
            Some(block) => self.blocks.insert(cidr, block.clone()),
            None => self.blocks.remove(&cidr),
        };
        if let Some(owner) = old.as_ref().and_then(|old| old.owner.as_ref()) {
            remove_from(&mut self.by_owner, owner, &cidr);
        }
        if let Some(owner) = block.and_then(|block| block.owner.clone()) {
            self.by_owner.entry(owner).or_default().insert(cidr);
        }
        touched.blocks.insert(cidr);
        old
    }

    /// Plans the touched keys anew and answers with the difference.
    fn replan(&mut self, mut touched: Touched) -> Vec<Step> {
        let (vxlan, tunnels) = (self.vxlan(), self.tunnels());
        if vxlan != self.planned.vxlan || tunnels != self.planned.tunnels {
            touched.nodes.extend(self.nodes.keys().cloned());
            touched.blocks.extend(self.blocks.keys());
            touched.addrs.extend(self.planned.neighbours.keys().map(|(_, addr)| *addr));
            touched.macs.extend(self.planned.fdb.keys().map(|(_, mac)| *mac));
        }
        for name in &touched.nodes {
            touched.blocks.extend(self.by_owner.get(name).into_iter().flatten());
            touched.addrs.extend(self.nodes.get(name).map(|node| node.addr.0));
            touched.macs.insert(vtep_mac(name));
        }
        let (vxlan_before, tunnels_before) = (self.planned.vxlan.take(), mem::take(&mut self.planned.tunnels));
        let mut before = State { vxlan: vxlan_before, tunnels: tunnels_before, ..State::default() };
        let mut after = State { vxlan, tunnels, ..State::default() };
        let device = &self.config.vxlan_device;
        for addr in touched.addrs {
            let key = (device.clone(), addr);
            move_entry(&mut self.planned.neighbours, &mut before.neighbours, &key);
            let mac = after.vxlan.as_ref().and_then(|_| self.neighbour(addr));
            after.neighbours.extend(mac.map(|mac| (key, mac)));
        }
        for mac in touched.macs {
            let key = (device.clone(), mac);
            move_entry(&mut self.planned.fdb, &mut before.fdb, &key);
            let remote = after.vxlan.as_ref().and_then(|_| self.remote(mac));
            after.fdb.extend(remote.map(|remote| (key, remote)));
        }
        for cidr in touched.blocks {
            move_entry(&mut self.planned.routes, &mut before.routes, &cidr.0);
            self.problems.remove(&cidr);
            match self.blocks.get(&cidr).map(|block| self.target(block)) {
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
        let steps = diff(&after, &before);
        self.planned.vxlan = after.vxlan;
        self.planned.tunnels = after.tunnels;
        self.planned.neighbours.extend(after.neighbours);
        self.planned.fdb.extend(after.fdb);
        self.planned.routes.extend(after.routes);
        steps
    }
}

/// Takes one member out of an index, and its set when that was the last.
fn remove_from<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(members) = index.get_mut(key) {
        members.remove(member);
        if members.is_empty() {
            index.remove(key);
        }
    }
}

fn move_entry<K: Ord + Clone, V>(from: &mut BTreeMap<K, V>, to: &mut BTreeMap<K, V>, key: &K) {
    if let Some(value) = from.remove(key) {
        to.insert(key.clone(), value);
    }
}

#[cfg(test)]
mod tests;
