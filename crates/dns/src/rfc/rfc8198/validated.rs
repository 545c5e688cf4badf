//! The same of upstreams in plain text from afar: what they prove counts once it was validated here (RFC 4035 §5).

use super::*;
use crate::{
    authority::sign::Validity,
    message::u16_at,
    name::QueryName,
    server::fixture::Sent,
    validate::fixture::{NOW, Tree, key},
};

/// A server that trusts the root of these zones, and asks somebody in plain.
fn served(tree: &Tree) -> Rig {
    let corefile = ". {\n forward . 192.0.2.53 {\n nsec 100\n trust_anchors /anchors\n }\n}";
    Rig::with_file(corefile, Some(&tree.anchors()))
}

/// What is told of a name that is not known not to exist.
fn ask(rig: &Rig, tree: &Tree, name: &str) -> Vec<String> {
    let (mut waiting, sent) = rig.forward(&query(name, rtype::A));
    answer(sent, tree);
    waiting.told()
}

fn answer(sent: Sent, tree: &Tree) {
    let message = tree.message(&sent.message);
    sent.answered(message);
}

/// What is asked while nobody waits.
fn asked(sent: &Sent) -> String {
    let (name, end) = QueryName::parse(&sent.message, 12).unwrap();
    assert_ne!(super::super::flags(&sent.message) & flag::CD, 0, "it is checked here");
    assert_ne!(sent.message[end + 11] & 0x80, 0, "signatures are wanted (DO)");
    format!("{name} {}", rtype::mnemonic(u16_at(&sent.message, end).unwrap()))
}

/// Has everything be asked that is asked while nobody waits, and says what it is.
fn work(rig: &Rig, tree: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        rig.work();
        let sent = rig.sent();
        if sent.is_empty() {
            return all;
        }
        for sent in sent {
            all.push(asked(&sent));
            answer(sent, tree);
        }
    }
}

/// How many denials were validated with this result, no other ones having been.
fn counted(rig: &Rig, result: &str, count: usize) {
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    let name = "podnet_dns_denials_validated_total";
    for other in ["secure", "insecure", "bogus", "indeterminate"] {
        let line = format!("{name}{{result=\"{other}\"}} {}", if other == result { count } else { 0 });
        assert!(metrics.lines().any(|told| told == line), "{line}\nin\n{metrics}");
    }
}

const DENIED: [&str; 2] = ["NXDOMAIN", "SOA"];

#[test]
fn section_5_1_what_any_upstream_proves_counts_once_it_was_validated() {
    let tree = Tree::new();
    let rig = served(&tree);
    assert_eq!(ask(&rig, &tree, "b.test"), DENIED);
    assert!(asks(&rig, "c.test", rtype::A), "nothing was validated yet");
    assert_eq!(work(&rig, &tree), ["test. DS", ". DNSKEY", "test. DNSKEY"]);
    assert_eq!(rig.ask("c.test", rtype::A), DENIED);
    assert_eq!(rig.ask("a.test", rtype::AAAA), ["NOERROR", "SOA"]);
    assert!(asks(&rig, "a.test", rtype::A));
    let response = rig.answer(&with_edns(query("c.test", rtype::A), 1232, 0, true));
    assert_ne!(super::super::flags(&response) & flag::AD, 0);
    // Of a zone below it only what is new is asked for.
    assert_eq!(ask(&rig, &tree, "a.sub.test"), DENIED);
    assert_eq!(work(&rig, &tree), ["sub.test. DS", "sub.test. DNSKEY"]);
    assert_eq!(rig.ask("aa.sub.test", rtype::A), DENIED);
    counted(&rig, "secure", 2);
}

#[test]
fn keys_are_asked_for_once_for_many_and_again_when_their_time_is_over() {
    let tree = Tree::new();
    let rig = served(&tree);
    for name in ["b.test", "n.test"] {
        assert_eq!(ask(&rig, &tree, name), DENIED);
    }
    assert_eq!(work(&rig, &tree), ["test. DS", ". DNSKEY", "test. DNSKEY"]);
    rig.at(3599);
    assert_eq!(ask(&rig, &tree, "b.test"), DENIED);
    assert!(work(&rig, &tree).is_empty());
    rig.at(3600);
    assert_eq!(ask(&rig, &tree, "n.test"), DENIED);
    assert_eq!(work(&rig, &tree), ["test. DS", ". DNSKEY", "test. DNSKEY"]);
    counted(&rig, "secure", 4);
}

#[test]
fn what_cannot_be_believed_is_told_but_not_used_and_its_keys_are_not_asked_for_at_once_again() {
    let tree = Tree::of(&key!("rsa512"), Validity::of_zone(NOW, [0, 0]));
    let rig = served(&tree);
    assert_eq!(ask(&rig, &tree, "a.sub.test"), DENIED);
    let down = ["sub.test. DS", "test. DS", ". DNSKEY", "test. DNSKEY", "sub.test. DNSKEY"];
    assert_eq!(work(&rig, &tree), down);
    assert_eq!(ask(&rig, &tree, "aa.sub.test"), DENIED);
    assert!(work(&rig, &tree).is_empty());
    rig.at(60);
    assert_eq!(ask(&rig, &tree, "aa.sub.test"), DENIED);
    assert_eq!(work(&rig, &tree), ["sub.test. DS", "sub.test. DNSKEY"]);
    counted(&rig, "bogus", 3);
}

#[test]
fn rfc4035_5_3_1_expired_signatures_prove_nothing() {
    let tree = Tree::new();
    let rig = served(&tree);
    rig.at(40 * 86_400);
    assert_eq!(ask(&rig, &tree, "b.test"), DENIED);
    assert_eq!(work(&rig, &tree), ["test. DS", ". DNSKEY"]);
    assert!(asks(&rig, "c.test", rtype::A));
    counted(&rig, "bogus", 1);
}

#[test]
fn a_forged_proof_is_not_used() {
    let tree = Tree::new();
    let rig = served(&tree);
    let (mut waiting, sent) = rig.forward(&query("b.test", rtype::A));
    let mut message = tree.message(&sent.message);
    // The gap behind a.test ends at island.test.
    let next = message.windows(8).position(|bytes| bytes == b"\x06island\x04").unwrap();
    message[next + 1] = b'y';
    sent.answered(message);
    assert_eq!(waiting.told(), DENIED);
    assert_eq!(work(&rig, &tree), ["test. DS", ". DNSKEY", "test. DNSKEY"]);
    assert!(asks(&rig, "x.test", rtype::A));
    assert!(asks(&rig, "c.test", rtype::A));
    counted(&rig, "bogus", 1);
}

#[test]
fn rfc4035_5_2_zones_whose_keys_nobody_vouches_for_prove_nothing() {
    let tree = Tree::new();
    let rig = served(&tree);
    assert_eq!(ask(&rig, &tree, "a.island.test"), DENIED);
    assert_eq!(work(&rig, &tree), ["island.test. DS", "test. DS", ". DNSKEY", "test. DNSKEY"]);
    assert!(asks(&rig, "aa.island.test", rtype::A));
    assert_eq!(ask(&rig, &tree, "aa.island.test"), DENIED);
    assert!(work(&rig, &tree).is_empty());
    counted(&rig, "insecure", 2);
}

#[test]
fn what_clients_ask_comes_before_keys() {
    let tree = Tree::new();
    let corefile = ". {\n forward . 192.0.2.53 {\n nsec 100\n trust_anchors /anchors\n max_concurrent 2\n }\n}";
    let rig = Rig::with_file(corefile, Some(&tree.anchors()));
    assert_eq!(ask(&rig, &tree, "b.test"), DENIED);
    let _other = rig.forward(&query("other", rtype::A));
    assert!(work(&rig, &tree).is_empty(), "half of what may be asked is a client's");
    counted(&rig, "indeterminate", 1);
}

#[test]
fn nothing_is_known_while_nobody_tells_of_keys() {
    let tree = Tree::new();
    let rig = served(&tree);
    assert_eq!(ask(&rig, &tree, "b.test"), DENIED);
    loop {
        rig.work();
        let sent = rig.sent();
        if sent.is_empty() {
            break;
        }
        sent.into_iter().for_each(Sent::failed);
    }
    assert!(asks(&rig, "c.test", rtype::A));
    counted(&rig, "indeterminate", 1);
}
