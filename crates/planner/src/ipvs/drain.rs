//! How real servers go: connections that are under way end in peace.
//!
//! One that is not wanted any more gets the weight 0, so that nothing new comes to it, and goes when its connections are over, or are a quarter
//! of an hour old. Time is an argument: as long as whoever asks is running.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Edit, Element, NOTES, ServerKey, SetName, State};
use crate::ruleset::{BackendAddress, FrontendKey};

/// How long connections are waited for: as kube-proxy does.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The real servers on their way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Since when.
    since: BTreeMap<(ServerKey, BackendAddress), Duration>,
    /// Virtual servers that go with the last of theirs, and what notes them.
    leaving: BTreeMap<ServerKey, Option<(SetName, Element)>>,
}

impl Drain {
    /// The edits as they are to be done where this is there. Where `may_drain` says so of a virtual server, its real servers go by and by.
    #[must_use]
    pub fn soften(
        &mut self,
        edits: Vec<Edit>,
        there: &State,
        may_drain: impl Fn(&ServerKey) -> bool,
        now: Duration,
    ) -> Vec<Edit> {
        let mut soft = Vec::with_capacity(edits.len());
        for edit in edits {
            match edit {
                Edit::RemoveReal(key, real) if may_drain(&key) => self.let_go(key, real, there, now, &mut soft),
                Edit::RemoveServer(key) if may_drain(&key) && has_reals(there, &key) => {
                    let reals = there.servers[&key].reals.keys();
                    reals.for_each(|real| self.let_go(key, *real, there, now, &mut soft));
                    self.leaving.entry(key).or_default();
                }
                Edit::AddServer(key, scheduling) if self.leaving.remove(&key).is_some() => {
                    soft.push(Edit::ChangeServer(key, scheduling));
                }
                Edit::AddReal(key, real, weight) | Edit::Weigh(key, real, weight) if weight > 0 => {
                    self.leaving.remove(&key);
                    let drains = self.since.remove(&(key, real)).is_some();
                    let is_there = there.servers.get(&key).is_some_and(|server| server.reals.contains_key(&real));
                    soft.push(match drains || is_there {
                        true => Edit::Weigh(key, real, weight),
                        false => Edit::AddReal(key, real, weight),
                    });
                }
                Edit::RemoveElement(name, element) => match self.note_of(&name, &element) {
                    Some(note) => *note = Some((name, element)),
                    None => soft.push(Edit::RemoveElement(name, element)),
                },
                edit => {
                    self.forget(&edit);
                    soft.push(edit);
                }
            }
        }
        soft
    }

    /// The virtual servers whose connections have to be known.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<ServerKey> {
        self.since.keys().map(|(key, _)| *key).collect()
    }

    /// What can go now, when each real server has so many connections.
    #[must_use]
    pub fn over(&mut self, connections: &BTreeMap<(ServerKey, BackendAddress), u64>, now: Duration) -> Vec<Edit> {
        let mut edits = Vec::new();
        self.since.retain(|one, since| {
            let stays = connections.get(one).is_some_and(|count| *count > 0) && now.saturating_sub(*since) < PATIENCE;
            if !stays {
                edits.push(Edit::RemoveReal(one.0, one.1));
            }
            stays
        });
        let waiting = self.servers();
        self.leaving.retain(|key, note| {
            let stays = waiting.contains(key);
            if !stays {
                edits.push(Edit::RemoveServer(*key));
                edits.extend(note.take().map(|(name, element)| Edit::RemoveElement(name, element)));
            }
            stays
        });
        edits
    }

    fn let_go(&mut self, key: ServerKey, real: BackendAddress, there: &State, now: Duration, soft: &mut Vec<Edit>) {
        let Some(weight) = there.servers.get(&key).and_then(|server| server.reals.get(&real)) else {
            // The kernel did not take it, or somebody else removed it.
            soft.push(Edit::RemoveReal(key, real));
            return;
        };
        self.since.entry((key, real)).or_insert(now);
        if *weight > 0 {
            soft.push(Edit::Weigh(key, real, 0));
        }
    }

    /// The place for what notes a virtual server that is leaving.
    fn note_of(&mut self, name: &SetName, element: &Element) -> Option<&mut Option<(SetName, Element)>> {
        match element {
            Element::Port(addr, protocol, port) if name.ends_with(NOTES) => {
                let key = FrontendKey { addr: *addr, protocol: *protocol, port: *port };
                self.leaving.get_mut(&ServerKey::Address(key))
            }
            _ => None,
        }
    }

    /// What is removed at once drains no more.
    fn forget(&mut self, edit: &Edit) {
        match edit {
            Edit::RemoveReal(key, real) => drop(self.since.remove(&(*key, *real))),
            Edit::RemoveServer(key) => self.since.retain(|(of, _), _| of != key),
            _ => {}
        }
    }
}

fn has_reals(there: &State, key: &ServerKey) -> bool {
    there.servers.get(key).is_some_and(|server| !server.reals.is_empty())
}

#[cfg(test)]
mod tests {
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
            let edits = self.drain.over(&connections, Duration::from_secs(now));
            edits.iter().for_each(|edit| self.there.apply(edit));
            edits
        }
    }

    fn kernel(reals: &[u8]) -> Kernel {
        Kernel { there: state(reals), drain: Drain::default() }
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
    fn one_whose_connections_do_not_end_goes_after_a_quarter_of_an_hour() {
        let mut kernel = kernel(&[2, 3]);
        kernel.go(&state(&[2]), 10);
        assert_eq!(kernel.over(&[(3, 1)], 909), []);
        assert_eq!(kernel.over(&[(3, 1)], 910), [Edit::RemoveReal(key(), real(3))]);
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
}
