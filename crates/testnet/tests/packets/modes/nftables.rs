//! Mode `nftables`.

use std::any::Any;

use podnet_kernel::{netns::NetNs, nft::NftSocket};
use podnet_model::Family;
use podnet_planner::{ruleset::RuleSet, services::Services};

use super::Mode;

const TABLE: &str = "podnet";

/// The rules of Services, as [`Services::desired`] tells them.
#[derive(Default)]
pub(crate) struct Nftables {
    /// What a test does to the rules before they are put in force.
    pub(crate) damage: Option<fn(&mut RuleSet)>,
}

/// The tables of a node.
struct InForce {
    socket: NftSocket,
}

impl Mode for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn put(&self, node: &NetNs, services: &[Services]) -> Box<dyn Any> {
        let mut rules: Vec<_> = services.iter().map(Services::desired).collect();
        if let Some(damage) = self.damage {
            rules.iter_mut().for_each(damage);
        }
        Box::new(InForce::new(node, &rules))
    }
}

impl InForce {
    fn new(node: &NetNs, rules: &[RuleSet]) -> Self {
        let mut socket = NftSocket::open_in(node).unwrap();
        for rules in rules {
            socket.replace(TABLE, rules).unwrap();
        }
        Self { socket }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        for family in Family::ALL {
            self.socket.delete_table(family, TABLE).unwrap();
        }
    }
}
