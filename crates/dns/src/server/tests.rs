//! Forwarding, waiting, caching.

use super::{
    Outcome, Progress, Transport,
    fixture::{ARRIVAL, Rig, query, told, upstream_answer, with_edns},
};
use crate::{forward::ATTEMPTS, message::rtype, zone::tests::cluster};

const COREFILE: &str = "
. {
    errors
    log
    hosts /nowhere {
        10.0.0.20 harbor.example.com
        fallthrough
    }
    kubernetes cluster.local in-addr.arpa {
        fallthrough in-addr.arpa
    }
    cache 30
    loop
    loadbalance
    forward . 192.0.2.1 192.0.2.2 {
        policy sequential
        except blocked.example
        max_concurrent 2
    }
}
";

fn rig() -> Rig {
    let mut rig = Rig::new(COREFILE);
    cluster(&mut rig);
    rig
}

fn done(progress: Progress<u32>) -> Vec<(u32, Vec<String>)> {
    match progress {
        Progress::Done(replies) => replies.into_iter().map(|reply| (reply.client, told(&reply.message))).collect(),
        other => panic!("not done: {other:?}"),
    }
}

#[test]
fn a_question_is_asked_once_for_all_who_wait_and_then_answered_from_the_cache() {
    let rig = rig();
    let packet = query("Example.org", rtype::A);
    let exchange = rig.forward(&packet, 1);
    assert_eq!(exchange.upstream.to_string(), "192.0.2.1:53");
    assert_eq!(exchange.transport, Transport::Udp);
    let mut other = query("exAMPLE.org", rtype::A);
    other[0] = 0x99;
    assert_eq!(rig.handle(&other, 0, 2).0, Outcome::Wait);
    let answer = upstream_answer(&exchange.message, 0, &[[192, 0, 2, 7]]);
    let Progress::Done(replies) = rig.answered(&exchange, &answer) else { panic!("not done") };
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[1].message[..2], other[..2]);
    assert_eq!(&replies[1].message[12..24], b"\x07exAMPLE\x03org");
    assert_eq!(told(&replies[0].message), ["NOERROR", "A 192.0.2.7"]);
    let (outcome, cached) = rig.handle(&packet, 29, 3);
    assert_eq!((outcome, told(&cached)), (Outcome::Answer, vec!["NOERROR".to_owned(), "A 192.0.2.7".to_owned()]));
    assert!(matches!(rig.handle(&packet, 30, 4).0, Outcome::Forward(_)));
}

#[test]
fn only_the_true_answer_is_taken() {
    let rig = rig();
    let exchange = rig.forward(&query("example.org", rtype::A), 1);
    let good = upstream_answer(&exchange.message, 0, &[[192, 0, 2, 7]]);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut other_name = good.clone();
    other_name[14] ^= 1;
    let mut a_query = good.clone();
    a_query[2] &= 0x7f;
    for forged in [other_id, other_name, a_query, good[..20].to_vec()] {
        assert_eq!(rig.answered(&exchange, &forged), Progress::Ignored);
    }
    let from = "192.0.2.66:53".parse().unwrap();
    assert_eq!(rig.server.upstream_answered(exchange.ticket, from, &good, rig.start), Progress::Ignored);
    assert_eq!(done(rig.answered(&exchange, &good)).len(), 1);
    assert_eq!(done(rig.answered(&exchange, &good)).len(), 0);
}

#[test]
fn a_silent_upstream_is_followed_by_the_next_and_in_the_end_by_a_failure() {
    let rig = rig();
    let mut exchange = rig.forward(&query("example.org", rtype::A), 1);
    let mut asked = vec![exchange.upstream.to_string()];
    for _ in 1..ATTEMPTS {
        let Progress::Again(next) = rig.server.upstream_failed(exchange.ticket, rig.start) else { panic!("gave up") };
        assert_ne!(next.message[..2], exchange.message[..2], "a new id");
        asked.push(next.upstream.to_string());
        exchange = next;
    }
    assert_eq!(asked, ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53"]);
    let replies = done(rig.server.upstream_failed(exchange.ticket, rig.start));
    assert_eq!(replies, [(1, vec!["SERVFAIL".to_owned()])]);
    assert!(rig.events.lock().unwrap().iter().any(|event| event.contains("NoAnswer")));
}

#[test]
fn a_cut_answer_is_asked_for_over_tcp() {
    let rig = rig();
    let exchange = rig.forward(&query("example.org", rtype::A), 1);
    let mut cut = upstream_answer(&exchange.message, 0, &[]);
    cut[2] |= 2;
    let Progress::Again(again) = rig.answered(&exchange, &cut) else { panic!("not asked again") };
    assert_eq!((again.transport, again.upstream), (Transport::Tcp, exchange.upstream));
    let whole = upstream_answer(&again.message, 0, &[[192, 0, 2, 7]]);
    assert_eq!(done(rig.answered(&again, &whole))[0].1, ["NOERROR", "A 192.0.2.7"]);
}

#[test]
fn an_upstream_without_edns_is_asked_without() {
    let rig = rig();
    let exchange = rig.forward(&query("example.org", rtype::A), 1);
    assert_eq!(exchange.message[11], 1, "the OPT record");
    let refusal = upstream_answer(&exchange.message, 1, &[]);
    let Progress::Again(again) = rig.answered(&exchange, &refusal) else { panic!("not asked again") };
    assert_eq!(again.message[11], 0);
    let answer = upstream_answer(&again.message, 0, &[[192, 0, 2, 7]]);
    assert_eq!(done(rig.answered(&again, &answer)).len(), 1);
}

#[test]
fn an_upstream_that_fails_is_checked_and_asked_last_until_it_answers() {
    let rig = rig();
    assert!(rig.server.checks(rig.at(0)).is_empty());
    let exchange = rig.forward(&query("a.example", rtype::A), 1);
    rig.server.upstream_failed(exchange.ticket, rig.start);
    for seconds in 1..3 {
        let checks = rig.server.checks(rig.at(seconds));
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].upstream.to_string(), "192.0.2.1:53");
        rig.server.upstream_failed(checks[0].ticket, rig.at(seconds));
    }
    assert_eq!(rig.forward(&query("b.example", rtype::A), 1).upstream.to_string(), "192.0.2.2:53");
    let checks = rig.server.checks(rig.at(9));
    let answer = upstream_answer(&checks[0].message, 0, &[]);
    rig.server.upstream_answered(checks[0].ticket, checks[0].upstream, &answer, rig.at(9));
    assert!(rig.server.checks(rig.at(10)).is_empty());
}

#[test]
fn questions_beyond_the_bound_are_refused_and_have_no_effect_on_the_others() {
    let rig = rig();
    let first = rig.forward(&query("a.example", rtype::A), 1);
    rig.forward(&query("b.example", rtype::A), 2);
    assert_eq!(rig.ask("c.example", rtype::A), ["REFUSED"]);
    assert_eq!(rig.handle(&query("a.example", rtype::A), 0, 4).0, Outcome::Wait);
    assert_eq!(done(rig.answered(&first, &upstream_answer(&first.message, 0, &[]))).len(), 2);
    rig.forward(&query("c.example", rtype::A), 5);
}

#[test]
fn scenario_05_hosts_exceptions_and_reverse_names() {
    let rig = rig();
    assert_eq!(rig.ask("harbor.example.com", rtype::A), ["NOERROR", "A 10.0.0.20"]);
    assert_eq!(rig.ask("20.0.0.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR harbor.example.com"]);
    assert_eq!(rig.ask("www.blocked.example", rtype::A), ["SERVFAIL"]);
    assert_eq!(rig.ask("7.0.233.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR web.web.svc.cluster.local"]);
    let elsewhere = rig.forward(&query("1.2.0.192.in-addr.arpa", rtype::PTR), 1);
    assert_eq!(elsewhere.upstream.to_string(), "192.0.2.1:53");
}

#[test]
fn an_external_name_outside_is_asked_for_and_told_with_its_alias() {
    let mut rig = rig();
    let external = podnet_model::service::ServiceKind::External { name: "www.example.com".into() };
    rig.apply(&crate::zone::tests::service("web", "far", external, vec![]));
    let packet = with_edns(query("far.web.svc.cluster.local", rtype::A), 1232, 0, false);
    let exchange = rig.forward(&packet, 1);
    assert_eq!(&exchange.message[12..29], b"\x03www\x07example\x03com\0");
    let answer = upstream_answer(&exchange.message, 0, &[[192, 0, 2, 7]]);
    let expected = ["NOERROR", "CNAME www.example.com", "A 192.0.2.7"];
    assert_eq!(done(rig.answered(&exchange, &answer))[0].1, expected);
    assert_eq!(told(&rig.answer(&packet)), expected);
    assert_eq!(rig.ask("www.example.com", rtype::A), ["NOERROR", "A 192.0.2.7"]);
}

#[test]
fn addresses_take_turns_in_front() {
    let rig = rig();
    let mut first: Vec<_> = (0..8).map(|_| rig.ask("headless.web.svc.cluster.local", rtype::A)[1].clone()).collect();
    first.sort();
    first.dedup();
    assert_eq!(first, ["A 10.244.1.3", "A 10.244.2.3"]);
}

#[test]
fn an_upstream_that_asks_back_is_noticed_and_left_alone() {
    let rig = rig();
    let probes = rig.server.loop_probes();
    assert_eq!(probes.len(), 2);
    rig.handle(&probes[0].message, 0, 1);
    assert!(rig.events.lock().unwrap().iter().any(|event| event.contains("Loop")));
    let next = rig.forward(&query("example.org", rtype::A), 2);
    assert_eq!(next.upstream, probes[1].upstream);
    rig.handle(&probes[1].message, 0, 1);
    assert_eq!(rig.ask("example.net", rtype::A), ["SERVFAIL"]);
}

#[test]
fn the_longest_zone_of_a_port_answers_and_other_names_are_refused() {
    let rig = Rig::new(
        "example.org {\n hosts /nowhere {\n 10.0.0.1 a.example.org\n }\n}\nb.example.org:5300 {\n whoami\n}\n",
    );
    assert_eq!(rig.ask("a.example.org", rtype::A), ["NOERROR", "A 10.0.0.1"]);
    assert_eq!(rig.ask("x.example.net", rtype::A), ["REFUSED"]);
    assert_eq!(rig.ask("x.example.org", rtype::A), ["SERVFAIL"]);
    let arrival = super::Arrival { port: 5300, ..ARRIVAL };
    let mut out = Vec::new();
    let packet = query("b.example.org", rtype::A);
    assert_eq!(rig.server.handle(&packet, &arrival, rig.start, || 0, &mut out), Outcome::Answer);
    assert_eq!(told(&out), ["NOERROR", "+A 10.244.1.2", "+SRV 0 0 4000 "]);
}

#[test]
fn what_happens_is_counted_under_the_names_that_dashboards_know() {
    let rig = rig();
    rig.ask("web.web.svc.cluster.local", rtype::A);
    rig.ask("none.web.svc.cluster.local", rtype::A);
    let text = rig.server.metrics().render("dns://:53", rig.server.gauges());
    for line in [
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"} 2",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NXDOMAIN\",plugin=\"\"} 1",
        "podnet_dns_synced 1",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
}
