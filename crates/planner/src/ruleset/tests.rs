//! What the kernel would refuse is refused, and nothing is left of it.

use super::{
    walk::{Direction, Host, Packet, Verdict, walk},
    *,
};

const HERE: IpAddr = v4(172, 29, 0, 11);
const FRONTEND: FrontendKey = FrontendKey { addr: v4(10, 96, 0, 1), protocol: Protocol::Tcp, port: 80 };
const BACKEND: BackendAddress = BackendAddress { addr: v4(10, 128, 0, 1), port: 8080 };

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn rule(matches: Vec<Match>, action: Action) -> Rule {
    Rule { matches, action, comment: "test" }
}

fn chain(actions: impl IntoIterator<Item = Action>) -> Chain {
    Chain { hook: None, rules: actions.into_iter().map(|action| rule(Vec::new(), action)).collect() }
}

fn base(kind: ChainKind, point: HookPoint, priority: i32, actions: impl IntoIterator<Item = Action>) -> Chain {
    Chain { hook: Some(Hook { kind, point, priority }), ..chain(actions) }
}

fn set_chain(name: &str, chain: Chain) -> Edit {
    Edit::SetChain(name.into(), chain)
}

fn set_verdict(chain: &str, replaces: bool) -> Edit {
    Edit::SetVerdict { map: "frontends".into(), key: FRONTEND, chain: chain.into(), replaces }
}

fn set_backend(slot: u32, replaces: bool) -> Edit {
    Edit::SetBackend { map: "backends".into(), key: BackendKey { frontend: FRONTEND, slot }, to: BACKEND, replaces }
}

fn addresses(last: &[u8]) -> Set {
    Set::Addresses(last.iter().map(|last| v4(10, 0, 0, *last)).collect())
}

fn ranges(texts: &[&str]) -> Set {
    Set::Ranges(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn dnat(slots: u32) -> Action {
    Action::Dnat { map: "backends".into(), slots }
}

/// A frontend with one backend, reached through `prerouting` and `first`.
fn example() -> RuleSet {
    let mut rules = RuleSet::empty(Family::V4);
    let edits = [
        Edit::AddVerdictMap("frontends".into()),
        Edit::AddBackendMap("backends".into()),
        Edit::AddSet("some".into(), addresses(&[1, 2])),
        Edit::AddSet("nets".into(), ranges(&["10.0.0.0/8", "11.0.0.0/8"])),
        set_chain("svc-1", chain([dnat(1)])),
        set_chain("first", chain([Action::Lookup("frontends".into())])),
        set_chain("prerouting", base(ChainKind::Nat, HookPoint::Prerouting, -100, [Action::Jump("first".into())])),
        set_verdict("svc-1", false),
        set_backend(0, false),
    ];
    rules.apply(&edits).unwrap();
    rules.validate().unwrap();
    rules
}

#[test]
fn a_refused_edit_undoes_all_edits_of_its_list() {
    let before = example();
    let mut rules = before.clone();
    let edits = [
        set_chain("svc-2", chain([dnat(2)])),
        set_chain("svc-1", chain([])),
        set_backend(1, false),
        set_verdict("svc-2", true),
        Edit::AddElements("some".into(), addresses(&[3])),
        Edit::RemoveElements("some".into(), addresses(&[1])),
        Edit::AddSet("more".into(), addresses(&[])),
        Edit::RemoveSet("nets".into()),
        Edit::RemoveBackend { map: "backends".into(), key: BackendKey { frontend: FRONTEND, slot: 0 } },
        Edit::RemoveVerdict { map: "frontends".into(), key: FRONTEND },
        Edit::RemoveChain("svc-2".into()),
    ];
    rules.apply(&edits).unwrap();
    assert_ne!(rules, before);
    let mut rules = before.clone();
    let refused = Edit::RemoveChain("nowhere".into());
    let error = rules.apply(&[&edits[..], &[refused]].concat()).unwrap_err();
    assert_eq!(error, EditError::NoChain { chain: "nowhere".into() });
    assert_eq!(rules, before);
}

#[test]
fn what_the_kernel_would_refuse_is_refused_with_its_name() {
    let backend_key = BackendKey { frontend: FRONTEND, slot: 7 };
    let six = || Set::Addresses(["fd00::1".parse().unwrap()].into());
    let key = BackendKey { frontend: FRONTEND, slot: 1 };
    let to = BackendAddress { addr: "fd00::1".parse().unwrap(), port: 80 };
    let in_set = |set: &str| Match::InSet { fields: vec![Field::SourceAddress], set: set.into() };
    let matching = |set: &str| Chain { hook: None, rules: vec![rule(vec![in_set(set)], Action::Accept)] };
    let cases = [
        (set_chain("x", chain([Action::Jump("nowhere".into())])), "x goes to chain nowhere, which is not there"),
        (
            set_chain("x", chain([Action::Jump("prerouting".into())])),
            "x goes to chain prerouting, which is a base chain",
        ),
        (
            set_chain("x", chain([Action::Lookup("some".into())])),
            "chain x looks up some, and there is no verdict map of that name",
        ),
        (set_chain("x", chain([dnat(0)])), "chain x chooses a backend out of 0"),
        (
            set_chain("x", matching("none")),
            "chain x looks up none, and there is no set of addresses, ranges or limits of that name",
        ),
        (
            set_chain("svc-1", chain([Action::Jump("first".into())])),
            "a packet that leaves chain svc-1 can come back to it",
        ),
        (
            set_chain("first", chain([Action::Jump("first".into())])),
            "a packet that leaves chain first can come back to it",
        ),
        (set_verdict("first", true), "a packet that leaves chain first can come back to it"),
        (
            set_chain("prerouting", chain([])),
            "cannot change the hook of chain prerouting: it is fixed when the chain is made",
        ),
        (Edit::RemoveChain("first".into()), "cannot remove first: prerouting refers to it"),
        (Edit::RemoveChain("svc-1".into()), "cannot remove svc-1: frontends refers to it"),
        (Edit::RemoveSet("frontends".into()), "cannot remove frontends: first refers to it"),
        (Edit::RemoveSet("none".into()), "cannot change none: there is no map or set of that name"),
        (Edit::AddVerdictMap("some".into()), "the name some is taken by another map or set"),
        (
            Edit::AddSet("x".into(), ranges(&["10.0.0.0/8", "10.1.0.0/16"])),
            "the ranges 10.0.0.0/8 and 10.1.0.0/16 of set x overlap",
        ),
        (
            Edit::AddElements("nets".into(), ranges(&["11.5.0.0/16"])),
            "the ranges 11.0.0.0/8 and 11.5.0.0/16 of set nets overlap",
        ),
        (
            Edit::AddElements("nets".into(), addresses(&[9])),
            "cannot change nets: there is no set of addresses of that name",
        ),
        (Edit::AddElements("some".into(), addresses(&[2, 3])), "cannot add 10.0.0.2 to some: it is there already"),
        (
            Edit::RemoveElements("some".into(), addresses(&[3])),
            "cannot replace or remove 10.0.0.3 of some: it is not there",
        ),
        (Edit::AddElements("some".into(), six()), "some has fd00::1, and its table is of IPv4"),
        (Edit::AddSet("x".into(), ranges(&["fd00::/64"])), "x has fd00::/64, and its table is of IPv4"),
        (
            Edit::SetBackend { map: "backends".into(), key, to, replaces: false },
            "backends has fd00::1, and its table is of IPv4",
        ),
        (set_verdict("nowhere", true), "frontends goes to chain nowhere, which is not there"),
        (set_verdict("svc-1", false), "cannot add 10.96.0.1:80/TCP to frontends: it is there already"),
        (set_backend(0, false), "cannot add 10.96.0.1:80/TCP slot 0 to backends: it is there already"),
        (set_backend(7, true), "cannot replace or remove 10.96.0.1:80/TCP slot 7 of backends: it is not there"),
        (
            Edit::RemoveBackend { map: "backends".into(), key: backend_key },
            "cannot replace or remove 10.96.0.1:80/TCP slot 7 of backends: it is not there",
        ),
        (
            Edit::RemoveBackend { map: "none".into(), key: backend_key },
            "cannot change none: there is no backend map of that name",
        ),
        (
            set_chain("a-name-that-is-longer-than-31-bytes", chain([])),
            "the name a-name-that-is-longer-than-31-bytes is longer than 31 bytes",
        ),
    ];
    let before = example();
    let mut rules = before.clone();
    for (edit, message) in cases {
        assert_eq!(
            rules.apply(std::slice::from_ref(&edit)).map_err(|error| error.to_string()),
            Err(message.to_owned()),
            "{edit:?}"
        );
        assert_eq!(rules, before);
    }
}

#[test]
fn a_table_of_one_family_holds_and_sees_nothing_of_the_other() {
    let mut rules = example();
    rules.family = Family::V6;
    let error = rules.validate().unwrap_err();
    assert_eq!(error.to_string(), "frontends has 10.96.0.1, and its table is of IPv6");
    let mut rules = example();
    let sender: Sender = ("pn0".into(), Mac([2, 0, 0, 0, 0, 1]), "fd00::1".parse().unwrap());
    rules.sets.insert("who".into(), Set::Senders([sender].into()));
    assert!(matches!(rules.validate(), Err(InvalidRuleSet::Family { name, .. }) if &*name == "who"));

    let mut rules = example();
    rules.chains.insert("b".into(), base(ChainKind::Filter, HookPoint::Forward, 0, [Action::Drop]));
    let six =
        Packet::opening("fd00::9".parse::<IpAddr>().unwrap(), "fd00::1".parse::<IpAddr>().unwrap(), Protocol::Tcp, 80);
    let verdict = |packet: &Packet| walk(&rules, packet, Direction::FromPod, &Host::new([HERE])).verdict();
    assert_eq!((verdict(&opening()), verdict(&six)), (Some(Verdict::Dropped), Some(Verdict::Accepted)));
}

#[test]
fn translation_and_refusal_stand_only_where_the_kernel_does_them() {
    let mut rules = example();
    let misplaced = [
        (base(ChainKind::Filter, HookPoint::Forward, 0, [Action::Jump("first".into())]), "destination translation"),
        (base(ChainKind::Nat, HookPoint::Output, 0, [Action::Masquerade]), "masquerading"),
        (base(ChainKind::Filter, HookPoint::Postrouting, 0, [Action::Reject]), "refusal"),
    ];
    for (chain, expected) in misplaced {
        rules.chains.insert("wrong".into(), chain);
        let error = rules.validate().unwrap_err();
        assert!(matches!(error, InvalidRuleSet::Misplaced { action, .. } if action == expected), "{error}");
    }
}

#[test]
fn a_difference_can_remake_chains_and_sets_of_another_kind() {
    let from = example();
    let mut to = example();
    to.sets.insert("frontends-old".into(), addresses(&[]));
    to.sets.insert("some".into(), ranges(&["10.0.0.0/24"]));
    to.chains.remove("prerouting");
    to.chains
        .insert("first".into(), base(ChainKind::Nat, HookPoint::Prerouting, 0, [Action::Lookup("frontends".into())]));
    to.chains.insert("z".into(), chain([Action::Jump("svc-1".into())]));
    to.chains.insert("a".into(), chain([Action::Jump("z".into())]));
    to.validate().unwrap();
    for (one, other) in
        [(&from, &to), (&to, &from), (&RuleSet::empty(Family::V4), &to), (&to, &RuleSet::empty(Family::V4))]
    {
        let mut rules = one.clone();
        rules.apply(&diff(one, other)).unwrap();
        assert_eq!(&rules, other);
    }
    assert_eq!(diff(&to, &to), []);
}

fn opening() -> Packet {
    Packet::opening(Ipv4Addr::new(10, 128, 0, 9), FRONTEND.addr, Protocol::Tcp, 80)
}

#[test]
fn a_walked_packet_tells_the_rules_and_elements_that_it_met() {
    let journey = walk(&example(), &opening(), Direction::FromPod, &Host::new([HERE]));
    let told: Vec<String> = journey.outcomes[0].steps.iter().map(ToString::to_string).collect();
    let expected = [
        "prerouting prerouting: test",
        "prerouting first: test [frontends: 10.96.0.1:80/TCP → svc-1]",
        "prerouting svc-1: test [backends: 10.96.0.1:80/TCP slot 0 → 10.128.0.1:8080]",
    ];
    assert_eq!(told, expected);
}

#[test]
fn base_chains_run_by_priority_and_accept_ends_one_chain_only() {
    let mut rules = example();
    let forward = |priority, action| base(ChainKind::Filter, HookPoint::Forward, priority, [action]);
    rules.chains.insert("b-early".into(), forward(-10, Action::SetMark { bits: 1 }));
    let marked =
        Chain { rules: vec![rule(vec![Match::Mark { bits: 1 }], Action::Accept)], ..forward(0, Action::Accept) };
    rules.chains.insert("a-late".into(), marked);
    let host = Host::new([HERE]);
    assert_eq!(walk(&rules, &opening(), Direction::FromPod, &host).verdict(), Some(Verdict::Accepted));
    rules.chains.insert("c-last".into(), forward(10, Action::Reject));
    assert_eq!(walk(&rules, &opening(), Direction::FromPod, &host).verdict(), Some(Verdict::Rejected));
}

#[test]
fn an_empty_slot_makes_the_rule_not_match() {
    let mut rules = example();
    rules.chains.insert("svc-1".into(), chain([dnat(4), Action::SetMark { bits: 1 }]));
    let journey = walk(&rules, &opening(), Direction::FromPod, &Host::new([HERE]));
    let translated: Vec<bool> = journey.outcomes.iter().map(|outcome| outcome.translated).collect();
    assert_eq!(translated.iter().filter(|translated| **translated).count(), 1, "{journey:#?}");
    assert!(journey.outcomes.iter().all(|outcome| outcome.one_in == 4 && outcome.translated == (outcome.mark == 0)));
}

#[test]
fn a_packet_without_a_route_is_unreachable() {
    let mut rules = example();
    let host = Host { local_addresses: [HERE].into(), routes: vec!["10.128.0.0/16".parse().unwrap()] };
    assert_eq!(walk(&rules, &opening(), Direction::FromPod, &host).verdict(), Some(Verdict::Accepted));
    assert_eq!(walk(&rules, &opening(), Direction::FromHost, &host).verdict(), Some(Verdict::Unreachable));
    rules.apply(&[Edit::RemoveVerdict { map: "frontends".into(), key: FRONTEND }]).unwrap();
    assert_eq!(walk(&rules, &opening(), Direction::FromPod, &host).verdict(), Some(Verdict::Unreachable));
}

#[test]
fn invalid_rules_that_loop_drop_the_packet() {
    let mut rules = example();
    rules.chains.insert("svc-1".into(), chain([Action::Lookup("frontends".into())]));
    assert_eq!(walk(&rules, &opening(), Direction::FromPod, &Host::new([HERE])).verdict(), Some(Verdict::Dropped));
    rules.chains.insert("svc-1".into(), chain([Action::Jump("svc-1".into())]));
    assert_eq!(walk(&rules, &opening(), Direction::FromPod, &Host::new([HERE])).verdict(), Some(Verdict::Dropped));
}
