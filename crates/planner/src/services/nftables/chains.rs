//! The rules, which are few and constant: everything that differs between clusters is an element.

use std::net::IpAddr;

use super::super::ServicesConfig;
use crate::{
    attachments::DEVICE_PREFIX,
    ruleset::{
        Action, BackendMap, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleName, RuleSet, Set, VerdictMap,
        not_in, rule, within,
    },
};

/// Before destination NAT, and after connection tracking.
const BEFORE_NAT: i32 = -110;
/// The priority of destination NAT (`NF_IP_PRI_NAT_DST`).
const DESTINATION_NAT: i32 = -100;
/// The priority of filtering (`NF_IP_PRI_FILTER`).
const FILTER: i32 = 0;
/// The priority of source NAT (`NF_IP_PRI_NAT_SRC`).
const SOURCE_NAT: i32 = 100;

/// The names of chains, maps and sets, each made once.
#[derive(Debug)]
pub(super) struct Names {
    /// Map: frontends with backends.
    pub(super) frontends: RuleName,
    /// Map: backends by frontend and slot.
    pub(super) backends: RuleName,
    /// Map: frontends that are another thing to who comes from outside.
    pub(super) outside_frontends: RuleName,
    /// Map: their backends, by frontend and slot.
    pub(super) outside_backends: RuleName,
    /// Map: frontends without backends.
    pub(super) no_endpoints: RuleName,
    /// Map: frontends to which not everybody may come.
    pub(super) guarded: RuleName,
    /// Set: who may.
    pub(super) sources: RuleName,
    /// Memory: which backend a client had.
    pub(super) affinity: RuleName,
    /// Numbers of the backends of frontends with affinity, by slot, and of their groups; and those backends by number.
    pub(super) affinity_inside: (RuleName, RuleName),
    /// The same for who comes from outside.
    pub(super) affinity_outside: (RuleName, RuleName),
    /// Set: ClusterIPs.
    pub(super) cluster_ips: RuleName,
    /// Set: backends on this node, each paired with itself.
    pub(super) local_pairs: RuleName,
    /// Set: pods of this node.
    pub(super) local_pods: RuleName,
    /// Set: ranges of pods.
    pub(super) pods: RuleName,
    /// Chain: first packets to frontends.
    pub(super) services: RuleName,
    /// Chain: what no frontend took.
    unserved: RuleName,
    /// Chain: who comes to a guarded frontend.
    pub(super) guard: RuleName,
    /// Chain: refusal.
    pub(super) reject: RuleName,
    /// Chain: loss.
    pub(super) drop: RuleName,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            frontends: "frontends".into(),
            backends: "backends".into(),
            outside_frontends: "outside-frontends".into(),
            outside_backends: "outside-backends".into(),
            no_endpoints: "no-endpoints".into(),
            guarded: "guarded".into(),
            sources: "sources".into(),
            affinity: "affinity".into(),
            affinity_inside: ("numbers".into(), "numbered-backends".into()),
            affinity_outside: ("outside-numbers".into(), "outside-numbered-backends".into()),
            cluster_ips: "cluster-ips".into(),
            local_pairs: "local-pairs".into(),
            local_pods: "local-pods".into(),
            pods: "pods".into(),
            services: "services".into(),
            unserved: "unserved".into(),
            guard: "guard".into(),
            reject: "reject".into(),
            drop: "drop".into(),
        }
    }
}

/// The chains that every node has, and empty maps and sets.
pub(super) fn constant(names: &Names, config: &ServicesConfig, echo: Option<IpAddr>) -> RuleSet {
    let hook = |kind, point, priority| Some(Hook { kind, point, priority });
    let nat = |point| hook(ChainKind::Nat, point, DESTINATION_NAT);
    // Connections are judged once: a chain of the kind `nat` sees their first packets only.
    let early = |point| hook(ChainKind::Nat, point, BEFORE_NAT);
    let filter = |point| hook(ChainKind::Filter, point, FILTER);
    let source_nat = hook(ChainKind::Nat, HookPoint::Postrouting, SOURCE_NAT);
    let guarded = || vec![rule([], Action::Lookup(names.guarded.clone()), "frontends for some sources only")];
    let to_services = || rule([], Action::Jump(names.services.clone()), "Services");
    let to_unserved = || vec![rule([Match::ConnectionNew], Action::Jump(names.unserved.clone()), "no backend took it")];
    let chains = [
        ("guard-prerouting", early(HookPoint::Prerouting), guarded()),
        ("guard-output", early(HookPoint::Output), guarded()),
        ("prerouting", nat(HookPoint::Prerouting), vec![from_outside(names), to_services()]),
        ("output", nat(HookPoint::Output), vec![to_services()]),
        ("filter-input", filter(HookPoint::Input), to_unserved()),
        ("filter-forward", filter(HookPoint::Forward), to_unserved()),
        ("filter-output", filter(HookPoint::Output), to_unserved()),
        ("postrouting", source_nat, postrouting(names, config.masquerade_mark)),
        (&names.unserved, None, unserved(names)),
        (&names.guard, None, guard(names)),
        (&names.reject, None, vec![rule([], Action::Reject, "nobody serves it")]),
        (&names.drop, None, vec![rule([], Action::Drop, "nobody serves it on this node")]),
    ];
    let mut rules = RuleSet {
        chains: chains.into_iter().map(|(name, hook, rules)| (name.into(), Chain { hook, rules })).collect(),
        verdict_maps: [&names.frontends, &names.outside_frontends, &names.no_endpoints, &names.guarded]
            .map(|name| (name.clone(), VerdictMap::default()))
            .into(),
        backend_maps: [&names.backends, &names.outside_backends, &names.affinity_inside.1, &names.affinity_outside.1]
            .map(|name| (name.clone(), BackendMap::default()))
            .into(),
        sets: [
            (names.sources.clone(), Set::Sources(Default::default())),
            (names.affinity_inside.0.clone(), Set::Numbers(Default::default())),
            (names.affinity_outside.0.clone(), Set::Numbers(Default::default())),
        ]
        .into(),
        ..RuleSet::empty(config.family)
    };
    rules.chains.insert(names.services.clone(), services(names, config, echo));
    rules
}

/// First packets from neither this node nor its pods, to frontends that are another thing to them. A pod that has just begun may not be
/// known by its address yet, but its device tells; pods at a bridge are known by their addresses alone.
fn from_outside(names: &Names) -> Rule {
    let by_another_device = Match::OtherInputDevice { prefix: DEVICE_PREFIX.into() };
    let outside = not_in([Field::SourceAddress], &names.local_pods);
    rule(
        [by_another_device, outside],
        Action::Lookup(names.outside_frontends.clone()),
        "from outside, to frontends of this node alone",
    )
}

/// First packets on their way to a frontend. Whoever is no pod reaches a backend on another node by another way than its answers
/// come back, or is beyond where pods' addresses are known; so it is masqueraded, the node itself too.
pub(super) fn services(names: &Names, config: &ServicesConfig, echo: Option<IpAddr>) -> Chain {
    let outsider = not_in([Field::SourceAddress], &names.pods);
    let to_cluster_ip = || within([Field::DestinationAddress], &names.cluster_ips);
    let mark = Action::SetMark { bits: config.masquerade_mark };
    let ping = |to| rule([Match::EchoRequest, to_cluster_ip()], Action::DnatTo(to), "pings of ClusterIPs");
    let mut rules: Vec<Rule> = echo.map(ping).into_iter().collect();
    rules.extend([
        match config.masquerade_all {
            true => rule([to_cluster_ip()], mark, "to a ClusterIP: masquerade"),
            false => rule([to_cluster_ip(), outsider], mark, "to a ClusterIP from outside the pods: masquerade"),
        },
        rule([], Action::Lookup(names.frontends.clone()), "frontends with backends"),
    ]);
    Chain { hook: None, rules }
}

/// What is still addressed to a frontend after translation: nothing could be done for it.
fn unserved(names: &Names) -> Vec<Rule> {
    let to_cluster_ip = within([Field::DestinationAddress], &names.cluster_ips);
    vec![
        rule([], Action::Lookup(names.no_endpoints.clone()), "frontends without endpoints"),
        rule([to_cluster_ip], Action::Reject, "ports that the ClusterIP does not have"),
    ]
}

/// Who comes to a frontend for some sources only.
fn guard(names: &Names) -> Vec<Rule> {
    let fields = [Field::DestinationAddress, Field::Protocol, Field::DestinationPort, Field::SourceAddress];
    vec![
        rule([within(fields, &names.sources)], Action::Accept, "who may come"),
        rule([], Action::Drop, "who may not come"),
    ]
}

/// Source translation. The mark counts only on translated connections: an encapsulated packet inherits the mark of the one
/// inside, and must not be translated for it.
fn postrouting(names: &Names, mark: u32) -> Vec<Rule> {
    let to_itself = within([Field::SourceAddress, Field::DestinationAddress], &names.local_pairs);
    vec![
        rule([Match::Mark { bits: mark }, Match::DestinationTranslated], Action::Masquerade, "marked connections"),
        rule(
            [Match::DestinationTranslated, to_itself],
            Action::Masquerade,
            "a pod's connections to itself through a Service",
        ),
    ]
}

/// How one of the backends is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Choice {
    /// Among those for who comes from outside.
    pub(super) outside: bool,
    /// Clients are masqueraded, so that the answers come back through this node; only its own pods' answers do so anyway, and keep their
    /// address.
    pub(super) masquerade: bool,
    /// Among so many.
    pub(super) slots: u32,
    /// A client comes to the same again for so many seconds.
    pub(super) affinity: Option<u32>,
}

impl Choice {
    /// The name of the chain.
    pub(super) fn name(self) -> RuleName {
        let kind = match (self.outside, self.masquerade) {
            (false, false) => "svc",
            (false, true) => "masq",
            (true, false) => "outside",
            (true, true) => "outside-masq",
        };
        match self.affinity {
            None => format!("{kind}-{}", self.slots).into(),
            Some(seconds) => format!("{kind}-{}-{seconds}s", self.slots).into(),
        }
    }

    /// The chain.
    pub(super) fn chain(self, names: &Names, mark: u32) -> Chain {
        let mut rules = Vec::new();
        if self.masquerade {
            let elsewhere = not_in([Field::SourceAddress], &names.local_pods);
            rules.push(rule([elsewhere], Action::SetMark { bits: mark }, "to the node from elsewhere: masquerade"));
        }
        let (map, (numbers, numbered)) = match self.outside {
            false => (names.backends.clone(), names.affinity_inside.clone()),
            true => (names.outside_backends.clone(), names.affinity_outside.clone()),
        };
        let slots = self.slots;
        if let Some(seconds) = self.affinity {
            let memory = || names.affinity.clone();
            let (of_groups, by_number) = (numbers.clone(), numbered.clone());
            let again = Action::DnatAgain { memory: memory(), numbers: of_groups, numbered: by_number, seconds };
            let remembered = Action::DnatRemembered { numbers, numbered, slots, memory: memory(), seconds };
            rules.push(rule([], again, "the backend that the client had"));
            rules.push(rule([], remembered, "one of the backends, from now on"));
        }
        // With affinity, for when the memory is full.
        rules.push(rule([], Action::Dnat { map: map.clone(), slots }, "one of the backends"));
        if slots > 1 {
            // A packet that got here by what was before a change, and looks for a slot that is not there after it: each look is at what
            // is there at its own time. The first slot is there before and after.
            rules.push(rule(
                [],
                Action::Dnat { map, slots: 1 },
                "the first, where a change took the one that was meant",
            ));
        }
        Chain { hook: None, rules }
    }
}
