//! The modes that the table is held against.

mod ebpf;
mod iptables;
mod ipvs;
pub(crate) mod nftables;
mod userspace;

use std::{any::Any, collections::BTreeSet};

use podnet_kernel::{localhost::Localhost, netlink::RtSocket, netns::NetNs, nft::NftSocket};
use podnet_model::{Family, proxy};
use podnet_planner::{
    ruleset::walk::Direction,
    services::packet_table::{NodeRules, Row},
};

use crate::listeners::{Port, Sight};
pub(crate) use ebpf::Ebpf;
pub(crate) use iptables::IptablesMode;
pub(crate) use ipvs::IpvsMode;
pub(crate) use nftables::Nftables;
pub(crate) use userspace::UserspaceMode;

/// A way to do what [`NodeRules`] want.
pub(crate) trait Mode: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What a trace calls it.
    fn traced_as(&self) -> proxy::Mode;

    /// Puts in force on a node what its rules, those of each family, want. It is in force until the answer is dropped.
    fn put(&self, node: &NetNs, rules: &[NodeRules]) -> Box<dyn Any>;

    /// Called on the thread that will send such packets, in its namespace, before it makes a socket: what works at sockets has its
    /// clients in a group of their own, and only those on the node under test.
    fn enter(&self, _direction: Direction) {}

    /// Whether whoever is dropped on the node under test is told at once that there is no way, instead of having to wait.
    fn tells_what_it_drops(&self) -> bool {
        false
    }

    /// Whether NodePorts are at the node's loopback addresses.
    fn serves_loopback(&self) -> bool {
        true
    }

    /// Whether connections come to backends in turn and not by chance: rows that run beside each other may share the turns so that each meets
    /// the same one time after time.
    fn takes_turns(&self) -> bool {
        false
    }

    /// Whether a client of a Service's port stays with its backend whichever of the port's frontends it comes to, and not at each for itself.
    fn shares_affinity(&self) -> bool {
        true
    }

    /// What the mode itself listens at on the node under test: nobody else can there.
    fn listens_at(&self, _rules: &[NodeRules]) -> BTreeSet<Port> {
        BTreeSet::new()
    }

    /// Whether what comes to a backend has the node's address in this mode whatever the table says.
    fn masquerades(&self, _row: &Row, _sight: &Sight) -> bool {
        false
    }

    /// Whether an answer finds its way in this mode without that the packet is masqueraded, although the table says so.
    fn spares_masquerading(&self, _row: &Row, _sight: &Sight) -> bool {
        false
    }
}

/// Has a node take answers to what rules lead from its loopback addresses to elsewhere.
fn open_loopback(node: &NetNs) {
    let (mut host, mut rules) = (RtSocket::open_in(node).unwrap(), NftSocket::open_in(node).unwrap());
    let mut localhost = Localhost::default();
    for family in Family::ALL {
        localhost.open(family, &mut host, &mut rules).unwrap();
    }
}

/// No mode at all.
pub(crate) struct Nothing;

impl Mode for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn traced_as(&self) -> proxy::Mode {
        proxy::Mode::Nftables
    }

    fn put(&self, _node: &NetNs, _rules: &[NodeRules]) -> Box<dyn Any> {
        Box::new(())
    }
}
