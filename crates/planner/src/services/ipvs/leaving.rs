//! What stays of virtual servers for a while when Services are served in another way, and by what way packets come to servers that leave.
//!
//! The translation of a connection lives in its virtual server, so that has to stay for as long as there are connections to it. Nothing new
//! comes there, since another mode translates before; who gets there still, as before that one refuses, gets nothing. What is external comes
//! here by a mark, of rules that are gone then: it is led here by a rule of routing for each frontend, which what another mode translates
//! does not meet.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::{Family, Protocol};

use super::sets::Sets;
use crate::{
    ipvs::{Element, ServerKey, Set, SetName, State},
    ruleset::{BackendAddress, FrontendKey},
};

/// As many external frontends are led here at once, of those that leave: each packet of the node's asks all rules of routing.
const MOST_LED: usize = 512;

/// The virtual servers that may have connections worth to be kept: those of frontends that `may_stay`.
#[must_use]
pub fn may_linger(there: &State, family: Family, may_stay: impl Fn(&FrontendKey) -> bool) -> Vec<ServerKey> {
    let all = frontends(there, &Sets::of(family)).into_iter();
    all.filter(|(_, frontend)| may_stay(frontend)).map(|(key, _)| key).collect()
}

/// The backends that virtual servers of these remember connections to, where each real server has so many.
///
/// What is remembered hurts whoever comes to such a backend by itself: the kernel takes an answer from there, to a client's port that it
/// remembers with it, for the virtual server's, and gives it the frontend's address. It does so for a while after the virtual server went, and
/// of datagrams, whose virtual servers do not linger, too.
#[must_use]
pub fn remembered(
    of: &State,
    family: Family,
    connections: &BTreeMap<(ServerKey, BackendAddress), u64>,
) -> BTreeSet<(Protocol, BackendAddress)> {
    let frontends: BTreeMap<ServerKey, FrontendKey> = all_frontends(of, &Sets::of(family)).into_iter().collect();
    let busy = connections.iter().filter(|(_, count)| **count > 0);
    busy.filter_map(|((key, at), _)| Some((frontends.get(key)?.protocol, *at))).collect()
}

/// The frontends of what lingers.
#[must_use]
pub fn lingers_for(left: &State, family: Family) -> BTreeSet<FrontendKey> {
    frontends(left, &Sets::of(family)).into_iter().map(|(_, frontend)| frontend).collect()
}

/// What stays of what is there, where each real server has so many connections.
#[must_use]
pub fn lingering(there: &State, family: Family, connections: &BTreeMap<(ServerKey, BackendAddress), u64>) -> State {
    let sets = Sets::of(family);
    let busy: BTreeSet<ServerKey> =
        connections.iter().filter(|(_, count)| **count > 0).map(|((key, _), _)| *key).collect();
    let led = led_here(there, family, &busy);
    let stays = |(key, frontend): &(ServerKey, FrontendKey)| {
        busy.contains(key) && (led.contains(frontend) || !is_elsewhere(there, &sets, frontend))
    };
    let mut left = State::default();
    for (key, frontend) in frontends(there, &sets).into_iter().filter(stays) {
        left.servers.extend(there.servers.get(&key).cloned().map(|mut server| {
            server.reals.values_mut().for_each(|weight| *weight = 0);
            (key, server)
        }));
        left.addrs.extend(there.addrs.get(&frontend.addr));
        // By these it is known as podnet's, and as external.
        let note = if matches!(key, ServerKey::Mark(_)) { &sets.marked } else { &sets.servers };
        keep(there, note, Element::Port(frontend.addr, frontend.protocol, frontend.port), &mut left);
        keep(there, &sets.elsewhere, Element::Address(frontend.addr), &mut left);
    }
    left
}

/// The frontends of these virtual servers that are at addresses which are none of this node's: packets come here as long as something leads
/// them. Of thousands not all are told.
#[must_use]
pub fn led_here<'a>(
    there: &State,
    family: Family,
    servers: impl IntoIterator<Item = &'a ServerKey>,
) -> BTreeSet<FrontendKey> {
    let sets = Sets::of(family);
    let marks = marks(there, &sets);
    let frontends = servers.into_iter().filter_map(|key| frontend(key, &marks));
    frontends.filter(|frontend| is_elsewhere(there, &sets, frontend)).take(MOST_LED).collect()
}

/// The marks of virtual servers, each with its frontend.
pub(super) fn marks(there: &State, sets: &Sets) -> BTreeMap<u32, FrontendKey> {
    let noted = there.sets.get(&sets.marked).into_iter().flat_map(|set| &set.elements);
    let frontend = |(element, mark): (&Element, &Option<u32>)| match *element {
        Element::Port(addr, protocol, port) => Some(((*mark)?, FrontendKey { addr, protocol, port })),
        _ => None,
    };
    noted.filter_map(frontend).collect()
}

fn frontend(key: &ServerKey, marks: &BTreeMap<u32, FrontendKey>) -> Option<FrontendKey> {
    match key {
        ServerKey::Address(key) => Some(*key),
        ServerKey::Mark(mark) => marks.get(mark).copied(),
    }
}

/// The virtual servers of protocols with connections, each with its frontend.
fn frontends(there: &State, sets: &Sets) -> Vec<(ServerKey, FrontendKey)> {
    let mut all = all_frontends(there, sets);
    all.retain(|(_, frontend)| frontend.protocol != Protocol::Udp);
    all
}

/// The same of all protocols.
fn all_frontends(there: &State, sets: &Sets) -> Vec<(ServerKey, FrontendKey)> {
    let marks = marks(there, sets);
    there.servers.keys().filter_map(|key| Some((*key, frontend(key, &marks)?))).collect()
}

fn is_elsewhere(there: &State, sets: &Sets, frontend: &FrontendKey) -> bool {
    let element = Element::Address(frontend.addr);
    let is_external = there.sets.get(&sets.elsewhere).is_some_and(|set| set.elements.contains_key(&element));
    is_external && !there.addrs.contains(&frontend.addr)
}

fn keep(there: &State, name: &SetName, element: Element, left: &mut State) {
    if let Some(set) = there.sets.get(name)
        && let Some((element, mark)) = set.elements.get_key_value(&element)
    {
        let kept = left.sets.entry(name.clone()).or_insert_with(|| Set::new(set.kind));
        kept.elements.insert(*element, *mark);
    }
}
