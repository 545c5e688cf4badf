//! One mode after the other, each in force before the one before it goes.

use std::sync::Arc;

use podnet_agent::proxy::userspace::program::Program;
use podnet_kernel::{
    iptables::{Iptables, Variant},
    nft::NftSocket,
    sockets::{self, Sizes, Sockets},
};
use podnet_model::Family;
use podnet_planner::services::{
    ebpf::{Ebpf, Tables},
    iptables::Iptables as Chains,
    nftables::TABLE,
    packet_table::NodeRules,
    userspace::Userspace,
};

use super::{
    all_is_well,
    cluster::{self, Cluster, SERVICES},
    history::History,
    load::{Load, Network},
};
use crate::{group::Group, modes::nftables};

/// How many connections are made in each mode.
const CONNECTIONS: usize = 400;

#[test]
fn a_change_of_the_mode_loses_no_connection() {
    let network = Network::new("modes");
    let group = Arc::new(Group::new());
    let mut socket = NftSocket::open_in(&network.node.netns).unwrap();
    let mut rules = NodeRules::new(cluster::config());
    let cluster = Cluster::new(SERVICES);
    cluster.all().iter().for_each(|change| drop(rules.apply(change)));
    nftables::replace(&mut socket, &rules);

    let load = Load::start(&network, Some(&group), SERVICES);
    for variant in [Variant::Legacy, Variant::Nft] {
        load.wait_for(CONNECTIONS);
        let mut iptables = Iptables::new(network.node.netns.clone(), Family::V4, variant).unwrap();
        iptables.put(&Chains::new(&rules.services).desired(&rules.services)).unwrap();
        socket.delete_table(Family::V4, TABLE).unwrap();
        load.wait_for(CONNECTIONS);

        // Mode `ebpf` has the rules of nftables beside the programs.
        nftables::replace(&mut socket, &rules);
        let programs = network.node.netns.run(|| Sockets::open(group.inside(), Sizes::LEAST)).unwrap().unwrap();
        let tables = Ebpf::default().desired(rules.services.frontends(), &Tables::default());
        programs.apply(&tables.edits_from(&Tables::default())).unwrap();
        programs.attach().unwrap();
        iptables.remove().unwrap();
        load.wait_for(CONNECTIONS);

        sockets::detach(group.inside(), false).unwrap();
    }
    load.wait_for(CONNECTIONS);
    let mut program = Program::start(&network.node.netns, Family::V4).unwrap();
    program.be(Userspace::new(&rules.services).whole(&rules.services), None).unwrap();
    socket.delete_table(Family::V4, TABLE).unwrap();
    load.wait_for(CONNECTIONS);
    nftables::replace(&mut socket, &rules);
    program.leave();
    load.wait_for(CONNECTIONS);
    all_is_well(&load.stop(), &History::new(&cluster));
}
