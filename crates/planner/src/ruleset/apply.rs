//! Edits done to the value, all or none, as the kernel does a batch.

mod error;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;

pub use error::EditError;
use words::{Of, Pair, SenderText};

use super::{
    BackendAddress, BackendKey, BackendMap, Chain, Edit, FrontendKey, InvalidRuleSet, RuleName, RuleSet, Set,
    VerdictMap,
    elements::{disjoint, lacking, of_family, ranges_of, shared},
    validate::name_fits,
};

impl RuleSet {
    /// Does all edits, in order. The cost is that of the edits, not of the rule set, except for removing chains and sets, which
    /// looks for what refers to them.
    ///
    /// # Errors
    /// Where the kernel would refuse an edit; then nothing is changed.
    pub fn apply(&mut self, edits: &[Edit]) -> Result<(), EditError> {
        let mut done = Vec::with_capacity(edits.len());
        for edit in edits {
            if let Err(error) = self.apply_one(edit, &mut done) {
                while let Some(before) = done.pop() {
                    self.restore(before);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Does one edit. What was there before is noted as soon as something is changed, so also where the edit then fails.
    fn apply_one(&mut self, edit: &Edit, done: &mut Vec<Before>) -> Result<(), EditError> {
        match edit {
            Edit::SetChain(name, chain) => self.set_chain(name, chain, done),
            Edit::RemoveChain(name) => self.remove_chain(name, done),
            Edit::AddVerdictMap(name) => {
                self.require_free(name)?;
                self.verdict_maps.insert(name.clone(), VerdictMap::default());
                done.push(Before::Object(name.clone(), Object::None));
                Ok(())
            }
            Edit::AddBackendMap(name) => {
                self.require_free(name)?;
                self.backend_maps.insert(name.clone(), BackendMap::default());
                done.push(Before::Object(name.clone(), Object::None));
                Ok(())
            }
            Edit::AddMemory(name) => {
                self.require_free(name)?;
                self.memories.insert(name.clone());
                done.push(Before::Object(name.clone(), Object::None));
                Ok(())
            }
            Edit::AddSet(name, set) => {
                self.require_free(name)?;
                of_family(self.family, name, set)?;
                disjoint(name, set)?;
                self.sets.insert(name.clone(), set.clone());
                done.push(Before::Object(name.clone(), Object::None));
                Ok(())
            }
            Edit::RemoveSet(name) => self.remove_object(name, done),
            Edit::SetVerdict { map, key, chain, replaces } => self.set_verdict(map, *key, chain, *replaces, done),
            Edit::RemoveVerdict { map, key } => {
                let old = self.verdict_map(map)?.elements.remove(key).ok_or_else(|| missing(map, key))?;
                done.push(Before::Verdict(map.clone(), *key, Some(old)));
                Ok(())
            }
            Edit::SetBackend { map, key, to, replaces } => {
                self.check_family(map, [key.frontend.addr, to.addr])?;
                let elements = &mut self.backend_map(map)?.elements;
                presence(map, key, elements.contains_key(key), *replaces)?;
                done.push(Before::Backend(map.clone(), *key, elements.insert(*key, *to)));
                Ok(())
            }
            Edit::RemoveBackend { map, key } => {
                let old = self.backend_map(map)?.elements.remove(key).ok_or_else(|| missing(map, key))?;
                done.push(Before::Backend(map.clone(), *key, Some(old)));
                Ok(())
            }
            Edit::AddElements(name, more) => self.add_elements(name, more, done),
            Edit::RemoveElements(name, fewer) => self.remove_elements(name, fewer, done),
        }
    }

    fn set_chain(&mut self, name: &RuleName, chain: &Chain, done: &mut Vec<Before>) -> Result<(), EditError> {
        let old = self.chains.get(name);
        if old.is_some_and(|old| old.hook != chain.hook) {
            return Err(EditError::HookChanged { chain: name.clone() });
        }
        self.check_chain(name, chain)?;
        let old = self.chains.insert(name.clone(), chain.clone());
        done.push(Before::Chain(name.clone(), old));
        Ok(self.check_loop(name)?)
    }

    fn remove_chain(&mut self, name: &RuleName, done: &mut Vec<Before>) -> Result<(), EditError> {
        if let Some(by) = self.chain_user(name) {
            return Err(EditError::InUse { name: name.clone(), by });
        }
        let old = self.chains.remove(name).ok_or_else(|| EditError::NoChain { chain: name.clone() })?;
        done.push(Before::Chain(name.clone(), Some(old)));
        Ok(())
    }

    fn remove_object(&mut self, name: &RuleName, done: &mut Vec<Before>) -> Result<(), EditError> {
        if let Some(by) = self.object_user(name) {
            return Err(EditError::InUse { name: name.clone(), by });
        }
        let old = self.take_object(name);
        if matches!(old, Object::None) {
            return Err(EditError::NoObject { name: name.clone(), expected: "map or set" });
        }
        done.push(Before::Object(name.clone(), old));
        Ok(())
    }

    fn set_verdict(
        &mut self,
        map: &RuleName,
        key: FrontendKey,
        chain: &RuleName,
        replaces: bool,
        done: &mut Vec<Before>,
    ) -> Result<(), EditError> {
        self.check_family(map, [key.addr])?;
        self.check_target(map, chain)?;
        let elements = &mut self.verdict_map(map)?.elements;
        presence(map, &key, elements.contains_key(&key), replaces)?;
        done.push(Before::Verdict(map.clone(), key, elements.insert(key, chain.clone())));
        Ok(self.check_loop(chain)?)
    }

    fn add_elements(&mut self, name: &RuleName, more: &Set, done: &mut Vec<Before>) -> Result<(), EditError> {
        of_family(self.family, name, more)?;
        let set = self.set(name, more)?;
        match (&mut *set, more) {
            (Set::Addresses(here), Set::Addresses(more)) => absent(name, more.intersection(here).next())?,
            (Set::Pairs(here), Set::Pairs(more)) => absent(name, more.intersection(here).next().map(|p| Pair(*p)))?,
            (Set::Ports(here), Set::Ports(more)) => absent(name, more.intersection(here).next())?,
            (Set::Numbers(here), Set::Numbers(more)) => absent(name, shared(here, more))?,
            (Set::Sources(here), Set::Sources(more)) => {
                absent(name, more.intersection(here).next().map(Of))?;
                let frontends: BTreeSet<FrontendKey> = more.iter().map(|(frontend, _)| *frontend).collect();
                for frontend in frontends {
                    let of = |set: &BTreeSet<(FrontendKey, IpNet)>| ranges_of(set, frontend);
                    disjoint(name, &Set::Ranges(&of(here) | &of(more)))?;
                }
            }
            (Set::Senders(here), Set::Senders(more)) => absent(name, more.intersection(here).next().map(SenderText))?,
            (Set::PacketRates(here), Set::PacketRates(more)) => absent(name, shared(here, more))?,
            (Set::Counters(here), Set::Counters(more)) => absent(name, more.intersection(here).next())?,
            (Set::Ranges(here), Set::Ranges(more)) => {
                absent(name, more.intersection(here).next())?;
                let all = Set::Ranges(here.union(more).copied().collect());
                disjoint(name, &all)?;
            }
            _ => {}
        }
        set.extend(more);
        done.push(Before::Added(name.clone(), more.clone()));
        Ok(())
    }

    fn remove_elements(&mut self, name: &RuleName, fewer: &Set, done: &mut Vec<Before>) -> Result<(), EditError> {
        let set = self.set(name, fewer)?;
        match (&mut *set, fewer) {
            (Set::Addresses(here), Set::Addresses(fewer)) => present(name, fewer.difference(here).next())?,
            (Set::Pairs(here), Set::Pairs(fewer)) => present(name, fewer.difference(here).next().map(|p| Pair(*p)))?,
            (Set::Ports(here), Set::Ports(fewer)) => present(name, fewer.difference(here).next())?,
            (Set::Numbers(here), Set::Numbers(fewer)) => present(name, lacking(here, fewer))?,
            (Set::Sources(here), Set::Sources(fewer)) => present(name, fewer.difference(here).next().map(Of))?,
            (Set::Senders(here), Set::Senders(fewer)) => present(name, fewer.difference(here).next().map(SenderText))?,
            (Set::Ranges(here), Set::Ranges(fewer)) => present(name, fewer.difference(here).next())?,
            (Set::PacketRates(here), Set::PacketRates(fewer)) => present(name, lacking(here, fewer))?,
            (Set::Counters(here), Set::Counters(fewer)) => present(name, fewer.difference(here).next())?,
            _ => {}
        }
        set.reduce(fewer);
        done.push(Before::Removed(name.clone(), fewer.clone()));
        Ok(())
    }

    fn require_free(&self, name: &RuleName) -> Result<(), InvalidRuleSet> {
        name_fits(name)?;
        let taken = self.verdict_maps.contains_key(name)
            || self.backend_maps.contains_key(name)
            || self.sets.contains_key(name)
            || self.memories.contains(name);
        if taken { Err(InvalidRuleSet::NameTaken { name: name.clone() }) } else { Ok(()) }
    }

    fn verdict_map(&mut self, name: &RuleName) -> Result<&mut VerdictMap, EditError> {
        self.verdict_maps.get_mut(name).ok_or_else(|| no_object(name, "verdict map"))
    }

    fn backend_map(&mut self, name: &RuleName) -> Result<&mut BackendMap, EditError> {
        self.backend_maps.get_mut(name).ok_or_else(|| no_object(name, "backend map"))
    }

    /// The set of that name, which must be of the same kind as `like`.
    fn set(&mut self, name: &RuleName, like: &Set) -> Result<&mut Set, EditError> {
        let expected = like.kind();
        self.sets.get_mut(name).filter(|set| set.kind() == expected).ok_or_else(|| no_object(name, expected))
    }

    fn take_object(&mut self, name: &RuleName) -> Object {
        if let Some(map) = self.verdict_maps.remove(name) {
            Object::Verdicts(map)
        } else if let Some(map) = self.backend_maps.remove(name) {
            Object::Backends(map)
        } else if self.memories.remove(name) {
            Object::Memory
        } else {
            self.sets.remove(name).map_or(Object::None, Object::Set)
        }
    }

    fn restore(&mut self, before: Before) {
        match before {
            Before::Chain(name, Some(chain)) => drop(self.chains.insert(name, chain)),
            Before::Chain(name, None) => drop(self.chains.remove(&name)),
            Before::Object(name, Object::None) => drop(self.take_object(&name)),
            Before::Object(name, Object::Verdicts(map)) => drop(self.verdict_maps.insert(name, map)),
            Before::Object(name, Object::Backends(map)) => drop(self.backend_maps.insert(name, map)),
            Before::Object(name, Object::Memory) => drop(self.memories.insert(name)),
            Before::Object(name, Object::Set(set)) => drop(self.sets.insert(name, set)),
            Before::Verdict(map, key, old) => {
                if let Some(map) = self.verdict_maps.get_mut(&map) {
                    put_back(&mut map.elements, key, old);
                }
            }
            Before::Backend(map, key, old) => {
                if let Some(map) = self.backend_maps.get_mut(&map) {
                    put_back(&mut map.elements, key, old);
                }
            }
            Before::Added(name, more) => {
                if let Some(set) = self.sets.get_mut(&name) {
                    set.reduce(&more);
                }
            }
            Before::Removed(name, fewer) => {
                if let Some(set) = self.sets.get_mut(&name) {
                    set.extend(&fewer);
                }
            }
        }
    }
}

/// What was there before an edit.
enum Before {
    Chain(RuleName, Option<Chain>),
    Object(RuleName, Object),
    Verdict(RuleName, FrontendKey, Option<RuleName>),
    Backend(RuleName, BackendKey, Option<BackendAddress>),
    Added(RuleName, Set),
    Removed(RuleName, Set),
}

/// What a name of the maps' and sets' name space stood for.
enum Object {
    None,
    Verdicts(VerdictMap),
    Backends(BackendMap),
    Memory,
    Set(Set),
}

fn put_back<K: Ord, V>(elements: &mut BTreeMap<K, V>, key: K, old: Option<V>) {
    match old {
        Some(value) => drop(elements.insert(key, value)),
        None => drop(elements.remove(&key)),
    }
}

fn presence(name: &RuleName, key: &impl fmt::Display, here: bool, expected: bool) -> Result<(), EditError> {
    match (here, expected) {
        (true, false) => Err(EditError::Duplicate { name: name.clone(), element: key.to_string() }),
        (false, true) => Err(missing(name, key)),
        _ => Ok(()),
    }
}

fn absent(name: &RuleName, element: Option<impl fmt::Display>) -> Result<(), EditError> {
    element.map_or(Ok(()), |element| presence(name, &element, true, false))
}

fn present(name: &RuleName, element: Option<impl fmt::Display>) -> Result<(), EditError> {
    element.map_or(Ok(()), |element| Err(missing(name, &element)))
}

fn missing(name: &RuleName, element: &impl fmt::Display) -> EditError {
    EditError::Missing { name: name.clone(), element: element.to_string() }
}

fn no_object(name: &RuleName, expected: &'static str) -> EditError {
    EditError::NoObject { name: name.clone(), expected }
}
