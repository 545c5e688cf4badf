//! From what is there to what ought to be.

use std::collections::BTreeMap;

use super::{Edit, NOTES, Server, ServerKey, Set, SetName, State};

/// The edits that make what is there what is wanted: servers can do their work before packets come to them, and go when none do any more.
///
/// A set of another kind than wanted is made anew. In between it is not there, which no rule may mean.
#[must_use]
pub fn difference(wanted: &State, there: &State) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (name, set) in &there.sets {
        if wanted.sets.get(name).is_some_and(|wanted| wanted.kind != set.kind) {
            edits.push(Edit::DestroySet(name.clone()));
        }
    }
    make_sets(wanted, there, &mut edits);
    add_elements(wanted, there, is_of_notes, &mut edits);
    for (key, server) in &wanted.servers {
        make_server(*key, server, there.servers.get(key), &mut edits);
    }
    add_elements(wanted, there, |name| !is_of_notes(name), &mut edits);
    edits.extend(wanted.addrs.difference(&there.addrs).map(|addr| Edit::AddAddress(*addr)));
    edits.extend(there.addrs.difference(&wanted.addrs).map(|addr| Edit::RemoveAddress(*addr)));
    remove_elements(wanted, there, |name| !is_of_notes(name), &mut edits);
    for (key, server) in &there.servers {
        match wanted.servers.get(key) {
            None => edits.push(Edit::RemoveServer(*key)),
            Some(wanted) => {
                let gone = server.reals.keys().filter(|real| !wanted.reals.contains_key(real));
                edits.extend(gone.map(|real| Edit::RemoveReal(*key, *real)));
            }
        }
    }
    remove_elements(wanted, there, is_of_notes, &mut edits);
    edits.extend(there.sets.keys().filter(|name| !wanted.sets.contains_key(*name)).cloned().map(Edit::DestroySet));
    edits
}

fn is_of_notes(name: &SetName) -> bool {
    name.ends_with(NOTES)
}

/// What is there of a set, where it is one of the kind that is wanted.
fn same<'a>(there: &'a State, name: &SetName, wanted: &Set) -> Option<&'a Set> {
    there.sets.get(name).filter(|set| set.kind == wanted.kind)
}

fn make_sets(wanted: &State, there: &State, edits: &mut Vec<Edit>) {
    let missing = wanted.sets.iter().filter(|(name, set)| same(there, name, set).is_none());
    edits.extend(missing.map(|(name, set)| Edit::MakeSet(name.clone(), set.kind)));
}

fn make_server(key: ServerKey, wanted: &Server, there: Option<&Server>, edits: &mut Vec<Edit>) {
    match there {
        None => edits.push(Edit::AddServer(key, wanted.scheduling)),
        Some(there) if there.scheduling != wanted.scheduling => {
            edits.push(Edit::ChangeServer(key, wanted.scheduling));
        }
        Some(_) => {}
    }
    // Those that get nothing new come last: a virtual server is not for a moment without one that does.
    let (nothing, something): (Vec<_>, Vec<_>) = wanted.reals.iter().partition(|(_, weight)| **weight == 0);
    for (real, weight) in something.into_iter().chain(nothing) {
        match there.and_then(|there| there.reals.get(real)) {
            None => edits.push(Edit::AddReal(key, *real, *weight)),
            Some(before) if before != weight => edits.push(Edit::Weigh(key, *real, *weight)),
            Some(_) => {}
        }
    }
}

fn add_elements(wanted: &State, there: &State, of: fn(&SetName) -> bool, edits: &mut Vec<Edit>) {
    for (name, set) in wanted.sets.iter().filter(|(name, _)| of(name)) {
        let before = same(there, name, set).map(|set| &set.elements);
        let is_there = |element, mark| before.is_some_and(|before| before.get(element) == Some(mark));
        let new = set.elements.iter().filter(|(element, mark)| !is_there(*element, *mark));
        edits.extend(new.map(|(element, mark)| Edit::AddElement(name.clone(), *element, *mark)));
    }
}

fn remove_elements(wanted: &State, there: &State, of: fn(&SetName) -> bool, edits: &mut Vec<Edit>) {
    let nothing = BTreeMap::new();
    for (name, set) in wanted.sets.iter().filter(|(name, _)| of(name)) {
        let before = same(there, name, set).map_or(&nothing, |set| &set.elements);
        let gone = before.keys().filter(|element| !set.elements.contains_key(element));
        edits.extend(gone.map(|element| Edit::RemoveElement(name.clone(), *element)));
    }
}
