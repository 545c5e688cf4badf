use podnet_model::Protocol;

use super::*;

fn key(port: u16) -> ServerKey {
    ServerKey::Address(FrontendKey { addr: addr(1), protocol: Protocol::Tcp, port })
}

fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn server(scheduler: Scheduler, reals: &[(u8, u32)]) -> Server {
    let scheduling = Scheduling { scheduler, fallback: false, port: false, persistence: None };
    let reals = reals.iter().map(|(last, weight)| (BackendAddress { addr: addr(*last), port: 80 }, *weight));
    Server { scheduling, reals: reals.collect() }
}

fn set(of: SetType, elements: &[(Element, Option<u32>)]) -> Set {
    let marks = elements.iter().any(|(_, mark)| mark.is_some());
    Set { kind: SetKind { of, marks }, elements: elements.iter().copied().collect() }
}

fn states() -> Vec<State> {
    let one = State {
        servers: [
            (key(80), server(Scheduler::RoundRobin, &[(2, 1), (3, 1)])),
            (key(81), server(Scheduler::RoundRobin, &[])),
        ]
        .into(),
        addrs: [addr(1), addr(9)].into(),
        sets: [
            ("A".into(), set(SetType::Address, &[(Element::Address(addr(1)), None)])),
            ("B".into(), set(SetType::PortAlone, &[(Element::PortAlone(80), None)])),
            ("C".into(), set(SetType::Port, &[(Element::Port(addr(1), Protocol::Tcp, 80), Some(7))])),
        ]
        .into(),
    };
    let other = State {
        servers: [
            (key(80), server(Scheduler::Maglev, &[(2, 0), (4, 1)])),
            (ServerKey::Mark(7), server(Scheduler::SourceHash, &[(4, 1)])),
        ]
        .into(),
        addrs: [addr(1), addr(8)].into(),
        sets: [
            ("A".into(), set(SetType::Range, &[(Element::Range("10.0.0.0/8".parse().unwrap()), None)])),
            ("C".into(), set(SetType::Port, &[(Element::Port(addr(1), Protocol::Tcp, 80), Some(8))])),
            ("D".into(), set(SetType::PortFrom, &[(Element::PortFrom(addr(1), Protocol::Udp, 53, addr(2)), None)])),
        ]
        .into(),
    };
    vec![State::default(), one, other]
}

#[test]
fn the_edits_between_two_states_make_one_of_the_other() {
    for there in states() {
        for wanted in states() {
            let mut state = there.clone();
            let edits = difference(&wanted, &there);
            edits.iter().for_each(|edit| state.apply(edit));
            assert_eq!(state, wanted, "from {there:?} by {edits:?}");
            assert_eq!(edits.is_empty(), there == wanted);
        }
    }
}

/// Whoever does the edits may be killed after any of them, and something else may be wanted by then.
#[test]
fn whoever_begins_anew_after_any_of_the_edits_ends_where_all_of_them_do() {
    for there in states() {
        for former in states() {
            for wanted in states() {
                let mut state = there.clone();
                for edit in difference(&former, &there) {
                    state.apply(&edit);
                    let mut anew = state.clone();
                    difference(&wanted, &state).iter().for_each(|edit| anew.apply(edit));
                    assert_eq!(anew, wanted, "from {state:?}, after {edit:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_used_is_there_before_and_goes_after() {
    let [_, one, other] = &states()[..] else { unreachable!() };
    let edits = difference(other, one);
    let place = |edit: &Edit| edits.iter().position(|one| one == edit).unwrap_or_else(|| panic!("no {edit:?}"));
    let new = BackendAddress { addr: addr(4), port: 80 };
    let element = Element::Port(addr(1), Protocol::Tcp, 80);
    assert!(place(&Edit::AddReal(ServerKey::Mark(7), new, 1)) < place(&Edit::AddElement("C".into(), element, Some(8))));
    assert!(place(&Edit::AddReal(key(80), new, 1)) < place(&Edit::RemoveServer(key(81))));
    assert!(place(&Edit::RemoveAddress(addr(9))) < place(&Edit::RemoveServer(key(81))));
    assert!(place(&Edit::AddAddress(addr(8))) < place(&Edit::RemoveAddress(addr(9))));
    assert!(
        place(&Edit::AddReal(key(80), new, 1))
            < place(&Edit::RemoveReal(key(80), BackendAddress { addr: addr(3), port: 80 }))
    );
}

#[test]
fn a_server_is_not_for_a_moment_without_a_real_one_that_gets_something() {
    let state = |reals: &[(u8, u32)]| {
        let servers = [(key(80), server(Scheduler::RoundRobin, reals))].into();
        State { servers, ..State::default() }
    };
    let real = |last| BackendAddress { addr: addr(last), port: 80 };
    let edits = difference(&state(&[(2, 0), (3, 1)]), &state(&[(2, 1)]));
    assert_eq!(edits, [Edit::AddReal(key(80), real(3), 1), Edit::Weigh(key(80), real(2), 0)]);
    let edits = difference(&state(&[(2, 1)]), &state(&[(2, 0), (3, 1)]));
    assert_eq!(edits, [Edit::Weigh(key(80), real(2), 1), Edit::RemoveReal(key(80), real(3))]);
}

#[test]
fn every_scheduler_of_the_configuration_has_its_name() {
    let names: Vec<_> = Scheduler::ALL.into_iter().map(Scheduler::name).collect();
    assert_eq!(names, podnet_model::proxy::SCHEDULERS);
    assert!(Scheduler::ALL.into_iter().all(|one| Scheduler::named(one.name()) == Some(one)));
    assert_eq!(Scheduler::named("fast"), None);
}
