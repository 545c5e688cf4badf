//! The node's own resolver: the rules that lead pods' questions to it, past connection tracking, and on to cluster DNS while it is away.
//!
//! A question to the resolver's address, and its answer, are untracked: no entry is made for it, none can be lost to a race between two
//! questions of one port, and nothing of Services translates it. That holds while a socket of the node is there for it. Where there is
//! none, since the agent is being replaced or has died, the question is translated to an endpoint of cluster DNS as a Service's would be.
//!
//! Only this node and its pods may ask. Whoever else has a way to the address, such as the node's neighbours in its network and pods of other
//! nodes, gets no answer: the resolver knows the cluster's names, and asks others without limit.

mod attempts;
mod endpoints;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_model::{Family, LinkName, Protocol};

pub use attempts::Attempts;
pub use endpoints::Endpoints;

use crate::attachments::DEVICE_PREFIX;
use crate::ruleset::{
    Action, BackendAddress, BackendKey, BackendMap, Chain, ChainKind, Field, FrontendKey, Hook, HookPoint, Match, Rule,
    RuleName, RuleSet, Set, within,
};

/// The table's name, in either family.
pub const TABLE: &str = "podnet-dns";
/// The resolver's port.
pub const PORT: u16 = 53;

/// The bridge that pods are on where the agent puts them on one.
pub const BRIDGE: &str = "cni0";

/// `NF_IP_PRI_RAW`: before connection tracking.
const RAW: i32 = -300;
/// `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;

/// What the rules are made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Where it answers.
    pub addrs: BTreeSet<IpAddr>,
    /// It gives way: what comes in datagrams is led on to cluster DNS although its sockets are there still.
    pub gives_way: bool,
    /// Where cluster DNS answers, by protocol.
    pub endpoints: BTreeMap<Protocol, BTreeSet<BackendAddress>>,
    /// The bridges that join pods to this node, beside [`BRIDGE`].
    pub bridges: BTreeSet<LinkName>,
    /// The kernel cannot tell whether a socket is there (`nft_socket`): then nothing is led on.
    pub blind: bool,
}

impl Resolver {
    /// The rules of a family; none where it has no address of the family.
    #[must_use]
    pub fn table(&self, family: Family) -> Option<RuleSet> {
        let addrs: BTreeSet<IpAddr> = self.addrs.iter().copied().filter(|addr| Family::of(addr) == family).collect();
        if addrs.is_empty() {
            return None;
        }
        let names = Names::default();
        let mut rules = RuleSet::empty(family);
        let backends = self.backends(family, &addrs);
        let filter = |point| Some(Hook { kind: ChainKind::Filter, point, priority: RAW });
        let nat = Some(Hook { kind: ChainKind::Nat, point: HookPoint::Prerouting, priority: DESTINATION_NAT });
        let chains = [
            ("comes-in", filter(HookPoint::Prerouting), self.coming_in(&names)),
            ("goes-out", filter(HookPoint::Output), going_out(&names)),
            ("led-on", nat, self.led_on(family, &names)),
        ];
        rules.chains.extend(chains.map(|(name, hook, rules)| (name.into(), Chain { hook, rules })));
        rules.backend_maps.insert(names.endpoints, BackendMap { elements: backends });
        let datagrams = if self.gives_way { BTreeSet::new() } else { addrs.clone() };
        rules.sets.extend([
            (names.resolvers, Set::Addresses(addrs)),
            (names.datagrams, Set::Addresses(datagrams)),
            (names.ports, Set::Ports(BTreeSet::from([PORT]))),
        ]);
        Some(rules)
    }

    fn coming_in(&self, names: &Names) -> Vec<Rule> {
        let here = |protocol: Protocol, set| {
            let mut matches = to(protocol, set, names);
            if !self.blind {
                matches.push(Match::SocketHere);
            }
            Rule { matches, action: Action::NoTrack, comment: "questions to the node's resolver" }
        };
        vec![self.strangers(names), here(Protocol::Udp, &names.datagrams), here(Protocol::Tcp, &names.resolvers)]
    }

    /// What came neither from this node nor by a device of its pods. No ping is answered either: nobody else is to know that it is there.
    fn strangers(&self, names: &Names) -> Rule {
        let bridges = self.bridges.iter().map(LinkName::as_str).filter(|bridge| *bridge != BRIDGE);
        let not_by = |prefix: &str| Match::OtherInputDevice { prefix: prefix.into() };
        let mut matches = vec![within([Field::DestinationAddress], &names.resolvers), Match::FromElsewhere];
        matches.extend([DEVICE_PREFIX, BRIDGE].into_iter().chain(bridges).map(not_by));
        Rule { matches, action: Action::Drop, comment: "neither this node's nor its pods'" }
    }

    fn led_on(&self, family: Family, names: &Names) -> Vec<Rule> {
        let mut rules = Vec::new();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let slots = self.of(family, protocol).count() as u32;
            if slots > 0 && !self.blind {
                let action = Action::Dnat { map: names.endpoints.clone(), slots };
                let matches = to(protocol, &names.resolvers, names);
                rules.push(Rule { matches, action, comment: "the node's resolver is away" });
            }
        }
        rules
    }

    fn backends(&self, family: Family, addrs: &BTreeSet<IpAddr>) -> BTreeMap<BackendKey, BackendAddress> {
        let mut backends = BTreeMap::new();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            for (slot, to) in (0..).zip(self.of(family, protocol)) {
                let frontend = |addr: &IpAddr| FrontendKey { addr: *addr, protocol, port: PORT };
                backends.extend(addrs.iter().map(|addr| (BackendKey { frontend: frontend(addr), slot }, *to)));
            }
        }
        backends
    }

    fn of(&self, family: Family, protocol: Protocol) -> impl Iterator<Item = &BackendAddress> {
        let own = self.endpoints.get(&protocol).into_iter().flatten();
        own.filter(move |endpoint| Family::of(&endpoint.addr) == family)
    }
}

struct Names {
    resolvers: RuleName,
    datagrams: RuleName,
    ports: RuleName,
    endpoints: RuleName,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            resolvers: "resolvers".into(),
            datagrams: "datagrams".into(),
            ports: "ports".into(),
            endpoints: "endpoints".into(),
        }
    }
}

fn to(protocol: Protocol, addrs: &RuleName, names: &Names) -> Vec<Match> {
    vec![
        Match::Protocol(protocol.number()),
        within([Field::DestinationAddress], addrs),
        within([Field::DestinationPort], &names.ports),
    ]
}

/// The node's own questions, and all answers.
fn going_out(names: &Names) -> Vec<Rule> {
    let untracked = |matches, comment| Rule { matches, action: Action::NoTrack, comment };
    vec![
        untracked(to(Protocol::Udp, &names.resolvers, names), "the node's own questions"),
        untracked(to(Protocol::Tcp, &names.resolvers, names), "the node's own questions"),
        untracked(vec![within([Field::SourceAddress], &names.resolvers)], "answers of the node's resolver"),
    ]
}

#[cfg(test)]
mod tests;
