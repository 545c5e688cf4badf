//! Which addresses somebody lives at, whatever slices say of them.
//!
//! An endpoint leaves its Service when its pod is gone, and also when the pod's labels or the Service's selector change, and then it lives on.
//! Of this node's pods the watch tells; of others the account that their nodes publish of who holds which address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use podnet_model::{Block, Change, Family, NodeName};

use super::{Known, Services};
use crate::ruleset::Set;

/// What is known of whoever has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It is there, or nobody of the cluster could say that it is not.
    Lives,
    /// It is gone.
    Over,
    /// It is a pod's address, and nobody keeps account of it.
    Unknown,
}

/// The accounts of addresses, and the nodes that keep them.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// By their first address; blocks do not overlap.
    blocks: BTreeMap<IpAddr, Block>,
    /// Those that are heard of.
    nodes: BTreeSet<NodeName>,
    /// Those that are not.
    lost: HashMap<NodeName, Vec<IpAddr>>,
}

impl Lives {
    pub(super) fn learn(&mut self, change: &Change, family: Family) {
        match change {
            Change::Block(cidr, block) if cidr.family() == family => match block {
                Some(block) => drop(self.blocks.insert(cidr.0.network(), block.clone())),
                None => drop(self.blocks.remove(&cidr.0.network())),
            },
            Change::Node(name, node) => {
                self.nodes.remove(name);
                self.lost.remove(name);
                match node {
                    Some(node) if node.lost => drop(self.lost.insert(name.clone(), node.own_addrs().collect())),
                    Some(_) => drop(self.nodes.insert(name.clone())),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// What its block says of an address: nothing where it is of none.
    fn account(&self, addr: IpAddr, own: &NodeName) -> Option<Life> {
        let (_, block) = self.blocks.range(..=addr).next_back()?;
        let offset = block.cidr.offset_of(addr)?;
        let lent = block.loans.iter().find(|loan| loan.addr == addr).map(|loan| &loan.node);
        // This node's pods are known without an account. That of a node that is not heard of is nothing to count on.
        let keeper = lent.or(block.owner.as_ref()).filter(|node| *node != own && self.nodes.contains(*node));
        Some(if keeper.is_some() && block.held.has(offset) { Life::Lives } else { Life::Over })
    }
}

impl Services {
    pub(super) fn life(&self, addr: IpAddr) -> Life {
        if self.local_pods.has(&addr) {
            return Life::Lives;
        }
        if let Some(life) = self.lives.account(addr, &self.config.node) {
            return life;
        }
        let is_pods =
            matches!(&self.ranges.sets().pods, Set::Ranges(pods) if pods.iter().any(|range| range.contains(&addr)));
        match is_pods {
            true if self.services.values().any(|known: &Known| known.names_address(addr)) => Life::Lives,
            true => Life::Unknown,
            // A node's own address is told of by its kernel, which refuses what nobody listens to, as long as there is a node.
            false if self.lives.lost.values().flatten().any(|lost| *lost == addr) => Life::Over,
            false => Life::Lives,
        }
    }
}

#[cfg(test)]
mod tests;
