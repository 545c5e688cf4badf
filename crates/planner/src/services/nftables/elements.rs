//! What a frontend is in maps and sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use podnet_model::ServiceKey;

use super::{
    super::{Backend, Backends, FrontendKind, Serving},
    chains::{Choice, Names},
};
use crate::ruleset::{BackendAddress, BackendKey, Edit, FrontendKey, GROUP, RuleName, RuleSet, Set};

/// The elements of one frontend.
#[derive(Clone, Debug)]
pub(super) struct Elements<'a> {
    key: FrontendKey,
    inside: Side<'a>,
    /// What it is to who comes from outside, where that is another thing.
    outside: Side<'a>,
    /// With affinity: the number of the Service's port, at whose frontends a client stays with the same backend.
    group: Option<u32>,
    sources: Option<&'a Arc<BTreeSet<IpNet>>>,
}

/// One side of a frontend.
#[derive(Clone, Copy, Debug)]
enum Side<'a> {
    Nothing,
    Rejected,
    Dropped,
    To(Choice, &'a [Backend]),
}

impl<'a> Side<'a> {
    fn slots(self) -> &'a [Backend] {
        match self {
            Self::To(_, slots) => slots,
            _ => &[],
        }
    }
}

impl<'a> Elements<'a> {
    /// Those of what is done; none where nothing is.
    pub(super) fn of(key: FrontendKey, serving: Option<&'a Serving>) -> Self {
        let Some(serving) = serving else {
            return Self { key, inside: Side::Nothing, outside: Side::Nothing, group: None, sources: None };
        };
        let choice = |outside, masquerade, slots: &[Backend]| Choice {
            outside,
            masquerade,
            slots: number(slots.len()),
            affinity: serving.affinity,
        };
        let masquerade = serving.kind != FrontendKind::ClusterIp;
        let inside = match &serving.inside {
            Backends::Reject => Side::Rejected,
            Backends::Drop => Side::Dropped,
            Backends::Of(slots) => Side::To(choice(false, masquerade, slots), slots),
        };
        let outside = match &serving.outside {
            _ if !serving.differs_outside() => Side::Nothing,
            // Nobody serves it inside either.
            Backends::Reject => Side::Nothing,
            Backends::Drop => Side::Dropped,
            Backends::Of(slots) => Side::To(choice(true, masquerade && !serving.keeps_source, slots), slots),
        };
        let group = serving.affinity.map(|_| group_of(&key, serving));
        Self { key, inside, outside, group, sources: serving.sources.as_ref() }
    }

    /// The chains that are needed.
    pub(super) fn choices(&self) -> impl Iterator<Item = Choice> {
        [self.inside, self.outside].into_iter().filter_map(|side| match side {
            Side::To(choice, _) => Some(choice),
            _ => None,
        })
    }

    /// The edits that make `after` of these.
    pub(super) fn edit(&self, after: &Self, names: &Names, edits: &mut Vec<Edit>) {
        for ((map, before), (_, after)) in self.slots(names).into_iter().zip(after.slots(names)) {
            edit_slots(map, self.key, before, after, edits);
        }
        for ((map, before), (_, after)) in self.numbered(names).into_iter().zip(after.numbered(names)) {
            edit_numbered(map, self.key, &before, &after, edits);
        }
        for ((map, before), (_, after)) in self.verdicts(names).into_iter().zip(after.verdicts(names)) {
            point(map, self.key, before, after, edits);
        }
        for ((set, before), (_, after)) in self.sets(names).into_iter().zip(after.sets(names)) {
            edits.extend(before.minus(&after).map(|fewer| Edit::RemoveElements(set.clone(), fewer)));
            edits.extend(after.minus(&before).map(|more| Edit::AddElements(set.clone(), more)));
        }
    }

    /// Puts them into a rule set.
    pub(super) fn put(&self, rules: &mut RuleSet, names: &Names) {
        for (map, slots) in self.slots(names) {
            let keys = (0..).map(|slot| BackendKey { frontend: self.key, slot });
            let elements = &mut rules.backend_maps.entry(map.clone()).or_default().elements;
            elements.extend(keys.zip(slots.iter().map(|backend| backend.at)));
        }
        for (map, numbered) in self.numbered(names) {
            let elements = &mut rules.backend_maps.entry(map.clone()).or_default().elements;
            let key = |number| BackendKey { frontend: self.key, slot: number };
            elements.extend(numbered.into_iter().map(|(number, at)| (key(number), at)));
        }
        for (map, chain) in self.verdicts(names) {
            let Some(chain) = chain else { continue };
            rules.verdict_maps.entry(map.clone()).or_default().elements.insert(self.key, chain);
        }
        for (set, elements) in self.sets(names) {
            if let Some(set) = rules.sets.get_mut(set).filter(|_| !elements.is_empty()) {
                set.extend(&elements);
            }
        }
    }

    fn slots<'n>(&self, names: &'n Names) -> [(&'n RuleName, &'a [Backend]); 2] {
        [(&names.backends, self.inside.slots()), (&names.outside_backends, self.outside.slots())]
    }

    fn verdicts<'n>(&self, names: &'n Names) -> [(&'n RuleName, Option<RuleName>); 4] {
        let refusal = match self.inside {
            Side::Rejected => Some(names.reject.clone()),
            Side::Dropped => Some(names.drop.clone()),
            _ => None,
        };
        let chain = |side| match side {
            Side::To(choice, _) => Some(choice.name()),
            _ => None,
        };
        let outside = match self.outside {
            Side::Dropped => Some(names.drop.clone()),
            side => chain(side),
        };
        [
            (&names.frontends, chain(self.inside)),
            (&names.outside_frontends, outside),
            (&names.no_endpoints, refusal),
            (&names.guarded, self.sources.map(|_| names.guard.clone())),
        ]
    }

    /// The backends whose slots a client may stay with: none without affinity.
    fn stayed_with(&self, side: Side<'a>) -> &'a [Backend] {
        if self.group.is_some() { side.slots() } else { &[] }
    }

    /// The backends by number. Of two with the same number the first by address has it, and stands for the other one too.
    fn numbered<'n>(&self, names: &'n Names) -> [(&'n RuleName, BTreeMap<u32, BackendAddress>); 2] {
        let numbered = |side| {
            let mut numbered = BTreeMap::new();
            for backend in self.stayed_with(side) {
                let at = numbered.entry(number_of(backend.at)).or_insert(backend.at);
                *at = backend.at.min(*at);
            }
            numbered
        };
        [(&names.affinity_inside.1, numbered(self.inside)), (&names.affinity_outside.1, numbered(self.outside))]
    }

    fn sets<'n>(&self, names: &'n Names) -> [(&'n RuleName, Set); 3] {
        let numbers = |side| {
            let backends = self.stayed_with(side);
            let group = self.group.filter(|_| !backends.is_empty()).map(|number| (GROUP, number));
            let slots = (0..).zip(backends.iter().map(|backend| number_of(backend.at)));
            let at = |(slot, number)| (BackendKey { frontend: self.key, slot }, number);
            Set::Numbers(slots.chain(group).map(at).collect())
        };
        let sources = self.sources.into_iter().flat_map(|ranges| ranges.iter());
        [
            (&names.affinity_inside.0, numbers(self.inside)),
            (&names.affinity_outside.0, numbers(self.outside)),
            (&names.sources, Set::Sources(sources.map(|range| (self.key, *range)).collect())),
        ]
    }
}

/// A backend's number, by which clients' backends are remembered: the same after a restart, and rarely another's.
fn number_of(at: BackendAddress) -> u32 {
    let addr = match at.addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    hash(addr.octets().into_iter().chain(at.port.to_be_bytes()))
}

/// The number of a Service's port: the same after a restart. Where two have the same, which is rare, a client of both may come to another
/// backend of the one after it was at the other.
fn group_of(key: &FrontendKey, serving: &Serving) -> u32 {
    let ServiceKey { namespace, name } = &serving.service;
    let words = [namespace.as_str(), &**name, serving.port.as_str()];
    hash(words.into_iter().flat_map(|word| word.bytes().chain([0])).chain([key.protocol as u8]))
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    bytes.fold(BASIS, |number, byte| (number ^ u32::from(byte)).wrapping_mul(PRIME))
}

fn edit_numbered(
    map: &RuleName,
    frontend: FrontendKey,
    before: &BTreeMap<u32, BackendAddress>,
    after: &BTreeMap<u32, BackendAddress>,
    edits: &mut Vec<Edit>,
) {
    let key = |number: &u32| BackendKey { frontend, slot: *number };
    for number in before.keys().filter(|number| !after.contains_key(number)) {
        edits.push(Edit::RemoveBackend { map: map.clone(), key: key(number) });
    }
    for (number, to) in after.iter().filter(|(number, to)| before.get(number) != Some(to)) {
        let replaces = before.contains_key(number);
        edits.push(Edit::SetBackend { map: map.clone(), key: key(number), to: *to, replaces });
    }
}

fn edit_slots(map: &RuleName, frontend: FrontendKey, before: &[Backend], after: &[Backend], edits: &mut Vec<Edit>) {
    for slot in 0..before.len().max(after.len()) {
        let key = BackendKey { frontend, slot: number(slot) };
        match (before.get(slot).map(|one| one.at), after.get(slot).map(|one| one.at)) {
            (old, Some(to)) if old != Some(to) => {
                edits.push(Edit::SetBackend { map: map.clone(), key, to, replaces: old.is_some() });
            }
            (Some(_), None) => edits.push(Edit::RemoveBackend { map: map.clone(), key }),
            _ => {}
        }
    }
}

/// Points a frontend from one chain to another in a verdict map.
fn point(map: &RuleName, key: FrontendKey, from: Option<RuleName>, to: Option<RuleName>, edits: &mut Vec<Edit>) {
    match (from, to) {
        (from, Some(chain)) if from.as_ref() != Some(&chain) => {
            edits.push(Edit::SetVerdict { map: map.clone(), key, chain, replaces: from.is_some() });
        }
        (Some(_), None) => edits.push(Edit::RemoveVerdict { map: map.clone(), key }),
        _ => {}
    }
}

/// A slot's number; memory ends before the numbers do.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
