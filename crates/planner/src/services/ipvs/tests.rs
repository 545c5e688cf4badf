//! That following changes ends where a fresh start does, and what stands where. What it does to packets is tried in a kernel.

use podnet_model::Change;

use super::{
    super::packet_table::{self, NODES, six},
    *,
};
use crate::{
    iptables::{Saved, Table, difference as rewrite, is_ours},
    ipvs::difference,
    ruleset::FrontendKey,
};

fn fresh(services: &Services) -> State {
    Ipvs::new(services, Scheduler::RoundRobin).state().clone()
}

#[test]
fn following_every_change_ends_where_a_fresh_start_does() {
    for node in NODES {
        let mut services = services(node, packet_table::config);
        let mut ipvs = Ipvs::new(&services, Scheduler::RoundRobin);
        let mut noting = Ipvs::new(&services, Scheduler::RoundRobin);
        let nothing = ipvs.state().clone();
        let mut state = nothing.clone();
        let changes = packet_table::changes();
        let back = packet_table::removals(&changes);
        for (index, change) in changes.iter().chain(&back).enumerate() {
            let plan = services.apply(change);
            let edits = ipvs.edits(&services, &plan);
            assert!(!plan.is_empty() || edits.is_empty(), "{change:?}: {edits:?}");
            edits.iter().for_each(|edit| state.apply(edit));
            assert_eq!(state, *ipvs.state(), "after {change:?} by {edits:?}");
            noting.note(&services, &plan);
            assert_eq!(noting.state(), ipvs.state(), "after {change:?}, which was noted alone");
            if node == NODES[0] || index % 16 == 0 {
                assert_eq!(state, fresh(&services), "after {change:?}");
            }
        }
        assert_eq!(state, nothing);
        assert!(ipvs.wanted.is_empty());
    }
}

type Config = fn(&str) -> (super::super::ServicesConfig, crate::border::BorderConfig);

/// Virtual servers lead nothing from the loopback to elsewhere.
fn services(node: &str, config: Config) -> Services {
    Services::new(super::super::ServicesConfig { loopback: Vec::new(), ..config(node).0 })
}

fn of(node: &str, config: Config) -> (Services, Ipvs) {
    let mut services = services(node, config);
    packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
    let ipvs = Ipvs::new(&services, Scheduler::RoundRobin);
    (services, ipvs)
}

fn key(name: &str, port: u16) -> FrontendKey {
    FrontendKey { addr: packet_table::address(name).unwrap(), protocol: Protocol::Tcp, port }
}

fn reals(server: &Server) -> Vec<String> {
    server.reals.keys().map(|real| format!("{}:{}", name_of(real.addr), real.port)).collect()
}

fn name_of(addr: IpAddr) -> &'static str {
    packet_table::ADDRESSES.iter().find(|(_, known)| IpAddr::V4(*known) == addr).map_or("?", |(name, _)| *name)
}

#[test]
fn what_frontends_need_is_theirs_and_together_they_need_all() {
    let (services, ipvs) = of("node3", packet_table::config);
    let frontend = key("local-ip", 80);
    let own = ipvs.state_of(&[frontend].into());
    assert_eq!(own.servers.len(), 2, "{:?}", own.servers.keys());
    assert!(own.servers.keys().all(|key| ipvs.frontend(key) == Some(&frontend)));
    let inside: Vec<_> = own.sets["KUBE-INSIDE"].elements.keys().copied().collect();
    assert_eq!(inside, [Element::Port(frontend.addr, Protocol::Tcp, 80)]);
    assert_eq!(own.sets["KUBE-LOCAL-PODS"], ipvs.state().sets["KUBE-LOCAL-PODS"]);
    assert!(own.addrs.is_subset(&[frontend.addr].into()));
    let all = services.frontends().map(|(key, _)| *key).collect();
    assert_eq!(ipvs.state_of(&all), *ipvs.state());
}

#[test]
fn a_policy_local_has_a_virtual_server_for_each_side() {
    let (_, ipvs) = of("node3", packet_table::config);
    let frontend = key("local-ip", 80);
    let state = ipvs.state();
    assert_eq!(reals(&state.servers[&ServerKey::Address(frontend)]), ["web3:8080"]);
    let element = Element::Port(frontend.addr, Protocol::Tcp, 80);
    let mark = state.sets["KUBE-INSIDE"].elements[&element].unwrap();
    assert_eq!(reals(&state.servers[&ServerKey::Mark(mark)]), ["web1:8080", "shop1:8080", "web3:8080"]);
    assert!(state.sets["KUBE-LOAD-BALANCER"].elements.contains_key(&element));
    assert!(state.sets["KUBE-LOAD-BALANCER-LOCAL"].elements.contains_key(&element));
    assert!(!state.addrs.contains(&frontend.addr));
    let marks: BTreeSet<u32> = state.sets["KUBE-INSIDE"].elements.values().copied().flatten().collect();
    let named = |key: &ServerKey| !matches!(key, ServerKey::Mark(mark) if !marks.contains(mark));
    assert!(state.servers.keys().all(named));
    assert!(state.servers.values().all(|server| !server.reals.is_empty()));
}

#[test]
fn affinity_is_persistence_but_for_marks_whose_ports_the_kernel_would_not_translate() {
    let (_, ipvs) = of("node1", packet_table::config);
    let persistent = |port| ipvs.state().servers[&ServerKey::Address(key("node1", port))].scheduling.persistence;
    assert!(persistent(30070).is_some() && persistent(30071).is_some() && persistent(30080).is_none());
    let marks = ipvs.state().servers.iter().filter(|(key, _)| matches!(key, ServerKey::Mark(_)));
    let schedulers: BTreeSet<_> =
        marks.map(|(_, server)| (server.scheduling.scheduler, server.scheduling.persistence)).collect();
    assert_eq!(schedulers, [(Scheduler::RoundRobin, None), (Scheduler::Maglev, None)].into());
}

#[test]
fn schedulers_have_kube_proxys_flags() {
    let mut services = services("node1", packet_table::config);
    packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
    let flags = |scheduler| {
        let ipvs = Ipvs::new(&services, scheduler);
        let of = |name, port| ipvs.state().servers[&ServerKey::Address(key(name, port))].scheduling;
        let (plain, sticky) = (of("web", 80), of("sticky", 80));
        assert_eq!((plain.persistence, sticky.persistence), (None, Some(10_800)), "{scheduler:?}");
        assert_eq!((plain.fallback, plain.port), (sticky.fallback, sticky.port), "{scheduler:?}");
        (plain.fallback, plain.port)
    };
    assert_eq!(flags(Scheduler::RoundRobin), (false, false));
    assert_eq!(flags(Scheduler::SourceHash), (true, false));
    assert_eq!(flags(Scheduler::Maglev), (true, true), "mh-port: a client's connections are spread");
}

#[test]
fn every_name_fits_and_every_rule_asks_for_sets_that_are_there() {
    for (config, names) in
        [(packet_table::config as fn(&str) -> _, names(Family::V4)), (six::config as fn(&str) -> _, names(Family::V6))]
    {
        let (services, ipvs) = of("node1", config);
        assert!(names.iter().all(|name| name.len() <= 31));
        assert_eq!(ipvs.state().sets.keys().cloned().collect::<Vec<_>>(), names);
        let rules = ipvs.rules(&services);
        let all = rules.chains.iter().flat_map(|(key, rules)| rules.iter().map(|rule| (key.table, rule)));
        for (table, rule) in all.chain(rules.hooks.iter().map(|hook| (hook.at.table, &hook.rule))) {
            if let Some(to) = rule.leads_to() {
                assert!(rules.chains.contains_key(&crate::iptables::ChainKey::new(table, to.clone())), "{rule}");
            }
            let text = rule.to_string();
            let mut words = text.split(' ');
            while words.any(|word| matches!(word, "--match-set" | "--map-set")) {
                let name = words.next().unwrap();
                assert!(ipvs.state().sets.contains_key(name), "{text}");
            }
        }
        assert!(rules.chains.keys().all(|key| is_ours(&key.name) && key.name.len() <= 28));
    }
}

#[test]
fn the_text_of_all_rules_reads_back_as_the_rules_and_is_known_as_podnets() {
    let (services, ipvs) = of("node1", packet_table::config);
    let rules = ipvs.rules(&services);
    let text = rewrite(&rules, &Saved::default(), |_, _| false).text();
    let saved = text.lines().map(|line| match line.strip_prefix("-I ").and_then(|rest| rest.split_once(" 1 ")) {
        Some((chain, rule)) => format!("-A {chain} {rule}\n"),
        None => format!("{line}\n"),
    });
    let saved = Saved::parse(&saved.collect::<String>());
    assert_eq!(rewrite(&rules, &saved, |_, _| false), crate::iptables::Rewrite::default());
    assert!(saved.is_of_podnet_in_ipvs() && !saved.is_of_podnet());
    // Also where a crash left one table of them.
    for table in Table::ALL {
        let mut one = saved.clone();
        one.chains.retain(|key, _| key.table == table);
        assert!(one.is_of_podnet_in_ipvs() && !one.is_of_podnet(), "{table:?}");
    }
    let of = |table, name| &saved.chains[&crate::iptables::ChainKey::new(table, name)];
    assert_eq!(
        of(Table::Nat, "KUBE-SERVICES")[0],
        "-m set ! --match-set KUBE-PODS src -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" \
         -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ"
    );
}

#[test]
fn what_others_made_is_left_alone() {
    let (_, ipvs) = of("node1", packet_table::config);
    let wanted = ipvs.state();
    let mut there = wanted.clone();
    let server = there.servers[&ServerKey::Address(key("web", 80))].clone();
    let (foreign, left) = (key("visitor", 80), key("partner", 80));
    for key in [foreign, left] {
        there.servers.insert(ServerKey::Address(key), server.clone());
    }
    there.servers.insert(ServerKey::Mark(1), server);
    let note = Element::Port(left.addr, left.protocol, left.port);
    there.sets.get_mut("KUBE-VIRTUAL-SERVERS").unwrap().elements.insert(note, None);
    let gone = |there: &State| {
        let edits = difference(wanted, there);
        edits.into_iter().filter(|edit| matches!(edit, Edit::RemoveServer(_))).collect::<Vec<_>>()
    };
    let mine = own(there.clone(), wanted, Family::V4, |_| false);
    assert_eq!(gone(&mine), [Edit::RemoveServer(ServerKey::Address(left))]);
    let mine = own(there, wanted, Family::V4, |addr| *addr == left.addr);
    assert_eq!(gone(&mine), []);
}

/// An agent may be killed after any edit: the next one knows all that is there as podnet's, also where nothing of it is wanted any more, and so
/// ends where a fresh start does (see `crate::ipvs::difference`).
#[test]
fn what_was_made_by_any_number_of_the_edits_is_known_as_podnets() {
    let (mut services, ipvs) = of("node1", packet_table::config);
    let full = ipvs.state().clone();
    assert!(full.servers.keys().any(|key| matches!(key, ServerKey::Mark(_))));
    let back = packet_table::removals(&packet_table::changes());
    let removed = back.iter().filter(|change| matches!(change, Change::Service(..))).step_by(2);
    removed.for_each(|change| drop(services.apply(change)));
    let (fewer, nothing) = (fresh(&services), State::default());
    assert!(!fewer.servers.is_empty() && fewer.servers.len() < full.servers.len());
    let mut there = nothing.clone();
    for wanted in [&full, &fewer, &nothing] {
        for edit in difference(wanted, &there) {
            there.apply(&edit);
            let mine = own(there.clone(), &nothing, Family::V4, |_| false);
            assert!(mine == there, "after {edit:?}");
        }
        assert_eq!(there, *wanted);
    }
}

#[test]
fn one_changed_endpoint_is_a_handful_of_edits() {
    let (mut services, mut ipvs) = of("node1", packet_table::config);
    let fewer = packet_table::changes().into_iter().find_map(|change| match change {
        Change::Slice(key, Some(mut slice)) if slice.endpoints.len() == 3 => {
            slice.endpoints.pop();
            Some(Change::Slice(key, Some(slice)))
        }
        _ => None,
    });
    let plan = services.apply(&fewer.unwrap());
    let edits = ipvs.edits(&services, &plan);
    assert!(!edits.is_empty() && edits.iter().all(|edit| matches!(edit, Edit::RemoveReal(..))), "{edits:?}");
}

#[test]
fn what_has_connections_lingers_when_the_mode_is_left() {
    let (_, ipvs) = of("node1", packet_table::config);
    let there = ipvs.state();
    let candidates = may_linger(there, Family::V4, |_| true);
    let address = |name, port| ServerKey::Address(key(name, port));
    assert!(candidates.contains(&address("web", 80)) && candidates.contains(&address("node1", 30054)));
    let dns = FrontendKey { protocol: Protocol::Udp, ..key("dns", 53) };
    assert!(there.servers.contains_key(&ServerKey::Address(dns)) && !candidates.contains(&ServerKey::Address(dns)));
    let node_port = key("node1", 30054);
    let element = Element::Port(node_port.addr, node_port.protocol, node_port.port);
    let mark = ServerKey::Mark(there.sets["KUBE-INSIDE"].elements[&element].unwrap());
    assert!(candidates.contains(&mark));
    assert_eq!(led_here(there, Family::V4, &candidates).len(), external(there).len());

    let count = |key: ServerKey, count: u64| ((key, *there.servers[&key].reals.keys().next().unwrap()), count);
    let connections = [count(address("web", 80), 1), count(address("web", 443), 0), count(mark, 2)].into();
    let left = lingering(there, Family::V4, &connections);
    assert_eq!(left.servers.keys().copied().collect::<Vec<_>>(), [address("web", 80), mark]);
    assert!(left.servers.values().flat_map(|server| server.reals.values()).all(|weight| *weight == 0), "{left:?}");
    assert_eq!(left.addrs, [packet_table::address("web").unwrap()].into());
    assert_eq!(own(left.clone(), &State::default(), Family::V4, |_| false), left);
    // Of a Service that goes meanwhile nothing stays.
    assert_eq!(lingers_for(&left, Family::V4), [key("web", 80), node_port].into());
    assert_eq!(may_linger(&left, Family::V4, |frontend| *frontend == node_port), [mark]);
    assert_eq!(lingering(there, Family::V4, &BTreeMap::new()), State::default());
    assert_eq!(led_here(&left, Family::V4, left.servers.keys()), BTreeSet::new());

    // What is external, for everybody and for this node's pods, is known as that when it is looked at again.
    let (plain, local) = (key("lb-ip", 80), key("local-ip", 80));
    let element = Element::Port(local.addr, local.protocol, local.port);
    let mark = ServerKey::Mark(there.sets["KUBE-INSIDE"].elements[&element].unwrap());
    let left = lingering(there, Family::V4, &[count(ServerKey::Address(plain), 1), count(mark, 1)].into());
    assert_eq!(left.servers.keys().copied().collect::<Vec<_>>(), [ServerKey::Address(plain), mark]);
    assert!(left.addrs.is_empty());
    assert_eq!(led_here(&left, Family::V4, left.servers.keys()), [plain, local].into());
    assert_eq!(own(left.clone(), &State::default(), Family::V4, |_| false), left);
    let again = left.servers.keys().map(|key| ((*key, *left.servers[key].reals.keys().next().unwrap()), 1)).collect();
    assert_eq!(lingering(&left, Family::V4, &again), left);
}

#[test]
fn backends_are_remembered_as_long_as_a_virtual_server_of_any_kind_has_a_connection_to_them() {
    let (_, ipvs) = of("node1", packet_table::config);
    let there = ipvs.state();
    let node_port = key("node1", 30054);
    let element = Element::Port(node_port.addr, node_port.protocol, node_port.port);
    let mark = ServerKey::Mark(there.sets["KUBE-INSIDE"].elements[&element].unwrap());
    let web = ServerKey::Address(key("web", 80));
    let dns = ServerKey::Address(FrontendKey { protocol: Protocol::Udp, ..key("dns", 53) });
    let first = |key: &ServerKey| *there.servers[key].reals.keys().next().unwrap();
    let busy = [web, dns, mark].map(|key| ((key, first(&key)), 1));
    let idle = there.servers[&web].reals.keys().skip(1).map(|at| ((web, *at), 0));
    let connections: BTreeMap<_, _> = busy.into_iter().chain(idle).collect();
    let expected = [(Protocol::Tcp, first(&web)), (Protocol::Udp, first(&dns)), (Protocol::Tcp, first(&mark))];
    assert_eq!(remembered(there, Family::V4, &connections), expected.into());
    // What stays knows them as well; what is gone remembers nobody.
    let left = lingering(there, Family::V4, &connections);
    let expected = [(Protocol::Tcp, first(&web)), (Protocol::Tcp, first(&mark))];
    assert_eq!(remembered(&left, Family::V4, &connections), expected.into());
    assert_eq!(remembered(&State::default(), Family::V4, &connections), BTreeSet::new());
}

/// The frontends of TCP and SCTP at addresses that are none of this node's.
fn external(state: &State) -> BTreeSet<FrontendKey> {
    let names = ["KUBE-EXTERNAL-IP", "KUBE-LOAD-BALANCER"];
    let ports = names.iter().flat_map(|name| state.sets[*name].elements.keys()).filter_map(|element| match *element {
        Element::Port(addr, protocol, port) => Some(FrontendKey { addr, protocol, port }),
        _ => None,
    });
    let is_served = |key: &FrontendKey| {
        let element = Element::Port(key.addr, key.protocol, key.port);
        let mark = state.sets["KUBE-INSIDE"].elements.get(&element).copied().flatten();
        let has = |key: &ServerKey| state.servers.contains_key(key);
        has(&ServerKey::Address(*key)) || mark.is_some_and(|mark| has(&ServerKey::Mark(mark)))
    };
    ports.filter(|key| key.protocol != Protocol::Udp && is_served(key)).collect()
}

#[test]
fn where_the_destinations_hash_leads_a_real_server_goes_at_once_but_the_last() {
    let (services, _) = of("node1", packet_table::config);
    let ipvs = Ipvs::new(&services, Scheduler::DestinationHash);
    let server = ServerKey::Address(key("web", 80));
    assert!(ipvs.state().servers.contains_key(&server) && !ipvs.may_drain(&server));
    assert!(ipvs.may_drain(&ServerKey::Address(key("web", 9))), "its virtual server goes as a whole");
    assert!(Ipvs::new(&services, Scheduler::RoundRobin).may_drain(&server));
}

#[test]
fn a_service_that_goes_keeps_its_address_and_notes_while_its_connections_last() {
    let (mut services, mut ipvs) = of("node1", packet_table::config);
    let right = ipvs.state().clone();
    let (mut there, mut drain) = (right.clone(), crate::ipvs::Drain::default());
    let mut follow = |ipvs: &mut Ipvs, change: &Change, there: &mut State, drain: &mut crate::ipvs::Drain| {
        let plan = services.apply(change);
        let edits = ipvs.edits(&services, &plan);
        let edits = drain.soften(edits, there, |key| ipvs.may_drain(key), std::time::Duration::ZERO);
        edits.iter().for_each(|edit| there.apply(edit));
    };
    let changes = packet_table::changes();
    let back = packet_table::removals(&changes);
    back.iter().for_each(|change| follow(&mut ipvs, change, &mut there, &mut drain));
    // Whoever finds that knows it as podnet's, and leads packets there.
    assert_eq!(own(there.clone(), ipvs.state(), Family::V4, |_| false), there);
    let kept: BTreeSet<ServerKey> = drain.leaving().copied().collect();
    assert_eq!(kept, there.servers.keys().copied().collect());
    assert!(kept.iter().any(|key| matches!(key, ServerKey::Mark(_))));
    assert!(there.servers.values().all(|server| server.reals.values().all(|weight| *weight == 0)));
    let web = packet_table::address("web").unwrap();
    assert!(there.addrs.contains(&web) && there.sets["KUBE-IPVS-IPS"].elements.contains_key(&Element::Address(web)));
    let led = led_here(&there, Family::V4, &kept);
    assert!(led.is_superset(&external(&right)) && led.iter().all(|key| !there.addrs.contains(&key.addr)), "{led:?}");
    // An agent that starts knows it as the one before did.
    let mut again = crate::ipvs::Drain::default();
    let edits = difference(ipvs.state(), &there);
    assert_eq!(again.soften(edits, &there, |key| ipvs.may_drain(key), std::time::Duration::ZERO), []);
    assert_eq!((again.servers(), again.leaving().copied().collect()), (drain.servers(), kept));
    let mut at_once = there.clone();
    again
        .over(&again.servers(), &BTreeMap::new(), std::time::Duration::ZERO)
        .iter()
        .for_each(|edit| at_once.apply(edit));
    assert_eq!((&at_once, again), (ipvs.state(), crate::ipvs::Drain::default()));
    // All comes back as it was, or all goes.
    let (mut once, mut also) = (there.clone(), drain.clone());
    changes.iter().for_each(|change| follow(&mut ipvs, change, &mut once, &mut also));
    let (mut settled, mut over) = (once.clone(), also.clone());
    over.over(&over.servers(), &BTreeMap::new(), std::time::Duration::ZERO).iter().for_each(|edit| settled.apply(edit));
    assert!((settled, over) == (right, crate::ipvs::Drain::default()));
    back.iter().for_each(|change| follow(&mut ipvs, change, &mut once, &mut also));
    assert!(once == there);
    drain.over(&drain.servers(), &BTreeMap::new(), std::time::Duration::ZERO).iter().for_each(|edit| there.apply(edit));
    assert_eq!((&there, &drain), (ipvs.state(), &crate::ipvs::Drain::default()));
}

#[test]
fn odd_endpoints_are_left_out_alone_and_told() {
    let (mut services, mut ipvs) = of("node1", packet_table::config);
    let right = ipvs.state().clone();
    let slices = || {
        let slices = packet_table::changes().into_iter().filter_map(|change| match change {
            Change::Slice(key, Some(slice)) if !slice.endpoints.is_empty() => Some((key, slice)),
            _ => None,
        });
        slices.collect::<Vec<_>>()
    };
    let odd = podnet_model::PodAddr(IpAddr::from([239, 1, 1, 1]));
    let mut follow = |ipvs: &mut Ipvs, key, slice| {
        let plan = services.apply(&Change::Slice(key, Some(slice)));
        ipvs.edits(&services, &plan);
        assert_eq!(*ipvs.state(), fresh(&services));
    };
    let is_odd = |state: &State| format!("{state:?}").contains("239.1.1.1");
    for (key, mut slice) in slices() {
        slice.endpoints.push(podnet_model::Endpoint::new(odd));
        follow(&mut ipvs, key, slice);
    }
    assert!(!is_odd(ipvs.state()));
    let web = key("web", 80);
    let server = ServerKey::Address(web);
    assert_eq!(ipvs.state().servers[&server], right.servers[&server], "the others serve on");
    assert!(ipvs.odd.contains_key(&web) && ipvs.left_out().all(|(_, at)| at.addr == odd.0));
    // Where all are odd it is refused as if there were none.
    for (key, mut slice) in slices() {
        slice.endpoints = vec![podnet_model::Endpoint::new(odd)];
        follow(&mut ipvs, key, slice);
    }
    assert!(!is_odd(ipvs.state()) && !ipvs.state().servers.contains_key(&server));
    let element = Element::Port(web.addr, web.protocol, web.port);
    assert!(ipvs.state().sets[&ipvs.sets.rejected].elements.contains_key(&element));
    for (key, slice) in slices() {
        follow(&mut ipvs, key, slice);
    }
    assert_eq!((ipvs.state(), ipvs.left_out().count()), (&right, 0));
}

#[test]
fn connections_to_what_is_this_nodes_own_are_known_when_its_frontend_is_gone() {
    let (mut services, mut ipvs) = of("node1", packet_table::config);
    let marks: Vec<ServerKey> =
        ipvs.state().servers.keys().filter(|key| matches!(key, ServerKey::Mark(_))).copied().collect();
    let known: Vec<bool> = marks.iter().map(|mark| ipvs.may_drain(mark)).collect();
    let all = marks.iter().map(|mark| ipvs.frontend(mark).unwrap().protocol != Protocol::Udp);
    assert!(known.contains(&true) && all.eq(known.iter().copied()));
    for change in &packet_table::removals(&packet_table::changes()) {
        let plan = services.apply(change);
        ipvs.edits(&services, &plan);
    }
    assert!(marks.iter().all(|mark| ipvs.frontend(mark).is_none()));
    assert!(marks.iter().map(|mark| ipvs.may_drain(mark)).eq(known));
}
