//! The rules of one node of the table.

use podnet_model::{Change, NodeAddr};

use crate::{
    border::{Border, BorderConfig},
    ruleset::{Edit, RuleSet},
    services::{Plan, Services, ServicesConfig, nftables::Nftables},
};

/// A node's planners and their two tables.
#[derive(Debug)]
pub struct NodeRules {
    /// What is done for Services.
    pub services: Services,
    /// How it is rendered.
    pub nftables: Nftables,
    /// The other table.
    pub border: Border,
}

/// The edits of the table of Services and of the other one.
pub type Edits = (Vec<Edit>, Vec<Edit>);

impl NodeRules {
    /// Of a cluster of which nothing is known yet.
    #[must_use]
    pub fn new((services, border): (ServicesConfig, BorderConfig)) -> Self {
        let services = Services::new(services);
        Self { nftables: Nftables::new(&services), services, border: Border::new(border) }
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: &Change) -> (Plan, Edits) {
        let plan = self.services.apply(change);
        let edits = self.nftables.edits(&self.services, &plan);
        (plan, (edits, self.border.apply(change)))
    }

    /// The node has other addresses.
    pub fn set_node_addrs(&mut self, addrs: &[NodeAddr]) -> Edits {
        let plan = self.services.set_node_addrs(addrs.to_vec());
        (self.nftables.edits(&self.services, &plan), self.border.set_node_addrs(addrs.to_vec()))
    }

    /// The tables of Services and of the border.
    #[must_use]
    pub fn desired(&self) -> [RuleSet; 2] {
        [self.nftables.desired(&self.services), self.border.desired()]
    }
}
