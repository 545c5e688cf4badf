//! What of a table is not as it has to be, without mending it.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::Family;
use podnet_planner::ruleset::RuleSet;

use super::{Difference, Found, NftSocket, Wanted, difference, is_right, wanted::WantedSet};
use crate::{
    netlink::Connection,
    nft::{
        NftError,
        element::{Key, Told, ToldValue},
        object::Kind,
    },
};

impl NftSocket {
    /// What [`NftSocket::replace`] would mend, in words; nothing where the table is right. Rules within chains are not compared, nor is told
    /// what is there beside. Which of a frontend's backends has which slot is no difference: it comes from the order in which a node heard of
    /// them.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn differences(&mut self, table: &str, rules: &RuleSet) -> Result<Vec<String>, NftError> {
        let wanted = Wanted::of(rules);
        let Some(found) = Found::read(self.wire.get()?, rules.family, table)? else {
            return Ok(vec![format!("there is no table {table} that does anything")]);
        };
        let kept = wanted.kept(&found);
        let mut told = Vec::new();
        for name in rules.chains.keys() {
            match found.chains.get(&**name) {
                None => told.push(format!("chain {name} of table {table} is missing")),
                Some(hook) if !is_right(rules, name, hook) => {
                    told.push(format!("chain {name} of table {table} is at another hook"));
                }
                Some(_) => {}
            }
        }
        for (name, set) in &wanted.sets {
            if !kept.contains(name) {
                told.push(format!("{name} of table {table} is missing or of another type"));
                continue;
            }
            if set.kind == Kind::Memory {
                continue;
            }
            let of_backends = matches!(set.kind, Kind::BackendMap | Kind::Numbers);
            let (count, what) = if of_backends {
                let count = frontends_that_differ(self.wire.get()?, rules.family, table, name, set)?;
                (count, "frontends with wrong or missing backends")
            } else {
                let count = Difference::find(self.wire.get()?, rules.family, table, name, set).count();
                (count, "wrong or missing elements")
            };
            if count > 0 {
                told.push(format!("{name} of table {table} has {count} {what}"));
            }
        }
        Ok(told)
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
fn frontends_that_differ(
    connection: &mut Connection,
    family: Family,
    table: &str,
    name: &str,
    set: &WantedSet<'_>,
) -> Result<usize, NftError> {
    let mut wanted: BTreeMap<Key, Slots> = BTreeMap::new();
    for element in set.elements() {
        if let Some((frontend, slot)) = element.place().key.split_slot() {
            wanted.entry(frontend).or_default().add(slot, element.data());
        }
    }
    let take = |found: &mut BTreeMap<Option<Key>, Slots>, told: &Told<'_>| {
        let data = match told.value {
            ToldValue::Data(bytes) => Key::told(bytes),
            ToldValue::Nothing | ToldValue::Goto(_) | ToldValue::Other => None,
        };
        let place = told.place.and_then(|place| place.single()?.split_slot());
        match place {
            Some((frontend, slot)) => found.entry(Some(frontend)).or_default().add(slot, data),
            None => found.entry(None).or_default().is_strange = true,
        }
    };
    let found = difference::elements(connection, family, table, name, take)?;
    let missing = wanted.keys().filter(|frontend| !found.contains_key(&Some(**frontend))).count();
    let wrong = |(frontend, slots): &(&Option<Key>, &Slots)| {
        frontend.as_ref().is_none_or(|frontend| wanted.get(frontend) != Some(*slots))
    };
    Ok(missing + found.iter().filter(wrong).count())
}
