//! The rules, which are constant: everything that differs between nodes is an element.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::ruleset::{
    Action, BackendMap, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleName, RuleSet, Set,
};

pub(super) const SENDERS: &str = "senders";
pub(super) const HOST_PORTS: &str = "host-ports";
pub(super) const PORT_PAIRS: &str = "port-pairs";
const ANSWERS: &str = "ports-answered";
const LOOPBACK: &str = "loopback";
const LOOPBACK_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// Before connection tracking (`NF_IP_PRI_RAW`): what is dropped here leaves no trace there.
const RAW: i32 = -300;
/// Just after the destination translation of Services (-100): a NodePort goes before a port of the same number here.
const AFTER_SERVICES: i32 = -99;
/// Just before the source translation of pools (100).
const BEFORE_POOLS: i32 = 99;

pub(super) fn constant(prefix: &'static str) -> RuleSet {
    let base = |kind, point, priority, rules| Chain { hook: Some(Hook { kind, point, priority }), rules };
    let chains: [(&str, Chain); 4] = [
        ("senders-checked", base(ChainKind::Filter, HookPoint::Prerouting, RAW, senders(prefix))),
        ("ports-from-outside", base(ChainKind::Nat, HookPoint::Prerouting, AFTER_SERVICES, ports())),
        ("ports-from-here", base(ChainKind::Nat, HookPoint::Output, AFTER_SERVICES, ports())),
        (ANSWERS, base(ChainKind::Nat, HookPoint::Postrouting, BEFORE_POOLS, answers())),
    ];
    RuleSet {
        chains: chains.into_iter().map(|(name, chain)| (RuleName::from(name), chain)).collect(),
        backend_maps: BTreeMap::from([(HOST_PORTS.into(), BackendMap::default())]),
        sets: BTreeMap::from([
            (SENDERS.into(), Set::Devices(BTreeSet::new())),
            (PORT_PAIRS.into(), Set::Pairs(BTreeSet::new())),
            (LOOPBACK.into(), Set::Ranges(BTreeSet::from([LOOPBACK_RANGE]))),
        ]),
        ..RuleSet::default()
    }
}

/// Adds the translation of what leaves these ranges.
pub(super) fn masquerade(rules: &mut RuleSet, ranges: &BTreeSet<Ipv4Net>, exempt: Ipv4Net) {
    /// `NF_IP_PRI_NAT_SRC`.
    const SOURCE_NAT: i32 = 100;
    let mut inside = ranges.clone();
    if !ranges.iter().any(|range| range.contains(&exempt)) {
        inside.retain(|range| !exempt.contains(range));
        inside.insert(exempt);
    }
    for (name, set) in [("nat-sources", ranges.clone()), ("no-nat-destinations", inside)] {
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

/// Adds the translation of connections from a shared segment to a port that leads back there.
pub(super) fn answer_segments(rules: &mut RuleSet, ranges: &BTreeSet<Ipv4Net>) {
    const SEGMENTS: &str = "segments";
    rules.sets.insert(SEGMENTS.into(), Set::Ranges(ranges.clone()));
    let within = |field| Match::InSet { fields: vec![field], set: SEGMENTS.into() };
    let matches = vec![Match::DestinationTranslated, within(Field::SourceAddress), within(Field::DestinationAddress)];
    let comment = "an attachment to its neighbour by a port of the node";
    if let Some(chain) = rules.chains.get_mut(ANSWERS) {
        chain.rules.push(Rule { matches, action: Action::Masquerade, comment });
    }
}

/// What comes from an attachment must have its addresses. Where a port of the node's loopback leads to an attachment, its device
/// takes packets for loopback addresses (`route_localnet`): only answers, which are translated back after this hook, may be such.
fn senders(prefix: &'static str) -> Vec<Rule> {
    let own = Match::NotInSet { fields: vec![Field::InputDevice, Field::SourceMac], set: SENDERS.into() };
    let to_loopback = Match::InSet { fields: vec![Field::DestinationAddress], set: LOOPBACK.into() };
    [
        (own, "a pod sends with an Ethernet address that is not its own"),
        (Match::SourceElsewhere, "a pod sends with an address that is not its own"),
        (to_loopback, "a pod sends to the node's loopback"),
    ]
    .into_iter()
    .map(|(condition, comment)| {
        let matches = vec![Match::InputDevice { prefix }, condition];
        Rule { matches, action: Action::Drop, comment }
    })
    .collect()
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
    let from_loopback = Match::InSet { fields: vec![Field::SourceAddress], set: LOOPBACK.into() };
    [(to_itself, "a pod to itself by a port of the node"), (from_loopback, "the node's loopback to a pod")]
        .into_iter()
        .map(|(condition, comment)| {
            let matches = vec![Match::DestinationTranslated, condition];
            Rule { matches, action: Action::Masquerade, comment }
        })
        .collect()
}
