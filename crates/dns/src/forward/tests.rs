//! What `forward` does, over a whole chain: whom it asks, what it believes, and when it asks another one.

mod aliases;
mod many;

use std::time::Duration;

use super::manners::Pace;
use crate::{
    message::{HEADER, rtype},
    name::QueryName,
    server::{
        Transport,
        fixture::{Rig, Sent, query, upstream_answer},
    },
};

const ADDR: [u8; 4] = [192, 0, 2, 7];
const TOLD: [&str; 2] = ["NOERROR", "A 192.0.2.7"];

fn rig(options: &str) -> Rig {
    Rig::new(&format!(". {{\n forward . 192.0.2.1 192.0.2.2 {{\n policy sequential\n{options}\n}}\n}}\n"))
}

fn one(rig: &Rig) -> Sent {
    let mut sent = rig.sent();
    assert_eq!(sent.len(), 1);
    sent.remove(0)
}

/// Answers like a server that does all that is asked of it.
fn answer(sent: Sent, rcode: u16, addrs: &[[u8; 4]]) {
    let message = upstream_answer(&sent.message, rcode, addrs);
    sent.answered(message);
}

/// The question's name as it was sent.
fn name(sent: &Sent) -> Vec<u8> {
    let (_, end) = QueryName::parse(&sent.message, HEADER).unwrap();
    sent.message[HEADER..end].to_vec()
}

/// The cookie of a query.
fn cookie(sent: &Sent) -> Option<Vec<u8>> {
    let opt = HEADER + name(sent).len() + 4;
    let options = sent.message.get(opt + 11..)?;
    (options.get(..2)? == [0, 10]).then(|| options[4..].to_vec())
}

/// An answer with a cookie; `rcode` may be an extended one.
fn with_cookie(sent: &Sent, rcode: u16, cookie: &[u8]) -> Vec<u8> {
    let mut message = upstream_answer(&sent.message, rcode & 15, if rcode == 0 { &[ADDR] } else { &[] });
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 4, 208, (rcode >> 4) as u8, 0, 0, 0, 0, 4 + cookie.len() as u8]);
    message.extend_from_slice(&[0, 10, 0, cookie.len() as u8]);
    message.extend_from_slice(cookie);
    message
}

#[test]
fn failover_asks_the_next_upstream_and_gives_out_the_last_answer_when_none_is_left() {
    let rig = rig("failover SERVFAIL REFUSED");
    let (mut waiting, sent) = rig.forward(&query("a.example", rtype::A));
    answer(sent, 2, &[]);
    assert_eq!(waiting.response(), None);
    let second = one(&rig);
    assert_eq!(second.upstream.to_string(), "192.0.2.2:53");
    answer(second, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
    let (mut waiting, sent) = rig.forward(&query("b.example", rtype::A));
    answer(sent, 2, &[]);
    assert_eq!(waiting.response(), None);
    answer(one(&rig), 5, &[]);
    assert_eq!(waiting.told(), ["REFUSED"]);
    assert!(rig.sent().is_empty());
    // Who said so is not down.
    assert_eq!(rig.forward(&query("c.example", rtype::A)).1.upstream.to_string(), "192.0.2.1:53");
}

#[test]
fn without_failover_a_failure_is_an_answer() {
    let rig = rig("");
    let (mut waiting, sent) = rig.forward(&query("a.example", rtype::A));
    answer(sent, 2, &[]);
    assert_eq!(waiting.told(), ["SERVFAIL"]);
}

#[test]
fn the_next_forward_is_asked_with_the_codes_of_next_and_without_data() {
    let rig = Rig::new(
        ". {\n forward . 192.0.2.1 {\n next NXDOMAIN\n next_on_nodata\n }\n forward example.org 192.0.2.2 {\n next NXDOMAIN\n }\n}\n",
    );
    for (rcode, case) in [(3, "a.example.org"), (0, "b.example.org")] {
        let (mut waiting, sent) = rig.forward(&query(case, rtype::A));
        answer(sent, rcode, &[]);
        assert_eq!(waiting.response(), None);
        let second = one(&rig);
        assert_eq!(second.upstream.to_string(), "192.0.2.2:53");
        answer(second, 0, &[ADDR]);
        assert_eq!(waiting.told(), TOLD);
    }
    // What the last one says stands, as does what is known where those behind ask for other names.
    let (mut waiting, sent) = rig.forward(&query("c.example.org", rtype::A));
    answer(sent, 3, &[]);
    assert_eq!(waiting.response(), None);
    answer(one(&rig), 3, &[]);
    assert_eq!(waiting.told(), ["NXDOMAIN"]);
    let (mut waiting, sent) = rig.forward(&query("a.example.net", rtype::A));
    answer(sent, 3, &[]);
    assert_eq!(waiting.told(), ["NXDOMAIN"]);
    let (mut waiting, sent) = rig.forward(&query("d.example.org", rtype::A));
    answer(sent, 2, &[]);
    assert_eq!(waiting.told(), ["SERVFAIL"]);
}

#[test]
fn an_alias_to_nothing_is_no_data_and_one_to_an_address_is() {
    let rig = Rig::new(". {\n forward . 192.0.2.1 {\n next_on_nodata\n }\n forward . 192.0.2.2\n}\n");
    let alias = |sent: &Sent, addrs: &[[u8; 4]]| {
        let mut message = upstream_answer(&sent.message, 0, addrs);
        message[7] += 1;
        message.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 14]);
        message
    };
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    let nothing = alias(&sent, &[]);
    sent.answered(nothing);
    assert_eq!(waiting.response(), None);
    assert_eq!(one(&rig).upstream.to_string(), "192.0.2.2:53");
    let (mut waiting, sent) = rig.forward(&query("b.example.org", rtype::A));
    let something = alias(&sent, &[ADDR]);
    sent.answered(something);
    assert_eq!(waiting.told()[..2], TOLD);
}

/// Has both upstreams fail until they count as down.
fn break_all(rig: &Rig) {
    let (mut waiting, mut sent) = rig.forward(&query("broken.example", rtype::A));
    loop {
        sent.failed();
        if waiting.response().is_some() {
            break;
        }
        sent = one(rig);
    }
    for second in 1..3 {
        rig.at(second);
        rig.server.check_upstreams();
        let checks = rig.sent();
        assert_eq!(checks.len(), 2);
        checks.into_iter().for_each(Sent::failed);
        rig.work();
    }
}

#[test]
fn where_all_are_down_failfast_says_so_at_once_and_else_they_are_asked_all_the_same() {
    let rig_fast = rig("failfast_all_unhealthy_upstreams");
    break_all(&rig_fast);
    assert_eq!(rig_fast.ask("a.example", rtype::A), ["SERVFAIL"]);
    assert!(rig_fast.sent().is_empty());
    let rig = rig("");
    break_all(&rig);
    let (mut waiting, sent) = rig.forward(&query("a.example", rtype::A));
    answer(sent, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
    let text = rig.server.metrics().render(&rig.server.gauges());
    for line in [
        "coredns_forward_healthcheck_broken_total 1",
        "coredns_proxy_healthcheck_failures_total{proxy_name=\"forward\",to=\"192.0.2.2:53\"} 2",
        "coredns_forward_requests_total{to=\"192.0.2.1:53\"} 3",
        "coredns_forward_responses_total{to=\"192.0.2.1:53\",rcode=\"NOERROR\"} 1",
        "coredns_proxy_request_duration_seconds_count{proxy_name=\"forward\",to=\"192.0.2.1:53\",rcode=\"NOERROR\"} 1",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
}

#[test]
fn max_connect_attempts_bounds_how_many_are_asked() {
    let rig = rig("max_connect_attempts 1");
    let (mut waiting, sent) = rig.forward(&query("a.example", rtype::A));
    rig.wake();
    assert_eq!(waiting.response(), None);
    assert!(rig.sent().is_empty());
    sent.failed();
    assert_eq!(waiting.told(), ["SERVFAIL"]);
}

#[test]
fn a_silent_upstream_is_passed_by_and_the_first_answer_counts() {
    let rig = rig("");
    let (mut waiting, first) = rig.forward(&query("a.example", rtype::A));
    rig.at(1);
    rig.wake();
    assert_eq!(waiting.response(), None);
    let second = one(&rig);
    assert_eq!(second.upstream.to_string(), "192.0.2.2:53");
    answer(second, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
    drop(first);
    // It is looked after from now on.
    rig.server.check_upstreams();
    assert_eq!(one(&rig).upstream.to_string(), "192.0.2.1:53");
    // The one that was asked first may be the one that answers.
    let (mut waiting, first) = rig.forward(&query("b.example", rtype::A));
    rig.wake();
    assert_eq!(waiting.response(), None);
    let _second = one(&rig);
    answer(first, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
}

#[test]
fn how_long_an_upstream_may_be_silent_is_learned_from_its_answers() {
    let mut pace = Pace::default();
    let unknown = pace.pause();
    assert!(unknown < Duration::from_secs(1));
    (0..50).for_each(|_| pace.heard(Duration::from_millis(5)));
    assert_eq!(pace.pause(), Duration::from_millis(100));
    (0..50).for_each(|_| pace.heard(Duration::from_millis(600)));
    assert!(pace.pause() >= Duration::from_millis(600) && pace.pause() < Duration::from_millis(800));
    (0..50).for_each(|_| pace.heard(Duration::from_secs(9)));
    assert_eq!(pace.pause(), super::ATTEMPT_TIMEOUT);
}

#[test]
fn questions_have_letters_of_both_cases_and_an_answer_that_changed_them_is_asked_for_over_tcp() {
    let rig = rig("");
    let (mut waiting, sent) = rig.forward(&query("forged.example.org", rtype::A));
    let spelling = name(&sent);
    assert!(spelling.iter().any(u8::is_ascii_uppercase) && spelling.iter().any(u8::is_ascii_lowercase));
    let mut forged = upstream_answer(&sent.message, 0, &[[192, 0, 2, 66]]);
    forged[HEADER..HEADER + spelling.len()].make_ascii_lowercase();
    sent.answered(forged);
    assert_eq!(waiting.response(), None);
    let again = one(&rig);
    assert_eq!((again.transport, again.upstream.to_string().as_str()), (Transport::Tcp, "192.0.2.1:53"));
    answer(again, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
    // The upstream keeps case: that was somebody else, and the next one who tries fares no better.
    assert!(name(&rig.forward(&query("next.example.org", rtype::A)).1).iter().any(u8::is_ascii_uppercase));
}

/// An upstream that answers in lower case, whatever it is asked.
fn in_lower_case(sent: Sent) {
    let mut message = upstream_answer(&sent.message, 0, &[ADDR]);
    message[HEADER..HEADER + name(&sent).len()].make_ascii_lowercase();
    sent.answered(message);
}

#[test]
fn a_server_that_does_not_keep_case_is_asked_in_lower_case_for_an_hour() {
    let rig = rig("");
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    in_lower_case(sent);
    assert_eq!(waiting.response(), None);
    in_lower_case(one(&rig));
    assert_eq!(waiting.told(), TOLD);
    let (mut waiting, sent) = rig.forward(&query("b.example.org", rtype::A));
    assert!(!name(&sent).iter().any(u8::is_ascii_uppercase));
    answer(sent, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
    rig.at(3601);
    assert!(name(&rig.forward(&query("long.example.org", rtype::A)).1).iter().any(u8::is_ascii_uppercase));
}

#[test]
fn one_that_takes_no_connections_either_is_answered_for_nevertheless() {
    let rig = rig("");
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    in_lower_case(sent);
    assert_eq!(waiting.response(), None);
    one(&rig).failed();
    assert_eq!(waiting.response(), None);
    let last = one(&rig);
    assert_eq!((last.transport, last.upstream.to_string().as_str()), (Transport::Udp, "192.0.2.1:53"));
    in_lower_case(last);
    assert_eq!(waiting.told(), TOLD);
}

const SERVER: [u8; 8] = *b"theirown";

/// Has the first upstream tell its cookie; what is left is ours.
fn acquaint(rig: &Rig) -> Vec<u8> {
    let (mut waiting, sent) = rig.forward(&query("first.example", rtype::A));
    let ours = cookie(&sent).unwrap();
    assert_eq!(ours.len(), 8);
    let message = with_cookie(&sent, 0, &[ours.as_slice(), &SERVER].concat());
    sent.answered(message);
    assert_eq!(waiting.told(), TOLD);
    ours
}

#[test]
fn an_upstreams_cookie_goes_back_to_it_and_an_answer_without_is_asked_for_over_tcp() {
    let rig = rig("");
    let ours = acquaint(&rig);
    let both = [ours.as_slice(), &SERVER].concat();
    let forged: [fn(&Sent) -> Vec<u8>; 2] = [
        |sent| upstream_answer(&sent.message, 0, &[[192, 0, 2, 66]]),
        |sent| with_cookie(sent, 0, b"somebodyelse's one"),
    ];
    for forge in forged {
        let (mut waiting, sent) = rig.forward(&query("forged.example", rtype::A));
        assert_eq!(cookie(&sent).unwrap(), both);
        let message = forge(&sent);
        sent.answered(message);
        assert_eq!(waiting.response(), None);
        let again = one(&rig);
        assert_eq!(again.transport, Transport::Tcp);
        let message = with_cookie(&again, 0, &both);
        again.answered(message);
        assert_eq!(waiting.told(), TOLD);
    }
    // The other upstream gets another one.
    let (waiting, sent) = rig.forward(&query("other.example", rtype::A));
    sent.failed();
    let mut waiting = waiting;
    assert_eq!(waiting.response(), None);
    let other = one(&rig);
    assert_eq!(other.upstream.to_string(), "192.0.2.2:53");
    assert!(cookie(&other).is_some_and(|other| other.len() == 8 && other != ours));
}

#[test]
fn a_bad_cookie_is_replaced_over_tcp_and_a_server_that_bears_none_gets_none() {
    let rig = rig("");
    let ours = acquaint(&rig);
    let newer = [ours.as_slice(), b"newer one"].concat();
    let (mut waiting, sent) = rig.forward(&query("bad.example", rtype::A));
    let message = with_cookie(&sent, 23, &newer);
    sent.answered(message);
    assert_eq!(waiting.response(), None);
    let again = one(&rig);
    assert_eq!((again.transport, cookie(&again)), (Transport::Tcp, Some(newer.clone())));
    let message = with_cookie(&again, 0, &newer);
    again.answered(message);
    assert_eq!(waiting.told(), TOLD);
    let (mut waiting, sent) = rig.forward(&query("broken.example", rtype::A));
    // An OPT record without a cookie, over the connection that tells.
    let broken = |sent: &Sent| {
        let mut message = upstream_answer(&sent.message, 1, &[]);
        message[11] = 1;
        message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        message
    };
    let message = broken(&sent);
    sent.answered(message);
    assert_eq!(waiting.response(), None);
    let bare = one(&rig);
    assert_eq!(cookie(&bare), None);
    answer(bare, 0, &[ADDR]);
    assert_eq!(waiting.told(), TOLD);
    assert_eq!(cookie(&rig.forward(&query("later.example", rtype::A)).1), None);
}

#[test]
fn a_silent_upstream_is_asked_again_without_what_it_may_not_bear() {
    let rig = Rig::new(". {\n forward . 192.0.2.1\n}\n");
    let (mut waiting, sent) = rig.forward(&query("a.example", rtype::A));
    assert!(cookie(&sent).is_some());
    sent.failed();
    assert_eq!(waiting.response(), None);
    assert_eq!(cookie(&one(&rig)), None);
}

#[test]
fn an_upstream_speaks_of_its_own_names_alone() {
    let rig = Rig::new(". {\n forward example.org 192.0.2.1\n}\n");
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    let mut message = upstream_answer(&sent.message, 0, &[ADDR]);
    message[9] = 2;
    message[11] = 2;
    let ns = |owner: &[u8]| [owner, &[0, 2, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]].concat();
    let addr = |owner: &[u8], last: u8| [owner, &[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]].concat();
    let bank = b"\x04bank\x07example\x00";
    // The bank's is none of its business; example.org (at 14 in the question) is.
    for record in [ns(bank), ns(&[0xc0, 14]), addr(bank, 66), addr(&[0xc0, 12], 8)] {
        message.extend_from_slice(&record);
    }
    sent.answered(message);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.7", "NS", "+A 192.0.2.8"]);
}

#[test]
fn over_tls_each_upstream_is_asked_by_its_name_over_a_connection_without_cookies_and_case() {
    let rig = Rig::new(
        ". {\n forward . tls://192.0.2.1 tls://192.0.2.2%second.example.org:8853 {\n policy sequential\n tls /ca.pem\n \
         expire 3s\n max_idle_conns 2\n }\n}\n",
    );
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    assert_eq!((sent.transport, sent.upstream.to_string().as_str()), (Transport::Tcp, "192.0.2.1:853"));
    assert_eq!((sent.keep.idle, sent.keep.most), (Duration::from_secs(3), Some(2)));
    let secure = sent.secure.clone().unwrap();
    assert_eq!((secure.files.authorities.as_deref(), &secure.name), (Some("/ca.pem"), &None));
    assert!(cookie(&sent).is_none() && !name(&sent).iter().any(u8::is_ascii_uppercase));
    sent.failed();
    assert_eq!(waiting.response(), None);
    let second = one(&rig);
    assert_eq!(second.upstream.to_string(), "192.0.2.2:8853");
    assert_eq!(second.secure.as_ref().unwrap().name, Some(crate::server::fixture::name("second.example.org")));
    assert!(!second.fresh);
    second.failed();
    assert_eq!(waiting.response(), None);
    assert!(one(&rig).fresh, "the connection before may be dead");
}
