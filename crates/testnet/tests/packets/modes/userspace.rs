//! Mode `userspace`: a program takes connections and passes them on.

use std::{any::Any, collections::BTreeSet};

use podnet_agent::proxy::userspace::program::Program;
use podnet_kernel::{netns::NetNs, nft::NftSocket, sysctl};
use podnet_model::{Family, proxy};
use podnet_planner::{
    border,
    services::{
        packet_table::{NodeRules, Row},
        userspace::{Place, Userspace},
    },
};

use super::Mode;
use crate::listeners::{Port, Sight};

/// The program, and beside it the table of the cluster's border.
pub(crate) struct UserspaceMode;

impl Mode for UserspaceMode {
    fn name(&self) -> &'static str {
        "userspace"
    }

    fn traced_as(&self) -> proxy::Mode {
        proxy::Mode::Userspace
    }

    fn put(&self, node: &NetNs, rules: &[NodeRules]) -> Box<dyn Any> {
        // The ports from which the program connects to backends are none that the harness sends from.
        sysctl::set(node, "net.ipv4.ip_local_port_range", "61000 65535").unwrap();
        let mut border = NftSocket::open_in(node).unwrap();
        let mut programs = Vec::new();
        for rules in rules {
            border.replace(border::TABLE, &rules.border.desired()).unwrap();
            let config = rules.services.config();
            let mut program = Program::start(node, config.family).unwrap();
            let work = Userspace::new(&rules.services).whole(&rules.services);
            program.be(work, config.primary()).unwrap();
            assert!(program.refused().is_empty(), "{:?}", program.refused());
            assert_eq!(program.damage().unwrap(), None);
            programs.push(program);
        }
        Box::new(InForce { border, _programs: programs })
    }

    fn listens_at(&self, rules: &[NodeRules]) -> BTreeSet<Port> {
        let of = |rules: &NodeRules| {
            let work = Userspace::new(&rules.services).whole(&rules.services);
            let at_node =
                work.fronts.into_iter().filter(|(_, front)| front.as_ref().is_some_and(|f| f.place == Place::Node));
            at_node.map(|(key, _)| (key.protocol, key.port)).collect::<Vec<_>>()
        };
        rules.iter().flat_map(of).collect()
    }

    /// All that is passed on.
    fn masquerades(&self, row: &Row, sight: &Sight) -> bool {
        (sight.at.ip(), sight.at.port()) != (row.packet.dst, row.packet.dport)
    }
}

/// What is in force on a node.
struct InForce {
    border: NftSocket,
    _programs: Vec<Program>,
}

impl Drop for InForce {
    fn drop(&mut self) {
        for family in Family::ALL {
            self.border.delete_table(family, border::TABLE).unwrap();
        }
    }
}
