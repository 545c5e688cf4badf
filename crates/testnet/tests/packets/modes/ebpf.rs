//! Mode `ebpf`: what pods and the node send is sent to a backend at the socket, what comes from outside is translated by nftables.

use std::any::Any;

use podnet_kernel::{
    cgroup::Cgroup,
    netns::NetNs,
    sockets::{self, Sizes, Sockets},
};
use podnet_model::proxy;
use podnet_planner::{
    ruleset::{RuleSet, walk::Direction},
    services::{
        ebpf::{Ebpf as Renderer, Tables},
        packet_table::{NodeRules, Row},
    },
};

use super::{Mode, Nftables};
use crate::{group::Group, listeners::Sight};

pub(crate) struct Ebpf {
    group: Group,
    /// The rules beside the programs.
    rules: Nftables,
}

impl Ebpf {
    pub(crate) fn new() -> Self {
        Self { group: Group::new(), rules: Nftables::default() }
    }

    /// Without rules that translate: what comes to a backend does so by the programs. Not for what these leave to the rules
    /// (`planner::services::ebpf`).
    pub(crate) fn alone() -> Self {
        let no_translation = |rules: &mut RuleSet| {
            for hook in ["prerouting", "output"] {
                // There are none in the other table.
                let _ = rules.chains.get_mut(hook).map(|chain| chain.rules.clear());
            }
        };
        Self { rules: Nftables { damage: Some(no_translation) }, ..Self::new() }
    }
}

impl Mode for Ebpf {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn traced_as(&self) -> proxy::Mode {
        proxy::Mode::Ebpf
    }

    fn put(&self, node: &NetNs, rules: &[NodeRules]) -> Box<dyn Any> {
        let programs = node.run(|| Sockets::open(self.group.inside(), Sizes::LEAST)).unwrap().unwrap();
        let servings = rules.iter().flat_map(|rules| rules.services.frontends());
        let tables = Renderer::default().desired(servings, &Tables::default());
        programs.apply(&tables.edits_from(&Tables::default())).unwrap();
        programs.attach().unwrap();
        Box::new(InForce {
            cgroup: self.group.inside().clone(),
            _programs: programs,
            _rules: self.rules.put(node, rules),
        })
    }

    fn enter(&self, direction: Direction) {
        if direction != Direction::FromOutside {
            self.group.enter();
        }
    }

    fn tells_what_it_drops(&self) -> bool {
        true
    }

    /// A pod that is sent to itself is so before anything leaves it.
    fn spares_masquerading(&self, _row: &Row, sight: &Sight) -> bool {
        sight.at.ip() == sight.source.ip()
    }
}

/// The programs and the rules of a node.
struct InForce {
    cgroup: Cgroup,
    _programs: Sockets,
    _rules: Box<dyn Any>,
}

impl Drop for InForce {
    /// Another node's programs must not find what these knew.
    fn drop(&mut self) {
        sockets::detach(&self.cgroup, true).unwrap();
    }
}
