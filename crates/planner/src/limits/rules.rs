//! Limits of packets and connections, as rules: constant chains, and sets whose elements are the limited pods.

use std::{collections::BTreeMap, net::IpAddr};

use podnet_model::{
    Family, Protocol,
    limits::{Limits, PodLimits},
};

use crate::ruleset::{
    Action, Chain, ChainKind, Field, FlowFields, Hook, HookPoint, Match, Rule, RuleName, RuleSet, Set,
};

/// The tables. They are tables of their own, so that a change of Services never touches what is counted here.
pub const TABLE: &str = "podnet-limits";
/// The comment of the rules that lead from a chain that all share to that of one pod's connections.
pub const OF_ONE: &str = "its limit";
/// Before addresses are translated, after connections are known (`NF_IP_PRI_MANGLE`).
const BEFORE_TRANSLATION: i32 = -150;
/// Before other filters: what exceeds a limit need not bother them (`NF_IP_PRI_FILTER` less one).
const BEFORE_FILTERS: i32 = -1;
/// The sets that count what is lost beyond packet rates, by address: of what pods send, and of what goes to them.
pub const LOST_FROM: &str = "lost-from";
/// See [`LOST_FROM`].
pub const LOST_TO: &str = "lost-to";
/// The sets that count what is refused beyond limits of connections, packet by packet: who is refused may try again.
pub const REFUSED_FROM: &str = "refused-from";
/// See [`REFUSED_FROM`].
pub const REFUSED_TO: &str = "refused-to";
/// The set of the flows of which a packet was beyond such a limit just now.
pub const BEYOND: &str = "beyond";
/// So long, in seconds, a flow stays there after its last such packet. Who records flows looks each second.
pub const NOTED_FOR: u32 = 30;
/// What the name of the set begins with that tells what is in force.
const STATE: &str = "state-";

/// The table of a family for pods that are limited so, by their addresses of that family; none where nobody is.
///
/// Each family has a table and so a count of its own: a pod with addresses of both may have as much by each, as Calico has it.
///
/// What comes from a pod is judged before routing and translation, so by what the pod sent. What goes to it is judged as it arrives
/// there: forwarded, or sent by the node itself. Packets beyond the rate are lost as on a full link, and counted by address; connections
/// beyond the limit are refused, so that their openers need not wait, and counted as well. Before either, the flow of the packet is noted
/// ([`BEYOND`]), also while nobody records flows: that costs nothing within limits.
///
/// The table holds an empty set whose name is made of all limits. An agent that starts and finds it need change nothing, and so the
/// connections that are open go on to be counted. Connections are counted by a rule in a chain of each address, which stays as it is while
/// another limit changes; not by elements of a set, which the kernel takes away as soon as nothing is open (Linux, `nft_set_hash.c`).
#[must_use]
pub fn rules<'a>(family: Family, pods: impl IntoIterator<Item = (IpAddr, &'a PodLimits)>) -> Option<RuleSet> {
    let (from, to) = directions(family, pods);
    if from.is_empty() && to.is_empty() {
        return None;
    }
    Some(table_of(family, from, to))
}

/// The same where nobody need be limited: what is compared with a table that others may be in as well. What tells whether all limits are in force
/// is left out.
#[must_use]
pub fn part<'a>(family: Family, pods: impl IntoIterator<Item = (IpAddr, &'a PodLimits)>) -> RuleSet {
    let (from, to) = directions(family, pods);
    let mut rules = table_of(family, from, to);
    rules.sets.retain(|name, _| !name.starts_with(STATE));
    rules
}

fn directions<'a>(family: Family, pods: impl IntoIterator<Item = (IpAddr, &'a PodLimits)>) -> (Direction, Direction) {
    let (mut from, mut to) = (Direction::default(), Direction::default());
    for (addr, limits) in pods.into_iter().filter(|(addr, _)| Family::of(addr) == family) {
        from.take(addr, &limits.egress);
        to.take(addr, &limits.ingress);
    }
    (from, to)
}

fn table_of(family: Family, from: Direction, to: Direction) -> RuleSet {
    let state = state_of(&(&from, &to));
    let filter = |point, priority| Some(Hook { kind: ChainKind::Filter, point, priority });
    let to_pods = || vec![rule([], Action::Jump("to-pods".into()), "limits of pods")];
    let note = || rule([], Action::Jump("note".into()), "whose packet it is");
    let chains = [
        ("from-pods", filter(HookPoint::Prerouting, BEFORE_TRANSLATION), exceeding(Field::SourceAddress, "from")),
        ("forwarded", filter(HookPoint::Forward, BEFORE_FILTERS), to_pods()),
        ("of-the-node", filter(HookPoint::Output, BEFORE_FILTERS), to_pods()),
        ("to-pods", None, exceeding(Field::DestinationAddress, "to")),
        ("refuse", None, vec![note(), rule([], Action::Reject, "at once")]),
        ("lose", None, vec![note(), rule([], Action::Drop, "as on a full link")]),
        ("note", None, noting(family)),
    ];
    let connections = [
        connection_chains(Field::SourceAddress, "from", &from),
        connection_chains(Field::DestinationAddress, "to", &to),
    ];
    let mut sets = BTreeMap::from([(state, Set::Addresses([].into())), (BEYOND.into(), Set::Flows)]);
    sets.extend(from.sets("from"));
    sets.extend(to.sets("to"));
    let chains = chains.into_iter().map(|(name, hook, rules)| (name.into(), Chain { hook, rules }));
    let chains = chains.chain(connections.into_iter().flatten()).collect();
    RuleSet { chains, sets, ..RuleSet::empty(family) }
}

/// The name of the set that is in the table exactly while these rules are.
#[must_use]
pub fn state(rules: &RuleSet) -> Option<&RuleName> {
    rules.sets.keys().find(|name| name.starts_with(STATE))
}

/// Limits of one direction by pod.
#[derive(Debug, Default)]
struct Direction {
    packets: BTreeMap<IpAddr, podnet_model::limits::PacketRate>,
    connections: BTreeMap<IpAddr, u32>,
}

impl Direction {
    fn take(&mut self, addr: IpAddr, limits: &Limits) {
        self.packets.extend(limits.packets.map(|rate| (addr, rate)));
        self.connections.extend(limits.connections.map(|most| (addr, most)));
    }

    fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.connections.is_empty()
    }

    fn sets(self, direction: &str) -> [(RuleName, Set); 4] {
        [
            (lost(direction), Set::Counters(self.packets.keys().copied().collect())),
            (packets(direction), Set::PacketRates(self.packets)),
            (refused(direction), Set::Counters(self.connections.keys().copied().collect())),
            (limited(direction), Set::Addresses(self.connections.into_keys().collect())),
        ]
    }
}

fn packets(direction: &str) -> RuleName {
    format!("packets-{direction}").into()
}

fn lost(direction: &str) -> RuleName {
    format!("lost-{direction}").into()
}

fn refused(direction: &str) -> RuleName {
    format!("refused-{direction}").into()
}

/// The set of those whose connections are limited.
fn limited(direction: &str) -> RuleName {
    format!("limited-{direction}").into()
}

/// The chain that knows by which chain each one's connections are counted.
fn connections(direction: &str) -> RuleName {
    format!("connections-{direction}").into()
}

/// The chain by which an address's connections are counted. `nft` reads no name with a colon.
fn counting(direction: &str, addr: &IpAddr) -> RuleName {
    format!("{direction}-{addr}").replace(':', "-").into()
}

fn connection_chains(field: Field, direction: &str, limits: &Direction) -> Vec<(RuleName, Chain)> {
    let to_count =
        |addr: &IpAddr| rule([Match::Address(field, *addr)], Action::Jump(counting(direction, addr)), OF_ONE);
    let all = Chain { hook: None, rules: limits.connections.keys().map(to_count).collect() };
    let each = limits.connections.iter().map(|(addr, most)| {
        let is_counted = Match::InSet { fields: vec![field], set: refused(direction) };
        let beyond = rule(
            [Match::ConnectionsOver(*most), is_counted],
            // Not refused here: a refusal is two rules to the kernel, and each would count the connection.
            Action::Jump("refuse".into()),
            "more connections than the pod may have",
        );
        (counting(direction, addr), Chain { hook: None, rules: vec![beyond] })
    });
    each.chain([(connections(direction), all)]).collect()
}

fn exceeding(field: Field, direction: &str) -> Vec<Rule> {
    let within = |set| Match::InSet { fields: vec![field], set };
    vec![
        // Who exceeds the rate is in both; the second is asked only then. One element with a limit and a counter would do as well, but kernels before
        // 5.11 have one expression for each, and a counter behind a limit that is kept has to go uncounted, which not all of them see to.
        rule(
            [within(packets(direction)), within(lost(direction))],
            // Not lost here: each rule that asks counts.
            Action::Jump("lose".into()),
            "more packets than the pod may have",
        ),
        rule(
            [Match::ConnectionNew, within(limited(direction))],
            Action::Jump(connections(direction)),
            "limits of connections",
        ),
    ]
}

/// The flow of a packet as the rule that it is beyond sees it, which is as a pod's interface does but for what is translated there: of a
/// connection that is refused as it begins nobody else knows whom it asked before.
fn noting(family: Family) -> Vec<Rule> {
    // ICMP, and that of IPv6.
    let icmp = match family {
        Family::V4 => 1,
        Family::V6 => 58,
    };
    let note = |by| Action::NoteFlow { set: BEYOND.into(), by, seconds: NOTED_FOR };
    let of = |protocol, by, comment| rule([Match::Protocol(protocol)], note(by), comment);
    vec![
        rule([Match::ConnectionNew, Match::DestinationTranslated], note(FlowFields::Asked), "as it was asked for"),
        of(Protocol::Tcp.number(), FlowFields::Ports, "TCP"),
        of(Protocol::Udp.number(), FlowFields::Ports, "UDP"),
        of(Protocol::Sctp.number(), FlowFields::Ports, "SCTP"),
        of(icmp, FlowFields::Identifier, "ICMP"),
    ]
}

fn rule<const N: usize>(matches: [Match; N], action: Action, comment: &'static str) -> Rule {
    Rule { matches: matches.into(), action, comment }
}

/// FNV-1a, which is the same in every version of podnet that has the same rules: what differs only costs a replacement.
fn state_of(limits: &impl std::fmt::Debug) -> RuleName {
    let hash = format!("{limits:?}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{STATE}{hash:016x}").into()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use podnet_model::limits::PacketRate;

    use super::*;
    use crate::ruleset::{
        Edit, InvalidRuleSet, diff,
        walk::{Direction, Host, Packet, Verdict, walk},
    };

    const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const POD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

    fn limits(packets: Option<u32>, connections: Option<u32>) -> PodLimits {
        let packets = packets.map(|rate| PacketRate { rate, burst: 5 });
        PodLimits { ingress: Limits { packets, connections, ..Limits::default() }, ..PodLimits::default() }
    }

    #[test]
    fn nobody_limited_needs_no_table_and_a_bandwidth_is_no_rule() {
        assert_eq!(rules(Family::V4, []), None);
        assert_eq!(rules(Family::V4, [(POD, &PodLimits::default())]), None);
    }

    #[test]
    fn the_rules_are_valid_and_let_a_single_packet_pass() {
        let (one, other) = (limits(Some(100), Some(3)), limits(None, Some(7)));
        let few = rules(Family::V4, [(POD, &one)]).unwrap();
        let more = rules(Family::V4, [(POD, &one), (OTHER, &other)]).unwrap();
        // But for a chain for each limit of connections.
        assert_eq!(few.chains.len() + 1, more.chains.len());
        more.validate().unwrap();
        let packet = Packet::opening(OTHER, POD, Protocol::Tcp, 80);
        assert_eq!(walk(&more, &packet, Direction::FromPod, &Host::new([OTHER])).verdict(), Some(Verdict::Accepted));
    }

    #[test]
    fn what_is_lost_or_refused_is_noted_before_and_what_is_within_limits_is_not() {
        let table = rules(Family::V6, [(POD6, &limits(Some(100), Some(3)))]).unwrap();
        assert_eq!(table.sets[BEYOND], Set::Flows);
        for (chain, end) in [("lose", Action::Drop), ("refuse", Action::Reject)] {
            let actions: Vec<&Action> = table.chains[chain].rules.iter().map(|rule| &rule.action).collect();
            assert_eq!(actions, [&Action::Jump("note".into()), &end]);
        }
        let leads_to = |to: &str, (name, chain): (&RuleName, &Chain)| {
            let is_it = |rule: &Rule| matches!(&rule.action, Action::Jump(target) if **target == *to);
            chain.rules.iter().any(is_it).then(|| name.to_string())
        };
        let from = |to| table.chains.iter().filter_map(|chain| leads_to(to, chain)).collect::<Vec<_>>();
        assert_eq!(
            [from("note"), from("lose"), from("refuse")],
            [vec!["lose", "refuse"], vec!["from-pods", "to-pods"], vec!["to-fd00--1"]]
        );
        let known: Vec<_> = table.chains["note"].rules.iter().map(|rule| (rule.matches.last(), &rule.action)).collect();
        let note = |by| Action::NoteFlow { set: BEYOND.into(), by, seconds: NOTED_FOR };
        let [ports, asked, icmp] = [FlowFields::Ports, FlowFields::Asked, FlowFields::Identifier].map(note);
        let of = [6, 17, 132, 58].map(Match::Protocol);
        let [tcp, udp, sctp, icmp6] = of.each_ref().map(Some);
        let translated = Match::DestinationTranslated;
        let expected = [(Some(&translated), &asked), (tcp, &ports), (udp, &ports), (sctp, &ports), (icmp6, &icmp)];
        assert_eq!(known, expected);
        // The set goes and comes with the table, and no sooner than who notes there.
        let mut without = table.clone();
        without.sets.remove(BEYOND);
        assert!(matches!(without.validate(), Err(InvalidRuleSet::UnknownObject { expected: "set of flows", .. })));
        let mut filled = table.clone();
        assert!(filled.apply(&[Edit::RemoveSet(BEYOND.into())]).is_err());
        let mut made = RuleSet::empty(Family::V6);
        made.apply(&diff(&RuleSet::empty(Family::V6), &table)).unwrap();
        assert_eq!(made, table);
        assert_eq!(diff(&table, &made), []);
    }

    #[test]
    fn a_part_is_what_the_table_of_all_has_of_it_and_of_nobody_what_all_share() {
        let (one, other) = (limits(Some(100), Some(3)), limits(None, Some(7)));
        let all = rules(Family::V4, [(POD, &one), (OTHER, &other)]).unwrap();
        let part = part(Family::V4, [(POD, &one)]);
        part.validate().unwrap();
        assert_eq!(state(&part), None);
        assert_eq!(part.chains["to-10.0.0.1"], all.chains["to-10.0.0.1"]);
        let (of_one, of_all) = (&part.chains["connections-to"].rules, &all.chains["connections-to"].rules);
        assert!(of_one.len() == 1 && of_all.contains(&of_one[0]) && of_one[0].comment == OF_ONE);
        let nobody = super::part(Family::V6, [(POD, &one)]);
        assert_eq!(nobody.chains["connections-to"].rules, []);
        assert!(nobody.sets.values().all(Set::is_empty) && nobody.chains.contains_key("from-pods"));
    }

    #[test]
    fn a_changed_limit_changes_its_chain_and_the_state_alone() {
        let before = rules(Family::V4, [(POD, &limits(Some(100), Some(3))), (OTHER, &limits(Some(5), None))]).unwrap();
        let after = rules(Family::V4, [(POD, &limits(Some(100), Some(4))), (OTHER, &limits(Some(5), None))]).unwrap();
        assert_ne!(state(&before), state(&after));
        let edits = diff(&before, &after);
        let touched: Vec<String> = edits
            .iter()
            .map(|edit| match edit {
                Edit::RemoveSet(name) => format!("-{}", &name[..5]),
                Edit::AddSet(name, _) => format!("+{}", &name[..5]),
                Edit::RemoveElements(name, set) => format!("-{name} {set:?}"),
                Edit::AddElements(name, set) => format!("+{name} {set:?}"),
                Edit::SetChain(name, chain) => format!("{name} {:?}", chain.rules.first().map(|rule| &rule.matches[0])),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(touched, ["to-10.0.0.1 None", "-state", "+state", "to-10.0.0.1 Some(ConnectionsOver(4))"]);
        let mut changed = before;
        changed.apply(&edits).unwrap();
        assert_eq!(changed, after);
    }

    #[test]
    fn the_state_depends_on_the_limits_and_not_on_their_order() {
        let (one, other) = (limits(Some(100), None), limits(None, Some(7)));
        assert_eq!(
            rules(Family::V4, [(POD, &one), (OTHER, &other)]),
            rules(Family::V4, [(OTHER, &other), (POD, &one)])
        );
        assert_ne!(rules(Family::V4, [(POD, &one)]), rules(Family::V4, [(OTHER, &one)]));
    }

    #[test]
    fn each_family_has_a_table_of_its_own_addresses() {
        let limits = limits(Some(100), Some(3));
        let pods = [(POD, &limits), (POD6, &limits)];
        for (family, addr) in [(Family::V4, POD), (Family::V6, POD6)] {
            let table = rules(family, pods).unwrap();
            table.validate().unwrap();
            assert_eq!(table.sets["limited-to"], Set::Addresses([addr].into()));
            let name = if family == Family::V4 { "to-10.0.0.1" } else { "to-fd00--1" };
            assert_eq!(table.chains[name].rules[0].matches[0], Match::ConnectionsOver(3));
            assert_eq!(table.sets[LOST_TO], Set::Counters([addr].into()));
            assert_eq!(table.sets[LOST_FROM], Set::Counters([].into()));
            assert_eq!(table.sets[REFUSED_TO], Set::Counters([addr].into()));
            assert_eq!(table.sets[REFUSED_FROM], Set::Counters([].into()));
        }
        assert_eq!(rules(Family::V6, [(POD, &limits)]), None);
    }
}
