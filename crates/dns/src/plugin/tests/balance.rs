//! `loadbalance`, `cancel`.

use std::collections::BTreeMap;

use crate::{
    message::{rtype, walk},
    server::fixture::{Rig, query, told, upstream_answer, with_edns},
};

const HOSTS: &str =
    "hosts /nowhere {\n 10.0.0.1 www.example.org\n 10.1.0.2 www.example.org\n 10.2.0.3 www.example.org\n}";

fn rig(balance: &str, weights: Option<&str>) -> Rig {
    // The file of hosts stands in the Corefile: what it is read from has the weights.
    Rig::with_file(&format!(". {{\n{balance}\n{HOSTS}\n}}\n"), weights)
}

/// How often each order of the answers was told.
fn orders(rig: &Rig, asked: usize) -> BTreeMap<Vec<String>, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..asked {
        *seen.entry(rig.ask("www.example.org", rtype::A)[1..].to_vec()).or_default() += 1;
    }
    seen
}

#[test]
fn preferred_addresses_come_first_and_the_others_take_turns() {
    let rig = rig("loadbalance {\n prefer 10.2.0.0/16 10.9.0.0/16\n}", None);
    let seen = orders(&rig, 12);
    assert!(seen.keys().all(|order| order[0] == "A 10.2.0.3"), "{seen:?}");
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn no_more_answers_are_told_than_the_limit_but_to_who_checks_signatures() {
    let rig = rig("loadbalance {\n limit_answers 2\n}", None);
    let seen = orders(&rig, 6);
    assert!(seen.len() == 3 && seen.keys().all(|order| order.len() == 2), "{seen:?}");
    let signed = rig.answer(&with_edns(query("www.example.org", rtype::A), 1232, 0, true));
    assert_eq!(told(&signed).len(), 4);
}

#[test]
fn aliases_are_not_counted_among_the_answers_that_are_told() {
    let alias = "template IN ANY a.example.net {\n answer \"{{ .Name }} 60 IN CNAME www.example.org.\"\n}";
    let rig = rig(&format!("loadbalance {{\n limit_answers 2\n}}\n{alias}"), None);
    let told = rig.ask("a.example.net", rtype::A);
    assert!(told.len() == 4 && told[1] == "CNAME www.example.org", "{told:?}");
}

#[test]
fn each_address_stands_first_as_often_as_it_weighs() {
    let weights = "www.example.org\n10.0.0.1 6\n10.1.0.2 3\n# 10.2.0.3 weighs 1\n";
    let corefile = ". {\nloadbalance weighted /weights\ntemplate IN A example.org {\n answer \"{{ .Name }} 5 IN A 10.0.0.1\" \
                    \"{{ .Name }} 5 IN A 10.1.0.2\" \"{{ .Name }} 5 IN A 10.2.0.3\"\n}\n}\n";
    let rig = Rig::with_file(corefile, Some(weights));
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (order, count) in orders(&rig, 1000) {
        assert_eq!(order.len(), 3);
        *first.entry(order[0].clone()).or_default() += count;
    }
    for (addr, expected) in [("A 10.0.0.1", 600), ("A 10.1.0.2", 300), ("A 10.2.0.3", 100)] {
        assert!(first[addr].abs_diff(expected) < 60, "{first:?}");
    }
}

#[test]
fn addresses_behind_an_alias_take_turns_too_and_what_is_kept_ages_in_its_new_place() {
    let alias = "template IN ANY a.example.net {\n answer \"{{ .Name }} 60 IN CNAME www.example.org.\"\n}";
    for balance in ["loadbalance", "loadbalance {\n prefer 10.9.0.0/16\n}"] {
        let rig = rig(&format!("{balance}\n{alias}"), None);
        let told = || rig.ask("a.example.net", rtype::A);
        let seen: std::collections::BTreeSet<_> = (0..6).map(|_| told()).collect();
        assert_eq!(seen.len(), 3, "{balance}: {seen:?}");
        assert!(seen.iter().all(|order| order[1] == "CNAME www.example.org" && order.len() == 5), "{seen:?}");
    }
    let rig = Rig::new(". {\n loadbalance {\n limit_answers 1\n}\n cache\n forward . 192.0.2.1\n}\n");
    let packet = query("www.example.org", rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    sent.tells(0, &[[192, 0, 2, 1], [192, 0, 2, 2]]);
    waiting.told();
    rig.at(10);
    let response = rig.answer(&packet);
    assert_eq!(told(&response).len(), 2);
    assert_eq!(response[response.len() - 10..response.len() - 6], 50_u32.to_be_bytes());
}

#[test]
fn aliases_that_an_upstream_tells_behind_addresses_are_told_before_them() {
    let rig = Rig::new(". {\n loadbalance\n cache\n forward . 192.0.2.1\n}\n");
    let packet = query("a.example.org", rtype::A);
    // The alias leads to example.org, which stands at 14 in the message.
    let addr = |last: u8| [0xc0, 14, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last].to_vec();
    let alias = vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 14];
    let (mut waiting, sent) = rig.forward(&packet);
    let mut message = upstream_answer(&sent.message, 0, &[]);
    message[7] = 3;
    message.extend([addr(1), addr(2), alias].concat());
    sent.answered(message);
    let first = waiting.told();
    rig.at(10);
    let kept = rig.answer(&packet);
    assert!(walk(&kept, packet.len()).all(|record| record.unwrap().ttl == 50));
    let second = told(&kept);
    for answer in [&first, &second] {
        assert!(answer.len() == 4 && answer[..2] == ["NOERROR", "CNAME example.org"], "{answer:?}");
    }
    assert_ne!(first, second, "addresses take turns");
}

#[test]
fn an_alias_behind_one_address_is_told_before_it_also_where_more_than_turns_decides() {
    for balance in ["loadbalance", "loadbalance {\n limit_answers 1\n}", "loadbalance {\n prefer 10.0.0.0/8\n}"] {
        let rig = Rig::new(&format!(". {{\n {balance}\n forward . 192.0.2.1\n}}\n"));
        let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
        let mut message = upstream_answer(&sent.message, 0, &[]);
        message[7] = 2;
        message.extend_from_slice(&[0xc0, 14, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        message.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 14]);
        sent.answered(message);
        assert_eq!(waiting.told(), ["NOERROR", "CNAME example.org", "A 192.0.2.1"], "{balance}");
    }
}

#[test]
fn mail_exchangers_that_are_kept_take_turns_and_age() {
    let rig = Rig::new(". {\n loadbalance\n cache\n forward . 192.0.2.1\n}\n");
    let packet = query("example.org", rtype::MX);
    let (mut waiting, sent) = rig.forward(&packet);
    let mut answer = upstream_answer(&sent.message, 0, &[]);
    answer[7] = 2;
    for (preference, host) in [(10, b'a'), (20, b'b')] {
        answer.extend_from_slice(&[0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 60, 0, 6, 0, preference, 1, host, 0xc0, 12]);
    }
    sent.answered(answer);
    waiting.told();
    rig.at(10);
    let mut first: Vec<String> = Vec::new();
    for _ in 0..2 {
        let response = rig.answer(&packet);
        let ttls: Vec<u32> = walk(&response, packet.len()).map(|record| record.unwrap().ttl).collect();
        assert_eq!((told(&response).len(), ttls), (3, vec![50, 50]));
        first.push(told(&response)[1].clone());
    }
    first.sort();
    assert_eq!(first, ["MX 10 a.example.org", "MX 20 b.example.org"]);
}

#[test]
fn what_was_cut_from_a_kept_answer_does_not_age_in_the_opt_record() {
    let rig = Rig::new(". {\n cache\n forward . 192.0.2.1\n}\n");
    let packet = with_edns(query("www.example.org", rtype::A), 512, 0, false);
    let (mut waiting, sent) = rig.forward(&packet);
    let addrs: Vec<[u8; 4]> = (0..60).map(|last| [192, 0, 2, last]).collect();
    let answer = upstream_answer(&sent.message, 0, &addrs);
    sent.answered(answer);
    let first = waiting.response().unwrap();
    rig.at(7);
    let kept = rig.answer(&packet);
    assert_eq!(kept[kept.len() - 11..], first[first.len() - 11..]);
}

#[test]
fn a_query_that_takes_too_long_is_given_up() {
    let rig = Rig::new(". {\n errors\n cancel 2s\n forward . 192.0.2.1\n}\n");
    let (mut waiting, sent) = rig.forward(&query("www.example.org", rtype::A));
    rig.wake();
    assert_eq!(waiting.told(), ["SERVFAIL"]);
    assert!(rig.events.lock().unwrap().iter().any(|event| event.contains("it took longer than cancel allows")));
    drop(sent);
    drop(waiting);
    assert_eq!(rig.server.gauges().flights, 0);
    let (mut waiting, sent) = rig.forward(&query("www.example.net", rtype::A));
    sent.tells(0, &[[192, 0, 2, 1]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.1"]);
}
