//! Objects are taken over, and what a change may have touched is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{Block, BlockCidr, Felix, Loan, Namespace, NetConf, Node, NodeName, Pool, PoolName};

use super::{Overlay, Touched};

impl Overlay {
    pub(super) fn take_node(&mut self, name: &NodeName, node: Option<&Node>, touched: &mut Touched) {
        let is_gone = |node: &&Node| self.config.without_lost_nodes && node.lost && node.name != self.config.node;
        let node = node.filter(|node| !is_gone(node));
        // A node's object changes all the time, its place in the network seldom.
        if self.nodes.get(name).map(place) == node.map(place) {
            return;
        }
        // Whoever shares an address, a MAC or a key with it may win or lose it now: before the change and after it.
        if let Some(old) = self.nodes.remove(name) {
            self.touch_sharers(&old, touched);
            for addr in self.addrs_of(&old) {
                remove_from(&mut self.by_addr, &addr, name);
            }
            for mac in self.macs_of(&old) {
                remove_from(&mut self.by_mac, &mac, name);
            }
            self.of_ipv6_alone.remove(name);
            if let Some(key) = old.wireguard_key {
                remove_from(&mut self.by_key, &key, name);
            }
            for cidr in self.leases_of(&old) {
                remove_from(&mut self.leases, &cidr, name);
                self.index_owner(cidr, touched);
            }
        }
        if let Some(node) = node {
            for addr in self.addrs_of(node) {
                self.by_addr.entry(addr).or_default().insert(name.clone());
            }
            for mac in self.macs_of(node) {
                self.by_mac.entry(mac).or_default().insert(name.clone());
            }
            if *name != self.config.node && self.v4_of(node).is_none() && self.v6_of(node).is_some() {
                self.of_ipv6_alone.insert(name.clone());
            }
            if let Some(key) = node.wireguard_key {
                self.by_key.entry(key).or_default().insert(name.clone());
            }
            for cidr in self.leases_of(node) {
                self.leases.entry(cidr).or_default().insert(name.clone());
                self.index_owner(cidr, touched);
            }
            self.touch_sharers(node, touched);
            self.nodes.insert(name.clone(), node.clone());
        }
        touched.nodes.insert(name.clone());
        if *name == self.config.node {
            self.touch_all(touched);
        }
    }

    fn touch_sharers(&self, node: &Node, touched: &mut Touched) {
        let key = node.wireguard_key;
        touched.keys.extend(key);
        touched.nodes.extend(key.and_then(|key| self.by_key.get(&key)).into_iter().flatten().cloned());
        for mac in self.macs_of(node) {
            touched.macs.insert(mac);
            touched.nodes.extend(self.by_mac.get(&mac).into_iter().flatten().cloned());
        }
        for addr in self.addrs_of(node) {
            touched.addrs.insert(addr);
            touched.nodes.extend(self.by_addr.get(&addr).into_iter().flatten().cloned());
            touched.blocks.extend(self.blocks_around(addr));
        }
    }

    pub(super) fn touch_all(&self, touched: &mut Touched) {
        touched.nodes.extend(self.nodes.keys().cloned());
        touched.blocks.extend(self.block_cidrs());
        touched.keys.extend(self.by_key.keys());
    }

    pub(super) fn take_pool(&mut self, name: &PoolName, pool: Option<&Pool>, touched: &mut Touched) {
        let old = match pool {
            Some(pool) => self.pools.insert(name.clone(), pool.clone()),
            None => self.pools.remove(name),
        };
        for cidr in old.iter().chain(pool).map(|pool| pool.cidr) {
            let from = BlockCidr(cidr.trunc());
            let blocks = self.blocks.range(from..).map(|(block, _)| *block);
            let leases = self.leases.range(from..).map(|(block, _)| *block);
            let inside = |block: &BlockCidr| cidr.contains(&block.0.network());
            touched.blocks.extend(blocks.take_while(inside).chain(leases.take_while(inside)));
        }
    }

    /// A lent address is like a block of its own, of the node that borrowed it; being smaller, it wins over the block that it is of.
    pub(super) fn take_block(&mut self, cidr: BlockCidr, block: Option<&Block>, touched: &mut Touched) {
        let lent_before = self.take_one_block(cidr, block, touched).map(|old| old.loans).unwrap_or_default();
        let lent = block.map(|block| block.loans.as_slice()).unwrap_or_default();
        let host = |loan: &Loan| BlockCidr(IpNet::from(loan.addr));
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
        self.index_owner(cidr, touched);
        old
    }

    /// Puts the block into the index under its owner of now; whoever had it is touched.
    fn index_owner(&mut self, cidr: BlockCidr, touched: &mut Touched) {
        let old = self.owners.get(&cidr).cloned();
        let new = self.owner(cidr).cloned();
        if let Some(old) = &old {
            remove_from(&mut self.by_owner, old, &cidr);
            self.owners.remove(&cidr);
        }
        if let Some(new) = &new {
            self.by_owner.entry(new.clone()).or_default().insert(cidr);
            self.owners.insert(cidr, new.clone());
        }
        touched.keys.extend(old.and_then(|old| self.nodes.get(&old)?.wireguard_key));
        touched.blocks.insert(cidr);
    }

    /// Nodes are indexed by what flannel's configuration makes of them: they are taken out and in again.
    pub(super) fn take_net_conf(&mut self, namespace: &Namespace, conf: Option<NetConf>, touched: &mut Touched) {
        let nodes: Vec<Node> = self.nodes.values().cloned().collect();
        for node in &nodes {
            self.take_node(&node.name, None, touched);
        }
        match conf {
            Some(conf) => drop(self.net_confs.insert(namespace.clone(), conf)),
            None => drop(self.net_confs.remove(namespace)),
        }
        for node in &nodes {
            self.take_node(&node.name, Some(node), touched);
        }
        self.touch_all(touched);
    }

    pub(super) fn take_felix(&mut self, felix: Option<Felix>, touched: &mut Touched) {
        self.felix = felix.unwrap_or_default();
        self.touch_all(touched);
    }

    /// The owner of a block: as its object says, or the node whose `spec.podCIDR` it is; of several the first by name.
    pub(super) fn owner(&self, cidr: BlockCidr) -> Option<&NodeName> {
        match self.blocks.get(&cidr) {
            Some(block) => block.owner.as_ref(),
            None => self.leases.get(&cidr)?.first(),
        }
    }

    /// Every block.
    pub(super) fn block_cidrs(&self) -> impl Iterator<Item = BlockCidr> + '_ {
        self.blocks.keys().chain(self.leases.keys()).copied()
    }

    /// The parts of flannel's range that are a node's.
    fn leases_of(&self, node: &Node) -> Vec<BlockCidr> {
        let Some(conf) = self.net_conf() else { return Vec::new() };
        let inside = |cidr: &&IpNet| conf.ranges().any(|range| range.contains(*cidr));
        node.pod_cidrs.iter().filter(inside).map(|cidr| BlockCidr(*cidr)).collect()
    }

    /// The blocks that hold an address.
    fn blocks_around(&self, addr: IpAddr) -> impl Iterator<Item = BlockCidr> + '_ {
        let nets = (0..=IpNet::from(addr).prefix_len()).filter_map(move |length| IpNet::new(addr, length).ok());
        nets.map(|net| BlockCidr(net.trunc())).filter(|cidr| self.owner(*cidr).is_some())
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

/// What of a node the plan depends on.
fn place(node: &Node) -> impl PartialEq + '_ {
    let addrs = (node.addr, node.addr6, node.subnet, node.subnet6);
    (addrs, &node.pod_cidrs, node.wireguard_key, &node.lease, node.overwrites, &node.wrong)
}
