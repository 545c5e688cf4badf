//! What there is of each mode in the end, beside what an agent makes that begins where nothing is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podnet_kernel::{
    iptables::{Iptables, Variant},
    ipvs::Ipvs,
    sockets::{self, Seen},
};
use podnet_model::{Family, Protocol, proxy::Mode};
use podnet_planner::{
    ipvs::{Scheduler, difference},
    ruleset::{BackendAddress, FrontendKey},
    services::{
        ebpf::{Entry, Serves, Slot, Tables, Target},
        ipvs::{Ipvs as Renderer, names},
        packet_table::NodeRules,
    },
};
use podnet_testnet::{eventually, vm};

use super::{Changed, PATIENCE, churn, place::Place, running::Agent};
use crate::{
    churn::{
        FEW, SLOW, Size,
        cluster::{self, Cluster},
        size,
    },
    modes::nftables,
};

/// Rules of nftables.
pub(in crate::churn) fn churn_in_tables(size: Size) {
    let Changed { place, agent, cluster } = churn(Place::new("agent", Mode::Nftables), size);
    let (fresh, other) = begun("fresh", Mode::Nftables, &cluster);
    have_the_same_rules(&place, &fresh, &cluster);
    agent.end();
    other.end();
}

/// Programs at the sockets of clients, and rules of nftables beside them.
pub(in crate::churn) fn churn_at_sockets(size: Size) {
    let Changed { place, agent, cluster } = churn(Place::new("sockets", Mode::Ebpf), size);
    let (fresh, other) = begun("unserved", Mode::Ebpf, &cluster);
    let [there, made] = [&place, &fresh].map(|place| {
        let group = place.group.as_ref().expect("a place of this mode has one");
        let Seen { missing, tables } = sockets::look(group.inside()).unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        tables
    });
    let [served, wanted] = [&there, &made].map(without_numbers);
    let differing: Vec<_> = served.iter().filter(|(key, to)| wanted.get(*key) != Some(*to)).take(5).collect();
    assert!(served == wanted, "{} frontends instead of {}; {differing:?}", served.len(), wanted.len());
    assert!(served.len() > cluster.ready.len(), "{} frontends", served.len());
    // None stands where no frontend finds it.
    assert_eq!(there.backends.len(), made.backends.len());
    have_the_same_rules(&place, &fresh, &cluster);
    agent.end();
    other.end();
}

/// Chains of iptables.
pub(in crate::churn) fn churn_in_chains(size: Size) {
    let Changed { place, agent, cluster } = churn(Place::new("chains", Mode::Iptables), size);
    let (fresh, other) = begun("unchanged", Mode::Iptables, &cluster);
    let [there, made] = [&place, &fresh].map(|place| {
        let netns = place.network.node.netns.clone();
        let variant = Variant::of_host(&netns).unwrap();
        Iptables::new(netns, Family::V4, variant).unwrap().saved().unwrap().chains
    });
    let differing: Vec<_> = there.iter().filter(|(key, rules)| made.get(*key) != Some(*rules)).take(5).collect();
    assert!(there == made, "{} chains instead of {}; {differing:?}", there.len(), made.len());
    assert!(there.len() > cluster.ready.len(), "{} chains", there.len());
    agent.end();
    other.end();
}

/// A program that passes on, and what is led to it.
pub(in crate::churn) fn churn_in_program(size: Size) {
    let ways = |place: &Place| {
        let ways = place.network.node.command("ip -4 route show table all proto 87");
        ways.lines().map(|way| way.trim().to_owned()).collect::<BTreeSet<String>>()
    };
    let Changed { place, agent, cluster } = churn(Place::new("program", Mode::Userspace), size);
    let there = ways(&place);
    // It has a socket open for each port.
    agent.end();
    let (fresh, other) = begun("begun", Mode::Userspace, &cluster);
    let made = ways(&fresh);
    let differing: Vec<_> = there.symmetric_difference(&made).take(5).collect();
    assert!(differing.is_empty(), "{} ways instead of {}; {differing:?}", there.len(), made.len());
    // To each address a way, and behind it one that tells that nobody serves.
    assert_eq!(there.len(), cluster.ready.len() * 2);
    other.end();
}

/// Where nothing is, an agent that is told of the cluster as it is.
fn begun(tag: &str, mode: Mode, cluster: &Cluster) -> (Place, Agent) {
    let place = Place::new(tag, mode);
    let agent = Agent::start(&place, cluster);
    (place, agent)
}

fn have_the_same_rules(place: &Place, fresh: &Place, cluster: &Cluster) {
    let least = cluster.ready.values().map(BTreeSet::len).sum::<usize>();
    eventually("what a fresh start makes is there", PATIENCE, || {
        let [there, made] = [place, fresh].map(|place| nftables::contents_without_slots(&place.network.node));
        let differing: Vec<&String> = there.symmetric_difference(&made).take(5).collect();
        // A listing may leave out what the kernel is just moving.
        let is_whole = there.len() > least && differing.is_empty();
        if is_whole { Ok(()) } else { Err(format!("{} elements of over {least}; {differing:?}", there.len())) }
    });
}

/// What each frontend leads to, but for the number of its list and their places in it: those depend on what was before.
fn without_numbers(tables: &Tables) -> BTreeMap<FrontendKey, (Serves, BTreeSet<BackendAddress>)> {
    let mut lists: HashMap<u32, BTreeSet<BackendAddress>> = HashMap::new();
    for (slot, target) in &tables.backends {
        lists.entry(slot.list).or_default().insert(target.at);
    }
    let frontends = tables.frontends.iter();
    frontends.map(|(key, entry)| (*key, (entry.serves, lists.remove(&entry.list).unwrap_or_default()))).collect()
}

#[test]
fn tables_are_the_same_where_lists_have_other_numbers_but_not_where_they_have_other_backends() {
    let tables = |list: u32, backends: &[(u32, u8)]| {
        let key = FrontendKey { addr: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let entry = Entry { list, serves: Serves::Backends(2), affinity: None };
        let filled = |(number, last): &(u32, u8)| {
            let at = BackendAddress { addr: [10, 0, 0, *last].into(), port: 8080 };
            (Slot { list, number: *number }, Target { at, protocol: Protocol::Tcp })
        };
        Tables { frontends: [(key, entry)].into(), backends: backends.iter().map(filled).collect() }
    };
    let first = without_numbers(&tables(1, &[(0, 1), (1, 2)]));
    assert_eq!(first, without_numbers(&tables(7, &[(0, 2), (1, 1)])));
    assert_ne!(first, without_numbers(&tables(1, &[(0, 1), (1, 3)])));
}

/// This machine's kernel may have no virtual servers.
#[test]
fn endpoints_of_virtual_servers_change_under_connections_in_the_virtual_machine() {
    let of_tables = [
        "nf_conntrack_netlink",
        "nft_chain_nat",
        "nft_ct",
        "nft_fib_ipv4",
        "nft_fib_ipv6",
        "nft_masq",
        "nft_nat",
        "nft_numgen",
    ];
    let modules = [&vm::VIRTUAL_SERVERS[..], &of_tables].concat();
    vm::run_tests_with("churned_", &modules, &vm::IPTABLES_LEGACY);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn churned_virtual_servers() {
    // So small a machine tracks few thousands of connections.
    podnet_kernel::sysctl::set_here("net.netfilter.nf_conntrack_max", "200000").unwrap();
    let Changed { place, agent, cluster } = churn(Place::new("servers", Mode::Ipvs), size(FEW, SLOW));
    let (fresh, other) = begun("apart", Mode::Ipvs, &cluster);
    agent.end();
    other.end();
    let [there, made] = [&place, &fresh].map(|place| {
        let netns = &place.network.node.netns;
        let mut state = Ipvs::open(netns, Family::V4).unwrap().read(&names(Family::V4)).unwrap();
        // What has no weight only stays for the sake of its connections.
        state.servers.values_mut().for_each(|server| server.reals.retain(|_, weight| *weight > 0));
        state
    });
    let differing: Vec<_> = difference(&made, &there).into_iter().take(5).collect();
    assert!(there == made, "what a fresh start makes is reached by {differing:?}, and more");
    let mut rules = NodeRules::new(cluster::config());
    cluster.all().iter().for_each(|change| drop(rules.apply(change)));
    assert_eq!(there.servers, Renderer::new(&rules.services, Scheduler::RoundRobin).state().servers);
}
