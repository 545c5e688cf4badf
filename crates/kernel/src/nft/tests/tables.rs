//! What the kernel holds after each transaction.

use std::{net::IpAddr, time::Instant};

use podnet_model::{Dual, Family};
use podnet_planner::ruleset::{Edit, FrontendKey};

use super::{super::*, *};
use crate::testing::TestNs;

const TABLE: &str = "podnet";

fn opened(tag: &str) -> (TestNs, NftSocket) {
    let namespace = TestNs::new(tag);
    let socket = NftSocket::open_in(&namespace).unwrap();
    (namespace, socket)
}

fn three() -> [BackendAddress; 3] {
    [1, 2, 3].map(|number| backend([10, 0, 0, number], 8080))
}

#[test]
fn nft_lists_the_table_in_words_that_people_read() {
    let (namespace, mut socket) = opened("nft-list");
    socket.replace(TABLE, &rules(&three())).unwrap();
    let listing = namespace.command("nft list ruleset");
    for line in [
        "table ip podnet {",
        "type ipv4_addr . inet_proto . inet_service : verdict",
        "elements = { 10.96.0.10 . tcp . 80 : goto svc-3 }",
        "type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
        "10.96.0.10 . tcp . 80 . 0x00000002 : 10.0.0.3 . 8080",
        "type ipv4_addr . ipv4_addr",
        "flags interval",
        "10.233.64.0/18",
        "type nat hook prerouting priority dstnat; policy accept;",
        "type filter hook forward priority filter; policy accept;",
        "ip daddr . meta l4proto . th dport vmap @frontends comment \"from pods and outside\"",
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @backends comment \"to a backend\"",
        "ct state new",
        "ct status dnat ip saddr . ip daddr @local-pairs masquerade fully-random",
        "ip saddr != @pod-ranges ip saddr @node-addresses fib daddr type local meta mark set meta mark | 0x00004000",
        "meta mark & 0x00004000 == 0x00004000 masquerade fully-random comment \"marked\"",
        "reject with tcp reset comment \"at once\"",
        "reject comment \"at once\"",
    ] {
        assert!(listing.contains(line), "{line} is not in\n{listing}");
    }
}

#[test]
fn one_chain_is_asked_for_by_its_family_table_and_name() {
    let (namespace, mut socket) = opened("nft-chain");
    namespace.command("nft add table ip nat");
    namespace.command("nft add chain ip nat KUBE-SERVICES");
    let mut has = |family, table: &str, chain: &str| socket.has_chain(family, table, chain).unwrap();
    assert!(has(Family::V4, "nat", "KUBE-SERVICES"));
    assert!(!has(Family::V4, "nat", "KUBE-PING"));
    assert!(!has(Family::V4, "filter", "KUBE-SERVICES"));
    assert!(!has(Family::V6, "nat", "KUBE-SERVICES"));
    // The answer to an earlier question is not taken for that to the next.
    assert!(has(Family::V4, "nat", "KUBE-SERVICES"));
}

#[test]
fn one_table_is_asked_for_by_its_family_and_name() {
    let (namespace, mut socket) = opened("nft-table");
    namespace.command("nft add table ip podnet");
    namespace.command("nft add table inet podnet-other");
    namespace.command("nft add table ip6 podnet-six");
    let mut has = |family, table: &str| socket.has_table(family, table).unwrap();
    assert_eq!([has(Family::V4, TABLE), has(Family::V6, TABLE)], [true, false]);
    assert_eq!([has(Family::V4, "podnet-six"), has(Family::V6, "podnet-six")], [false, true]);
    assert!(!has(Family::V4, "podnet-other") && !has(Family::V4, "podne"));
    // The answer to an earlier question is not taken for that to the next.
    assert!(has(Family::V4, TABLE));
    namespace.command("nft delete table ip podnet");
    assert!(!has(Family::V4, TABLE));
}

#[test]
fn a_table_of_ipv6_is_one_of_its_own_with_the_same_name() {
    let (namespace, mut socket) = opened("nft-list6");
    socket.replace(TABLE, &rules(&three())).unwrap();
    let v4 = namespace.command("nft list table ip podnet");
    let backends = [1, 2, 3].map(|number| BackendAddress { addr: pod_addr(Family::V6, number), port: 8080 });
    socket.replace(TABLE, &rules_of(Family::V6, &backends)).unwrap();
    assert_eq!(namespace.command("nft list table ip podnet"), v4);
    let listing = namespace.command("nft list table ip6 podnet");
    for line in [
        "table ip6 podnet {",
        "type ipv6_addr . inet_proto . inet_service : verdict",
        "elements = { fd96::a . tcp . 80 : goto svc-3 }",
        "type ipv6_addr . inet_proto . inet_service . mark : ipv6_addr . inet_service",
        "fd00::3 . 8080",
        "fd02::/64",
        "fe00::/7",
        "ip6 daddr . meta l4proto . th dport vmap @frontends comment \"from pods and outside\"",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @backends comment \"to a backend\"",
        "ct status dnat ip6 saddr . ip6 daddr @local-pairs masquerade fully-random",
        "ip6 saddr != @pod-ranges ip6 saddr @node-addresses fib daddr type local",
        "reject with tcp reset comment \"at once\"",
    ] {
        assert!(listing.contains(line), "{line} is not in\n{listing}");
    }
    // One transaction for both: refused in one table, it changes neither.
    let pair = |family, number| Set::Pairs([(pod_addr(family, number), pod_addr(family, number))].into());
    let add = |family, number| vec![Edit::AddElements("local-pairs".into(), pair(family, number))];
    let (before, before6) = (v4, listing);
    let error = socket.apply_dual(TABLE, &Dual { v4: add(Family::V4, 9), v6: add(Family::V6, 1) }).unwrap_err();
    assert_eq!(error.to_string(), "cannot add elements to set local-pairs in table ip6 podnet (edit 0)");
    assert_eq!(namespace.command("nft list table ip podnet"), before);
    socket.apply_dual(TABLE, &Dual { v4: add(Family::V4, 9), v6: add(Family::V6, 9) }).unwrap();
    for family in Family::ALL {
        assert_eq!(socket.element_count(family, TABLE, "local-pairs").unwrap(), 2);
        assert_eq!(socket.element_count(family, TABLE, "pod-ranges").unwrap(), 3);
    }
    socket.delete_table(Family::V4, TABLE).unwrap();
    let edits = vec![Edit::RemoveElements("local-pairs".into(), pair(Family::V6, 9))];
    socket.apply_dual(TABLE, &Dual { v4: Vec::new(), v6: edits }).unwrap();
    assert_eq!(namespace.command("nft list ruleset"), before6);
}

#[test]
fn replacing_leaves_only_the_new_and_deleting_leaves_nothing() {
    let (namespace, mut socket) = opened("nft-replace");
    socket.replace(TABLE, &rules(&three())).unwrap();
    let fewer = rules(&three()[..1]);
    socket.replace(TABLE, &fewer).unwrap();
    assert_eq!(socket.tables(Family::V4).unwrap(), [TABLE]);
    assert_eq!(socket.element_count(Family::V4, TABLE, "backends").unwrap(), 1);
    assert_eq!(socket.element_count(Family::V4, TABLE, "pod-ranges").unwrap(), 3);
    assert!(!namespace.command("nft list ruleset").contains("svc-3"));
    for _ in 0..2 {
        socket.delete_table(Family::V4, TABLE).unwrap();
        assert_eq!(socket.tables(Family::V4).unwrap(), Vec::<String>::new());
    }
    assert_eq!(namespace.command("nft list ruleset"), "");
}

#[test]
fn edits_come_and_go_without_a_trace() {
    let (namespace, mut socket) = opened("nft-edits");
    socket.replace(TABLE, &rules(&[])).unwrap();
    let before = namespace.command("nft list ruleset");
    let key = frontend(443);
    let to = |slot_number, number, replaces| Edit::SetBackend {
        map: "backends".into(),
        key: slot(key, slot_number),
        to: backend([10, 0, 0, number], 8443),
        replaces,
    };
    let point =
        |chain: &str, replaces| Edit::SetVerdict { map: "frontends".into(), key, chain: chain.into(), replaces };
    let (name, chain) = service_chain(2);
    let pairs = Set::Pairs([(pod_addr(Family::V4, 9), pod_addr(Family::V4, 9))].into());
    let more = Set::Ranges(["172.16.0.0/12".parse().unwrap()].into());
    let come = [
        Edit::SetChain(name.clone(), chain.clone()),
        Edit::AddSet("more".into(), pairs.clone()),
        Edit::AddVerdictMap("verdicts".into()),
        Edit::AddBackendMap("translations".into()),
        to(0, 1, false),
        to(1, 2, false),
        point("svc-2", false),
        Edit::AddElements("local-pairs".into(), pairs.clone()),
        Edit::AddElements("pod-ranges".into(), more.clone()),
    ];
    socket.apply(Family::V4, TABLE, &come).unwrap();
    assert_eq!(socket.element_count(Family::V4, TABLE, "backends").unwrap(), 2);
    assert_eq!(socket.element_count(Family::V4, TABLE, "local-pairs").unwrap(), 2);
    socket
        .apply(Family::V4, TABLE, &[to(1, 3, true), point("svc-1", true), Edit::SetChain(name.clone(), chain)])
        .unwrap();
    let changed = namespace.command("nft list ruleset");
    assert!(changed.contains("10.96.0.10 . tcp . 443 . 0x00000001 : 10.0.0.3 . 8443"), "{changed}");
    assert_eq!(changed.matches("numgen random mod 2").count(), 1, "{changed}");
    let go = [
        Edit::RemoveVerdict { map: "frontends".into(), key },
        Edit::RemoveBackend { map: "backends".into(), key: slot(key, 0) },
        Edit::RemoveBackend { map: "backends".into(), key: slot(key, 1) },
        Edit::RemoveElements("local-pairs".into(), pairs),
        Edit::RemoveElements("pod-ranges".into(), more),
        Edit::RemoveSet("more".into()),
        Edit::RemoveSet("verdicts".into()),
        Edit::RemoveSet("translations".into()),
        Edit::RemoveChain(name),
    ];
    socket.apply(Family::V4, TABLE, &go).unwrap();
    assert_eq!(namespace.command("nft list ruleset"), before);
    assert_eq!(socket.element_count(Family::V4, TABLE, "backends").unwrap(), 0);
}

#[test]
fn a_refused_edit_is_named_and_nothing_of_the_list_is_done() {
    let (namespace, mut socket) = opened("nft-refused");
    socket.replace(TABLE, &rules(&three())).unwrap();
    let before = namespace.command("nft list ruleset");
    let set =
        |key, chain: &str| Edit::SetVerdict { map: "frontends".into(), key, chain: chain.into(), replaces: false };
    let edits = [set(frontend(90), "svc-3"), set(frontend(91), "svc-99"), set(frontend(92), "svc-3")];
    let error = socket.apply(Family::V4, TABLE, &edits).unwrap_err();
    assert!(error.is_missing());
    assert_eq!(
        error.to_string(),
        "cannot point 10.96.0.10:91/TCP at chain svc-99 in map frontends in table ip podnet (edit 1)"
    );
    let error = socket.apply(Family::V4, TABLE, &[set(frontend(80), "svc-3")]).unwrap_err();
    assert!(error.to_string().starts_with("cannot point 10.96.0.10:80/TCP at chain svc-3"), "{error}");
    let error = socket.apply(Family::V4, TABLE, &[Edit::RemoveChain("svc-3".into())]).unwrap_err();
    assert!(error.to_string().starts_with("cannot remove chain svc-3 in table ip podnet (edit 0)"), "{error}");
    assert_eq!(namespace.command("nft list ruleset"), before);
}

#[test]
fn a_refused_table_leaves_the_one_before() {
    let (namespace, mut socket) = opened("nft-replace-refused");
    socket.replace(TABLE, &rules(&three())).unwrap();
    let before = namespace.command("nft list ruleset");
    let mut wrong = rules(&three()[..2]);
    let nowhere = rule(Vec::new(), Action::Jump("nowhere".into()), "astray");
    wrong.chains.get_mut("reject").unwrap().rules.push(nowhere);
    let error = socket.replace(TABLE, &wrong).unwrap_err();
    assert_eq!(error.to_string(), "cannot add rule 1 (astray) to chain reject in table ip podnet");
    assert_eq!(namespace.command("nft list ruleset"), before);
}

#[test]
fn ten_thousand_refusals_are_one_error() {
    let (_namespace, mut socket) = opened("nft-refusals");
    socket.replace(TABLE, &rules(&three())).unwrap();
    let gone = |port| Edit::RemoveVerdict { map: "frontends".into(), key: frontend(port) };
    let edits: Vec<Edit> = (1000..11000).map(gone).collect();
    let error = socket.apply(Family::V4, TABLE, &edits).unwrap_err();
    assert!(error.to_string().contains("(edit 0)"), "{error}");
    assert_eq!(socket.element_count(Family::V4, TABLE, "frontends").unwrap(), 1);
}

#[test]
fn ten_thousand_services_go_in_and_out_in_one_transaction_each() {
    let (_namespace, mut socket) = opened("nft-many");
    let mut all = rules(&three());
    let addr = |number: u32| IpAddr::V4(number.into());
    let backend_of = |number: u32| BackendAddress { addr: addr(0x0a60_1001 + number), port: 8080 };
    let keys: Vec<FrontendKey> =
        (0..10_000u32).map(|number| FrontendKey { addr: addr(0x0a60_1000 + number), ..frontend(80) }).collect();
    for (number, key) in (0u32..).zip(&keys) {
        all.verdict_maps.get_mut("frontends").unwrap().elements.insert(*key, "svc-3".into());
        all.backend_maps.get_mut("backends").unwrap().elements.insert(slot(*key, 0), backend_of(number));
    }
    let start = Instant::now();
    socket.replace(TABLE, &all).unwrap();
    println!("replace with 10,000 frontends and backends: {:?}", start.elapsed());
    assert_eq!(socket.element_count(Family::V4, TABLE, "frontends").unwrap(), 10_001);
    let start = Instant::now();
    let edits: Vec<Edit> = keys.iter().map(|key| Edit::RemoveVerdict { map: "frontends".into(), key: *key }).collect();
    socket.apply(Family::V4, TABLE, &edits).unwrap();
    println!("10,000 edits: {:?}", start.elapsed());
    let edit = Edit::SetVerdict { map: "frontends".into(), key: keys[0], chain: "svc-3".into(), replaces: false };
    let start = Instant::now();
    socket.apply(Family::V4, TABLE, &[edit]).unwrap();
    println!("one edit: {:?}", start.elapsed());
    let edits: Vec<Edit> =
        keys.iter().map(|key| Edit::RemoveBackend { map: "backends".into(), key: slot(*key, 0) }).collect();
    socket.apply(Family::V4, TABLE, &edits).unwrap();
    assert_eq!(socket.element_count(Family::V4, TABLE, "frontends").unwrap(), 2);
    assert_eq!(socket.element_count(Family::V4, TABLE, "backends").unwrap(), 3);
}
