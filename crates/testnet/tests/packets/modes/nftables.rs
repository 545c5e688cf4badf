//! Mode `nftables`.

use std::{any::Any, collections::BTreeSet, time::Duration};

use podnet_kernel::{netns::NetNs, nft::NftSocket};
use podnet_model::{Family, proxy};
use podnet_planner::{
    border,
    ruleset::{RuleSet, Set},
    services::{
        nftables::TABLE,
        packet_table::{Edits, NodeRules},
    },
};
use podnet_testnet::eventually;
use serde_json::Value;

use super::{Mode, open_loopback};
use crate::namespace::Namespace;

/// The tables, in the order of [`NodeRules::desired`].
const TABLES: [&str; 2] = [TABLE, border::TABLE];

/// The rules, as [`NodeRules::desired`] tells them.
#[derive(Default)]
pub(crate) struct Nftables {
    /// What a test does to each table before they are put in force.
    pub(crate) damage: Option<fn(&mut RuleSet)>,
}

/// The tables of a node.
struct InForce {
    socket: NftSocket,
}

impl Mode for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn traced_as(&self) -> proxy::Mode {
        proxy::Mode::Nftables
    }

    fn put(&self, node: &NetNs, rules: &[NodeRules]) -> Box<dyn Any> {
        let mut rules: Vec<_> = rules.iter().map(NodeRules::desired).collect();
        if let Some(damage) = self.damage {
            rules.iter_mut().flatten().for_each(damage);
        }
        Box::new(InForce::new(node, &rules))
    }
}

impl InForce {
    fn new(node: &NetNs, rules: &[[RuleSet; 2]]) -> Self {
        open_loopback(node);
        let mut socket = NftSocket::open_in(node).unwrap();
        for rules in rules {
            put(&mut socket, rules);
        }
        Self { socket }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        for (family, table) in Family::ALL.into_iter().flat_map(|family| TABLES.map(|table| (family, table))) {
            self.socket.delete_table(family, table).unwrap();
        }
    }
}

fn put(socket: &mut NftSocket, rules: &[RuleSet; 2]) {
    for (table, rules) in TABLES.iter().zip(rules) {
        socket.replace(table, rules).unwrap();
    }
}

/// Puts in force what is wanted, whatever was there.
pub(crate) fn replace(socket: &mut NftSocket, rules: &NodeRules) {
    put(socket, &rules.desired());
}

/// Puts a change in force.
pub(crate) fn follow(socket: &mut NftSocket, family: Family, (services, border): &Edits) {
    for (table, edits) in TABLES.iter().zip([services, border]) {
        socket.apply(family, table, edits).unwrap_or_else(|error| panic!("{error}: {edits:?}"));
    }
}

/// Everything that Services want, but which slot a backend has.
pub(crate) fn without_slots(rules: &NodeRules) -> BTreeSet<String> {
    let [rules, _] = rules.desired();
    let verdicts =
        rules.verdict_maps.iter().flat_map(|(name, map)| map.elements.iter().map(move |e| format!("{name}: {e:?}")));
    let backends = rules.backend_maps.iter().flat_map(|(name, map)| {
        map.elements.iter().map(move |(key, to)| format!("{name}: {:?} to {to:?}", key.frontend))
    });
    let sets = rules.sets.iter().map(|(name, set)| format!("{name}: {set:?}"));
    verdicts.chain(backends).chain(sets).collect()
}

/// What the kernel holds, as `nft` tells it: the elements of sets and maps, each by itself, of which there have to be as many as the rules want.
/// While the kernel moves a large map to more room, which it does at its leisure after it grew, a listing leaves out some of its elements
/// (each part of it is counted from the beginning); so it is read until it is whole.
pub(crate) fn contents(node: &Namespace, rules: &NodeRules) -> BTreeSet<String> {
    let [wanted, _] = rules.desired();
    let verdicts = wanted.verdict_maps.values().map(|map| map.elements.len());
    let backends = wanted.backend_maps.values().map(|map| map.elements.len());
    let count: usize = verdicts.chain(backends).chain(wanted.sets.values().map(Set::len)).sum();
    eventually("a listing of all elements", Duration::from_secs(30), || {
        let contents = listing(node);
        if contents.len() == count { Ok(contents) } else { Err(format!("{} of {count}", contents.len())) }
    })
}

/// The same but for which slot a backend has: that depends on what was before.
pub(crate) fn contents_without_slots(node: &Namespace) -> BTreeSet<String> {
    let unslotted = |(of, mut element): (String, Value)| {
        // The key of a backend ends with its slot.
        if of.ends_with("backends\"")
            && let Some(key) = element.pointer_mut("/0/concat").and_then(Value::as_array_mut)
        {
            key.pop();
        }
        format!("{of}: {element}")
    };
    elements(node).into_iter().map(unslotted).collect()
}

fn listing(node: &Namespace) -> BTreeSet<String> {
    elements(node).into_iter().map(|(of, element)| format!("{of}: {element}")).collect()
}

/// The elements of sets and maps, each with the kind and the name of what it is in.
fn elements(node: &Namespace) -> Vec<(String, Value)> {
    let listing: Value = serde_json::from_str(&node.command(&format!("nft -j list table ip {TABLE}"))).unwrap();
    let mut found = Vec::new();
    for object in listing["nftables"].as_array().expect("a list of objects") {
        let Some((kind, fields)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
        if !["map", "set"].contains(&kind.as_str()) {
            continue;
        }
        let elements = fields["elem"].as_array().into_iter().flatten();
        found.extend(elements.map(|element| (format!("{kind} {}", fields["name"]), element.clone())));
    }
    found
}
