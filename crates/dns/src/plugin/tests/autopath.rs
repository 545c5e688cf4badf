//! `autopath`, beside a resolver that walks along its search path by itself.

use std::net::SocketAddr;

use super::rig;
use crate::{
    message::rtype,
    server::{
        Arrival, Outcome,
        fixture::{ARRIVAL, Rig, Waiting, query, told, upstream_answer},
    },
};

/// What a pod of the namespace `web` has in its resolv.conf.
const SEARCH: [&str; 4] = ["web.svc.cluster.local", "svc.cluster.local", "cluster.local", ""];
const FORWARDING: &str = "kubernetes cluster.local\nforward . 192.0.2.1";
const OUTSIDE: &str = "www.example.org";

/// Answers whatever is sent to the upstream: one name exists there.
fn response(rig: &Rig, packet: &[u8], arrival: &Arrival) -> Vec<u8> {
    let (outcome, response) = rig.handle_from(packet, arrival);
    let Outcome::Later(later) = outcome else { return response };
    let mut waiting = Waiting::new(std::sync::Arc::clone(&rig.server).finish(later));
    for _ in 0..20 {
        if let Some(response) = waiting.response() {
            return response;
        }
        for sent in rig.sent() {
            let exists = sent.message[12..29].eq_ignore_ascii_case(b"\x03www\x07example\x03org\0");
            let addrs: &[[u8; 4]] = if exists { &[[192, 0, 2, 7]] } else { &[] };
            let answer = upstream_answer(&sent.message, if exists { 0 } else { 3 }, addrs);
            sent.answered(answer);
        }
    }
    panic!("no response")
}

/// What a resolver with `ndots:5` finds out about a short name, and how many questions it asks for that.
fn resolved(rig: &Rig, short: &str, arrival: &Arrival) -> (Vec<String>, usize) {
    let mut asked = 0;
    let mut last = Vec::new();
    for place in SEARCH {
        asked += 1;
        last = told(&response(rig, &query(&format!("{short}.{place}"), rtype::A), arrival));
        if last.iter().any(|line| line.starts_with("A ")) {
            break;
        }
    }
    last.retain(|line| !line.starts_with("CNAME ") && line != "SOA");
    (last, asked)
}

#[test]
fn one_question_is_enough_and_has_the_result_of_the_whole_search() {
    let with = rig(&format!("autopath @kubernetes\n{FORWARDING}"));
    let without = rig(FORWARDING);
    for (short, alone) in [("web", 1), ("web.web", 2), ("web.web.svc", 3), (OUTSIDE, 4)] {
        let (expected, asked) = resolved(&without, short, &ARRIVAL);
        assert_eq!(asked, alone, "{short}");
        assert_eq!(resolved(&with, short, &ARRIVAL), (expected, 1), "{short}");
    }
    // What is nowhere is nowhere: the client finds that out by itself.
    let (expected, _) = resolved(&without, "nowhere.example", &ARRIVAL);
    assert_eq!(expected, ["NXDOMAIN"]);
    assert_eq!(resolved(&with, "nowhere.example", &ARRIVAL), (expected, SEARCH.len()));
    let text = with.server.metrics().render(&with.server.gauges());
    assert!(text.contains("coredns_autopath_success_total{server=\"dns://:53\"} 3\n"), "{text}");
}

#[test]
fn the_name_that_was_found_is_told_as_an_alias() {
    let rig = rig(&format!("autopath @kubernetes\ncache\n{FORWARDING}"));
    let first = query("www.example.org.web.svc.cluster.local", rtype::A);
    let expected = ["NOERROR", "CNAME www.example.org", "A 192.0.2.7"];
    assert_eq!(told(&response(&rig, &first, &ARRIVAL)), expected);
    // What was found outside is kept, what holds for this client alone is not.
    assert_eq!(told(&rig.answer(&first)), expected);
    assert_eq!(rig.ask(OUTSIDE, rtype::A), ["NOERROR", "A 192.0.2.7"]);
    let stranger = Arrival { from: SocketAddr::from(([10, 244, 9, 9], 4000)), ..ARRIVAL };
    assert_eq!(told(&response(&rig, &first, &stranger)), ["NXDOMAIN", "SOA"], "whose search path is not known");
}

#[test]
fn only_addresses_in_the_first_name_of_the_client_s_own_path_are_searched_for() {
    let rig = rig(&format!("autopath @kubernetes\n{FORWARDING}"));
    let alone = |name: &str, qtype| rig.ask(name, qtype);
    assert_eq!(alone("www.example.org.other.svc.cluster.local", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(alone("www.example.org.svc.cluster.local", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(alone("www.example.org.web.svc.cluster.local", rtype::TXT), ["NXDOMAIN", "SOA"]);
    assert_eq!(alone("web.svc.cluster.local", rtype::A), ["NOERROR", "SOA"]);
    assert_eq!(alone("plain.web.svc.cluster.local", rtype::AAAA), ["NOERROR", "SOA"], "the name exists");
}

#[test]
fn what_fails_on_the_way_fails() {
    let rig = rig(&format!("autopath @kubernetes\n{FORWARDING}"));
    let (mut waiting, sent) = rig.forward(&query("www.example.org.web.svc.cluster.local", rtype::A));
    sent.tells(2, &[]);
    assert_eq!(waiting.told(), ["SERVFAIL"]);
}

#[test]
fn names_too_long_for_the_rest_of_the_path_are_passed_over() {
    let rig = rig(&format!("autopath @kubernetes\n{FORWARDING}"));
    let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(45)].join(".");
    let packet = query(&format!("{long}.web.svc.cluster.local"), rtype::A);
    assert_eq!(told(&response(&rig, &packet, &ARRIVAL)), ["NXDOMAIN", "SOA"]);
}

#[test]
fn all_clients_can_have_the_search_path_of_a_file() {
    let corefile = ". {\n autopath example.org /etc/resolv.conf\n cache\n forward . 192.0.2.1\n}\n";
    let rig = Rig::with_file(corefile, Some("search office.example.org corp.example\n"));
    let packet = query("www.example.org.office.example.org", rtype::A);
    let expected = ["NOERROR", "CNAME www.example.org", "A 192.0.2.7"];
    assert_eq!(told(&response(&rig, &packet, &ARRIVAL)), expected);
    let stays = response(&rig, &query("www.example.org.corp.example", rtype::A), &ARRIVAL);
    assert_eq!(told(&stays), ["NXDOMAIN"], "not the first name of the path");
}
