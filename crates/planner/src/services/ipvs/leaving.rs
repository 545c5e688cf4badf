//! What stays of virtual servers for a while when Services are served in another way.
//!
//! The translation of a connection lives in its virtual server, so that has to stay for as long as there are connections to it. Nothing new
//! comes there, since another mode translates before; who gets there still, as before that one refuses, gets nothing. What is external comes here by a mark only, and does not come any more once the rules
//! are gone: it is let go.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::{Family, Protocol};

use super::sets::Sets;
use crate::{
    ipvs::{Element, ServerKey, Set, State},
    ruleset::{BackendAddress, FrontendKey},
};

/// The virtual servers that may have connections worth to be kept.
#[must_use]
pub fn may_linger(there: &State, family: Family) -> Vec<ServerKey> {
    frontends(there, family).into_iter().map(|(key, _)| key).collect()
}

/// What stays of what is there, where each real server has so many connections.
#[must_use]
pub fn lingering(there: &State, family: Family, connections: &BTreeMap<(ServerKey, BackendAddress), u64>) -> State {
    let sets = Sets::of(family);
    let busy: BTreeSet<ServerKey> =
        connections.iter().filter(|(_, count)| **count > 0).map(|((key, _), _)| *key).collect();
    let mut left = State::default();
    for (key, frontend) in frontends(there, family).into_iter().filter(|(key, _)| busy.contains(key)) {
        left.servers.extend(there.servers.get(&key).cloned().map(|mut server| {
            server.reals.values_mut().for_each(|weight| *weight = 0);
            (key, server)
        }));
        left.addrs.extend(there.addrs.get(&frontend.addr));
        // By these it is known as podnet's.
        let element = Element::Port(frontend.addr, frontend.protocol, frontend.port);
        for name in [&sets.servers, &sets.inside] {
            if let Some((set, (element, mark))) =
                there.sets.get(name).and_then(|set| Some((set, set.elements.get_key_value(&element)?)))
            {
                let kept = left.sets.entry(name.clone()).or_insert_with(|| Set::new(set.kind));
                kept.elements.insert(*element, *mark);
            }
        }
    }
    left
}

/// The virtual servers of protocols with connections at addresses that are this node's, each with its frontend.
fn frontends(there: &State, family: Family) -> Vec<(ServerKey, FrontendKey)> {
    let sets = Sets::of(family);
    let elsewhere = there.sets.get(&sets.elsewhere);
    let is_here =
        |key: &FrontendKey| !elsewhere.is_some_and(|set| set.elements.contains_key(&Element::Address(key.addr)));
    let inside = there.sets.get(&sets.inside).into_iter().flat_map(|set| &set.elements);
    let marks: BTreeMap<u32, FrontendKey> = inside
        .filter_map(|(element, mark)| match element {
            Element::Port(addr, protocol, port) => {
                Some(((*mark)?, FrontendKey { addr: *addr, protocol: *protocol, port: *port }))
            }
            _ => None,
        })
        .collect();
    let frontend = |key: &ServerKey| match key {
        ServerKey::Address(key) => Some(*key),
        ServerKey::Mark(mark) => marks.get(mark).copied(),
    };
    let all = there.servers.keys().filter_map(|key| Some((*key, frontend(key)?)));
    all.filter(|(_, frontend)| frontend.protocol != Protocol::Udp && is_here(frontend)).collect()
}
