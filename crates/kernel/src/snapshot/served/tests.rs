//! What is told is what there is, and of what differs each thing is named.

use std::{net::IpAddr, slice};

use podnet_model::Protocol;
use podnet_planner::{
    iptables::{ChainKey, Hook, Rule, Rules, Saved, Table, Target},
    ipvs::{Edit, Element, Scheduler, Scheduling, ServerKey, SetKind, SetName, SetType, State},
    ruleset::{BackendAddress, FrontendKey},
    services::{
        ebpf::{Affinity, Entry, Serves, Slot, Tables, Target as Backend},
        userspace::Led,
    },
};

use super::*;
use crate::{
    iptables::{Iptables, Variant},
    testing::TestNs,
};

const NOTHING: [&str; 0] = [];

fn key(number: u8) -> FrontendKey {
    FrontendKey { addr: IpAddr::from([10, 96, 0, number]), protocol: Protocol::Tcp, port: 80 }
}

fn at(number: u8) -> BackendAddress {
    BackendAddress { addr: IpAddr::from([10, 1, 0, number]), port: 8080 }
}

fn nat(name: &str) -> ChainKey {
    ChainKey::new(Table::Nat, name)
}

fn rules() -> Rules {
    let jump = Rule::jump(&"KUBE-MARK-MASQ".into()).to("10.96.0.1/32".parse().unwrap()).because("a/b cluster IP");
    let mark = Rule::new(Target::SetMark(0x4000));
    let hook = Rule::jump(&"KUBE-SERVICES".into()).because("kubernetes service portals");
    Rules {
        chains: [(nat("KUBE-SERVICES"), vec![jump]), (nat("KUBE-MARK-MASQ"), vec![mark])].into(),
        hooks: vec![Hook { at: nat("PREROUTING"), rule: hook }],
    }
}

#[test]
fn of_the_hosts_iptables_what_is_missing_and_what_is_another_is_named() {
    let namespace = TestNs::new("served-chains");
    let variant = Variant::of_host(&namespace).unwrap();
    Iptables::new(namespace.clone(), Family::V4, variant).unwrap().put(&rules()).unwrap();
    let differences = || {
        let served = Served::take(&namespace, Mode::Iptables, Path::new(""));
        assert!(served.v4.servers.is_none() && served.v4.listeners.is_none() && served.frontends.is_none());
        served.v4.chains.unwrap().unwrap().differences(&rules())
    };
    assert_eq!(differences(), NOTHING);
    let unhooked = "chain PREROUTING of table nat of iptables lacks the rule `-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES`";
    let [hook, mark] = [&rules().hooks[0].rule, &rules().chains[&nat("KUBE-MARK-MASQ")][0]].map(ToString::to_string);
    assert!(unhooked.ends_with(&format!("`{hook}`")));
    let command = |rest: &str| drop(namespace.command(&format!("iptables-{variant} -t nat {rest}")));
    command("-D PREROUTING 1");
    assert_eq!(differences(), [unhooked]);
    command("-F KUBE-MARK-MASQ");
    let lacks = format!("chain KUBE-MARK-MASQ of table nat of iptables lacks the rule `{mark}`");
    assert_eq!(differences(), [unhooked, &lacks]);
    command("-A KUBE-MARK-MASQ -j RETURN");
    assert_eq!(differences()[1], format!("{lacks} and has `-j RETURN`"));
    command("-F KUBE-SERVICES");
    command("-X KUBE-SERVICES");
    assert!(differences().contains(&"there is no chain KUBE-SERVICES of table nat of iptables".to_owned()));
}

#[test]
fn what_another_version_of_iptables_may_say_in_its_own_words_is_told_apart_from_what_is_wrong() {
    let chain = nat("KUBE-SERVICES");
    let wanted = Rules { hooks: Vec::new(), ..rules() };
    let [jump, mark] = [&chain, &nat("KUBE-MARK-MASQ")].map(|key| wanted.chains[key][0].to_string());
    let of = |rules: &[&str]| {
        let mut saved = Saved::default();
        saved.chains.insert(nat("KUBE-MARK-MASQ"), vec![mark.clone()]);
        saved.chains.insert(chain.clone(), rules.iter().map(|rule| (*rule).to_owned()).collect());
        let there = Chains::of(&saved);
        (there.differences(&wanted).len(), there.reworded(&wanted))
    };
    assert_eq!(of(&[jump.as_str()]), (0, Vec::new()));
    let other = "-d 10.96.0.1 -m comment --comment words -j KUBE-MARK-MASQ";
    let (wrong, reworded) = of(&[other]);
    let [told] = &reworded[..] else { panic!("{reworded:?}") };
    assert_eq!(wrong, 0);
    let words = format!("lacks the rule `{jump}` and has `{other}`, which may be the same in the words of another");
    assert!(told.contains(&words), "{told}");
    for wrong in [
        &["-d 10.96.0.1/32 -j RETURN"][..],
        &["-d 10.96.0.2/32 -j KUBE-MARK-MASQ"],
        &["-d 10.96.0.1/32 -p tcp -m tcp --dport 81 -j KUBE-MARK-MASQ"],
        &[other, other],
        &[],
    ] {
        assert_eq!(of(wrong), (1, Vec::new()), "{wrong:?}");
    }
}

#[test]
fn of_virtual_servers_each_thing_is_named_but_for_what_is_on_its_way_out() {
    let scheduling = |scheduler| {
        let fallback = scheduler == Scheduler::SourceHash;
        Scheduling { scheduler, fallback, port: false, persistence: None }
    };
    let (server, element) = (ServerKey::Address(key(1)), Element::Port(key(1).addr, Protocol::Tcp, 80));
    let set = |rest: &str| SetName::from(format!("KUBE-{rest}"));
    let mut whole = State::default();
    for name in ["CLUSTER-IP", "REJECT", "VIRTUAL-SERVERS"] {
        whole.apply(&Edit::MakeSet(set(name), SetKind::plain(SetType::Port)));
    }
    for name in ["CLUSTER-IP", "VIRTUAL-SERVERS"] {
        whole.apply(&Edit::AddElement(set(name), element, None));
    }
    whole.apply(&Edit::AddServer(server, scheduling(Scheduler::RoundRobin)));
    for number in [1, 2] {
        whole.apply(&Edit::AddReal(server, at(number), 1));
    }
    whole.apply(&Edit::AddAddress(key(1).addr));
    let led = BTreeSet::from([key(7).addr]);
    let (wanted, asked) = (Servers::of(&whole, led.clone()), BTreeSet::from([key(1)]));
    let differences = |edits: &[Edit]| {
        let mut there = whole.clone();
        edits.iter().for_each(|edit| there.apply(edit));
        Servers::of(&there, led.clone()).differences(&wanted, &asked)
    };
    let of = "virtual server 10.96.0.1:80/TCP";
    let table = [
        (Edit::RemoveServer(server), format!("there is no {of}")),
        (Edit::RemoveReal(server, at(1)), format!("{of} has no real server 10.1.0.1:8080")),
        (Edit::Weigh(server, at(2), 0), format!("the real server 10.1.0.2:8080 of {of} has the weight 0 and not 1")),
        (Edit::AddReal(server, at(9), 1), format!("{of} has the real server 10.1.0.9:8080, which nobody asked for")),
        (
            Edit::ChangeServer(server, scheduling(Scheduler::SourceHash)),
            format!("{of} chooses by sh sh-fallback and not by rr"),
        ),
        (Edit::RemoveAddress(key(1).addr), "kube-ipvs0 has no address 10.96.0.1, or not as podnet gives it".to_owned()),
        (Edit::DestroySet(set("CLUSTER-IP")), "there is no set KUBE-CLUSTER-IP".to_owned()),
        (Edit::RemoveElement(set("CLUSTER-IP"), element), "set KUBE-CLUSTER-IP lacks 10.96.0.1,TCP:80".to_owned()),
        (
            Edit::AddElement(set("REJECT"), element, None),
            "set KUBE-REJECT has 10.96.0.1,TCP:80, which is not to be".to_owned(),
        ),
    ];
    for (edit, words) in table {
        assert_eq!(differences(slice::from_ref(&edit)), [words]);
    }
    let other = Element::Port(key(2).addr, Protocol::Tcp, 80);
    let quiet = [
        Edit::AddReal(server, at(8), 0),
        Edit::AddElement(set("REJECT"), other, None),
        Edit::AddElement(set("VIRTUAL-SERVERS"), other, None),
        Edit::AddServer(ServerKey::Mark(7), scheduling(Scheduler::Maglev)),
    ];
    assert_eq!(differences(&quiet), NOTHING);
    let unled = Servers::of(&whole, BTreeSet::new()).differences(&wanted, &asked);
    assert_eq!(unled, ["no route of table 28783 leads 10.96.0.7 to the node"]);
}

#[test]
fn of_an_agents_sockets_and_the_ways_there_what_is_missing_is_named() {
    let port = Led::Port { addr: key(2).addr, protocol: Protocol::Tcp, port: 80 };
    let whole = apart::Seen {
        led: [Led::Address(key(1).addr), port].into(),
        at_node: [key(3)].into(),
        inside: Some([key(1), key(2)].into()),
    };
    let differences = |seen: &apart::Seen| Listeners::of(seen).differences(&Listeners::of(&whole));
    let more = apart::Seen { at_node: [key(3), key(9)].into(), ..whole.clone() };
    assert_eq!(differences(&more), NOTHING);
    let less = apart::Seen { led: [port].into(), at_node: BTreeSet::new(), inside: Some([key(2)].into()) };
    let expected = [
        "the agent does not listen at 10.96.0.1:80/TCP in the namespace for Services",
        "the agent does not listen at 10.96.0.3:80/TCP in the node's network",
        "10.96.0.1 is not led to the namespace in which the agent listens",
    ];
    assert_eq!(differences(&less), expected);
    let gone = differences(&apart::Seen { inside: None, ..whole.clone() });
    assert_eq!(gone, ["there is no namespace in which its agent listens for Services"]);
}

/// What programs know of one frontend with these backends, in a list of this number.
fn tables(list: u32, serves: Serves, backends: &[u8]) -> sockets::Seen {
    let affinity = Some(Affinity { seconds: 10, group: list });
    let to = |number: &u8| Backend { at: at(*number), protocol: Protocol::Tcp };
    let slots = (0..).zip(backends).map(|(number, backend)| (Slot { list, number }, to(backend)));
    let frontends = [(key(1), Entry { list, serves, affinity })].into();
    sockets::Seen { missing: Vec::new(), tables: Tables { frontends, backends: slots.collect() } }
}

#[test]
fn of_programs_at_sockets_what_they_lack_is_named_whatever_the_numbers_of_their_lists_are() {
    let whole = Frontends::of(&tables(1, Serves::Backends(2), &[1, 2]));
    let differences = |seen: &sockets::Seen| Frontends::of(seen).differences(&whole);
    assert_eq!(differences(&tables(7, Serves::Backends(2), &[2, 1])), NOTHING);
    let of = "frontend 10.96.0.1:80/TCP of the programs at the sockets";
    assert_eq!(differences(&tables(7, Serves::Backends(2), &[1])), [format!("{of} lacks the backend 10.1.0.2:8080")]);
    let other = differences(&tables(7, Serves::Backends(2), &[1, 3]));
    let more = format!("{of} has the backend 10.1.0.3:8080, which nobody asked for");
    assert_eq!(other, [format!("{of} lacks the backend 10.1.0.2:8080"), more]);
    let nobody = differences(&tables(1, Serves::Nobody, &[]));
    assert_eq!(nobody[0], format!("{of} leads to nobody and not to 2 backends"));
    let none = sockets::Seen { missing: vec!["podnet_connect4"], tables: Tables::default() };
    assert_eq!(differences(&none), ["program podnet_connect4 is not at the sockets"]);
    let left = "rules serve the frontend 10.96.0.1:80/TCP, which the programs at the sockets do not know";
    assert_eq!(Frontends::of(&none).left_to_rules(&whole), [left]);
    assert_eq!(whole.left_to_rules(&whole), NOTHING);
}

#[test]
fn what_is_told_is_read_again_and_what_is_too_much_or_cannot_be_looked_at_is_told_so() {
    let mut served = Served::default();
    served.v4.servers = Some(Ok(Servers::of(&State::default(), [key(1).addr].into())));
    served.v6.chains = Some(Err("there is no program ip6tables-save".to_owned()));
    served.v6.listeners = Some(Ok(Listeners::default()));
    served.frontends = Some(Ok(Frontends::of(&tables(1, Serves::NobodyHere, &[]))));
    let text = serde_json::to_string(&served).unwrap();
    assert_eq!(serde_json::from_str::<Served>(&text).unwrap(), served);
    let mut room = 5;
    take_room(&mut room, 5, "things").unwrap();
    let error = told(take_room(&mut room, 1, "things")).unwrap_err();
    assert_eq!((error.as_str(), room), ("there are 1 things, which are too many to be told", 0));
}
