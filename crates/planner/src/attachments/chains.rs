//! The rules, which are constant: everything that differs between nodes is an element.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::Family;

use crate::ruleset::{
    Action, BackendMap, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleName, RuleSet, Set,
};

pub(super) const SENDERS: &str = "senders";
pub(super) const HOST_PORTS: &str = "host-ports";
pub(super) const PORT_PAIRS: &str = "port-pairs";
const CHECK: &str = "senders-checked";
const ANSWERS: &str = "ports-answered";

/// Before connection tracking (`NF_IP_PRI_RAW`): what is dropped here leaves no trace there.
const RAW: i32 = -300;
/// Just after the destination translation of Services (-100): a NodePort goes before a port of the same number here.
const AFTER_SERVICES: i32 = -99;
/// Just before the source translation of pools (100).
const BEFORE_POOLS: i32 = 99;

pub(super) fn constant(family: Family, prefix: &'static str) -> RuleSet {
    let base = |kind, point, priority, rules| Chain { hook: Some(Hook { kind, point, priority }), rules };
    let chains: [(&str, Chain); 4] = [
        (CHECK, base(ChainKind::Filter, HookPoint::Prerouting, RAW, senders(family, prefix))),
        ("ports-from-outside", base(ChainKind::Nat, HookPoint::Prerouting, AFTER_SERVICES, ports())),
        ("ports-from-here", base(ChainKind::Nat, HookPoint::Output, AFTER_SERVICES, ports())),
        (ANSWERS, base(ChainKind::Nat, HookPoint::Postrouting, BEFORE_POOLS, answers())),
    ];
    let sets = BTreeMap::from([
        (RuleName::from(SENDERS), Set::Senders(BTreeSet::new())),
        (PORT_PAIRS.into(), Set::Pairs(BTreeSet::new())),
    ]);
    RuleSet {
        chains: chains.into_iter().map(|(name, chain)| (RuleName::from(name), chain)).collect(),
        backend_maps: BTreeMap::from([(HOST_PORTS.into(), BackendMap::default())]),
        sets,
        ..RuleSet::empty(family)
    }
}

/// Adds the translation of what leaves these ranges, of which those of the other family than the rules' are passed by.
pub(super) fn masquerade(rules: &mut RuleSet, ranges: &BTreeSet<IpNet>) {
    /// `NF_IP_PRI_NAT_SRC`.
    const SOURCE_NAT: i32 = 100;
    let sources = of_family(ranges, rules.family);
    if sources.is_empty() {
        return;
    }
    let exempt = multicast(rules.family);
    let mut inside = sources.clone();
    if !sources.iter().any(|range| range.contains(&exempt)) {
        inside.retain(|range| !exempt.contains(range));
        inside.insert(exempt);
    }
    for (name, set) in [("nat-sources", sources), ("no-nat-destinations", inside)] {
        rules.sets.insert(name.into(), Set::Ranges(set));
    }
    let matches = vec![
        Match::InSet { fields: vec![Field::SourceAddress], set: "nat-sources".into() },
        Match::NotInSet { fields: vec![Field::DestinationAddress], set: "no-nat-destinations".into() },
    ];
    let rule = Rule { matches, action: Action::Masquerade, comment: "containers' connections to elsewhere" };
    let hook = Hook { kind: ChainKind::Nat, point: HookPoint::Postrouting, priority: SOURCE_NAT };
    rules.chains.insert("way-out".into(), Chain { hook: Some(hook), rules: vec![rule] });
}

/// Adds what a shared segment needs: the translation of connections from there to a port that leads back there; and, as a port of the
/// node's loopback makes the segment's device take packets for it, that nobody sends such, whether senders are checked or not.
pub(super) fn answer_segments(rules: &mut RuleSet, ranges: &BTreeSet<IpNet>) {
    const SEGMENTS: &str = "segments";
    let ranges = of_family(ranges, rules.family);
    let Some(chain) = rules.chains.get_mut(ANSWERS).filter(|_| !ranges.is_empty()) else { return };
    let within = |field| Match::InSet { fields: vec![field], set: SEGMENTS.into() };
    let matches = vec![Match::DestinationTranslated, within(Field::SourceAddress), within(Field::DestinationAddress)];
    let comment = "an attachment to its neighbour by a port of the node";
    chain.rules.push(Rule { matches, action: Action::Masquerade, comment });
    rules.sets.insert(SEGMENTS.into(), Set::Ranges(ranges));
    if let Some(check) = rules.chains.get_mut(CHECK).filter(|_| rules.family == Family::V4) {
        let matches = vec![Match::FromElsewhere, Match::Loopback(Field::DestinationAddress)];
        let comment = "somebody sends to the node's loopback";
        check.rules.insert(0, Rule { matches, action: Action::Drop, comment });
    }
}

fn of_family(ranges: &BTreeSet<IpNet>, family: Family) -> BTreeSet<IpNet> {
    ranges.iter().copied().filter(|range| Family::of_net(range) == family).collect()
}

/// What is never translated: it leads to whoever listens on the link.
const fn multicast(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
        Family::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    }
}

/// What comes from an attachment must have its addresses. Every packet passes here, so there is one lookup and nothing is asked twice:
/// what comes by other devices leaves at the first rule.
///
/// Where a port of the node's loopback leads to an attachment, its device takes packets for loopback addresses (`route_localnet`): only
/// answers, which are translated back after this hook, may be such. Of IPv6 the kernel itself takes none from a device.
///
/// Pods have no link-local addresses and need none, as both ends know their neighbour for good. So router advertisements and
/// redirections, which count from link-local addresses only (RFC 4861, sections 6.1.2 and 8.1), do not pass either.
fn senders(family: Family, prefix: &'static str) -> Vec<Rule> {
    let others = Rule {
        matches: vec![Match::OtherInputDevice { prefix: prefix.into() }],
        action: Action::Accept,
        comment: "not from a pod",
    };
    let to_loopback = Rule {
        matches: vec![Match::Loopback(Field::DestinationAddress)],
        action: Action::Drop,
        comment: "a pod sends to the node's loopback",
    };
    let sender = vec![Field::InputDevice, Field::SourceMac, Field::SourceAddress];
    let not_its_own = Rule {
        matches: vec![Match::NotInSet { fields: sender, set: SENDERS.into() }],
        action: Action::Drop,
        comment: "a pod sends with an address that is not its own",
    };
    match family {
        Family::V4 => vec![others, to_loopback, not_its_own],
        Family::V6 => vec![others, not_its_own],
    }
}

fn ports() -> Vec<Rule> {
    let map = || RuleName::from(HOST_PORTS);
    vec![
        // An address that is not the node's is not led anywhere, whatever a pod's hostIP says: its traffic is others'.
        Rule {
            matches: vec![Match::DestinationLocal],
            action: Action::Dnat { map: map(), slots: 1 },
            comment: "ports of one of the node's addresses",
        },
        Rule {
            matches: vec![Match::DestinationLocal],
            action: Action::DnatAnyAddress { map: map() },
            comment: "ports of all of the node's addresses",
        },
    ]
}

/// Whoever would answer directly to the client, past this node's translation, is asked by the node in the client's place.
fn answers() -> Vec<Rule> {
    let to_itself =
        Match::InSet { fields: vec![Field::SourceAddress, Field::DestinationAddress], set: PORT_PAIRS.into() };
    let from_loopback = Match::Loopback(Field::SourceAddress);
    [(to_itself, "a pod to itself by a port of the node"), (from_loopback, "the node's loopback to a pod")]
        .into_iter()
        .map(|(condition, comment)| {
            let matches = vec![Match::DestinationTranslated, condition];
            Rule { matches, action: Action::Masquerade, comment }
        })
        .collect()
}
