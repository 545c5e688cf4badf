//! What of a table is not as it has to be, without mending it.

use std::collections::{BTreeMap, BTreeSet};

use podnet_planner::ruleset::RuleSet;

use super::{
    Difference, Wanted, chains, is_right,
    listed::{Contents, Listed},
    wanted::WantedSet,
};
use crate::nft::{
    element::{Kept, Key, ToldValue},
    object::Kind,
};

impl Listed {
    /// What [`NftSocket::replace`](crate::nft::NftSocket::replace) would mend in the table of this name, in words; nothing where it is right.
    /// Of what is there beside only rules in podnet's chains are told. Which of a frontend's backends has which slot is no difference: it
    /// comes from the order in which a node heard of them.
    #[must_use]
    pub fn differences(&self, table: &str, rules: &RuleSet) -> Vec<String> {
        let wanted = Wanted::of(rules);
        let mut told = Vec::new();
        for name in rules.chains.keys() {
            match self.chains.get(&**name) {
                None => told.push(format!("chain {name} of table {table} is missing")),
                Some(hook) if !is_right(rules, name, hook) => {
                    told.push(format!("chain {name} of table {table} is at another hook"));
                }
                Some(_) => {}
            }
        }
        // Of a chain that is at its hook its rules are compared, where they were told.
        let is_at_hook = |name: &str| self.chains.get(name).is_some_and(|hook| is_right(rules, name, hook));
        for (name, chain) in rules.chains.iter().filter(|(name, _)| is_at_hook(name)) {
            let Some(all) = &self.rules else { break };
            let found = all.get(&**name).map(Vec::as_slice).unwrap_or_default();
            let differences = chains::differences(rules.family, chain, found);
            told.extend(differences.into_iter().map(|what| format!("chain {name} of table {table} {what}")));
        }
        for (name, set) in &wanted.sets {
            let Some(listed) = self.sets.get(*name).filter(|listed| wanted.is_kept(name, &listed.form)) else {
                told.push(format!("{name} of table {table} is missing or of another type"));
                continue;
            };
            let Contents::Elements(elements) = &listed.contents else { continue };
            let of_backends = matches!(set.kind, Kind::BackendMap | Kind::Numbers);
            let (count, what) = match of_backends {
                true => (frontends_that_differ(set, elements), "frontends with wrong or missing backends"),
                false => (Difference::with(set, elements).count(), "wrong or missing elements"),
            };
            if count > 0 {
                told.push(format!("{name} of table {table} has {count} {what}"));
            }
        }
        told
    }

    /// Whether the rules of its chains were told, and not too many for that.
    #[must_use]
    pub const fn tells_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// The sets and maps of the rules that cannot be compared, as there was no room for their elements; each with how many it has.
    pub fn unlisted(&self, rules: &RuleSet) -> impl Iterator<Item = (&str, usize)> {
        let wanted = Wanted::of(rules);
        let names: Vec<_> = self.sets.keys().filter(|name| wanted.sets.contains_key(name.as_str())).collect();
        names.into_iter().filter_map(move |name| match self.sets.get(name)?.contents {
            Contents::TooMany(count) => Some((name.as_str(), count)),
            Contents::Elements(_) | Contents::Evaluated => None,
        })
    }
}

/// What a map has at a frontend: the slots, and what is in them, whichever is in which.
#[derive(Default, PartialEq, Eq)]
struct Slots {
    numbers: BTreeSet<[u8; 4]>,
    /// As often as it is there.
    backends: BTreeMap<Key, usize>,
    /// There is something that is none of ours.
    is_strange: bool,
}

impl Slots {
    fn add(&mut self, slot: [u8; 4], backend: Option<Key>) {
        // The kernel may tell of an element twice.
        if self.numbers.insert(slot) {
            match backend {
                Some(backend) => *self.backends.entry(backend).or_default() += 1,
                None => self.is_strange = true,
            }
        }
    }
}

/// At how many frontends a map has other slots, or other backends in them.
fn frontends_that_differ(set: &WantedSet<'_>, elements: &[Kept]) -> usize {
    let mut wanted: BTreeMap<Key, Slots> = BTreeMap::new();
    for element in set.elements() {
        if let Some((frontend, slot)) = element.place().key.split_slot() {
            wanted.entry(frontend).or_default().add(slot, element.data());
        }
    }
    let mut found: BTreeMap<Option<Key>, Slots> = BTreeMap::new();
    for told in elements.iter().map(Kept::told) {
        let data = match told.value {
            ToldValue::Data(bytes) => Key::told(bytes),
            ToldValue::Nothing | ToldValue::Goto(_) | ToldValue::Packets(_) | ToldValue::Other => None,
        };
        match told.place.and_then(|place| place.single()?.split_slot()) {
            Some((frontend, slot)) => found.entry(Some(frontend)).or_default().add(slot, data),
            None => found.entry(None).or_default().is_strange = true,
        }
    }
    let missing = wanted.keys().filter(|frontend| !found.contains_key(&Some(**frontend))).count();
    let wrong = |(frontend, slots): &(&Option<Key>, &Slots)| {
        frontend.as_ref().is_none_or(|frontend| wanted.get(frontend) != Some(*slots))
    };
    missing + found.iter().filter(wrong).count()
}
