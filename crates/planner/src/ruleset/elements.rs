//! What can be done with the elements of a set, whatever its kind; and conditions and rules made of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::Family;

use super::{Action, Field, FrontendKey, InvalidRuleSet, Match, Rule, RuleName, Set};

impl Set {
    /// How many elements it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Addresses(elements) => elements.len(),
            Self::Ranges(elements) => elements.len(),
            Self::Pairs(elements) => elements.len(),
            Self::Ports(elements) => elements.len(),
            Self::Numbers(elements) => elements.len(),
            Self::Sources(elements) => elements.len(),
            Self::Senders(elements) => elements.len(),
            Self::PacketRates(elements) => elements.len(),
            Self::Counters(elements) => elements.len(),
            Self::Flows => 0,
        }
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind in words.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Addresses(_) => "set of addresses",
            Self::Ranges(_) => "set of ranges",
            Self::Pairs(_) => "set of address pairs",
            Self::Ports(_) => "set of ports",
            Self::Numbers(_) => "map of numbers",
            Self::Sources(_) => "set of frontends and sources",
            Self::Senders(_) => "set of senders",
            Self::PacketRates(_) => "set of packet rates",
            Self::Counters(_) => "set of counters",
            Self::Flows => "set of flows",
        }
    }

    /// The elements that `other`, of the same kind, has not, or has with another limit; none where there are no such.
    pub(crate) fn minus(&self, other: &Self) -> Option<Self> {
        let rest = match (self, other) {
            (Self::Addresses(here), Self::Addresses(there)) => Self::Addresses(here - there),
            (Self::Ranges(here), Self::Ranges(there)) => Self::Ranges(here - there),
            (Self::Pairs(here), Self::Pairs(there)) => Self::Pairs(here - there),
            (Self::Ports(here), Self::Ports(there)) => Self::Ports(here - there),
            (Self::Numbers(here), Self::Numbers(there)) => Self::Numbers(map_minus(here, there)),
            (Self::Sources(here), Self::Sources(there)) => Self::Sources(here - there),
            (Self::Senders(here), Self::Senders(there)) => Self::Senders(here - there),
            (Self::PacketRates(here), Self::PacketRates(there)) => Self::PacketRates(map_minus(here, there)),
            (Self::Counters(here), Self::Counters(there)) => Self::Counters(here - there),
            _ => self.clone(),
        };
        (!rest.is_empty()).then_some(rest)
    }

    /// Takes in the elements of a set of the same kind; one of another kind changes nothing.
    pub(crate) fn extend(&mut self, more: &Self) {
        match (self, more) {
            (Self::Addresses(here), Self::Addresses(more)) => here.extend(more),
            (Self::Ranges(here), Self::Ranges(more)) => here.extend(more),
            (Self::Pairs(here), Self::Pairs(more)) => here.extend(more),
            (Self::Ports(here), Self::Ports(more)) => here.extend(more),
            (Self::Numbers(here), Self::Numbers(more)) => here.extend(more),
            (Self::Sources(here), Self::Sources(more)) => here.extend(more),
            (Self::Senders(here), Self::Senders(more)) => here.extend(more.iter().cloned()),
            (Self::PacketRates(here), Self::PacketRates(more)) => here.extend(more),
            (Self::Counters(here), Self::Counters(more)) => here.extend(more),
            _ => {}
        }
    }

    /// Gives up the elements of a set of the same kind; one of another kind changes nothing.
    pub(super) fn reduce(&mut self, fewer: &Self) {
        match (self, fewer) {
            (Self::Addresses(here), Self::Addresses(fewer)) => remove_all(here, fewer),
            (Self::Ranges(here), Self::Ranges(fewer)) => remove_all(here, fewer),
            (Self::Pairs(here), Self::Pairs(fewer)) => remove_all(here, fewer),
            (Self::Ports(here), Self::Ports(fewer)) => remove_all(here, fewer),
            (Self::Numbers(here), Self::Numbers(fewer)) => {
                for key in fewer.keys() {
                    here.remove(key);
                }
            }
            (Self::Sources(here), Self::Sources(fewer)) => remove_all(here, fewer),
            (Self::Senders(here), Self::Senders(fewer)) => remove_all(here, fewer),
            (Self::PacketRates(here), Self::PacketRates(fewer)) => here.retain(|addr, _| !fewer.contains_key(addr)),
            (Self::Counters(here), Self::Counters(fewer)) => remove_all(here, fewer),
            _ => {}
        }
    }
}

/// A rule of these conditions.
pub(crate) fn rule<const N: usize>(matches: [Match; N], action: Action, comment: &'static str) -> Rule {
    Rule { matches: matches.into(), action, comment }
}

pub(crate) fn within<const N: usize>(fields: [Field; N], set: &RuleName) -> Match {
    Match::InSet { fields: fields.into(), set: set.clone() }
}

pub(crate) fn not_in<const N: usize>(fields: [Field; N], set: &RuleName) -> Match {
    Match::NotInSet { fields: fields.into(), set: set.clone() }
}

/// Costs as much as what is removed, however much there is.
fn remove_all<T: Ord>(here: &mut BTreeSet<T>, fewer: &BTreeSet<T>) {
    for element in fewer {
        here.remove(element);
    }
}

fn map_minus<K: Ord + Copy, V: PartialEq + Copy>(here: &BTreeMap<K, V>, there: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    here.iter().filter(|(key, value)| there.get(key) != Some(value)).map(|(key, value)| (*key, *value)).collect()
}

/// A key of `more` that is in `here`, whatever its value.
pub(super) fn shared<'a, K: Ord, V>(here: &BTreeMap<K, V>, more: &'a BTreeMap<K, V>) -> Option<&'a K> {
    more.keys().find(|addr| here.contains_key(addr))
}

/// A key of `fewer` that is not in `here` with the same value.
pub(super) fn lacking<'a, K: Ord, V: PartialEq>(here: &BTreeMap<K, V>, fewer: &'a BTreeMap<K, V>) -> Option<&'a K> {
    fewer.iter().find(|(addr, limit)| here.get(addr) != Some(limit)).map(|(addr, _)| addr)
}

/// Whether all addresses and ranges of the set are of the family.
pub(super) fn of_family(family: Family, name: &RuleName, set: &Set) -> Result<(), InvalidRuleSet> {
    let of = |addr: &IpAddr| (Family::of(addr), *addr);
    match set {
        Set::Addresses(addrs) => all_of(family, name, addrs.iter().map(of)),
        Set::Ranges(ranges) => all_of(family, name, ranges.iter().map(|range| (Family::of_net(range), range))),
        Set::Pairs(pairs) => all_of(family, name, pairs.iter().flat_map(|(from, to)| [of(from), of(to)])),
        Set::Ports(_) | Set::Flows => Ok(()),
        Set::Numbers(numbers) => all_of(family, name, numbers.keys().map(|key| of(&key.frontend.addr))),
        Set::Sources(sources) => {
            all_of(family, name, sources.iter().map(|(frontend, _)| of(&frontend.addr)))?;
            all_of(family, name, sources.iter().map(|(_, range)| (Family::of_net(range), range)))
        }
        Set::Senders(senders) => all_of(family, name, senders.iter().map(|(.., addr)| of(addr))),
        Set::PacketRates(rates) => all_of(family, name, rates.keys().map(of)),
        Set::Counters(addrs) => all_of(family, name, addrs.iter().map(of)),
    }
}

pub(super) fn all_of(
    family: Family,
    name: &RuleName,
    elements: impl IntoIterator<Item = (Family, impl ToString)>,
) -> Result<(), InvalidRuleSet> {
    match elements.into_iter().find(|(of, _)| *of != family) {
        None => Ok(()),
        Some((_, element)) => Err(InvalidRuleSet::Family { name: name.clone(), element: element.to_string(), family }),
    }
}

/// Whether no range lies in another. CIDRs are nested or disjoint and sort outer first, so neighbours tell.
pub(super) fn disjoint(name: &RuleName, set: &Set) -> Result<(), InvalidRuleSet> {
    if let Set::Sources(sources) = set {
        let frontends: BTreeSet<FrontendKey> = sources.iter().map(|(frontend, _)| *frontend).collect();
        return frontends.into_iter().try_for_each(|one| disjoint(name, &Set::Ranges(ranges_of(sources, one))));
    }
    let Set::Ranges(ranges) = set else { return Ok(()) };
    let mut outer: Option<&IpNet> = None;
    for range in ranges {
        if let Some(outer) = outer.filter(|outer| outer.contains(range)) {
            return Err(InvalidRuleSet::Overlap { set: name.clone(), outer: *outer, inner: *range });
        }
        outer = Some(range);
    }
    Ok(())
}

/// The ranges that belong to a frontend.
pub(super) fn ranges_of(sources: &BTreeSet<(FrontendKey, IpNet)>, frontend: FrontendKey) -> BTreeSet<IpNet> {
    let first: IpNet = if frontend.addr.is_ipv4() { Ipv4Net::default().into() } else { Ipv6Net::default().into() };
    let own = sources.range((frontend, first)..).take_while(|(one, _)| *one == frontend);
    own.map(|(_, range)| *range).collect()
}
