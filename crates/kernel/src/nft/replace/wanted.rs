//! What has to be in a table.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::Family;
use podnet_planner::ruleset::{BackendMap, RuleName, RuleSet, Set, VerdictMap};

use super::{
    super::{
        element::{Element, backend_element, set_elements, verdict_element},
        object::{Form, Kind},
    },
    found::Found,
};

/// The sets and maps that have to be there.
pub(super) struct Wanted<'a> {
    family: Family,
    pub(super) sets: BTreeMap<&'a str, WantedSet<'a>>,
}

/// A set or map that has to be there.
#[derive(Clone, Copy)]
pub(super) struct WantedSet<'a> {
    pub(super) kind: Kind,
    contents: Contents<'a>,
}

#[derive(Clone, Copy)]
enum Contents<'a> {
    Verdicts(&'a VerdictMap),
    Backends(&'a BackendMap),
    Set(&'a Set),
    /// What a memory holds is its own affair.
    Memory,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(rules: &'a RuleSet) -> Self {
        let named = |name: &'a RuleName, kind, contents| (&**name, WantedSet { kind, contents });
        let verdicts =
            { rules.verdict_maps.iter() }.map(|(name, map)| named(name, Kind::VerdictMap, Contents::Verdicts(map)));
        let backends =
            rules.backend_maps.iter().map(|(name, map)| named(name, Kind::BackendMap, Contents::Backends(map)));
        let sets = rules.sets.iter().map(|(name, set)| named(name, Kind::of(set), Contents::Set(set)));
        let memories = rules.memories.iter().map(|name| named(name, Kind::Memory, Contents::Memory));
        Self { family: rules.family, sets: verdicts.chain(backends).chain(sets).chain(memories).collect() }
    }

    /// The sets that can stay.
    pub(super) fn kept(&self, found: &'a Found) -> BTreeSet<&'a str> {
        found.sets.iter().filter(|(name, form)| self.is_kept(name, form)).map(|(name, _)| name.as_str()).collect()
    }

    /// Whether a set of this form can stay. Elements with limits cannot be compared: the kernel tells how much of a limit is used up. So it is with
    /// those that count.
    pub(super) fn is_kept(&self, name: &str, form: &Form) -> bool {
        let wanted = self.sets.get(name);
        wanted.is_some_and(|set| !set.kind.is_stateful() && set.kind.form(self.family) == *form)
    }
}

impl<'a> WantedSet<'a> {
    /// Made when they are asked for: those of all sets at once would take much room.
    pub(super) fn elements(&self) -> Vec<Element<'a>> {
        match self.contents {
            Contents::Verdicts(map) => map.elements.iter().map(|(key, chain)| verdict_element(*key, chain)).collect(),
            Contents::Backends(map) => map.elements.iter().map(|(key, to)| backend_element(*key, *to)).collect(),
            Contents::Set(set) => set_elements(set),
            Contents::Memory => Vec::new(),
        }
    }

    /// The same by their places.
    pub(super) fn in_order(&self) -> Vec<Element<'a>> {
        let mut elements = self.elements();
        elements.sort_unstable_by_key(Element::place);
        elements
    }
}
