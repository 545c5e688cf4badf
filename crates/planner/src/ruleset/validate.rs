//! What must hold of a rule set: what a kernel would otherwise refuse, and what would make a packet's way undefined.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use podnet_model::Family;

use super::{
    Action, Chain, ChainKind, Field, Hook, HookPoint, Match, RuleName, RuleSet, Set,
    elements::{all_of, disjoint, of_family},
};

/// `NF_IP_PRI_CONNTRACK`.
const CONNECTION_TRACKING: i32 = -200;
/// The longest name of a chain, map or set, in bytes.
const NAME_MAX: usize = 31;

/// Why a value is not a rule set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRuleSet {
    /// A rule or an element goes to a chain that is not there.
    #[error("{by} goes to chain {chain}, which is not there")]
    UnknownChain {
        /// The chain.
        chain: RuleName,
        /// The chain or map that refers to it.
        by: RuleName,
    },
    /// A rule looks a map or set up that is not there, or is of another kind.
    #[error("chain {by} looks up {name}, and there is no {expected} of that name")]
    UnknownObject {
        /// The map or set.
        name: RuleName,
        /// What it should be.
        expected: &'static str,
        /// The chain.
        by: RuleName,
    },
    /// A rule or an element goes to a base chain, which only its hook enters.
    #[error("{by} goes to chain {chain}, which is a base chain")]
    BaseChainTarget {
        /// The chain.
        chain: RuleName,
        /// The chain or map that refers to it.
        by: RuleName,
    },
    /// A packet could come back to the chain.
    #[error("a packet that leaves chain {chain} can come back to it")]
    Loop {
        /// The chain.
        chain: RuleName,
    },
    /// The name is too long for the kernel.
    #[error("the name {name} is longer than {NAME_MAX} bytes")]
    NameTooLong {
        /// The name.
        name: RuleName,
    },
    /// Maps and sets share one name space.
    #[error("the name {name} is taken by another map or set")]
    NameTaken {
        /// The name.
        name: RuleName,
    },
    /// A random choice out of none.
    #[error("chain {chain} chooses a backend out of 0")]
    NoSlots {
        /// The chain.
        chain: RuleName,
    },
    /// Two ranges of one set overlap.
    #[error("the ranges {outer} and {inner} of set {set} overlap")]
    Overlap {
        /// The set.
        set: RuleName,
        /// The wider range.
        outer: IpNet,
        /// The narrower range.
        inner: IpNet,
    },
    /// An element that is of the other family than the table.
    #[error("{name} has {element}, and its table is of {family}")]
    Family {
        /// The map or set.
        name: RuleName,
        /// The address or range of the other family.
        element: String,
        /// The table's.
        family: Family,
    },
    /// A packet can meet an action at a hook where the kernel does not do it.
    #[error("chain {chain} does {action} and can be entered from base chain {base}, whose hook does not allow it")]
    Misplaced {
        /// The chain with the action.
        chain: RuleName,
        /// The action.
        action: &'static str,
        /// The base chain.
        base: RuleName,
    },
}

impl RuleSet {
    /// Checks everything: every chain, map and set that is referred to exists, nothing loops, names fit, ranges are disjoint, and
    /// translation and refusal stand only where the kernel does them.
    ///
    /// # Errors
    /// The first fault found, in the order of names.
    pub fn validate(&self) -> Result<(), InvalidRuleSet> {
        self.check_names()?;
        for (name, chain) in &self.chains {
            self.check_chain(name, chain)?;
            self.check_loop(name)?;
        }
        for (name, map) in &self.verdict_maps {
            self.check_family(name, map.elements.keys().map(|key| key.addr))?;
            for chain in map.elements.values() {
                self.check_target(name, chain)?;
            }
        }
        for (name, map) in &self.backend_maps {
            self.check_family(name, map.elements.iter().flat_map(|(key, to)| [key.frontend.addr, to.addr]))?;
        }
        for (name, set) in &self.sets {
            of_family(self.family, name, set)?;
            disjoint(name, set)?;
        }
        self.check_places()
    }

    fn check_names(&self) -> Result<(), InvalidRuleSet> {
        let mut objects = BTreeSet::new();
        let maps = self.verdict_maps.keys().chain(self.backend_maps.keys()).chain(&self.memories);
        for name in maps.chain(self.sets.keys()) {
            name_fits(name)?;
            if !objects.insert(name) {
                return Err(InvalidRuleSet::NameTaken { name: name.clone() });
            }
        }
        Ok(())
    }

    /// Whether everything that the chain's rules refer to is there.
    pub(super) fn check_chain(&self, name: &RuleName, chain: &Chain) -> Result<(), InvalidRuleSet> {
        name_fits(name)?;
        for rule in &chain.rules {
            for condition in &rule.matches {
                self.check_match(name, condition)?;
            }
            match &rule.action {
                Action::Jump(target) if target == name => return Err(InvalidRuleSet::Loop { chain: name.clone() }),
                Action::Jump(target) => self.check_target(name, target)?,
                Action::Lookup(map) if !self.verdict_maps.contains_key(map) => {
                    return Err(unknown(map, "verdict map", name));
                }
                Action::Dnat { map, .. } | Action::DnatAnyAddress { map } if !self.backend_maps.contains_key(map) => {
                    return Err(unknown(map, "backend map", name));
                }
                Action::DnatRemembered { numbered, .. } | Action::DnatAgain { numbered, .. }
                    if !self.backend_maps.contains_key(numbered) =>
                {
                    return Err(unknown(numbered, "backend map", name));
                }
                Action::DnatRemembered { memory, .. } | Action::DnatAgain { memory, .. }
                    if !self.memories.contains(memory) =>
                {
                    return Err(unknown(memory, "memory", name));
                }
                Action::DnatRemembered { numbers, .. } | Action::DnatAgain { numbers, .. }
                    if !matches!(self.sets.get(numbers), Some(Set::Numbers(_))) =>
                {
                    return Err(unknown(numbers, "map of numbers", name));
                }
                Action::NoteFlow { set, .. } if !matches!(self.sets.get(set), Some(Set::Flows)) => {
                    return Err(unknown(set, "set of flows", name));
                }
                Action::DnatTo(addr) => self.check_family(name, [*addr])?,
                Action::Dnat { slots: 0, .. } | Action::DnatRemembered { slots: 0, .. } => {
                    return Err(InvalidRuleSet::NoSlots { chain: name.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn check_family(
        &self,
        name: &RuleName,
        addrs: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), InvalidRuleSet> {
        all_of(self.family, name, addrs.into_iter().map(|addr| (Family::of(&addr), addr)))
    }

    fn check_match(&self, by: &RuleName, condition: &Match) -> Result<(), InvalidRuleSet> {
        let (Match::InSet { fields, set: name } | Match::NotInSet { fields, set: name }) = condition else {
            return Ok(());
        };
        let expected = match fields.as_slice() {
            [Field::SourceAddress | Field::DestinationAddress] => "set of addresses, ranges or limits",
            [Field::SourceAddress | Field::DestinationAddress, Field::SourceAddress | Field::DestinationAddress] => {
                "set of address pairs"
            }
            [Field::DestinationPort] => "set of ports",
            [Field::InputDevice, Field::SourceMac, Field::SourceAddress] => "set of senders",
            [Field::DestinationAddress, Field::Protocol, Field::DestinationPort, Field::SourceAddress] => {
                "set of frontends and sources"
            }
            _ => "set for these fields",
        };
        let fits = match self.sets.get(name) {
            Some(Set::Addresses(_) | Set::Ranges(_) | Set::PacketRates(_) | Set::Counters(_)) => {
                expected == "set of addresses, ranges or limits"
            }
            Some(Set::Pairs(_)) => expected == "set of address pairs",
            Some(Set::Ports(_)) => expected == "set of ports",
            Some(Set::Senders(_)) => expected == "set of senders",
            Some(Set::Sources(_)) => expected == "set of frontends and sources",
            Some(Set::Numbers(_) | Set::Flows) | None => false,
        };
        if fits { Ok(()) } else { Err(unknown(name, expected, by)) }
    }

    /// Whether a chain is there that a rule or an element may go to.
    pub(super) fn check_target(&self, by: &RuleName, target: &RuleName) -> Result<(), InvalidRuleSet> {
        match self.chains.get(target) {
            None => Err(InvalidRuleSet::UnknownChain { chain: target.clone(), by: by.clone() }),
            Some(chain) if chain.hook.is_some() => {
                Err(InvalidRuleSet::BaseChainTarget { chain: target.clone(), by: by.clone() })
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a packet that is in the chain can come back to it.
    pub(super) fn check_loop(&self, start: &RuleName) -> Result<(), InvalidRuleSet> {
        if self.reachable(start).contains(start) {
            return Err(InvalidRuleSet::Loop { chain: start.clone() });
        }
        Ok(())
    }

    /// The chains that a packet in this one can go on in.
    fn reachable<'a>(&'a self, start: &'a RuleName) -> BTreeSet<&'a RuleName> {
        let mut found = BTreeSet::new();
        let mut maps_seen = BTreeSet::new();
        let mut open = vec![start];
        while let Some(name) = open.pop() {
            for rule in self.chains.get(name).map_or(&[][..], |chain| &chain.rules) {
                match &rule.action {
                    Action::Jump(target) if found.insert(target) => open.push(target),
                    Action::Lookup(map) if maps_seen.insert(map) => {
                        let targets = self.verdict_maps.get(map).into_iter().flat_map(|map| map.elements.values());
                        open.extend(targets.filter(|target| found.insert(target)));
                    }
                    _ => {}
                }
            }
        }
        found
    }

    fn check_places(&self) -> Result<(), InvalidRuleSet> {
        for (base, hook) in self.chains.iter().filter_map(|(name, chain)| Some((name, chain.hook?))) {
            let mut entered = self.reachable(base);
            entered.insert(base);
            for (name, chain) in entered.into_iter().filter_map(|name| Some((name, self.chains.get(name)?))) {
                if let Some(action) = chain.rules.iter().find_map(|rule| misplaced(&rule.action, hook)) {
                    return Err(InvalidRuleSet::Misplaced { chain: name.clone(), action, base: base.clone() });
                }
            }
        }
        Ok(())
    }

    /// A chain or map that goes to the chain.
    pub(super) fn chain_user(&self, target: &RuleName) -> Option<RuleName> {
        let jumps =
            |chain: &Chain| chain.rules.iter().any(|rule| matches!(&rule.action, Action::Jump(to) if to == target));
        let chain = self.chains.iter().find(|(_, chain)| jumps(chain)).map(|(name, _)| name);
        let map = || {
            self.verdict_maps.iter().find(|(_, map)| map.elements.values().any(|to| to == target)).map(|(name, _)| name)
        };
        chain.or_else(map).cloned()
    }

    /// A chain whose rules look the map or set up.
    pub(super) fn object_user(&self, object: &RuleName) -> Option<RuleName> {
        self.chains.iter().find(|(_, chain)| chain.looks_up(|name| name == object)).map(|(name, _)| name.clone())
    }
}

impl Chain {
    /// Whether a rule of this chain looks up a map or set that the question is true of.
    pub(super) fn looks_up(&self, mut asked: impl FnMut(&RuleName) -> bool) -> bool {
        self.rules.iter().any(|rule| {
            let in_action = match &rule.action {
                Action::Lookup(map) | Action::Dnat { map, .. } | Action::DnatAnyAddress { map } => asked(map),
                Action::NoteFlow { set, .. } => asked(set),
                Action::DnatRemembered { numbers, numbered, memory, .. }
                | Action::DnatAgain { memory, numbers, numbered, .. } => {
                    asked(numbers) || asked(numbered) || asked(memory)
                }
                _ => false,
            };
            in_action
                || rule.matches.iter().any(|condition| match condition {
                    Match::InSet { set, .. } | Match::NotInSet { set, .. } => asked(set),
                    _ => false,
                })
        })
    }
}

/// The action in words, if a packet at the hook cannot have it done (`nft_nat_validate`, `nft_masq_validate` and
/// `nft_reject_validate` of the kernel).
fn misplaced(action: &Action, hook: Hook) -> Option<&'static str> {
    let (allowed, name) = match action {
        Action::Dnat { .. }
        | Action::DnatAnyAddress { .. }
        | Action::DnatRemembered { .. }
        | Action::DnatAgain { .. }
        | Action::DnatTo(_) => (
            hook.kind == ChainKind::Nat && matches!(hook.point, HookPoint::Prerouting | HookPoint::Output),
            "destination translation",
        ),
        Action::Masquerade => (hook.kind == ChainKind::Nat && hook.point == HookPoint::Postrouting, "masquerading"),
        // Later, connection tracking has seen the packet already.
        Action::NoTrack => (
            hook.kind == ChainKind::Filter
                && hook.priority < CONNECTION_TRACKING
                && matches!(hook.point, HookPoint::Prerouting | HookPoint::Output),
            "passing by connection tracking",
        ),
        Action::Reject => (hook.point != HookPoint::Postrouting, "refusal"),
        _ => (true, ""),
    };
    (!allowed).then_some(name)
}

/// Whether the kernel takes the name.
pub(super) fn name_fits(name: &RuleName) -> Result<(), InvalidRuleSet> {
    if name.len() > NAME_MAX { Err(InvalidRuleSet::NameTooLong { name: name.clone() }) } else { Ok(()) }
}

fn unknown(name: &RuleName, expected: &'static str, by: &RuleName) -> InvalidRuleSet {
    InvalidRuleSet::UnknownObject { name: name.clone(), expected, by: by.clone() }
}
