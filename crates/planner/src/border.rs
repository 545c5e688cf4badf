//! What pods may send out of the cluster, and as whom: the table beside that of Services, which stays whatever proxies Services.
//!
//! - input and forward: what a pod sends to a port of the nodes' tunnels is dropped (`border/tunnels.rs`);
//! - postrouting: pods' connections out of the cluster (pools with `natOutgoing`) get an address of this node as their source.
//!
//! A value is of one family of addresses, and makes the table of that family: what is of the other one is nothing to it.

mod chains;
mod ranges;
mod tunnels;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{Change, Family, NetConf, Node, NodeAddr, NodeName};

use chains::Names;
pub(crate) use ranges::{Ranges, outermost};
pub(crate) use tunnels::Tunnels;

use crate::{
    counted::Counted,
    ruleset::{Edit, RuleSet},
};

/// The table's name, in either family.
pub const TABLE: &str = "podnet";

/// What no change of the cluster tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BorderConfig {
    /// The family of the addresses that are planned for.
    pub family: Family,
    /// The node's own addresses.
    pub node_addrs: Vec<NodeAddr>,
    /// Where pods' addresses come from, beside the pools.
    pub pod_cidrs: Vec<IpNet>,
    /// Destinations outside the pools to which pods keep their own address, in spite of `natOutgoing`: what the node's configuration
    /// names, and where ClusterIPs come from.
    pub no_nat_cidrs: Vec<IpNet>,
}

/// The rules at the cluster's border, on one node.
#[derive(Debug)]
pub struct Border {
    config: BorderConfig,
    names: Names,
    nodes: HashMap<NodeName, BTreeSet<IpAddr>>,
    node_addrs: Counted,
    ranges: Ranges,
    tunnels: Tunnels,
}

impl Border {
    /// Of a cluster of which nothing is known yet.
    #[must_use]
    pub fn new(config: BorderConfig) -> Self {
        let ranges = Ranges::new(config.family, &config.pod_cidrs, config.no_nat_cidrs.iter().copied());
        let mut node_addrs = Counted::default();
        node_addrs.replace(&BTreeSet::new(), &of_family(config.family, &config.node_addrs));
        Self { config, names: Names::default(), nodes: HashMap::new(), node_addrs, ranges, tunnels: Tunnels::default() }
    }

    /// Whether there is anything to do: a pod's range. Where there is not, no table need be.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Takes a change in and tells what it does. Changes of different objects may come in any order, and again.
    pub fn apply(&mut self, change: &Change) -> Vec<Edit> {
        let mut edits = match change {
            Change::Node(name, node) => self.apply_node(name, node.as_ref()),
            Change::Pool(name, pool) => self.ranges.set_pool(name, pool.as_ref()).edits(&self.names),
            Change::NetConf(namespace, conf) => {
                let pool = conf.and_then(|conf| conf.pool(namespace, self.config.family));
                let name = NetConf::pool_name(namespace, self.config.family);
                self.ranges.set_pool(&name, pool.as_ref()).edits(&self.names)
            }
            _ => Vec::new(),
        };
        edits.extend(self.tunnels.take(&self.names, change));
        edits
    }

    /// The node's own addresses changed.
    pub fn set_node_addrs(&mut self, addrs: Vec<NodeAddr>) -> Vec<Edit> {
        let of = |addrs: &[NodeAddr]| of_family(self.config.family, addrs);
        let moved = self.node_addrs.replace(&of(&self.config.node_addrs), &of(&addrs));
        self.config.node_addrs = addrs;
        moved.edit_addresses(&self.names.nodes)
    }

    fn apply_node(&mut self, name: &NodeName, node: Option<&Node>) -> Vec<Edit> {
        let addrs = node.into_iter().flat_map(Node::own_addrs);
        let addrs: BTreeSet<IpAddr> = addrs.filter(|addr| Family::of(addr) == self.config.family).collect();
        let before = match addrs.is_empty() {
            true => self.nodes.remove(name),
            false => self.nodes.insert(name.clone(), addrs.clone()),
        };
        self.node_addrs.replace(&before.unwrap_or_default(), &addrs).edit_addresses(&self.names.nodes)
    }

    /// The rules as they have to be, from nothing: what a restart compares with what it finds.
    #[must_use]
    pub fn desired(&self) -> RuleSet {
        let mut rules = chains::constant(&self.names, self.config.family);
        let ranges = self.ranges.sets();
        let tunnels = self.tunnels.sets();
        rules.sets.extend([
            (self.names.nodes.clone(), self.node_addrs.addresses()),
            (self.names.pods.clone(), ranges.pods.clone()),
            (self.names.tunnels.clone(), tunnels.all),
            (self.names.open_tunnels.clone(), tunnels.open),
            (self.names.nat_sources.clone(), ranges.nat_sources.clone()),
            (self.names.no_nat_destinations.clone(), ranges.no_nat_destinations.clone()),
        ]);
        rules
    }
}

pub(crate) fn of_family(family: Family, addrs: &[NodeAddr]) -> BTreeSet<IpAddr> {
    addrs.iter().map(|addr| addr.0).filter(|addr| Family::of(addr) == family).collect()
}
