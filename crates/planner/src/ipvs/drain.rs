//! How real servers go: connections that are under way end in peace.
//!
//! One that is not wanted any more gets the weight 0, so that nothing new comes to it, and goes when its connections are over, however long they take.
//! While it is the last of a virtual server this stays with what notes it, and so does its address: without it packets would not come to this node. A
//! virtual server that nobody wants any more, as its Service is gone or has no endpoint, stays for a quarter of an hour at most. Time is an argument: as long as whoever asks is running.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Edit, Element, NOTES, PLACES, ServerKey, SetName, State};
use crate::ruleset::{BackendAddress, FrontendKey};

/// How long connections of a virtual server are waited for that nobody wants any more: it holds its address.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The real servers on their way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Since when.
    since: BTreeMap<(ServerKey, BackendAddress), Duration>,
    /// Virtual servers that go with the last of theirs, and what notes them.
    leaving: BTreeMap<ServerKey, Option<(SetName, Element)>>,
    /// What is done to their addresses then.
    held: BTreeMap<IpAddr, Vec<Edit>>,
    /// Whose connections were asked for last.
    asked: Option<ServerKey>,
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
        let mut soft = Soft { there, reals: BTreeMap::new(), edits: Vec::with_capacity(edits.len()) };
        let stay = self.addrs_that_stay(&edits, there, &may_drain);
        for edit in edits {
            match edit {
                Edit::RemoveReal(key, real) if may_drain(&key) => self.let_go(key, real, now, &mut soft),
                Edit::RemoveServer(key) if may_drain(&key) && has_reals(there, &key) => {
                    if !self.leaving.contains_key(&key) {
                        // However long some of its own have been on their way out.
                        let own = self.since.iter_mut().filter(|((of, _), _)| *of == key);
                        own.for_each(|(_, since)| *since = now);
                    }
                    let reals: Vec<BackendAddress> = soft.reals(key).keys().copied().collect();
                    reals.into_iter().for_each(|real| self.let_go(key, real, now, &mut soft));
                    self.leaving.entry(key).or_default();
                }
                Edit::AddServer(key, scheduling) if self.leaving.remove(&key).is_some() => {
                    soft.push(Edit::ChangeServer(key, scheduling));
                }
                Edit::AddReal(key, real, weight) | Edit::Weigh(key, real, weight) if weight > 0 => {
                    self.leaving.remove(&key);
                    self.since.remove(&(key, real));
                    let is_there = soft.reals(key).contains_key(&real);
                    soft.push(match is_there {
                        true => Edit::Weigh(key, real, weight),
                        false => Edit::AddReal(key, real, weight),
                    });
                }
                Edit::RemoveElement(name, element) if name.ends_with(NOTES) => {
                    match noted(&name, &element, there).and_then(|key| self.leaving.get_mut(&key)) {
                        Some(note) => *note = Some((name, element)),
                        None => soft.push(Edit::RemoveElement(name, element)),
                    }
                }
                edit => {
                    self.forget(&edit);
                    match place_of(&edit) {
                        Some(Place { addr, is_kept: false }) if stay.contains(&addr) => self.hold(addr, edit),
                        Some(place) => self.settle(place.addr, edit, &mut soft),
                        None => soft.push(edit),
                    }
                }
            }
        }
        soft.edits
    }

    /// The virtual servers whose connections have to be known.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<ServerKey> {
        self.since.keys().map(|(key, _)| *key).collect()
    }

    /// Whether nothing is on its way out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.since.is_empty()
    }

    /// The virtual servers whose connections are to be known next, so many at most: the kernel is asked for each, and all have their turns.
    #[must_use]
    pub fn turn(&mut self, most: usize) -> BTreeSet<ServerKey> {
        let all = self.servers();
        let last = self.asked.take();
        let is_next = |key: &&ServerKey| last.is_none_or(|last| last < **key);
        let (next, first): (Vec<&ServerKey>, Vec<&ServerKey>) = all.iter().partition(is_next);
        let turn: Vec<ServerKey> = next.into_iter().chain(first).take(most).copied().collect();
        self.asked = turn.last().copied();
        turn.into_iter().collect()
    }

    /// Those of them that nobody wants any more.
    pub fn leaving(&self) -> impl Iterator<Item = &ServerKey> {
        self.leaving.keys()
    }

    /// What can go now, when each real server of these virtual servers has so many connections.
    #[must_use]
    pub fn over(
        &mut self,
        of: &BTreeSet<ServerKey>,
        connections: &BTreeMap<(ServerKey, BackendAddress), u64>,
        now: Duration,
    ) -> Vec<Edit> {
        let mut edits = Vec::new();
        let leaving = &self.leaving;
        self.since.retain(|one, since| {
            let is_busy = !of.contains(&one.0) || connections.get(one).is_some_and(|count| *count > 0);
            let is_late = leaving.contains_key(&one.0) && now.saturating_sub(*since) >= PATIENCE;
            let stays = is_busy && !is_late;
            if !stays {
                edits.push(Edit::RemoveReal(one.0, one.1));
            }
            stays
        });
        let waiting = self.servers();
        let mut gone = Vec::new();
        self.leaving.retain(|key, note| {
            let stays = waiting.contains(key);
            if !stays {
                gone.push(Edit::RemoveServer(*key));
                gone.extend(note.take().map(|(name, element)| Edit::RemoveElement(name, element)));
            }
            stays
        });
        let stay: BTreeSet<IpAddr> = self.addrs().collect();
        let held = std::mem::take(&mut self.held).into_iter();
        let (kept, over): (BTreeMap<_, _>, BTreeMap<_, _>) = held.partition(|(addr, _)| stay.contains(addr));
        self.held = kept;
        edits.extend(over.into_values().flatten());
        edits.extend(gone);
        edits
    }

    fn let_go(&mut self, key: ServerKey, real: BackendAddress, now: Duration, soft: &mut Soft<'_>) {
        let Some(weight) = soft.reals(key).get(&real).copied() else {
            // The kernel did not take it, or somebody else removed it.
            soft.push(Edit::RemoveReal(key, real));
            return;
        };
        self.since.entry((key, real)).or_insert(now);
        if weight > 0 {
            soft.push(Edit::Weigh(key, real, 0));
        }
    }

    /// The addresses of virtual servers that are leaving, or begin to by these edits.
    fn addrs_that_stay(
        &self,
        edits: &[Edit],
        there: &State,
        may_drain: &impl Fn(&ServerKey) -> bool,
    ) -> BTreeSet<IpAddr> {
        let mut leave: BTreeSet<ServerKey> = self.leaving.keys().copied().collect();
        for edit in edits {
            match edit {
                Edit::RemoveServer(key) if may_drain(key) && has_reals(there, key) => drop(leave.insert(*key)),
                Edit::AddServer(key, _) | Edit::AddReal(key, ..) => drop(leave.remove(key)),
                _ => {}
            }
        }
        let struck_out = edits.iter().filter_map(|edit| match edit {
            Edit::RemoveElement(name, element) => {
                let key = noted(name, element, there).filter(|key| leave.contains(key))?;
                addr_of(&key, Some(element))
            }
            _ => None,
        });
        leave.iter().filter_map(|key| addr_of(key, None)).chain(struck_out).chain(self.addrs()).collect()
    }

    /// The addresses of virtual servers that are leaving.
    fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        self.leaving.iter().filter_map(|(key, note)| addr_of(key, note.as_ref().map(|(_, element)| element)))
    }

    fn hold(&mut self, addr: IpAddr, edit: Edit) {
        let held = self.held.entry(addr).or_default();
        if !held.contains(&edit) {
            held.push(edit);
        }
    }

    /// An edit of an address that is to be done, where the contrary may be held back: then there is nothing to do.
    fn settle(&mut self, addr: IpAddr, edit: Edit, soft: &mut Soft<'_>) {
        let Some(held) = self.held.get_mut(&addr) else {
            soft.push(edit);
            return;
        };
        let before = held.len();
        held.retain(|held| !is_same_place(held, &edit));
        let is_there = held.len() < before && matches!(edit, Edit::AddAddress(_) | Edit::AddElement(..));
        if held.is_empty() {
            self.held.remove(&addr);
        }
        if !is_there {
            soft.push(edit);
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

/// The edits as they are to be done, and what is there once they are: an endpoint may go and come back in one list.
struct Soft<'a> {
    there: &'a State,
    /// Of the virtual servers that were asked for, the real servers with their weights.
    reals: BTreeMap<ServerKey, BTreeMap<BackendAddress, u32>>,
    edits: Vec<Edit>,
}

impl Soft<'_> {
    fn reals(&mut self, key: ServerKey) -> &mut BTreeMap<BackendAddress, u32> {
        let there = || self.there.servers.get(&key).map(|server| server.reals.clone()).unwrap_or_default();
        self.reals.entry(key).or_insert_with(there)
    }

    fn push(&mut self, edit: Edit) {
        match &edit {
            Edit::AddReal(key, real, weight) | Edit::Weigh(key, real, weight) => {
                self.reals(*key).insert(*real, *weight);
            }
            Edit::RemoveReal(key, real) => drop(self.reals(*key).remove(real)),
            Edit::RemoveServer(key) => drop(self.reals.insert(*key, BTreeMap::new())),
            _ => {}
        }
        self.edits.push(edit);
    }
}

/// An address that an edit brings to this node, or takes from it.
struct Place {
    addr: IpAddr,
    is_kept: bool,
}

fn place_of(edit: &Edit) -> Option<Place> {
    let is_place = |name: &SetName| PLACES.iter().any(|ending| name.ends_with(ending));
    match edit {
        Edit::AddAddress(addr) => Some(Place { addr: *addr, is_kept: true }),
        Edit::RemoveAddress(addr) => Some(Place { addr: *addr, is_kept: false }),
        Edit::AddElement(name, Element::Address(addr), _) if is_place(name) => {
            Some(Place { addr: *addr, is_kept: true })
        }
        Edit::RemoveElement(name, Element::Address(addr)) if is_place(name) => {
            Some(Place { addr: *addr, is_kept: false })
        }
        _ => None,
    }
}

/// Both are of the device, or both of the same set.
fn is_same_place(one: &Edit, other: &Edit) -> bool {
    let set = |edit: &Edit| match edit {
        Edit::AddElement(name, ..) | Edit::RemoveElement(name, _) => Some(name.clone()),
        _ => None,
    };
    set(one) == set(other)
}

/// The virtual server that an element of a set notes.
fn noted(name: &SetName, element: &Element, there: &State) -> Option<ServerKey> {
    let Element::Port(addr, protocol, port) = *element else { return None };
    if !name.ends_with(NOTES) {
        return None;
    }
    let mark = there.sets.get(name).and_then(|set| *set.elements.get(element)?);
    Some(mark.map_or(ServerKey::Address(FrontendKey { addr, protocol, port }), ServerKey::Mark))
}

/// Where packets to a virtual server are for, as far as it or its note tells.
const fn addr_of(key: &ServerKey, note: Option<&Element>) -> Option<IpAddr> {
    match (key, note) {
        (ServerKey::Address(key), _) => Some(key.addr),
        (ServerKey::Mark(_), Some(Element::Port(addr, ..))) => Some(*addr),
        (ServerKey::Mark(_), _) => None,
    }
}

fn has_reals(there: &State, key: &ServerKey) -> bool {
    there.servers.get(key).is_some_and(|server| !server.reals.is_empty())
}

#[cfg(test)]
mod tests;
