//! The programs' view at every moment, by edits that are done one after the other.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, Family, PodAddr, Service, ServiceKey, ServicePort, SliceKey,
    TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::services::{Backend, FrontendKind, ServicesConfig, packet_table};

/// What is done for some of a few frontends.
type State = BTreeMap<FrontendKey, Arc<Serving>>;

fn backend(number: u8) -> Backend {
    let at = BackendAddress { addr: Ipv4Addr::new(10, 0, 0, number).into(), port: 80 };
    Backend { at, local: number.is_multiple_of(2), terminating: false }
}

fn serving() -> impl Strategy<Value = Serving> {
    let inside = prop_oneof![
        Just(Backends::Reject),
        Just(Backends::Drop),
        Just((1..6).collect::<BTreeSet<u8>>())
            .prop_flat_map(|all| proptest::sample::subsequence(all.into_iter().collect::<Vec<_>>(), 1..=5))
            .prop_shuffle()
            .prop_map(|numbers| Backends::Of(numbers.into_iter().map(backend).collect())),
    ];
    let affinity = option::of(select(vec![0, 10, 3600]));
    let ends = |backend: Backend| Backend { terminating: true, ..backend };
    let lasting = proptest::sample::subsequence((1..8).collect::<Vec<u8>>(), 0..=4);
    let is_last_resort = proptest::bool::weighted(0.2);
    (inside, affinity, 0..3_u8, option::weighted(0.1, Just(Arc::default())), lasting, is_last_resort).prop_map(
        move |(inside, affinity, service, sources, lasting, is_last_resort)| {
            let inside = match inside {
                Backends::Of(slots) if is_last_resort => Backends::Of(slots.iter().copied().map(ends).collect()),
                other => other,
            };
            let is_other = |one: &Backend| inside.slots().iter().all(|backend| backend.at != one.at);
            Serving {
                service: ServiceKey::new("default", &format!("s{service}")),
                port: "http".into(),
                kind: FrontendKind::ClusterIp,
                lasting: lasting.into_iter().map(|number| ends(backend(number))).filter(is_other).collect(),
                outside: inside.clone(),
                inside,
                keeps_source: false,
                affinity,
                sources,
            }
        },
    )
}

fn key() -> impl Strategy<Value = FrontendKey> {
    let addrs: [IpAddr; 3] =
        [Ipv4Addr::new(10, 96, 0, 1).into(), Ipv4Addr::new(10, 96, 0, 2).into(), Ipv6Addr::LOCALHOST.into()];
    let protocols = vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    (select(addrs.to_vec()), select(protocols)).prop_map(|(addr, protocol)| FrontendKey { addr, protocol, port: 80 })
}

/// Rounds of changes; of a frontend that changes twice in a round the last counts.
fn rounds() -> impl Strategy<Value = Vec<BTreeMap<FrontendKey, Option<Serving>>>> {
    let change = (key(), option::weighted(0.7, serving()));
    vec(vec(change, 1..6).prop_map(|changes| changes.into_iter().collect()), 1..12)
}

fn changes(state: &State, round: BTreeMap<FrontendKey, Option<Serving>>) -> Vec<FrontendChange> {
    let change = |(key, after): (FrontendKey, Option<Serving>)| {
        let before = state.get(&key).cloned();
        FrontendChange { key, before, after: after.map(Arc::new) }
    };
    round.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

/// Does one edit after the other, and looks after each.
fn perform(tables: &mut Tables, edits: &Edits, mut look: impl FnMut(&Tables)) {
    for (slot, target) in &edits.fill {
        tables.backends.insert(*slot, *target);
        look(tables);
    }
    for (key, entry) in &edits.point {
        tables.frontends.insert(*key, *entry);
        look(tables);
    }
    for key in &edits.forget {
        assert!(tables.frontends.remove(key).is_some(), "{key} is not there");
        look(tables);
    }
    for slot in &edits.empty {
        assert!(tables.backends.remove(slot).is_some(), "{slot:?} is empty");
        look(tables);
    }
}

/// Whom a program leads to at a frontend; panics where it would find a slot empty.
fn found(tables: &Tables, key: &FrontendKey) -> Option<Vec<BackendAddress>> {
    let entry = tables.frontends.get(key)?;
    let Serves::Backends(count) = entry.serves else { return Some(Vec::new()) };
    let slot = |number| tables.backends[&Slot { list: entry.list, number }];
    Some((0..count).map(|number| slot(number).at).collect())
}

/// Those that end, up to the first hole.
fn found_ending(tables: &Tables, key: &FrontendKey) -> Vec<BackendAddress> {
    let Some(entry) = tables.frontends.get(key) else { return Vec::new() };
    let slots = (ENDING..).map_while(|number| tables.backends.get(&Slot { list: entry.list, number }));
    slots.map(|target| target.at).collect()
}

fn wanted(serving: Option<&Serving>) -> BTreeSet<BackendAddress> {
    serving.into_iter().flat_map(|serving| serving.inside.slots()).map(|backend| backend.at).collect()
}

/// Those of UDP that end, be it that new flows come to them as well.
fn wanted_ending(key: &FrontendKey, serving: Option<&Serving>) -> BTreeSet<BackendAddress> {
    let serving = serving.filter(|one| key.protocol == Protocol::Udp && !one.inside.slots().is_empty());
    let all = serving.into_iter().flat_map(|serving| serving.inside.slots().iter().chain(&*serving.lasting));
    all.filter(|backend| backend.terminating).map(|backend| backend.at).collect()
}

fn matches(tables: &Tables, state: &State) {
    let ours = state.iter().filter(|(key, serving)| is_ours(key, serving));
    let mut slots_used = 0;
    let mut count = 0;
    let mut groups = BTreeMap::new();
    let mut lists = BTreeSet::new();
    for (key, serving) in ours {
        let (there, ending) = (found(tables, key).unwrap(), found_ending(tables, key));
        assert_eq!(there.iter().copied().collect::<BTreeSet<_>>(), wanted(Some(serving)));
        assert_eq!(ending.iter().copied().collect::<BTreeSet<_>>(), wanted_ending(key, Some(serving)));
        assert_eq!(slots(key, serving), there.len() + ending.len());
        (slots_used, count) = (slots_used + there.len() + ending.len(), count + 1);
        let entry = tables.frontends[key];
        assert!(lists.insert(entry.list), "two have the list {}", entry.list);
        assert_eq!(entry.affinity.map(|affinity| affinity.seconds), serving.affinity.filter(|seconds| *seconds > 0));
        if let Some(affinity) = entry.affinity {
            let port = (serving.service.clone(), Family::of(&key.addr));
            assert_eq!(groups.entry(affinity.group).or_insert_with(|| port.clone()), &port);
        }
    }
    let ports: BTreeSet<_> = groups.values().collect();
    assert_eq!(ports.len(), groups.len(), "a port has two groups");
    assert_eq!((tables.frontends.len(), tables.backends.len()), (count, slots_used), "nothing is left over");
}

proptest! {
    #[test]
    fn whoever_connects_finds_what_was_there_or_what_comes(rounds in rounds(), restart in 0..12_usize) {
        let (mut state, mut tables, mut ebpf) = (State::new(), Tables::default(), Ebpf::default());
        for (number, round) in rounds.into_iter().enumerate() {
            let changes = changes(&state, round);
            let edits = ebpf.edits(&changes);
            perform(&mut tables, &edits, |tables| {
                for change in &changes {
                    let of = |serving: &Option<Arc<Serving>>| serving.clone().filter(|one| is_ours(&change.key, one));
                    let (before, after) = (of(&change.before), of(&change.after));
                    let all = &wanted(before.as_deref()) | &wanted(after.as_deref());
                    let there = found(tables, &change.key);
                    assert!(there.iter().flatten().all(|at| all.contains(at)), "somebody else's backend");
                    assert!(there.is_some() || before.is_none() || after.is_none(), "for a moment it is none");
                    let [ended, ends] = [&before, &after].map(|one| wanted_ending(&change.key, one.as_deref()));
                    let ends_meanwhile = &ends & &(&ended | &wanted(before.as_deref()));
                    let known: Vec<_> = there.into_iter().flatten().chain(found_ending(tables, &change.key)).collect();
                    assert!(ends_meanwhile.iter().all(|at| known.contains(at)), "who speaks with it loses it");
                }
            });
            for change in changes {
                match change.after {
                    Some(after) => drop(state.insert(change.key, after)),
                    None => drop(state.remove(&change.key)),
                }
            }
            matches(&tables, &state);
            prop_assert_eq!(ebpf.count(), (tables.frontends.len(), tables.backends.len()));
            if number == restart {
                ebpf = Ebpf::default();
                let desired = ebpf.desired(state.iter().map(|(key, serving)| (key, &**serving)), &tables);
                prop_assert_eq!(desired.edits_from(&tables), Edits::default());
            }
        }
    }

    /// Whatever somebody did to the tables, and whatever an agent missed while it was away.
    #[test]
    fn what_is_there_becomes_what_is_wanted(rounds in rounds(), before in 0..6_usize, junk in vec((0..20_u32, 0..4_u32), 0..6)) {
        let (mut state, mut tables, mut ebpf) = (State::new(), Tables::default(), Ebpf::default());
        for (number, round) in rounds.into_iter().enumerate() {
            let changes = changes(&state, round);
            if number < before {
                perform(&mut tables, &ebpf.edits(&changes), |_| {});
            }
            for change in changes {
                match change.after {
                    Some(after) => drop(state.insert(change.key, after)),
                    None => drop(state.remove(&change.key)),
                }
            }
        }
        for (list, number) in junk {
            let at = BackendAddress { addr: Ipv4Addr::LOCALHOST.into(), port: 1 };
            tables.backends.insert(Slot { list, number }, Target { at, protocol: Protocol::Tcp });
            if let Some(entry) = tables.frontends.values_mut().next() {
                entry.list = list;
            }
        }
        let mut next = Ebpf::default();
        let desired = next.desired(state.iter().map(|(key, serving)| (key, &**serving)), &tables);
        let edits = desired.edits_from(&tables);
        perform(&mut tables, &edits, |_| {});
        prop_assert_eq!(&tables, &desired);
        matches(&tables, &state);
        // It goes on from there.
        let all: Vec<_> = state.iter().map(|(key, serving)| FrontendChange { key: *key, before: Some(serving.clone()), after: None }).collect();
        perform(&mut tables, &next.edits(&all), |_| {});
        prop_assert_eq!(tables, Tables::default());
    }
}

/// A ClusterIP's port with these backends.
fn web(numbers: std::ops::Range<u8>) -> Arc<Serving> {
    let inside = Backends::Of(numbers.map(backend).collect());
    Arc::new(Serving {
        service: ServiceKey::new("default", "web"),
        port: "".into(),
        kind: FrontendKind::ClusterIp,
        outside: inside.clone(),
        inside,
        keeps_source: false,
        affinity: None,
        lasting: Arc::default(),
        sources: None,
    })
}

#[test]
fn what_leads_to_a_remembered_backend_is_left_to_the_rules_for_as_long_as_it_is_remembered() {
    let key = |last, protocol| FrontendKey { addr: Ipv4Addr::new(10, 96, 0, last).into(), protocol, port: 80 };
    let (first, second, datagrams) = (key(1, Protocol::Tcp), key(2, Protocol::Tcp), key(1, Protocol::Udp));
    let (mut ebpf, mut tables) = (Ebpf::default(), Tables::default());
    let put = |ebpf: &mut Ebpf, state: &State, tables: &mut Tables| {
        let desired = ebpf.desired(state.iter().map(|(key, serving)| (key, &**serving)), tables);
        let edits = desired.edits_from(tables);
        perform(tables, &edits, |_| {});
    };
    let mut state: State = [(first, web(1..4)), (second, web(4..6)), (datagrams, web(1..4))].into();
    ebpf.leave_to_rules(Arc::new([(Protocol::Tcp, backend(2).at)].into()));
    put(&mut ebpf, &state, &mut tables);
    assert_eq!(tables.frontends.keys().copied().collect::<BTreeSet<_>>(), [second, datagrams].into());

    let mut change = |tables: &mut Tables, key: FrontendKey, to: Arc<Serving>| {
        let before = state.insert(key, to.clone());
        let edits = ebpf.edits(&[FrontendChange { key, before, after: Some(to) }]);
        perform(tables, &edits, |_| {});
        assert_eq!(ebpf.count(), (tables.frontends.len(), tables.backends.len()));
    };
    change(&mut tables, first, web(3..4));
    assert_eq!(found(&tables, &first), Some(vec![backend(3).at]), "it does not lead there any more");
    change(&mut tables, second, web(2..6));
    assert_eq!(found(&tables, &second), None, "now it does");
    change(&mut tables, second, web(1..6));
    assert_eq!(found(&tables, &second), None, "and goes on to");

    ebpf.leave_to_rules(Arc::default());
    put(&mut ebpf, &state, &mut tables);
    matches(&tables, &state);
}

#[test]
fn of_udp_those_that_end_have_slots_of_their_own_also_where_they_are_backends_of_the_other_side() {
    let ends = |number| Backend { terminating: true, ..backend(number) };
    let outside = Backends::Of([ends(2)].into());
    let lasting: Arc<[Backend]> = [ends(1), backend(4)].into();
    let serving = Serving { outside, keeps_source: true, lasting, ..(*web(3..4)).clone() };
    for (protocol, ending) in [(Protocol::Udp, vec![backend(1).at, backend(2).at]), (Protocol::Tcp, vec![])] {
        let key = FrontendKey { addr: Ipv4Addr::new(10, 96, 0, 1).into(), protocol, port: 80 };
        let tables = Ebpf::default().desired([(&key, &serving)], &Tables::default());
        assert_eq!(found(&tables, &key), Some(vec![backend(3).at]));
        assert_eq!(found_ending(&tables, &key), ending);
        assert_eq!(slots(&key, &serving), tables.backends.len());
    }
}

#[test]
fn one_endpoint_more_or_less_is_a_handful_of_edits() {
    let key = FrontendKey { addr: Ipv4Addr::new(10, 96, 0, 1).into(), protocol: Protocol::Tcp, port: 80 };
    let mut ebpf = Ebpf::default();
    let mut edits = |before: Option<Arc<Serving>>, after| ebpf.edits(&[FrontendChange { key, before, after }]).len();
    assert_eq!(edits(None, Some(web(1..101))), 101);
    assert_eq!(edits(Some(web(1..101)), Some(web(1..102))), 2);
    assert_eq!(edits(Some(web(1..102)), Some(web(1..101))), 2);
    assert_eq!(edits(Some(web(1..101)), None), 101);
}

#[test]
fn a_connection_has_lost_its_backend_when_nobody_names_it_any_more() {
    let service = ServiceKey::new("default", "web");
    let (ip, pod): (IpAddr, IpAddr) = ([10, 96, 0, 9].into(), [10, 233, 64, 9].into());
    let port = |name: &str, protocol| Port { name: name.into(), protocol, port: ServicePort(80), node_port: None };
    let object = Service::new(
        service.clone(),
        ServiceKind::Virtual { cluster_ips: vec![ClusterIp(ip)] },
        vec![port("t", Protocol::Tcp), port("u", Protocol::Udp)],
    );
    let slice = SliceKey::new("default", "web-1");
    let slice_of = |change: &dyn Fn(&mut Endpoint)| {
        let mut endpoint = Endpoint::new(PodAddr(pod));
        change(&mut endpoint);
        let ports = [("t", Protocol::Tcp), ("u", Protocol::Udp)].map(|(name, protocol)| EndpointPort {
            name: name.into(),
            protocol,
            port: TargetPort(8080),
        });
        let slice_object = EndpointSlice {
            key: slice.clone(),
            service: service.clone(),
            ports: ports.to_vec(),
            endpoints: vec![endpoint],
            triggered: None,
            unproxied: false,
        };
        Change::Slice(slice.clone(), Some(slice_object))
    };
    let mut services = Services::new(ServicesConfig { family: Family::V4, ..packet_table::config("node1").0 });
    // Of this pool nobody keeps account.
    let is_pool = |change: &Change| matches!(change, Change::Pool(..));
    packet_table::changes().iter().filter(|change| is_pool(change)).for_each(|change| drop(services.apply(change)));
    let at = BackendAddress { addr: pod, port: 8080 };
    let fates = |services: &Services| {
        [Protocol::Tcp, Protocol::Udp].map(|protocol| services.fate(&FrontendKey { addr: ip, protocol, port: 80 }, at))
    };
    let put = |services: &mut Services, object: &Service| {
        services.apply(&Change::Service(service.clone(), Some(object.clone())));
    };
    put(&mut services, &object);
    assert_eq!(fates(&services), [Fate::Unsure; 2], "its endpoints may not be written yet");
    services.apply(&slice_of(&|_| {}));
    assert_eq!(fates(&services), [Fate::Served; 2]);
    // It is the last one: its clients are served until its end.
    services.apply(&slice_of(&|endpoint| (endpoint.ready, endpoint.terminating) = (false, true)));
    assert_eq!(fates(&services), [Fate::Served; 2]);
    services
        .apply(&slice_of(&|endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating) = (false, false, true)));
    assert_eq!(fates(&services), [Fate::Served, Fate::Unsure]);
    services.apply(&slice_of(&|endpoint| endpoint.addr = PodAddr([10, 233, 64, 10].into())));
    assert_eq!(fates(&services), [Fate::Lost; 2]);
    services.apply(&Change::Slice(slice.clone(), None));
    assert_eq!(fates(&services), [Fate::Unsure; 2], "there is nobody whom its clients could come to");
    // The port gets another name, and the slices have the former one for a while.
    services.apply(&slice_of(&|_| {}));
    let mut renamed = object;
    renamed.ports[0].name = "other".into();
    put(&mut services, &renamed);
    assert_eq!(fates(&services), [Fate::Served; 2]);
    services.apply(&Change::Service(service.clone(), None));
    assert_eq!(fates(&services), [Fate::Left, Fate::Unsure], "of a Service that is gone nothing is known");
}
