//! Elements that others touched are mended one by one.

use podnet_model::Family;

use super::{FrontendKey, NftSocket, TABLE, frontend, made, rules, sorted, three};
use crate::{
    monitor::{Monitor, Notice, Transaction},
    netlink::RtSocket,
    testing::TestNs,
};

/// What is told of a command of somebody's.
fn does(namespace: &TestNs, monitor: &mut Monitor, command: &str) -> Transaction {
    namespace.command(&format!("nft {command}"));
    let told = monitor.pending().unwrap().into_iter().find_map(|notice| match notice {
        Notice::Rules(transaction) => Some(transaction),
        _ => None,
    });
    told.unwrap_or_else(|| panic!("{command} is not told"))
}

fn listening(namespace: &TestNs, socket: &NftSocket) -> Monitor {
    Monitor::open_in(namespace, &RtSocket::open_in(namespace).unwrap(), socket, &[]).unwrap()
}

#[test]
fn elements_that_others_touched_are_mended_and_no_others_are_looked_at() {
    let (namespace, mut socket, before) = made("mend-touched");
    // Nobody hears of this one.
    namespace.command("nft delete element ip podnet backends { 10.96.0.10 . tcp . 80 . 0x00000000 }");
    let mut monitor = listening(&namespace, &socket);
    let slot = "10.96.0.10 . tcp . 80 . 0x00000001";
    let deleted = format!("delete element ip podnet backends {{ {slot} }}");
    let strange = "10.96.0.99 . tcp . 80";
    for (damage, wrong) in [
        ("delete element ip podnet frontends { 10.96.0.10 . tcp . 80 }", 1),
        (&format!("add element ip podnet frontends {{ {strange} : goto svc-3 }}"), 1),
        (&format!("add element ip podnet frontends {{ {strange} : drop }}; {deleted}"), 2),
        (&deleted, 1),
        (&format!("{deleted}; add element ip podnet backends {{ {slot} : 10.9.9.9 . 9999 }}"), 1),
        (&format!("{deleted}; add element ip podnet backends {{ {slot} : 10.0.0.2 . 8080 }}"), 0),
    ] {
        let told = does(&namespace, &mut monitor, damage);
        assert!(!told.is_more, "{damage}: {told:?}");
        assert!(told.touched.iter().all(|one| one.is_of(Family::V4, TABLE) && one.frontend().is_some()));
        let mend = |socket: &mut NftSocket| socket.mend_elements(Family::V4, TABLE, &rules(&three()), &told.touched);
        assert_eq!(mend(&mut socket).unwrap(), wrong, "{damage}");
        assert_eq!(mend(&mut socket).unwrap(), 0, "{damage} is mended");
        assert_eq!(monitor.pending().unwrap(), [], "one's own work is not told");
    }
    assert_eq!(socket.replace(TABLE, &rules(&three())).unwrap().elements, 1, "that of which nobody heard");
    assert_eq!(sorted(&namespace.command("nft list ruleset")), sorted(&before));
}

#[test]
fn what_is_more_than_single_elements_is_told_to_be_more() {
    let (namespace, socket, _) = made("mend-more");
    let mut monitor = listening(&namespace, &socket);
    let many: Vec<String> = (1..=300).map(|port| format!("10.9.9.9 . udp . {port} : drop")).collect();
    for more in [
        "delete element ip podnet pod-ranges { 10.233.0.0/18 }",
        "add element ip podnet frontends { * : drop }",
        "insert rule ip podnet filter-forward drop",
        "add chain ip podnet theirs",
        "add element ip podnet frontends { 10.96.0.98 . tcp . 1 : drop }; add table ip other",
        &format!("add element ip podnet frontends {{ {} }}", many.join(", ")),
    ] {
        assert!(does(&namespace, &mut monitor, more).is_more, "{more}");
    }
    let told = does(&namespace, &mut monitor, "add element ip podnet frontends { 10.96.0.10 . sctp . 443 : drop }");
    let [one] = &told.touched[..] else { panic!("{told:?}") };
    let wanted = FrontendKey { protocol: podnet_model::Protocol::Sctp, ..frontend(443) };
    assert_eq!((one.frontend(), one.set()), (Some(wanted), "frontends"));
    assert!(!told.is_more && !one.is_of(Family::V6, TABLE) && !one.is_of(Family::V4, "other"));
}
