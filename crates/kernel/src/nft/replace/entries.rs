//! What of a table in which all of a node's pods are is not as it has to be for some of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{Family, limits::PacketRate};
use podnet_planner::{limits::rules::OF_ONE, ruleset::RuleSet};

use super::{
    Wanted, chains, is_right,
    listed::{Contents, Listed},
    wanted::WantedSet,
};
use crate::nft::{
    element::{Kept, Key, ToldValue},
    object::Kind,
};

/// Something that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// It is not there; else something is there that should not, or should be another.
    pub is_missing: bool,
    /// In words.
    pub what: String,
}

impl Fault {
    /// Something that is not there.
    #[must_use]
    pub const fn missing(what: String) -> Self {
        Self { is_missing: true, what }
    }
}

impl Listed {
    /// What of the table of this name is not as these rules want it, of its chains and of what its sets have of these addresses: those that end
    /// the keys of senders, and those that are limited. Of what others have there nothing is told, nor of maps.
    #[must_use]
    pub fn differences_of(&self, table: &str, rules: &RuleSet, addrs: &BTreeSet<IpAddr>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (name, chain) in &rules.chains {
            let Some(hook) = self.chains.get(&**name) else {
                faults.push(Fault::missing(format!("chain {name} of table {table} is missing")));
                continue;
            };
            if !is_right(rules, name, hook) {
                faults.push(Fault::missing(format!("chain {name} of table {table} is at another hook")));
                continue;
            }
            let Some(all) = &self.rules else { continue };
            let found = all.get(&**name).map(Vec::as_slice).unwrap_or_default();
            for (is_missing, what) in chains::differences_of_some(rules.family, chain, found, OF_ONE) {
                faults.push(Fault { is_missing, what: format!("chain {name} of table {table} {what}") });
            }
        }
        for (name, set) in Wanted::of(rules).sets.iter().filter(|(_, set)| is_of_pods(set.kind)) {
            let Some(listed) = self.sets.get(*name).filter(|listed| set.kind.form(rules.family) == listed.form) else {
                faults.push(Fault::missing(format!("{name} of table {table} is missing or of another type")));
                continue;
            };
            let Contents::Elements(elements) = &listed.contents else { continue };
            for (is_missing, what) in of_set(rules.family, set, elements, addrs) {
                faults.push(Fault { is_missing, what: format!("{name} of table {table} {what}") });
            }
        }
        faults
    }
}

/// Whether each element is about one address, with which its key ends, or rules put it there.
const fn is_of_pods(kind: Kind) -> bool {
    matches!(kind, Kind::Senders | Kind::Addresses | Kind::PacketRates | Kind::Counters | Kind::Flows)
}

/// What is not as it has to be at some addresses, each with whether it is missing.
fn of_set(
    family: Family,
    set: &WantedSet<'_>,
    elements: &[Kept],
    addrs: &BTreeSet<IpAddr>,
) -> impl Iterator<Item = (bool, String)> {
    let is_asked = |key: &Key| key.split_addr(family).is_some_and(|(_, addr)| addrs.contains(&addr));
    let wanted = set.elements().into_iter().map(|element| (element.place().key, element.packets()));
    let wanted: BTreeMap<Key, Option<PacketRate>> = wanted.filter(|(key, _)| is_asked(key)).collect();
    let found = elements.iter().map(Kept::told).filter_map(|told| {
        let rate = match told.value {
            ToldValue::Packets(rate) => Some(rate),
            ToldValue::Nothing | ToldValue::Data(_) | ToldValue::Goto(_) | ToldValue::Other => None,
        };
        Some((told.place?.single()?, rate))
    });
    let found: BTreeMap<Key, Option<PacketRate>> = found.filter(|(key, _)| is_asked(key)).collect();
    let mut told = Vec::new();
    for (key, rate) in &wanted {
        let name = key.name(family);
        match found.get(key) {
            None => told.push((true, format!("lacks {name}"))),
            Some(other) if other != rate => {
                told.push((false, format!("has {name} with {} and not with {}", limit(*other), limit(*rate))));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|key| !wanted.contains_key(*key));
    told.extend(surplus.map(|key| (false, format!("has {}, which is none of podnet's", key.name(family)))));
    told.into_iter()
}

fn limit(rate: Option<PacketRate>) -> String {
    rate.map_or_else(
        || "something else".to_owned(),
        |PacketRate { rate, burst }| format!("{rate} packets/s, {burst} at once"),
    )
}
