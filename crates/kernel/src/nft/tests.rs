//! The rule set in the real kernel: what it holds, and what packets do.

mod attachments;
mod limits;
mod mend;
mod packets;
mod passage;
mod services;
mod tables;
mod tunnels;
mod unheard;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use podnet_model::{Family, Protocol};
use podnet_planner::ruleset::{
    Action, BackendAddress, BackendKey, Chain, ChainKind, Field, FrontendKey, Hook, HookPoint, Match, Rule, RuleName,
    RuleSet, Set,
};

pub(super) const MARK: u32 = 0x4000;

/// The Service's address.
pub(super) fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, 10).into(),
        Family::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 10).into(),
    }
}

/// The address of the pod with that number.
pub(super) fn pod_addr(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

pub(super) fn frontend(port: u16) -> FrontendKey {
    FrontendKey { addr: vip(Family::V4), protocol: Protocol::Tcp, port }
}

pub(super) fn slot(frontend: FrontendKey, slot: u32) -> BackendKey {
    BackendKey { frontend, slot }
}

pub(super) fn rule(matches: Vec<Match>, action: Action, comment: &'static str) -> Rule {
    Rule { matches, action, comment }
}

pub(super) fn base(kind: ChainKind, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook { kind, point, priority }), rules }
}

/// The chain of Services with that many backends.
pub(super) fn service_chain(slots: u32) -> (RuleName, Chain) {
    let dnat = Action::Dnat { map: "backends".into(), slots };
    (format!("svc-{slots}").into(), Chain { hook: None, rules: vec![rule(Vec::new(), dnat, "to a backend")] })
}

pub(super) fn rules(backends: &[BackendAddress]) -> RuleSet {
    rules_of(Family::V4, backends)
}

/// A table of every kind of thing: what a node's looks like, with one Service at port 80 and one without backends at port 81.
pub(super) fn rules_of(family: Family, backends: &[BackendAddress]) -> RuleSet {
    let frontend = |port| FrontendKey { addr: vip(family), ..frontend(port) };
    let to_service = |comment| vec![rule(Vec::new(), Action::Lookup("frontends".into()), comment)];
    let refuse =
        vec![rule(vec![Match::ConnectionNew], Action::Lookup("no-endpoints".into()), "Services without endpoints")];
    let chains = BTreeMap::from([
        (
            "nat-prerouting".into(),
            base(ChainKind::Nat, HookPoint::Prerouting, -100, to_service("from pods and outside")),
        ),
        ("nat-output".into(), base(ChainKind::Nat, HookPoint::Output, -100, to_service("from the node"))),
        ("nat-postrouting".into(), base(ChainKind::Nat, HookPoint::Postrouting, 100, masquerading())),
        ("filter-output".into(), base(ChainKind::Filter, HookPoint::Output, 0, refuse.clone())),
        ("filter-forward".into(), base(ChainKind::Filter, HookPoint::Forward, 0, refuse)),
        ("reject".into(), Chain { hook: None, rules: vec![rule(Vec::new(), Action::Reject, "at once")] }),
        service_chain(u32::try_from(backends.len()).unwrap().max(1)),
    ]);
    let target: RuleName = format!("svc-{}", backends.len().max(1)).into();
    let slots = (0..).zip(backends).map(|(number, to)| (slot(frontend(80), number), *to));
    let frontends = BTreeMap::from([(frontend(80), target)]);
    let refused = BTreeMap::from([(frontend(81), RuleName::from("reject"))]);
    RuleSet {
        family,
        chains,
        verdict_maps: [("frontends".into(), frontends), ("no-endpoints".into(), refused)]
            .map(|(name, elements)| (name, podnet_planner::ruleset::VerdictMap { elements }))
            .into(),
        backend_maps: [("backends".into(), podnet_planner::ruleset::BackendMap { elements: slots.collect() })].into(),
        sets: sets(family),
        ..RuleSet::empty(family)
    }
}

fn masquerading() -> Vec<Rule> {
    let pair = vec![Field::SourceAddress, Field::DestinationAddress];
    let single = |field| vec![field];
    vec![
        rule(
            vec![Match::DestinationTranslated, Match::InSet { fields: pair, set: "local-pairs".into() }],
            Action::Masquerade,
            "a pod's connection to itself",
        ),
        rule(
            vec![
                Match::NotInSet { fields: single(Field::SourceAddress), set: "pod-ranges".into() },
                Match::InSet { fields: single(Field::SourceAddress), set: "node-addresses".into() },
                Match::DestinationLocal,
            ],
            Action::SetMark { bits: MARK },
            "to be masqueraded",
        ),
        rule(vec![Match::Mark { bits: MARK }], Action::Masquerade, "marked"),
    ]
}

fn sets(family: Family) -> BTreeMap<RuleName, Set> {
    let (ranges, node) = match family {
        Family::V4 => (["10.233.0.0/18", "10.233.64.0/18", "224.0.0.0/3"], "192.0.2.77"),
        Family::V6 => (["fd02::/64", "fd02:0:0:1::/64", "fe00::/7"], "2001:db8::77"),
    };
    let ranges = ranges.map(|range| range.parse().unwrap());
    let pair = (pod_addr(family, 1), pod_addr(family, 1));
    BTreeMap::from([
        ("local-pairs".into(), Set::Pairs(BTreeSet::from([pair]))),
        ("node-addresses".into(), Set::Addresses(BTreeSet::from([node.parse().unwrap()]))),
        ("pod-ranges".into(), Set::Ranges(BTreeSet::from(ranges))),
    ])
}

pub(super) fn backend(addr: [u8; 4], port: u16) -> BackendAddress {
    BackendAddress { addr: addr.into(), port }
}
