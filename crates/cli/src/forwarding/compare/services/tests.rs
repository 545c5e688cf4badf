//! What is told of what serves a Service beside what is planned, in each mode that has more than tables of nf_tables.

use std::net::IpAddr;

use podnet_kernel::snapshot::{
    Snapshot,
    served::{Chains, Served},
};
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, PodAddr, PodKey, Protocol, Service, ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    iptables::{ChainKey, Rules, Saved, Table, port_chain},
    ipvs::{Edit, ServerKey},
    ruleset::BackendAddress,
    trace::{Facts, Source, Target},
};

use super::*;
use crate::forwarding::{compare as whole, kernels::Kernels, lab, state::State};

const NOTHING: [&str; 0] = [];
/// The port that Services call so.
const PORT: &str = "http";

fn service(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn frontend(number: u8) -> FrontendKey {
    FrontendKey { addr: IpAddr::from([10, 96, 0, number]), protocol: Protocol::Tcp, port: 80 }
}

/// The backend on a node.
fn backend(node: u8) -> BackendAddress {
    BackendAddress { addr: IpAddr::from([10, 1, node, 5]), port: 8080 }
}

fn objects(name: &str, number: u8) -> [Change; 2] {
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(frontend(number).addr)] };
    let port = Port { name: PORT.into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
    let object = Service::new(service(name), kind, vec![port]);
    let slice = EndpointSlice {
        key: SliceKey::new("default", name),
        service: service(name),
        ports: vec![EndpointPort { name: PORT.into(), protocol: Protocol::Tcp, port: TargetPort(8080) }],
        endpoints: [1, 2].map(|node| Endpoint::new(PodAddr(backend(node).addr))).into(),
        triggered: None,
        unproxied: false,
    };
    [Change::Service(service(name), Some(object)), Change::Slice(slice.key.clone(), Some(slice))]
}

/// Two Services of the same pods, `web` at 10.96.0.1 and `other` at 10.96.0.2.
fn state(mode: Mode) -> State {
    let mut changes = lab::state().changes;
    changes.extend(objects("web", 1).into_iter().chain(objects("other", 2)));
    let facts = [1, 2].map(|number| (lab::node(number), Facts::new("eth0".into(), 1500, mode)));
    State::of(changes, facts.into())
}

fn planned(state: &State) -> &Planned {
    state.cluster.planned(&lab::node(1)).unwrap()
}

fn told(state: &State, number: u8, served: Served) -> Told {
    let facts = state.cluster.planned(&lab::node(number)).unwrap().facts.clone();
    Told { facts, is_configured_alone: false, kernel: Snapshot { served, ..Snapshot::default() }, pods: Vec::new() }
}

/// What is found of `web` on the first node, where all was told.
fn found(state: &State, served: Served) -> Vec<String> {
    let asked = [service("web")].into();
    let findings = compare(&told(state, 1, served), planned(state), state.cluster.proxy(), &asked);
    assert_eq!(findings.left_out, NOTHING);
    [findings.found, findings.detours].concat()
}

fn saved(rules: &Rules) -> Saved {
    let mut saved = Saved::default();
    for (key, rules) in &rules.chains {
        saved.chains.insert(key.clone(), rules.iter().map(ToString::to_string).collect());
    }
    for hook in &rules.hooks {
        saved.chains.entry(hook.at.clone()).or_default().push(hook.rule.to_string());
    }
    saved
}

#[test]
fn chains_of_the_service_are_compared_and_those_of_all_and_none_of_others() {
    let state = state(Mode::Iptables);
    let services = &planned(&state).services[Family::V4];
    let mut there = saved(&Iptables::new(services).desired(services));
    let found = |saved: &Saved| {
        let mut served = Served::default();
        served.v4.chains = Some(Ok(Chains::of(saved)));
        found(&state, served)
    };
    assert_eq!(found(&there), NOTHING);
    let chain = |name| ChainKey::new(Table::Nat, port_chain("KUBE-SVC-", &service(name), &PORT.into(), Protocol::Tcp));
    assert!(there.chains.remove(&chain("other")).is_some());
    assert_eq!(found(&there), NOTHING);
    assert!(there.chains.remove(&chain("web")).is_some());
    let gone = format!("there is no {} of iptables", chain("web"));
    assert_eq!(found(&there), [&*gone]);
    there.chains.insert(ChainKey::new(Table::Nat, "KUBE-POSTROUTING"), Vec::new());
    let all = found(&there);
    assert!(all[0].starts_with("chain KUBE-POSTROUTING of table nat of iptables lacks the rule `"), "{all:?}");
    assert_eq!(all[1..], [gone]);
}

#[test]
fn what_fits_no_connection_may_pass_where_tracking_is_liberal() {
    let state = state(Mode::Iptables);
    let services = &planned(&state).services[Family::V4];
    let whole = saved(&Iptables::new(services).desired(services));
    let mut without = whole.clone();
    without.chains.get_mut(&ChainKey::new(Table::Filter, "KUBE-FORWARD")).unwrap().remove(0);
    let found = |saved: &Saved, is_liberal| {
        let mut served = Served { is_liberal, ..Served::default() };
        served.v4.chains = Some(Ok(Chains::of(saved)));
        found(&state, served)
    };
    assert_eq!([found(&whole, false), found(&whole, true), found(&without, true)].concat(), NOTHING);
    let lacking =
        "chain KUBE-FORWARD of table filter of iptables lacks the rule `-m conntrack --ctstate INVALID -j DROP`";
    assert_eq!(found(&without, false), [lacking]);
}

#[test]
fn virtual_servers_of_the_service_are_compared_with_their_chains() {
    let state = state(Mode::Ipvs);
    let services = &planned(&state).services[Family::V4];
    let ipvs = Ipvs::new(services, Scheduler::RoundRobin);
    let found = |edits: &[Edit]| {
        let (mut there, mut served) = (ipvs.state().clone(), Served::default());
        edits.iter().for_each(|edit| there.apply(edit));
        served.v4.servers = Some(Ok(Servers::of(&there, ipvs.attracted())));
        served.v4.chains = Some(Ok(Chains::of(&saved(&ipvs.rules(services)))));
        found(&state, served)
    };
    let server = |number| ServerKey::Address(frontend(number));
    assert_eq!(found(&[]), NOTHING);
    assert_eq!(found(&[Edit::RemoveServer(server(2)), Edit::RemoveAddress(frontend(2).addr)]), NOTHING);
    let real = found(&[Edit::RemoveReal(server(1), backend(2))]);
    assert_eq!(real, ["virtual server 10.96.0.1:80/TCP has no real server 10.1.2.5:8080"]);
    let addr = found(&[Edit::RemoveAddress(frontend(1).addr)]);
    assert_eq!(addr, ["kube-ipvs0 has no address 10.96.0.1, or not as podnet gives it"]);
}

#[test]
fn sockets_of_the_service_are_compared_with_the_ways_there() {
    let state = state(Mode::Userspace);
    let seen = |numbers: &[u8]| apart::Seen {
        led: numbers.iter().map(|number| Led::Address(frontend(*number).addr)).collect(),
        at_node: BTreeSet::new(),
        inside: Some(numbers.iter().map(|number| frontend(*number)).collect()),
    };
    let found = |numbers: &[u8]| {
        let mut served = Served::default();
        served.v4.listeners = Some(Ok(Listeners::of(&seen(numbers))));
        found(&state, served)
    };
    assert_eq!(found(&[1, 2]), NOTHING);
    assert_eq!(found(&[1]), NOTHING);
    let missing = [
        "the agent does not listen at 10.96.0.1:80/TCP in the namespace for Services",
        "10.96.0.1 is not led to the namespace in which the agent listens",
    ];
    assert_eq!(found(&[2]), missing);
}

#[test]
fn what_programs_at_sockets_know_of_the_service_is_compared() {
    let state = state(Mode::Ebpf);
    let all = planned(&state).services[Family::V4].frontends();
    let tables = Ebpf::default().desired(all, &Tables::default());
    let found = |tables: Tables| {
        let seen = sockets::Seen { missing: Vec::new(), tables };
        found(&state, Served { frontends: Some(Ok(Frontends::of(&seen))), ..Served::default() })
    };
    assert_eq!(found(tables.clone()), NOTHING);
    let without = |number| {
        let mut tables = tables.clone();
        assert!(tables.frontends.remove(&frontend(number)).is_some());
        tables
    };
    assert_eq!(found(without(2)), NOTHING);
    let gone = found(without(1));
    assert_eq!(gone, ["rules serve the frontend 10.96.0.1:80/TCP, which the programs at the sockets do not know"]);
}

#[test]
fn on_the_way_of_a_packet_it_is_compared_in_each_mode_and_what_is_not_told_is_left_out() {
    let with = |set: fn(&mut Served)| {
        let mut served = Served::default();
        set(&mut served);
        served
    };
    let nothing_there = [
        (Mode::Iptables, with(|it| it.v4.chains = Some(Ok(Chains::default()))), "there is no chain KUBE-SERVICES"),
        (
            Mode::Ipvs,
            with(|it| it.v4.servers = Some(Ok(Servers::default()))),
            "there is no virtual server 10.96.0.1:80/TCP",
        ),
        (
            Mode::Userspace,
            with(|it| it.v4.listeners = Some(Ok(Listeners::default()))),
            "there is no namespace in which its agent listens",
        ),
        (
            Mode::Ebpf,
            with(|it| it.frontends = Some(Ok(Frontends::default()))),
            "rules serve the frontend 10.96.0.1:80/TCP",
        ),
    ];
    for (mode, served, words) in nothing_there {
        let state = state(mode);
        let target = Target { addr: frontend(1).addr, protocol: Protocol::Tcp, port: 80 };
        let trace = state.cluster.trace(&Source::Pod(PodKey::new("default", "p1")), target).unwrap();
        let compared = |served: &Served| {
            let all = [1, 2].map(|number| (lab::node(number), Ok(told(&state, number, served.clone()))));
            whole::compare(&state, &trace, &Kernels::told(all))
        };
        let there = compared(&served);
        let is_named = |one: &whole::Remark| one.what.contains(words) && one.node == lab::node(1);
        assert!(there.differences().any(is_named), "{mode}: {:?} {:?}", there.found, there.detours);
        assert_eq!(there.found.iter().any(is_named), mode != Mode::Ebpf, "rules serve where programs do not");
        let untold = compared(&Served::default());
        assert!(!untold.differences().any(is_named), "{mode}: {:?}", untold.found);
        let left_out = untold.left_out.iter().any(|one| one.what.ends_with("of which nothing was told"));
        assert!(left_out, "{mode}: {:?}", untold.left_out);
    }
}

#[test]
fn an_agent_that_is_configured_alone_and_one_that_could_not_look_are_told_of() {
    let state = state(Mode::Iptables);
    let compared = |alone: bool, why: &str| {
        let mut served = Served::default();
        served.v4.chains = Some(Err(why.to_owned()));
        let told = Told { is_configured_alone: alone, ..told(&state, 1, served) };
        compare(&told, planned(&state), state.cluster.proxy(), &BTreeSet::new())
    };
    let left_out = |why: &str| Findings { left_out: vec![why.to_owned()], ..Findings::default() };
    assert_eq!(compared(true, ""), left_out(CONFIGURED_ALONE));
    assert_eq!(compared(false, "no such program"), left_out("rules of iptables: no such program"));
}
