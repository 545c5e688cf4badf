//! What others did to a table is mended, and nothing else is touched.

mod touched;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::mpsc::{self, TryRecvError},
    thread,
};

use podnet_model::Family;
use podnet_planner::ruleset::{BackendMap, FrontendKey, RuleSet, Set, VerdictMap};

use super::{
    super::{Listed, Mended, NftSocket},
    backend, frontend, rules, rules_of, slot,
};
use crate::testing::TestNs;

const TABLE: &str = "podnet";

fn made(tag: &str) -> (TestNs, NftSocket, String) {
    let namespace = TestNs::new(tag);
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    let wanted = rules(&three());
    assert_eq!(socket.replace(TABLE, &wanted).unwrap(), Mended { whole: true, objects: 0, elements: 0 });
    let listing = namespace.command("nft list ruleset");
    (namespace, socket, listing)
}

fn three() -> [super::BackendAddress; 3] {
    [1, 2, 3].map(|number| backend([10, 0, 0, number], 8080))
}

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    for family in Family::ALL {
        let namespace = TestNs::new(&format!("mend-nothing-{}", family.bits()));
        let mut socket = NftSocket::open_in(&namespace).unwrap();
        let backends = [1, 2].map(|number| super::BackendAddress { addr: super::pod_addr(family, number), port: 80 });
        let wanted = rules_of(family, &backends);
        assert!(socket.replace(TABLE, &wanted).unwrap().whole);
        let listing = namespace.command("nft list ruleset");
        for _ in 0..2 {
            assert_eq!(socket.replace(TABLE, &wanted).unwrap(), Mended::default());
            assert_eq!(namespace.command("nft list ruleset"), listing);
        }
    }
}

#[test]
fn verdicts_that_had_no_place_in_a_table_are_told_once_by_their_frontends() {
    for family in Family::ALL {
        let namespace = TestNs::new(&format!("mend-surplus-{}", family.bits()));
        let mut socket = NftSocket::open_in(&namespace).unwrap();
        let backends = [1, 2].map(|number| super::BackendAddress { addr: super::pod_addr(family, number), port: 80 });
        let wanted = rules_of(family, &backends);
        let mut more = wanted.clone();
        let gone = FrontendKey { addr: super::vip(family), ..frontend(8053) };
        let elements = &mut more.verdict_maps.get_mut("frontends").unwrap().elements;
        elements.insert(gone, "svc-2".into());
        for (rules, surplus) in [(&more, vec![]), (&wanted, vec![gone]), (&wanted, vec![])] {
            socket.replace(TABLE, rules).unwrap();
            assert_eq!(socket.take_surplus(), surplus);
            assert_eq!(socket.take_surplus(), []);
        }
    }
}

#[test]
fn the_order_of_backends_is_no_difference_and_another_backend_is() {
    for family in Family::ALL {
        let namespace = TestNs::new(&format!("differences-{}", family.bits()));
        let mut socket = NftSocket::open_in(&namespace).unwrap();
        let [one, other, third] =
            [1, 2, 3].map(|number| super::BackendAddress { addr: super::pod_addr(family, number), port: 80 });
        socket.replace(TABLE, &rules_of(family, &[one, other])).unwrap();
        let listed = listed(&mut socket, family, usize::MAX);
        for same in [[one, other], [other, one]] {
            assert_eq!(listed.differences(TABLE, &rules_of(family, &same)), [""; 0]);
        }
        let told = "backends of table podnet has 1 frontends with wrong or missing backends";
        for wrong in [&[one, third][..], &[one, one], &[one]] {
            let found = listed.differences(TABLE, &rules_of(family, wrong));
            assert!(found.iter().any(|found| *found == told), "{wrong:?}: {found:?}");
        }
    }
}

/// As whoever is elsewhere has it.
fn listed(socket: &mut NftSocket, family: Family, mut room: usize) -> Listed {
    let listed = socket.listed(family, TABLE, &mut room).unwrap().unwrap();
    let text = serde_json::to_string(&listed).unwrap();
    let read: Listed = serde_json::from_str(&text).unwrap();
    assert_eq!(read, listed, "{text}");
    read
}

#[test]
fn a_set_for_which_there_is_no_room_is_told_by_its_size_and_is_no_difference() {
    let (namespace, mut socket, _) = made("listed-room");
    let wanted = rules(&three());
    let whole = listed(&mut socket, Family::V4, usize::MAX);
    assert_eq!((whole.differences(TABLE, &wanted), whole.unlisted(&wanted).count()), (Vec::new(), 0));
    // Of its three backends there is room for two.
    let small = listed(&mut socket, Family::V4, 2);
    assert!(small.unlisted(&wanted).any(|found| found == ("backends", 3)), "{small:?}");
    assert_eq!(small.differences(TABLE, &wanted), [""; 0]);
    namespace.command("nft flush chain ip podnet nat-output; delete chain ip podnet nat-output");
    let told = listed(&mut socket, Family::V4, 0).differences(TABLE, &wanted);
    assert_eq!(told, ["chain nat-output of table podnet is missing"]);
    namespace.command("nft delete table ip podnet");
    assert_eq!(socket.listed(Family::V4, TABLE, &mut 0).unwrap(), None);
}

#[test]
fn a_rule_that_is_anothers_or_missing_or_out_of_its_place_is_named() {
    let (namespace, mut socket, _) = made("listed-rules");
    let wanted = rules(&three());
    let in_forward = "chain filter-forward of table podnet has a rule that is none of podnet's: handle ";
    let in_postrouting = "chain nat-postrouting of table podnet";
    for (damage, expected) in [
        ("insert rule ip podnet filter-forward drop", vec![(in_forward, "(immediate)")]),
        ("add rule ip podnet filter-forward counter comment \"mine\"", vec![(in_forward, ", \"mine\"")]),
        (
            "flush chain ip podnet nat-output",
            vec![("chain nat-output of table podnet lacks the rule ", "\"from the node\"")],
        ),
        (
            "flush chain ip podnet nat-output; add rule ip podnet nat-output goto svc-3",
            vec![
                ("chain nat-output of table podnet has a rule that is none of podnet's: handle ", "(immediate)"),
                ("chain nat-output of table podnet lacks the rule ", "\"from the node\""),
            ],
        ),
        (
            "flush chain ip podnet nat-postrouting",
            ["a pod's connection to itself", "to be masqueraded", "marked"].map(|rule| (in_postrouting, rule)).into(),
        ),
    ] {
        namespace.command(&format!("nft {damage}"));
        let told = listed(&mut socket, Family::V4, usize::MAX).differences(TABLE, &wanted);
        assert_eq!(told.len(), expected.len(), "{damage}: {told:?}");
        for (told, (begin, end)) in told.iter().zip(expected) {
            assert!(told.starts_with(begin) && told.trim_end_matches('"').ends_with(end.trim_matches('"')), "{told}");
        }
        socket.replace(TABLE, &wanted).unwrap();
        assert_eq!(listed(&mut socket, Family::V4, usize::MAX).differences(TABLE, &wanted), [""; 0], "{damage}");
    }
    let mut turned = wanted.clone();
    turned.chains.get_mut("nat-postrouting").unwrap().rules.reverse();
    let told = listed(&mut socket, Family::V4, usize::MAX).differences(TABLE, &turned);
    assert_eq!(told, [format!("{in_postrouting} has its rules in another order")]);
}

#[test]
fn each_damage_is_mended_by_itself() {
    let (namespace, mut socket, before) = made("mend-each");
    let slot = "10.96.0.10 . tcp . 80 . 0x00000001";
    let deleted_slot = format!("delete element ip podnet backends {{ {slot} }}");
    let other_slot = format!("{deleted_slot}; add element ip podnet backends {{ {slot} : 10.9.9.9 . 9999 }}");
    let no_backends = "flush table ip podnet; delete map ip podnet backends; add map ip podnet backends { \
                       type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service;";
    for (damage, elements, objects) in [
        ("delete element ip podnet frontends { 10.96.0.10 . tcp . 80 }", 1, 0),
        ("add element ip podnet frontends { * : goto svc-3 }", 1, 0),
        ("add element ip podnet backends { * : 10.9.9.9 . 9999 }", 1, 0),
        ("add element ip podnet frontends { 10.96.0.99 . tcp . 80 : goto svc-3 }", 1, 0),
        (&deleted_slot, 1, 0),
        (&other_slot, 1, 0),
        ("flush map ip podnet backends", 3, 0),
        ("flush set ip podnet local-pairs", 1, 0),
        ("delete element ip podnet pod-ranges { 10.233.0.0/18 }", 1, 0),
        ("flush set ip podnet pod-ranges", 1, 0),
        ("add chain ip podnet theirs { type filter hook forward priority 7; policy drop; }", 0, 1),
        ("add set ip podnet theirs { type ipv4_addr; }", 0, 1),
        ("flush chain ip podnet nat-prerouting", 0, 0),
        ("flush table ip podnet", 0, 0),
        ("insert rule ip podnet filter-forward drop", 0, 0),
        ("insert rule ip podnet filter-forward ip saddr { 1.2.3.4, 5.6.7.8 } drop", 0, 0),
        ("insert rule ip podnet filter-forward ip saddr { 1.2.3.0/24, 5.6.7.8 } tcp dport { 80, 443 } drop", 0, 0),
        ("insert rule ip podnet nat-output tcp dport vmap { 80 : drop, 443 : goto svc-3 }", 0, 0),
        ("insert rule ip podnet filter-forward ip saddr 1.2.3.4 jump { tcp dport { 1, 2 } drop; }", 0, 0),
        (
            "add chain ip podnet theirs; insert rule ip podnet nat-output jump theirs; \
             add rule ip podnet theirs ip daddr { 1.2.3.4, 5.6.7.8 } goto svc-3",
            0,
            1,
        ),
        ("flush chain ip podnet nat-output; delete chain ip podnet nat-output", 0, 1),
        ("add chain ip podnet filter-output { policy drop; }", 0, 1),
        ("flush table ip podnet; delete map ip podnet backends", 0, 1),
        (
            "flush table ip podnet; delete set ip podnet local-pairs; add set ip podnet local-pairs { type ipv4_addr; }",
            0,
            1,
        ),
        (&format!("{no_backends} size 100000; }}"), 0, 1),
        (&format!("{no_backends} size 100000; timeout 1h; }}"), 0, 1),
        (&format!("{no_backends} limit rate 1/second; }}"), 0, 1),
    ] {
        namespace.command(&format!("nft {damage}"));
        let mended = socket.replace(TABLE, &rules(&three())).unwrap();
        assert_eq!(mended, Mended { whole: false, objects, elements }, "{damage}");
        assert_eq!(sorted(&namespace.command("nft list ruleset")), sorted(&before), "{damage}");
    }
    for damage in ["flush ruleset", "delete table ip podnet", "add table ip podnet { flags dormant; }"] {
        namespace.command(&format!("nft {damage}"));
        assert!(socket.replace(TABLE, &rules(&three())).unwrap().whole, "{damage}");
        assert_eq!(sorted(&namespace.command("nft list ruleset")), sorted(&before), "{damage}");
    }
}

#[test]
fn while_others_write_without_end_a_large_table_is_mended_and_keeps_what_it_remembers() {
    const MEMORY: &str = "affinity";
    let namespace = TestNs::new("mend-busy");
    let mut wanted = rules(&three());
    wanted.memories = [MEMORY.into()].into();
    let addresses = (1..=20_000).map(|number| Ipv4Addr::from_bits(0x0a14_0000 + number).into()).collect();
    wanted.sets.insert("many".into(), Set::Addresses(addresses));
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    assert!(socket.replace(TABLE, &wanted).unwrap().whole);
    let client = "10.0.0.9 . 0x00000007";
    namespace.command(&format!("nft add element ip podnet {MEMORY} {{ {client} timeout 1h : 2 }}"));

    let mut others = NftSocket::open_in(&namespace).unwrap();
    thread::scope(|scope| {
        // The other thread ends when this one drops its end, in whatever way it ends.
        let (_end, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            while ended.try_recv() == Err(TryRecvError::Empty) {
                others.replace("theirs", &RuleSet::empty(Family::V4)).unwrap();
                others.delete_table(Family::V4, "theirs").unwrap();
            }
        });
        for damage in ["delete element ip podnet many { 10.20.0.1 }", "add element ip podnet many { 10.30.0.1 }"] {
            namespace.command(&format!("nft {damage}"));
            assert!(!socket.replace(TABLE, &wanted).unwrap().whole, "{damage}");
        }
    });

    assert_eq!(socket.replace(TABLE, &wanted).unwrap(), Mended::default());
    assert_eq!(socket.element_count(Family::V4, TABLE, "many").unwrap(), 20_000);
    let remembered = namespace.command(&format!("nft list map ip podnet {MEMORY}"));
    assert!(remembered.contains(client), "{remembered}");
}

#[test]
fn sources_and_memories_of_another_make_are_made_anew_and_those_of_the_right_make_stay() {
    let (namespace, mut socket, _) = made("mend-makes");
    let mut wanted = rules(&three());
    wanted.memories = ["affinity".into()].into();
    wanted
        .sets
        .insert("sources".into(), Set::Sources(BTreeSet::from([(frontend(80), "192.0.2.0/24".parse().unwrap())])));
    assert_eq!(socket.replace(TABLE, &wanted).unwrap(), Mended { whole: false, objects: 2, elements: 0 });
    assert_eq!(socket.replace(TABLE, &wanted).unwrap(), Mended::default());
    let before = namespace.command("nft list ruleset");
    let memory = "delete map ip podnet affinity; add map ip podnet affinity { \
                  type ipv4_addr . mark : mark; flags dynamic, timeout;";
    for damage in [
        &format!("{memory} size 1; }}"),
        &format!("{memory} }}"),
        &format!("{memory} size 262144; timeout 5s; }}"),
        // By frontend, and not by group.
        "delete map ip podnet affinity; add map ip podnet affinity { \
         type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; flags dynamic, timeout; size 262144; }",
        // Other fields, of as many bytes.
        "delete set ip podnet sources; add set ip podnet sources { typeof ip saddr . ip daddr . ip saddr . ip daddr; flags interval; }",
    ] {
        namespace.command(&format!("nft {damage}"));
        assert_eq!(
            socket.replace(TABLE, &wanted).unwrap(),
            Mended { whole: false, objects: 1, elements: 0 },
            "{damage}"
        );
        assert_eq!(sorted(&namespace.command("nft list ruleset")), sorted(&before), "{damage}");
    }
}

#[test]
fn a_right_table_of_10_000_services_is_found_right_in_little_memory() {
    let namespace = TestNs::new("mend-large");
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    let mut wanted = rules(&three());
    let service = |number: u32| FrontendKey { addr: Ipv4Addr::from_bits(0x0a60_0000 + number).into(), ..frontend(80) };
    let frontends = (0..10_000).map(|number| (service(number), "svc-3".into())).collect();
    wanted.verdict_maps.insert("frontends".into(), VerdictMap { elements: frontends });
    let slots = (0..10_000).flat_map(|number| (0..10).map(move |index| slot(service(number), index)));
    let backends = slots.map(|slot| (slot, backend([10, 1, 0, 1], 8080))).collect();
    wanted.backend_maps.insert("backends".into(), BackendMap { elements: backends });
    assert!(socket.replace(TABLE, &wanted).unwrap().whole);

    // Each test has a process of its own. The kernel counts the most that it had from here on.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    assert_eq!(socket.replace(TABLE, &wanted).unwrap(), Mended::default());
    // To hold what the kernel tells of 110,000 elements takes over 40 MiB.
    let taken = memory("VmHWM:").saturating_sub(before);
    assert!(taken < 20 << 10, "{taken} KiB");
}

/// What the kernel says of this process' memory, in KiB.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Elements and chains come in any order.
fn sorted(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = listing
        .split(['\n', ','])
        .map(|line| line.replace("elements = {", "").replace('}', "").trim().to_owned())
        .collect();
    lines.sort();
    lines
}
