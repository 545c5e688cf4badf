use std::net::IpAddr;

use podnet_model::Protocol;

use super::*;
use crate::ipvs::{Scheduler, Scheduling, Server, Set, SetKind, SetType, difference};

const NOTE: &str = "KUBE-VIRTUAL-SERVERS";

fn key() -> ServerKey {
    ServerKey::Address(FrontendKey { addr: addr(1), protocol: Protocol::Tcp, port: 80 })
}

fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn real(last: u8) -> BackendAddress {
    BackendAddress { addr: addr(last), port: 80 }
}

fn element() -> Element {
    Element::Port(addr(1), Protocol::Tcp, 80)
}

/// One with these real servers; none has no virtual server.
fn state(reals: &[u8]) -> State {
    let mut set = Set::new(SetKind::plain(SetType::Port));
    let mut state = State::default();
    if !reals.is_empty() {
        set.elements.insert(element(), None);
        let scheduling =
            Scheduling { scheduler: Scheduler::RoundRobin, fallback: false, port: false, persistence: None };
        let reals = reals.iter().map(|last| (real(*last), 1)).collect();
        state.servers.insert(key(), Server { scheduling, reals });
    }
    state.sets.insert(NOTE.into(), set);
    state
}

struct Kernel {
    there: State,
    drain: Drain,
}

impl Kernel {
    fn go(&mut self, wanted: &State, now: u64) -> Vec<Edit> {
        let edits = difference(wanted, &self.there);
        let edits = self.drain.soften(edits, &self.there, |_| true, Duration::from_secs(now));
        edits.iter().for_each(|edit| self.there.apply(edit));
        edits
    }

    fn over(&mut self, connections: &[(u8, u64)], now: u64) -> Vec<Edit> {
        let connections = connections.iter().map(|(last, count)| ((key(), real(*last)), *count)).collect();
        let edits = self.drain.over(&self.drain.servers(), &connections, Duration::from_secs(now));
        edits.iter().for_each(|edit| self.there.apply(edit));
        edits
    }
}

fn kernel(reals: &[u8]) -> Kernel {
    Kernel { there: state(reals), drain: Drain::default() }
}

#[test]
fn the_connections_of_many_virtual_servers_are_asked_for_in_turns() {
    let mut drain = Drain::default();
    let keys: Vec<ServerKey> = (1..=5).map(ServerKey::Mark).collect();
    let scheduling = Scheduling { scheduler: Scheduler::RoundRobin, fallback: false, port: false, persistence: None };
    let there = |key: &ServerKey| [Edit::AddServer(*key, scheduling), Edit::AddReal(*key, real(1), 1)];
    let mut state = State::default();
    keys.iter().flat_map(there).for_each(|edit| state.apply(&edit));
    let edits = keys.iter().map(|key| Edit::RemoveReal(*key, real(1))).collect();
    let _ = drain.soften(edits, &state, |_| true, Duration::ZERO);
    let turns: Vec<Vec<ServerKey>> = (0..4).map(|_| drain.turn(2).into_iter().collect()).collect();
    let of = |marks: [u32; 2]| marks.map(ServerKey::Mark).to_vec();
    assert_eq!(turns, [of([1, 2]), of([3, 4]), of([1, 5]), of([2, 3])]);
    // Of those that were not asked for nothing is known.
    let over = drain.over(&[keys[3]].into(), &BTreeMap::new(), Duration::ZERO);
    assert_eq!(over, [Edit::RemoveReal(keys[3], real(1))]);
    assert!(!drain.is_idle() && drain.servers().len() == 4);
}

#[test]
fn a_real_server_goes_when_its_connections_are_over_and_gets_no_new_ones_before() {
    let mut kernel = kernel(&[2, 3]);
    assert_eq!(kernel.go(&state(&[2]), 0), [Edit::Weigh(key(), real(3), 0)]);
    assert_eq!(kernel.go(&state(&[2]), 1), [], "looked at again nothing is to be done");
    assert_eq!(kernel.over(&[(3, 2)], 2), []);
    assert_eq!(kernel.over(&[(3, 0)], 3), [Edit::RemoveReal(key(), real(3))]);
    assert_eq!(kernel.there, state(&[2]));
    assert_eq!(kernel.drain, Drain::default());
}

#[test]
fn one_whose_connections_do_not_end_stays_and_goes_a_quarter_of_an_hour_after_its_virtual_server_at_most() {
    let mut kernel = kernel(&[2, 3]);
    kernel.go(&state(&[2]), 10);
    assert_eq!(kernel.over(&[(3, 1)], 100_000), [], "it ends as long as it likes");
    kernel.go(&state(&[]), 100_000);
    assert_eq!(kernel.over(&[(2, 1), (3, 1)], 100_899), []);
    let over = kernel.over(&[(2, 1), (3, 1)], 100_900);
    assert!([2, 3].iter().all(|last| over.contains(&Edit::RemoveReal(key(), real(*last)))), "{over:?}");
}

#[test]
fn one_that_comes_back_gets_its_weight_back() {
    let mut kernel = kernel(&[2, 3]);
    kernel.go(&state(&[2]), 0);
    assert_eq!(kernel.go(&state(&[2, 3]), 1), [Edit::Weigh(key(), real(3), 1)]);
    assert_eq!(kernel.drain, Drain::default());
}

#[test]
fn the_last_one_keeps_the_virtual_server_and_its_note_until_it_goes() {
    let mut kernel = kernel(&[2]);
    assert_eq!(kernel.go(&state(&[]), 0), [Edit::Weigh(key(), real(2), 0)]);
    assert_eq!(kernel.over(&[(2, 1)], 1), []);
    let mut again = Kernel { there: kernel.there.clone(), drain: kernel.drain.clone() };
    again.go(&state(&[2]), 2);
    assert_eq!((&again.there, &again.drain), (&state(&[2]), &Drain::default()));
    kernel.over(&[], 3);
    assert_eq!((&kernel.there, &kernel.drain), (&state(&[]), &Drain::default()));
}

#[test]
fn after_a_restart_it_drains_on() {
    let mut kernel = kernel(&[2, 3]);
    kernel.go(&state(&[2]), 0);
    kernel.drain = Drain::default();
    assert_eq!(kernel.go(&state(&[2]), 0), []);
    assert_eq!(kernel.drain.servers(), [key()].into());
    assert_eq!(kernel.over(&[(3, 0)], 1), [Edit::RemoveReal(key(), real(3))]);
}

#[test]
fn one_that_is_not_there_does_not_drain() {
    let there = state(&[2]);
    let mut drain = Drain::default();
    let edits = vec![Edit::RemoveReal(key(), real(3))];
    assert_eq!(drain.soften(edits.clone(), &there, |_| true, Duration::ZERO), edits);
    let edits = vec![Edit::AddReal(key(), real(3), 1)];
    assert_eq!(drain.soften(edits.clone(), &there, |_| true, Duration::ZERO), edits, "it is made, not weighed");
}

#[test]
fn what_has_no_connections_goes_at_once() {
    let there = state(&[2, 3]);
    let mut drain = Drain::default();
    let edits = difference(&state(&[2]), &there);
    assert_eq!(drain.soften(edits.clone(), &there, |_| false, Duration::ZERO), edits);
    assert_eq!(drain, Drain::default());
}

/// What is there after these edits, each of which has to fit what is there then.
fn after(edits: Vec<Edit>, there: &State, may_drain: bool) -> (State, Drain) {
    let (mut state, mut drain) = (there.clone(), Drain::default());
    for edit in drain.soften(edits, there, |_| may_drain, Duration::ZERO) {
        let has = |key: &ServerKey, real: &BackendAddress| {
            state.servers.get(key).is_some_and(|server| server.reals.contains_key(real))
        };
        match &edit {
            Edit::AddReal(key, real, _) => assert!(state.servers.contains_key(key) && !has(key, real), "{edit:?}"),
            Edit::Weigh(key, real, _) | Edit::RemoveReal(key, real) => assert!(has(key, real), "{edit:?}"),
            _ => {}
        }
        state.apply(&edit);
    }
    (state, drain)
}

#[test]
fn what_goes_at_once_and_comes_back_in_one_list_is_made_again() {
    let there = state(&[2, 3]);
    let back = vec![Edit::RemoveReal(key(), real(3)), Edit::AddReal(key(), real(3), 1)];
    assert_eq!(after(back.clone(), &there, false).0, there);
    assert_eq!(after(back, &there, true), (there.clone(), Drain::default()), "it drained for no time at all");
    let mut anew = difference(&state(&[]), &there);
    anew.extend(difference(&there, &state(&[])));
    for may_drain in [false, true] {
        assert_eq!(after(anew.clone(), &there, may_drain).0, there, "may drain: {may_drain}");
    }
}

#[test]
fn what_comes_and_goes_again_in_one_list_gets_no_new_connections() {
    let mut there = state(&[2, 3]);
    there.apply(&Edit::Weigh(key(), real(3), 0));
    let edits = || vec![Edit::AddReal(key(), real(3), 1), Edit::RemoveReal(key(), real(3))];
    let (state, drain) = after(edits(), &there, true);
    assert_eq!((&state, drain.servers()), (&there, [key()].into()), "its connections go on");
    let (state, drain) = after(edits(), &self::state(&[2]), true);
    assert_eq!((state.servers[&key()].reals[&real(3)], drain.servers()), (0, [key()].into()));
}
