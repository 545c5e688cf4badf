//! Mode `iptables`, in both of its variants.

use std::any::Any;

use podnet_kernel::{
    iptables::{Iptables, Variant},
    netns::NetNs,
    nft::NftSocket,
};
use podnet_model::{Family, proxy};
use podnet_planner::{
    border,
    iptables::Rewrite,
    services::{iptables::Iptables as Chains, packet_table::NodeRules},
};

use super::{Mode, open_loopback};

/// The rules of a variant.
pub(crate) struct IptablesMode {
    /// Which one.
    pub(crate) variant: Variant,
}

/// What is in force on a node.
struct InForce {
    node: NetNs,
    tables: Vec<Iptables>,
}

impl Mode for IptablesMode {
    fn name(&self) -> &'static str {
        match self.variant {
            Variant::Legacy => "iptables-legacy",
            Variant::Nft => "iptables-nft",
        }
    }

    fn traced_as(&self) -> proxy::Mode {
        proxy::Mode::Iptables
    }

    fn put(&self, node: &NetNs, rules: &[NodeRules]) -> Box<dyn Any> {
        open_loopback(node);
        let mut border = NftSocket::open_in(node).unwrap();
        let mut tables = Vec::new();
        for rules in rules {
            border.replace(border::TABLE, &rules.border.desired()).unwrap();
            let family = rules.services.config().family;
            let mut iptables = Iptables::new(node.clone(), family, self.variant).unwrap();
            let chains = Chains::new(&rules.services).desired(&rules.services);
            iptables.put(&chains).unwrap();
            assert_eq!(iptables.put(&chains).unwrap(), Rewrite::default());
            tables.push(iptables);
        }
        Box::new(InForce { node: node.clone(), tables })
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        let mut border = NftSocket::open_in(&self.node).unwrap();
        for family in Family::ALL {
            border.delete_table(family, border::TABLE).unwrap();
        }
        for iptables in &mut self.tables {
            iptables.remove().unwrap();
        }
    }
}
