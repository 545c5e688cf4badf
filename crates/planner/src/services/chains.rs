//! The rules, which are few and constant: everything that differs between clusters is an element.

use podnet_model::{Family, Protocol};

use super::ServicesConfig;
use crate::ruleset::{
    Action, BackendMap, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleName, RuleSet, VerdictMap,
};

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
    /// Map: frontends without backends.
    pub(super) no_endpoints: RuleName,
    /// Set: ClusterIPs.
    pub(super) cluster_ips: RuleName,
    /// Set: backends on this node, each paired with itself.
    pub(super) local_pairs: RuleName,
    /// Set: pods of this node.
    pub(super) local_pods: RuleName,
    /// Set: addresses of nodes.
    pub(super) nodes: RuleName,
    /// Set: ranges of pods.
    pub(super) pods: RuleName,
    /// Set: ranges of pods whose way out is translated.
    pub(super) nat_sources: RuleName,
    /// Set: ranges where that way does not lead out.
    pub(super) no_nat_destinations: RuleName,
    /// Set: UDP ports of tunnels.
    pub(super) tunnels: RuleName,
    /// Set: those of them that believe whoever sends.
    pub(super) open_tunnels: RuleName,
    /// Chain: first packets to frontends.
    services: RuleName,
    /// Chain: what no frontend took.
    unserved: RuleName,
    /// Chain: refusal.
    pub(super) reject: RuleName,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            frontends: "frontends".into(),
            backends: "backends".into(),
            no_endpoints: "no-endpoints".into(),
            cluster_ips: "cluster-ips".into(),
            local_pairs: "local-pairs".into(),
            local_pods: "local-pods".into(),
            nodes: "nodes".into(),
            pods: "pods".into(),
            nat_sources: "nat-sources".into(),
            no_nat_destinations: "no-nat-destinations".into(),
            tunnels: "tunnels".into(),
            open_tunnels: "open-tunnels".into(),
            services: "services".into(),
            unserved: "unserved".into(),
            reject: "reject".into(),
        }
    }
}

/// The chains that every node has, and empty maps. The sets are their owners' to add.
pub(super) fn constant(names: &Names, config: &ServicesConfig) -> RuleSet {
    let nat = |point| Hook { kind: ChainKind::Nat, point, priority: DESTINATION_NAT };
    let filter = |point| Hook { kind: ChainKind::Filter, point, priority: FILTER };
    let source_nat = Hook { kind: ChainKind::Nat, point: HookPoint::Postrouting, priority: SOURCE_NAT };
    let to_services = || vec![rule([], Action::Jump(names.services.clone()), "Services")];
    let to_unserved = || vec![rule([Match::ConnectionNew], Action::Jump(names.unserved.clone()), "no backend took it")];
    let after = |mut rules: Vec<Rule>| {
        rules.extend(to_unserved());
        rules
    };
    let chains = [
        ("prerouting", Some(nat(HookPoint::Prerouting)), to_services()),
        ("output", Some(nat(HookPoint::Output)), to_services()),
        ("filter-input", Some(filter(HookPoint::Input)), after(tunnels_here(names, config.family))),
        ("filter-forward", Some(filter(HookPoint::Forward)), after(tunnels_elsewhere(names, config.family))),
        ("filter-output", Some(filter(HookPoint::Output)), to_unserved()),
        ("postrouting", Some(source_nat), postrouting(names, config.masquerade_mark)),
        (&names.services, None, services(names, config.masquerade_mark)),
        (&names.unserved, None, unserved(names)),
        (&names.reject, None, vec![rule([], Action::Reject, "nobody serves it")]),
    ];
    RuleSet {
        chains: chains.into_iter().map(|(name, hook, rules)| (name.into(), Chain { hook, rules })).collect(),
        verdict_maps: [&names.frontends, &names.no_endpoints].map(|name| (name.clone(), VerdictMap::default())).into(),
        backend_maps: [(names.backends.clone(), BackendMap::default())].into(),
        ..RuleSet::empty(config.family)
    }
}

/// First packets on their way to a frontend. Whoever is no pod reaches a backend on another node by another way than its answers
/// come back, or is beyond where pods' addresses are known; so it is masqueraded, the node itself too.
fn services(names: &Names, mark: u32) -> Vec<Rule> {
    let outsider = not_in([Field::SourceAddress], &names.pods);
    let to_cluster_ip = within([Field::DestinationAddress], &names.cluster_ips);
    vec![
        rule(
            [to_cluster_ip, outsider],
            Action::SetMark { bits: mark },
            "to a ClusterIP from outside the pods: masquerade",
        ),
        rule([], Action::Lookup(names.frontends.clone()), "frontends with backends"),
    ]
}

/// What is still addressed to a frontend after translation: nothing could be done for it.
fn unserved(names: &Names) -> Vec<Rule> {
    let to_cluster_ip = within([Field::DestinationAddress], &names.cluster_ips);
    vec![
        rule([], Action::Lookup(names.no_endpoints.clone()), "frontends without endpoints"),
        rule([to_cluster_ip], Action::Reject, "ports that the ClusterIP does not have"),
    ]
}

/// Source translation. The mark counts only on translated connections: an encapsulated packet inherits the mark of the one
/// inside, and must not be translated for it.
fn postrouting(names: &Names, mark: u32) -> Vec<Rule> {
    let to_itself = within([Field::SourceAddress, Field::DestinationAddress], &names.local_pairs);
    let from_pool = within([Field::SourceAddress], &names.nat_sources);
    let to_cluster = |set| not_in([Field::DestinationAddress], set);
    vec![
        rule([Match::Mark { bits: mark }, Match::DestinationTranslated], Action::Masquerade, "marked connections"),
        rule(
            [Match::DestinationTranslated, to_itself],
            Action::Masquerade,
            "a pod's connections to itself through a Service",
        ),
        rule(
            [from_pool, to_cluster(&names.no_nat_destinations), to_cluster(&names.nodes)],
            Action::Masquerade,
            "pods' connections out of the cluster",
        ),
    ]
}

/// What a pod sends to this node's tunnels. Whoever may send there puts packets of any source into the cluster: a tunnel believes
/// what it carries. It stands behind translation, so that no Service leads around it; other nodes' pods come here with their own
/// addresses, as the way from pods to nodes is not translated. Nodes whose addresses lie in a pods' range are nodes all the same.
fn tunnels_here(names: &Names, family: Family) -> Vec<Rule> {
    let from_pod = || [not_in([Field::SourceAddress], &names.nodes), within([Field::SourceAddress], &names.pods)];
    into_tunnels(&names.tunnels, family, || from_pod().into())
}

/// What a pod sends to tunnels that may be another node's. Nodes have addresses that nobody knows of, and from there packets come
/// translated, as the nodes' own: so what is no pod may be a node. WireGuard knows its peers itself, and pods may have tunnels of
/// their own to elsewhere.
fn tunnels_elsewhere(names: &Names, family: Family) -> Vec<Rule> {
    let out = || {
        vec![
            not_in([Field::SourceAddress], &names.nodes),
            within([Field::SourceAddress], &names.pods),
            not_in([Field::DestinationAddress], &names.pods),
        ]
    };
    into_tunnels(&names.open_tunnels, family, out)
}

/// Drops packets to these UDP ports, and those of IPIP, that meet the conditions.
fn into_tunnels(ports: &RuleName, family: Family, conditions: impl Fn() -> Vec<Match>) -> Vec<Rule> {
    /// `IPPROTO_IPIP`: IPv4 alone has such tunnels.
    const IPIP: u8 = 4;
    let drop = |kind: Vec<Match>, comment| {
        let matches = kind.into_iter().chain(conditions()).collect();
        Rule { matches, action: Action::Drop, comment }
    };
    let udp = vec![Match::Protocol(Protocol::Udp.number()), within([Field::DestinationPort], ports)];
    let mut rules = vec![drop(udp, "a pod sends into a tunnel")];
    if family == Family::V4 {
        rules.push(drop(vec![Match::Protocol(IPIP)], "a pod sends an encapsulated packet"));
    }
    rules
}

/// The name of the chain that chooses among so many backends.
pub(super) fn backend_chain_name(node_port: bool, slots: u32) -> RuleName {
    let kind = if node_port { "masq" } else { "svc" };
    format!("{kind}-{slots}").into()
}

/// The chain that chooses among so many backends. Clients of a NodePort are masqueraded, so that the answers come back through
/// this node; only its own pods' answers do so anyway, and keep their address.
pub(super) fn backend_chain(names: &Names, node_port: bool, slots: u32, mark: u32) -> Chain {
    let elsewhere = not_in([Field::SourceAddress], &names.local_pods);
    let mark = rule([elsewhere], Action::SetMark { bits: mark }, "to a NodePort from elsewhere: masquerade");
    let dnat = rule([], Action::Dnat { map: names.backends.clone(), slots }, "one of the backends");
    Chain { hook: None, rules: if node_port { vec![mark, dnat] } else { vec![dnat] } }
}

fn rule<const N: usize>(matches: [Match; N], action: Action, comment: &'static str) -> Rule {
    Rule { matches: matches.into(), action, comment }
}

fn within<const N: usize>(fields: [Field; N], set: &RuleName) -> Match {
    Match::InSet { fields: fields.into(), set: set.clone() }
}

fn not_in<const N: usize>(fields: [Field; N], set: &RuleName) -> Match {
    Match::NotInSet { fields: fields.into(), set: set.clone() }
}
