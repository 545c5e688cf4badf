//! The rules, which are few and constant: everything that differs between clusters is an element.

use podnet_model::{Family, Protocol};

use crate::{
    ruleset::{Action, Chain, ChainKind, Field, Hook, HookPoint, Match, Rule, RuleName, RuleSet, not_in, rule, within},
    services::userspace::DEVICE_PREFIX,
};

/// The priority of filtering (`NF_IP_PRI_FILTER`).
const FILTER: i32 = 0;
/// The priority of source NAT (`NF_IP_PRI_NAT_SRC`).
const SOURCE_NAT: i32 = 100;

/// The names of sets, each made once.
#[derive(Debug)]
pub(super) struct Names {
    /// Addresses of nodes.
    pub(super) nodes: RuleName,
    /// Ranges of pods.
    pub(super) pods: RuleName,
    /// Ranges of pods whose way out is translated.
    pub(super) nat_sources: RuleName,
    /// Ranges where that way does not lead out.
    pub(super) no_nat_destinations: RuleName,
    /// UDP ports of tunnels.
    pub(super) tunnels: RuleName,
    /// Those of them that believe whoever sends.
    pub(super) open_tunnels: RuleName,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            nodes: "nodes".into(),
            pods: "pods".into(),
            nat_sources: "nat-sources".into(),
            no_nat_destinations: "no-nat-destinations".into(),
            tunnels: "tunnels".into(),
            open_tunnels: "open-tunnels".into(),
        }
    }
}

/// The chains that every node has. The sets are their owners' to add.
pub(super) fn constant(names: &Names, family: Family) -> RuleSet {
    let filter = |point| Some(Hook { kind: ChainKind::Filter, point, priority: FILTER });
    let source_nat = Some(Hook { kind: ChainKind::Nat, point: HookPoint::Postrouting, priority: SOURCE_NAT });
    let chains = [
        ("filter-input", filter(HookPoint::Input), tunnels_here(names, family)),
        ("filter-forward", filter(HookPoint::Forward), tunnels_elsewhere(names, family)),
        ("postrouting", source_nat, vec![out_of_the_cluster(names)]),
    ];
    RuleSet {
        chains: chains.into_iter().map(|(name, hook, rules)| (name.into(), Chain { hook, rules })).collect(),
        ..RuleSet::empty(family)
    }
}

fn out_of_the_cluster(names: &Names) -> Rule {
    let from_pool = within([Field::SourceAddress], &names.nat_sources);
    // Who passes on Services' connections judges by who their client is.
    let not_to_program = Match::OtherOutputDevice { prefix: DEVICE_PREFIX };
    let to_cluster = |set| not_in([Field::DestinationAddress], set);
    rule(
        [from_pool, to_cluster(&names.no_nat_destinations), to_cluster(&names.nodes), not_to_program],
        Action::Masquerade,
        "pods' connections out of the cluster",
    )
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
