//! A table as it has to be, whatever is there: what is right stays, and the rest is mended in one transaction.
//!
//! What stays is more than saved work. A packet on its way through rules that go finds their maps empty from the moment on that the new
//! ones count, and goes untranslated; with maps, chains and elements that stay it finds the same before and after.

mod found;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podnet_model::Family;
use podnet_planner::ruleset::{RuleName, RuleSet};

use super::{
    NftError, NftSocket,
    element::{self, Element, Place, Told, backend_element, set_elements, verdict_element},
    object::{self, Kind},
    transaction::{Message, Transaction},
};
use found::{Found, FoundSet};

/// What was not as it had to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// There was no table, or one that cannot be mended: it was made as a whole.
    pub whole: bool,
    /// So many chains, sets and maps were missing, had another form, or do not belong there.
    pub objects: usize,
    /// So many elements of sets and maps that are there were missing, had another value, or do not belong there; a set of ranges counts as
    /// one.
    pub elements: usize,
}

impl NftSocket {
    /// Makes the table of the rules' family hold exactly `rules`, whatever was in it. Rules are written anew; of all else what is right is
    /// not touched. What memories hold stays: clients come to the backends that they had.
    ///
    /// # Errors
    /// Which part the kernel refused; the table is then as it was.
    pub fn replace(&mut self, table: &str, rules: &RuleSet) -> Result<Mended, NftError> {
        /// A table that changes between the look and the transaction is looked at again.
        const ATTEMPTS: usize = 2;
        for _ in 0..ATTEMPTS {
            let Ok(Some(found)) = Found::read(&mut self.connection, rules.family, table) else { break };
            if let Ok(mended) = self.mend(table, rules, &found) {
                return Ok(mended);
            }
        }
        let mut transaction = Transaction::new(rules.family, table);
        transaction.make_table();
        transaction.remove_table();
        transaction.make_table();
        object::render(&mut transaction, rules);
        transaction.commit(&mut self.connection)?;
        Ok(Mended { whole: true, ..Mended::default() })
    }

    fn mend(&mut self, table: &str, rules: &RuleSet, found: &Found) -> Result<Mended, NftError> {
        let wanted = Wanted::of(rules);
        let mut mended = Mended::default();
        let mut transaction = Transaction::new(rules.family, table);
        transaction.message(Message::DelRule, 0, "remove all rules".into(), |_| {});
        let kept = wanted.kept(found);
        for name in found.sets.keys().filter(|name| !kept.contains(name.as_str())) {
            object::remove_set(&mut transaction, name);
            mended.objects += 1;
        }
        let mut differences = Vec::new();
        for (name, set) in wanted.sets.iter().filter(|(name, set)| kept.contains(*name) && set.kind != Kind::Memory) {
            let difference = Difference::between(set, &found.sets[*name]);
            difference.remove(&mut transaction, name);
            mended.elements += difference.count;
            differences.push((name, difference));
        }
        for (name, _) in found.chains.iter().filter(|(name, hook)| !is_right(rules, name, hook)) {
            object::remove_chain(&mut transaction, name);
            mended.objects += 1;
        }
        for (name, chain) in &rules.chains {
            if found.chains.get(&**name).is_none_or(|hook| !is_right(rules, name, hook)) {
                object::make_chain(&mut transaction, name, chain.hook);
                mended.objects += usize::from(!found.chains.contains_key(&**name));
            }
        }
        for (name, set) in wanted.sets.iter().filter(|(name, _)| !kept.contains(*name)) {
            object::make_set(&mut transaction, rules.family, name, set.kind);
            element::add(&mut transaction, name, &set.elements, &format!("add elements to {name}"));
            mended.objects += usize::from(!found.sets.contains_key(*name));
        }
        for (name, difference) in &differences {
            element::ensure(&mut transaction, name, &difference.missing, &format!("add elements to {name}"));
        }
        for (name, chain) in &rules.chains {
            object::add_rules(&mut transaction, rules.family, name, chain);
        }
        transaction.commit(&mut self.connection)?;
        Ok(mended)
    }
}

/// A chain that has the hook, or none, that it has to have.
fn is_right(rules: &RuleSet, name: &str, hook: &Option<object::HookForm>) -> bool {
    rules.chains.get(name).is_some_and(|chain| chain.hook.map(object::HookForm::of) == *hook)
}

/// The sets and maps that have to be there.
struct Wanted<'a> {
    family: Family,
    sets: BTreeMap<&'a str, WantedSet<'a>>,
}

struct WantedSet<'a> {
    kind: Kind,
    elements: Vec<Element<'a>>,
}

impl<'a> Wanted<'a> {
    fn of(rules: &'a RuleSet) -> Self {
        let named = |name: &'a RuleName, kind, elements| (&**name, WantedSet { kind, elements });
        let verdicts = rules.verdict_maps.iter().map(|(name, map)| {
            let elements = map.elements.iter().map(|(key, chain)| verdict_element(*key, chain));
            named(name, Kind::VerdictMap, elements.collect())
        });
        let backends = rules.backend_maps.iter().map(|(name, map)| {
            named(name, Kind::BackendMap, map.elements.iter().map(|(key, to)| backend_element(*key, *to)).collect())
        });
        let sets = rules.sets.iter().map(|(name, set)| named(name, Kind::of(set), set_elements(set)));
        let memories = rules.memories.iter().map(|name| named(name, Kind::Memory, Vec::new()));
        Self { family: rules.family, sets: verdicts.chain(backends).chain(sets).chain(memories).collect() }
    }

    /// The sets that can stay. Elements with limits cannot be compared: the kernel tells how much of a limit is used up.
    fn kept(&self, found: &'a Found) -> BTreeSet<&'a str> {
        let is_kept = |name: &str, there: &FoundSet| {
            let wanted = self.sets.get(name);
            wanted.is_some_and(|set| !set.kind.has_limits() && set.kind.form(self.family) == there.form)
        };
        found.sets.iter().filter(|(name, set)| is_kept(name, set)).map(|(name, _)| name.as_str()).collect()
    }
}

/// What is wrong in a set that stays.
struct Difference<'a> {
    /// Nothing stays of a set of ranges, which overlap where they are wrong.
    is_emptied: bool,
    surplus: Vec<&'a Place>,
    missing: Vec<Element<'a>>,
    count: usize,
}

impl<'a> Difference<'a> {
    fn between(wanted: &WantedSet<'a>, found: &'a FoundSet) -> Self {
        let places: HashMap<Place, Told> = wanted.elements.iter().map(|one| (one.place(), one.told())).collect();
        let surplus: Vec<&Place> = found
            .elements
            .iter()
            .filter(|(place, told)| places.get(*place) != Some(told))
            .map(|(place, _)| place)
            .collect();
        let is_missing = |one: &&Element<'_>| found.elements.get(&one.place()) != Some(&one.told());
        let missing: Vec<Element<'_>> = wanted.elements.iter().filter(is_missing).copied().collect();
        if wanted.kind.has_ranges() {
            let is_emptied = !(surplus.is_empty() && missing.is_empty());
            let missing = if is_emptied { wanted.elements.clone() } else { Vec::new() };
            return Self { is_emptied, surplus: Vec::new(), missing, count: usize::from(is_emptied) };
        }
        let replaced = missing.iter().filter(|one| found.elements.contains_key(&one.place())).count();
        let count = surplus.len() + missing.len() - replaced;
        Self { is_emptied: false, surplus, missing, count }
    }

    fn remove(&self, transaction: &mut Transaction<'_>, set: &str) {
        if self.is_emptied {
            element::clear(transaction, set);
        } else {
            element::remove_told(transaction, set, &self.surplus);
        }
    }
}
