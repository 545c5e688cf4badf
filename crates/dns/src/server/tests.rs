//! Forwarding, waiting, caching.

mod debug;
mod labels;
mod loops;
mod overload;
mod panics;
mod reports;

use super::{
    Outcome, Transport,
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

#[test]
fn a_question_is_asked_once_for_all_who_wait_and_then_answered_from_the_cache() {
    let rig = rig();
    let packet = query("Example.org", rtype::A);
    let (mut first, sent) = rig.forward(&packet);
    assert_eq!(sent.upstream.to_string(), "192.0.2.1:53");
    assert_eq!(sent.transport, Transport::Udp);
    let mut other = query("exAMPLE.org", rtype::A);
    other[0] = 0x99;
    let mut second = rig.wait(&other);
    assert!(rig.sent().is_empty());
    sent.tells(0, &[[192, 0, 2, 7]]);
    let response = second.response().unwrap();
    assert_eq!(response[..2], other[..2]);
    assert_eq!(&response[12..24], b"\x07exAMPLE\x03org");
    assert_eq!(first.told(), ["NOERROR", "A 192.0.2.7"]);
    rig.at(29);
    assert_eq!(told(&rig.handle(&packet).1), ["NOERROR", "A 192.0.2.7"]);
    rig.at(30);
    assert!(matches!(rig.handle(&packet).0, Outcome::Later(_)));
}

#[test]
fn who_goes_away_leaves_the_others_their_answer_and_nothing_of_its_own() {
    let rig = rig();
    let (first, sent) = rig.forward(&query("example.org", rtype::A));
    let mut second = rig.wait(&query("example.org", rtype::A));
    drop(first);
    sent.tells(0, &[[192, 0, 2, 7]]);
    assert_eq!(second.told(), ["NOERROR", "A 192.0.2.7"]);
    drop(rig.forward(&query("example.net", rtype::A)));
    assert_eq!(rig.server.gauges().flights, 0);
    assert_eq!(rig.forward(&query("example.net", rtype::A)).1.upstream.to_string(), "192.0.2.1:53");
}

#[test]
fn only_the_true_answer_is_taken() {
    let rig = rig();
    let (_waiting, sent) = rig.forward(&query("example.org", rtype::A));
    let good = upstream_answer(&sent.message, 0, &[[192, 0, 2, 7]]);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut other_name = good.clone();
    other_name[14] ^= 1;
    let mut a_query = good.clone();
    a_query[2] &= 0x7f;
    for forged in [other_id, other_name, a_query, good[..20].to_vec()] {
        assert!(!sent.accepts(&forged));
    }
    assert!(sent.accepts(&good));
}

#[test]
fn a_silent_upstream_is_followed_by_the_next_and_in_the_end_by_a_failure() {
    let rig = rig();
    let (mut waiting, mut sent) = rig.forward(&query("example.org", rtype::A));
    let mut asked = vec![sent.upstream.to_string()];
    for _ in 1..ATTEMPTS {
        let before = sent.message.clone();
        sent.failed();
        assert_eq!(waiting.response(), None);
        sent = rig.sent().pop().unwrap();
        assert_ne!(sent.message[..2], before[..2], "a new id");
        asked.push(sent.upstream.to_string());
    }
    assert_eq!(asked, ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53"]);
    sent.failed();
    assert_eq!(waiting.told(), ["SERVFAIL"]);
    assert!(rig.events.lock().unwrap().iter().any(|event| event.contains("no upstream answered")));
}

#[test]
fn a_cut_answer_is_asked_for_over_tcp() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("example.org", rtype::A));
    let upstream = sent.upstream.clone();
    let mut cut = upstream_answer(&sent.message, 0, &[]);
    cut[2] |= 2;
    sent.answered(cut);
    assert_eq!(waiting.response(), None);
    let again = rig.sent().pop().unwrap();
    assert_eq!((again.transport, &again.upstream), (Transport::Tcp, &upstream));
    again.tells(0, &[[192, 0, 2, 7]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.7"]);
}

#[test]
fn an_upstream_without_edns_is_asked_without() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("example.org", rtype::A));
    assert_eq!(sent.message[11], 1, "the OPT record");
    sent.tells(1, &[]);
    assert_eq!(waiting.response(), None);
    let again = rig.sent().pop().unwrap();
    assert_eq!(again.message[11], 0);
    again.tells(0, &[[192, 0, 2, 7]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.7"]);
}

#[test]
fn an_upstream_that_fails_is_checked_and_asked_last_until_it_answers() {
    let rig = rig();
    rig.server.check_upstreams();
    assert!(rig.sent().is_empty());
    let (mut waiting, sent) = rig.forward(&query("a.example", rtype::A));
    sent.failed();
    assert_eq!(waiting.response(), None);
    rig.sent();
    for seconds in 1..3 {
        rig.at(seconds);
        rig.server.check_upstreams();
        let checks = rig.sent();
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].upstream.to_string(), "192.0.2.1:53");
        checks.into_iter().for_each(super::fixture::Sent::failed);
        rig.work();
    }
    assert_eq!(rig.forward(&query("b.example", rtype::A)).1.upstream.to_string(), "192.0.2.2:53");
    rig.at(9);
    rig.server.check_upstreams();
    let check = rig.sent().pop().unwrap();
    check.tells(0, &[]);
    rig.work();
    rig.at(10);
    rig.server.check_upstreams();
    assert!(rig.sent().is_empty());
}

#[test]
fn questions_beyond_the_bound_are_refused_and_have_no_effect_on_the_others() {
    let rig = rig();
    let (mut first, sent) = rig.forward(&query("a.example", rtype::A));
    let _second = rig.forward(&query("b.example", rtype::A));
    assert_eq!(rig.ask("c.example", rtype::A), ["REFUSED"]);
    let mut third = rig.wait(&query("a.example", rtype::A));
    sent.tells(0, &[]);
    assert_eq!(first.told(), ["NOERROR"]);
    assert_eq!(third.told(), ["NOERROR"]);
    rig.forward(&query("c.example", rtype::A));
}

#[test]
fn clients_beyond_the_bound_are_told_at_once() {
    let rig = rig();
    let packet = query("a.example", rtype::A);
    let waiting: Vec<_> = (0..super::MAX_WAITERS).map(|_| rig.handle(&packet).0).collect();
    assert_eq!(told(&rig.handle(&packet).1), ["SERVFAIL"]);
    drop(waiting);
    assert!(matches!(rig.handle(&packet).0, Outcome::Later(_)));
}

#[test]
fn scenario_05_hosts_exceptions_and_reverse_names() {
    let rig = rig();
    assert_eq!(rig.ask("harbor.example.com", rtype::A), ["NOERROR", "A 10.0.0.20"]);
    assert_eq!(rig.ask("20.0.0.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR harbor.example.com"]);
    assert_eq!(rig.ask("www.blocked.example", rtype::A), ["SERVFAIL"]);
    assert_eq!(rig.ask("7.0.233.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR web.web.svc.cluster.local"]);
    let (_, elsewhere) = rig.forward(&query("1.2.0.192.in-addr.arpa", rtype::PTR));
    assert_eq!(elsewhere.upstream.to_string(), "192.0.2.1:53");
}

#[test]
fn an_external_name_outside_is_asked_for_and_told_with_its_alias() {
    let mut rig = rig();
    let external = podnet_model::service::ServiceKind::External { name: "www.example.com".into() };
    rig.apply(&crate::zone::tests::service("web", "far", external, vec![]));
    let packet = with_edns(query("far.web.svc.cluster.local", rtype::A), 1232, 0, false);
    let (mut waiting, sent) = rig.forward(&packet);
    assert_eq!(sent.message[12..29].to_ascii_lowercase(), b"\x03www\x07example\x03com\0");
    let answer = upstream_answer(&sent.message, 0, &[[192, 0, 2, 7]]);
    let expected = ["NOERROR", "CNAME www.example.com", "A 192.0.2.7"];
    sent.answered(answer);
    assert_eq!(waiting.told(), expected);
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
fn the_longest_zone_of_a_port_answers_and_other_names_are_refused() {
    let rig = Rig::new(
        "example.org {\n hosts /nowhere {\n 10.0.0.1 a.example.org\n }\n}\nb.example.org:5300 {\n whoami\n}\n",
    );
    assert_eq!(rig.ask("a.example.org", rtype::A), ["NOERROR", "A 10.0.0.1"]);
    assert_eq!(rig.ask("x.example.net", rtype::A), ["REFUSED"]);
    assert_eq!(rig.ask("x.example.org", rtype::A), ["SERVFAIL"]);
    let arrival = super::Arrival { port: 5300, ..ARRIVAL };
    let (_, response) = rig.handle_from(&query("b.example.org", rtype::A), &arrival);
    assert_eq!(told(&response), ["NOERROR", "+A 10.244.1.2", "+SRV 0 0 4000 "]);
}

#[test]
fn what_happens_is_counted_under_the_names_that_dashboards_know() {
    let rig = rig();
    rig.ask("web.web.svc.cluster.local", rtype::A);
    rig.ask("none.web.svc.cluster.local", rtype::A);
    let text = rig.server.metrics().render(&rig.server.gauges());
    for line in [
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"} 2",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NXDOMAIN\",plugin=\"kubernetes\"} 1",
        "coredns_dns_request_size_bytes_count{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\"} 2",
        "coredns_plugin_enabled{server=\"dns://:53\",zone=\".\",view=\"\",name=\"kubernetes\"} 1",
        "coredns_build_info{",
        "podnet_dns_synced 1",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
}

#[test]
fn the_cache_counts_what_it_is_asked_and_what_gives_way() {
    let rig = Rig::new(". {\n cache {\n success 1\n }\n forward . 192.0.2.1\n}");
    for name in ["one.example", "two.example"] {
        let (mut waiting, sent) = rig.forward(&query(name, rtype::A));
        sent.tells(0, &[[192, 0, 2, 7]]);
        assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.7"]);
    }
    assert_eq!(rig.ask("two.example", rtype::A), ["NOERROR", "A 192.0.2.7"]);
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    let labels = "server=\"dns://:53\",zones=\".\",view=\"\"";
    for line in [
        format!("coredns_cache_requests_total{{{labels}}} 3"),
        format!("coredns_cache_evictions_total{{type=\"success\",{labels}}} 1"),
        format!("coredns_cache_evictions_total{{type=\"denial\",{labels}}} 0"),
        format!("coredns_cache_hits_total{{type=\"success\",{labels}}} 1"),
        format!("coredns_cache_misses_total{{{labels}}} 2"),
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line} is not in {metrics}");
    }
}
