//! From rules to virtual servers and back, on the virtual machine's kernel.

use podnet_kernel::{
    iptables::{Iptables, Variant},
    ipvs::{self, Ipvs, Settings},
    nft::NftSocket,
    sysctl,
};
use podnet_model::{Family, Protocol};
use podnet_planner::{
    ipvs::{Scheduler, ServerKey, State, difference},
    ruleset::FrontendKey,
    services::{
        ipvs::{Ipvs as Renderer, names},
        nftables::TABLE,
        packet_table::NodeRules,
    },
};
use podnet_testnet::vm;

use super::{
    all_is_well,
    cluster::{self, Cluster, SERVICES, TALK_PORT, TALKING, cluster_ip},
    history::History,
    load::{Load, Network},
};
use crate::modes::nftables;

/// How many connections are made in each mode.
const CONNECTIONS: usize = 400;

#[test]
fn a_change_of_the_mode_to_virtual_servers_and_back_loses_no_connection() {
    let modules = [
        "veth",
        "dummy",
        "nft_chain_nat",
        "nft_ct",
        "nft_fib_ipv4",
        "nft_masq",
        "nft_nat",
        "nft_numgen",
        "nft_reject_ipv4",
        "iptable_nat",
        "iptable_filter",
        "iptable_mangle",
        "xt_conntrack",
        "xt_MASQUERADE",
        "xt_mark",
        "xt_comment",
        "xt_addrtype",
        "xt_tcpudp",
        "xt_set",
        "ipt_REJECT",
        "ip_vs_rr",
        "ip_set_hash_ip",
        "ip_set_hash_net",
        "ip_set_hash_ipport",
        "ip_set_hash_ipportip",
        "ip_set_hash_ipportnet",
        "ip_set_bitmap_port",
    ];
    let programs = ["iptables-legacy-restore", "iptables-legacy-save"];
    vm::run_tests_with("switched_", &modules, &programs);
}

/// Virtual servers in force on the node.
struct Servers {
    ipvs: Ipvs,
    iptables: Iptables,
}

impl Servers {
    fn put(network: &Network, rules: &NodeRules) -> Self {
        let node = &network.node.netns;
        ipvs::configure(node, &Settings::default()).unwrap();
        let mut ipvs = Ipvs::open(node, Family::V4).unwrap();
        let renderer = Renderer::new(&rules.services, Scheduler::RoundRobin);
        let there = ipvs.read(&names(Family::V4)).unwrap();
        ipvs.apply(&difference(renderer.state(), &there)).unwrap();
        let mut iptables = Iptables::new(node.clone(), Family::V4, Variant::Legacy).unwrap();
        iptables.put(&renderer.rules(&rules.services)).unwrap();
        Self { ipvs, iptables }
    }

    fn remove(mut self) {
        let there = self.ipvs.read(&names(Family::V4)).unwrap();
        self.ipvs.apply(&difference(&State::default(), &there)).unwrap();
        self.ipvs.remove_device().unwrap();
    }
}

/// A node with all Services planned.
struct Planned {
    network: Network,
    socket: NftSocket,
    rules: NodeRules,
    cluster: Cluster,
}

impl Planned {
    fn new(tag: &str) -> Self {
        // So small a machine tracks few thousands of connections.
        sysctl::set_here("net.netfilter.nf_conntrack_max", "200000").unwrap();
        let network = Network::new(tag);
        let socket = NftSocket::open_in(&network.node.netns).unwrap();
        let mut rules = NodeRules::new(cluster::config());
        let cluster = Cluster::new(SERVICES);
        cluster.all().iter().for_each(|change| drop(rules.apply(change)));
        Self { network, socket, rules, cluster }
    }

    fn put_rules(&mut self) {
        nftables::replace(&mut self.socket, &self.rules);
    }

    fn all_is_well(&self, load: Load) {
        load.wait_for(CONNECTIONS);
        all_is_well(&load.stop(), &History::new(&self.cluster));
    }
}

/// Connections that were translated by rules go on being so.
#[test]
#[ignore = "runs in the virtual machine"]
fn switched_from_rules_to_virtual_servers() {
    let mut node = Planned::new("rules");
    node.put_rules();
    let load = Load::start(&node.network, None, SERVICES);
    load.wait_for(CONNECTIONS);
    let _servers = Servers::put(&node.network, &node.rules);
    node.socket.delete_table(Family::V4, TABLE).unwrap();
    node.all_is_well(load);
}

/// Connections to virtual servers need them, and the device with their addresses, until they end; the rules beside them they do not. Rules
/// that are there again come first for new connections.
#[test]
#[ignore = "runs in the virtual machine"]
fn switched_from_virtual_servers_to_rules_and_back() {
    let mut node = Planned::new("servers");
    let mut servers = Servers::put(&node.network, &node.rules);
    let load = Load::start(&node.network, None, SERVICES);
    load.wait_for(CONNECTIONS);
    node.put_rules();
    servers.iptables.remove_ipvs().unwrap();
    load.wait_for(CONNECTIONS);
    let counted = servers.ipvs.connections(&talking()).unwrap().into_values().sum::<u64>();
    assert_eq!(counted, u64::from(TALKING), "those that last are still the virtual servers'");
    let mut servers = Servers::put(&node.network, &node.rules);
    node.socket.delete_table(Family::V4, TABLE).unwrap();
    load.wait_for(CONNECTIONS);
    node.put_rules();
    servers.iptables.remove_ipvs().unwrap();
    node.all_is_well(load);
    servers.remove();
}

/// The virtual servers of connections that last.
fn talking() -> Vec<ServerKey> {
    let key = |service| FrontendKey { addr: cluster_ip(service).into(), protocol: Protocol::Tcp, port: TALK_PORT };
    (0..TALKING).map(key).map(ServerKey::Address).collect()
}
