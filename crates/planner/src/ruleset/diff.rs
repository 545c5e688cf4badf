//! The edits between two rule sets: what a restart does to the table that it finds.

use std::collections::BTreeSet;

use super::{Action, BackendMap, Chain, Edit, RuleName, RuleSet, Set, VerdictMap};

/// The edits that make `to` out of `from`, in an order in which each of them is allowed; none where both are equal.
///
/// Both must be valid. What is equal is not touched, so counters and connections live on. Chains are filled after what they
/// refer to is there, and emptied before it goes.
#[must_use]
pub fn diff(from: &RuleSet, to: &RuleSet) -> Vec<Edit> {
    let plan = Difference::new(from, to);
    let mut edits = Vec::new();
    plan.empty_chains(&mut edits);
    plan.remove_objects(&mut edits);
    plan.make_objects(&mut edits);
    plan.fill_chains(&mut edits);
    plan.set_elements(&mut edits);
    plan.remove_chains(&mut edits);
    edits
}

struct Difference<'a> {
    from: &'a RuleSet,
    to: &'a RuleSet,
    /// Maps and sets of `from` that go: those that `to` has not, or has with another kind.
    objects_gone: BTreeSet<&'a RuleName>,
    /// Chains of `from` that `to` has not.
    chains_gone: BTreeSet<&'a RuleName>,
    /// Chains that `to` has with another hook (or that gain or lose one): made anew, for a hook is fixed.
    chains_remade: BTreeSet<&'a RuleName>,
    /// Chains that stay and whose rules change or refer to a map or set that is made anew.
    chains_changed: BTreeSet<&'a RuleName>,
}

impl<'a> Difference<'a> {
    fn new(from: &'a RuleSet, to: &'a RuleSet) -> Self {
        let objects_gone: BTreeSet<_> = object_names(from).filter(|name| kind(from, name) != kind(to, name)).collect();
        let mut plan = Self {
            from,
            to,
            objects_gone,
            chains_gone: BTreeSet::new(),
            chains_remade: BTreeSet::new(),
            chains_changed: BTreeSet::new(),
        };
        for (name, old) in &from.chains {
            match to.chains.get(name) {
                None => plan.chains_gone.insert(name),
                Some(new) if new.hook != old.hook => plan.chains_remade.insert(name),
                Some(new) if new.rules != old.rules || old.looks_up(|object| plan.objects_gone.contains(object)) => {
                    plan.chains_changed.insert(name)
                }
                Some(_) => false,
            };
        }
        plan
    }

    /// Empties what goes and what changes, where it refers to anything: then whatever it refers to can go, and no order of
    /// refilling makes a loop.
    fn empty_chains(&self, edits: &mut Vec<Edit>) {
        for name in self.chains_gone.iter().chain(&self.chains_remade).chain(&self.chains_changed) {
            let Some(chain) = self.from.chains.get(*name) else { continue };
            if refers(chain, &self.objects_gone) {
                edits.push(Edit::SetChain((*name).clone(), Chain { hook: chain.hook, rules: Vec::new() }));
            }
        }
        for name in &self.chains_remade {
            // A chain with a hook has no users, and one that gets a hook has none left: its users are changed, thus emptied,
            // unless they are elements, which go first.
            for (map, key) in self.elements_to(name) {
                edits.push(Edit::RemoveVerdict { map: map.clone(), key });
            }
            edits.push(Edit::RemoveChain((*name).clone()));
        }
    }

    /// The elements of `from` that go to the chain.
    fn elements_to<'b>(&'b self, chain: &'b RuleName) -> impl Iterator<Item = (&'b RuleName, super::FrontendKey)> + 'b {
        let maps = self.from.verdict_maps.iter();
        maps.flat_map(move |(name, map)| {
            map.elements.iter().filter(move |(_, to)| *to == chain).map(move |(key, _)| (name, *key))
        })
    }

    fn remove_objects(&self, edits: &mut Vec<Edit>) {
        edits.extend(self.objects_gone.iter().map(|name| Edit::RemoveSet((*name).clone())));
    }

    fn make_objects(&self, edits: &mut Vec<Edit>) {
        let new = |name: &&RuleName| kind(self.from, name) != kind(self.to, name);
        edits.extend(self.to.verdict_maps.keys().filter(new).cloned().map(Edit::AddVerdictMap));
        edits.extend(self.to.backend_maps.keys().filter(new).cloned().map(Edit::AddBackendMap));
        edits.extend(self.to.memories.iter().filter(new).cloned().map(Edit::AddMemory));
        let sets = self.to.sets.iter().filter(|(name, _)| new(name));
        edits.extend(sets.map(|(name, set)| Edit::AddSet(name.clone(), set.clone())));
    }

    /// Sets the chains that are new or changed, each after those that it jumps to.
    fn fill_chains(&self, edits: &mut Vec<Edit>) {
        let mut done: BTreeSet<&RuleName> = self.from.chains.keys().collect();
        for name in self.chains_gone.iter().chain(&self.chains_remade).chain(&self.chains_changed) {
            done.remove(name);
        }
        let mut open: Vec<&RuleName> = self.to.chains.keys().collect();
        let mut entered = BTreeSet::new();
        while let Some(name) = open.pop() {
            let Some(chain) = self.to.chains.get(name).filter(|_| !done.contains(name)) else { continue };
            if entered.insert(name) {
                open.push(name);
                open.extend(jumps(chain).filter(|target| !entered.contains(target)));
            } else {
                done.insert(name);
                edits.push(Edit::SetChain(name.clone(), chain.clone()));
            }
        }
    }

    fn set_elements(&self, edits: &mut Vec<Edit>) {
        let nothing = (VerdictMap::default(), BackendMap::default());
        for (name, new) in &self.to.verdict_maps {
            let old = self.from.verdict_maps.get(name).unwrap_or(&nothing.0);
            self.set_verdicts(name, old, new, edits);
        }
        for (name, new) in &self.to.backend_maps {
            let old = self.from.backend_maps.get(name).unwrap_or(&nothing.1);
            set_backends(name, old, new, edits);
        }
        for (name, new) in &self.to.sets {
            if let Some(old) = self.from.sets.get(name).filter(|old| old.kind() == new.kind()) {
                let name = || name.clone();
                edits.extend(old.minus(new).map(|fewer| Edit::RemoveElements(name(), fewer)));
                edits.extend(new.minus(old).map(|more| Edit::AddElements(name(), more)));
            }
        }
    }

    fn set_verdicts(&self, map: &RuleName, old: &VerdictMap, new: &VerdictMap, edits: &mut Vec<Edit>) {
        // What went to a chain that is made anew was removed with it.
        let there = |key| old.elements.get(key).filter(|chain| !self.chains_remade.contains(chain));
        for key in old.elements.keys().filter(|key| !new.elements.contains_key(key) && there(*key).is_some()) {
            edits.push(Edit::RemoveVerdict { map: map.clone(), key: *key });
        }
        for (key, chain) in &new.elements {
            let before = there(key);
            if before != Some(chain) {
                let replaces = before.is_some();
                edits.push(Edit::SetVerdict { map: map.clone(), key: *key, chain: chain.clone(), replaces });
            }
        }
    }

    fn remove_chains(&self, edits: &mut Vec<Edit>) {
        edits.extend(self.chains_gone.iter().map(|name| Edit::RemoveChain((*name).clone())));
    }
}

fn set_backends(map: &RuleName, old: &BackendMap, new: &BackendMap, edits: &mut Vec<Edit>) {
    for key in old.elements.keys().filter(|key| !new.elements.contains_key(key)) {
        edits.push(Edit::RemoveBackend { map: map.clone(), key: *key });
    }
    for (key, to) in &new.elements {
        let before = old.elements.get(key);
        if before != Some(to) {
            edits.push(Edit::SetBackend { map: map.clone(), key: *key, to: *to, replaces: before.is_some() });
        }
    }
}

fn object_names(rules: &RuleSet) -> impl Iterator<Item = &RuleName> {
    rules.verdict_maps.keys().chain(rules.backend_maps.keys()).chain(rules.sets.keys()).chain(&rules.memories)
}

fn kind(rules: &RuleSet, name: &RuleName) -> Option<&'static str> {
    if rules.verdict_maps.contains_key(name) {
        Some("verdict map")
    } else if rules.backend_maps.contains_key(name) {
        Some("backend map")
    } else if rules.memories.contains(name) {
        Some("memory")
    } else {
        rules.sets.get(name).map(Set::kind)
    }
}

fn jumps(chain: &Chain) -> impl Iterator<Item = &RuleName> {
    chain.rules.iter().filter_map(|rule| match &rule.action {
        Action::Jump(target) => Some(target),
        _ => None,
    })
}

fn refers(chain: &Chain, gone: &BTreeSet<&RuleName>) -> bool {
    jumps(chain).next().is_some()
        || chain.rules.iter().any(|rule| matches!(rule.action, Action::Lookup(_)))
        || chain.looks_up(|name| gone.contains(name))
}
