//! What the documentation of the small plugins says beside what their own tests show, sentence by sentence.

use std::net::SocketAddr;

use super::rig;
use crate::{
    Config, Environment, Outcome,
    message::{rtype, walk},
    server::{
        Arrival,
        fixture::{ARRIVAL, Rig, query, told},
    },
};

fn from(rig: &Rig, addr: [u8; 4], qtype: u16) -> Option<String> {
    let arrival = Arrival { from: SocketAddr::from((addr, 4000)), ..ARRIVAL };
    match rig.handle_from(&query("www.example.org", qtype), &arrival) {
        (Outcome::Answer, response) => told(&response).into_iter().next(),
        _ => None,
    }
}

/// The time to live of the first record.
fn ttl(response: &[u8], name: &str) -> u32 {
    walk(response, query(name, 1).len()).next().unwrap().unwrap().ttl
}

#[test]
fn acl_takes_the_first_rule_that_fits_and_lets_pass_what_none_fits() {
    let rig = rig("acl {\n allow net 192.0.2.0/25\n block net 192.0.2.0/24\n filter type * net 10.0.0.0/8\n}\nwhoami");
    assert_eq!(from(&rig, [192, 0, 2, 1], rtype::A).unwrap(), "NOERROR");
    assert_eq!(from(&rig, [192, 0, 2, 200], rtype::TXT).unwrap(), "REFUSED");
    assert_eq!(from(&rig, [198, 51, 100, 1], rtype::A).unwrap(), "NOERROR");
    assert_eq!(from(&rig, [10, 1, 2, 3], rtype::SRV).unwrap(), "NOERROR");
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    for (what, count) in [("allowed", 2), ("blocked", 1), ("filtered", 1), ("dropped", 0)] {
        let zone = if what == "allowed" { "" } else { "zone=\".\"," };
        let line = format!("coredns_acl_{what}_requests_total{{server=\"dns://:53\",{zone}view=\"\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn acl_may_stand_several_times_and_who_is_not_allowed_gets_no_recursion() {
    let rig = rig("acl {\n block type ANY\n}\nacl {\n allow net 10.244.0.0/16\n block net *\n}\nforward . 192.0.2.53");
    assert_eq!(from(&rig, [10, 244, 1, 1], rtype::ANY).unwrap(), "REFUSED");
    assert_eq!(from(&rig, [192, 0, 2, 1], rtype::A).unwrap(), "REFUSED");
    assert_eq!(from(&rig, [10, 244, 1, 1], rtype::A), None, "it is asked for");
    assert!(rig.sent().is_empty(), "nothing goes upstream before a client's turn");
}

#[test]
fn erratic_drops_every_second_and_knows_addresses_alone() {
    use futures::FutureExt as _;
    let asked = |rig: &Rig, qtype| {
        let (Outcome::Later(later), _) = rig.handle(&query("www.example.org", qtype)) else { panic!("at once") };
        std::sync::Arc::clone(&rig.server).finish(later).now_or_never().flatten()
    };
    let drops = rig("erratic");
    let answered: Vec<bool> = (0..4).map(|_| asked(&drops, rtype::A).is_some()).collect();
    assert_eq!(answered.iter().filter(|answered| **answered).count(), 2, "{answered:?}");
    let cuts = rig("erratic {\n truncate\n}");
    let cut: Vec<bool> = (0..4).map(|_| asked(&cuts, rtype::A).unwrap()[2] & 2 != 0).collect();
    assert_eq!(cut.iter().filter(|cut| **cut).count(), 2, "{cut:?}");
    let calm = rig("erratic {\n drop 0\n}");
    assert_eq!(told(&asked(&calm, rtype::A).unwrap()), ["NOERROR", "A 192.0.2.53"]);
    assert_eq!(told(&asked(&calm, rtype::AAAA).unwrap()), ["NOERROR", "AAAA 2001:db8::53"]);
    assert_eq!(told(&asked(&calm, rtype::TXT).unwrap()), ["SERVFAIL"]);
    let late = rig("erratic {\n delay 1 50ms\n}");
    let mut waiting = late.wait(&query("www.example.org", rtype::A));
    late.wake();
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.53"]);
}

#[test]
fn whoever_erratic_makes_wait_for_a_zone_takes_nobodys_place_meanwhile() {
    let over_tcp = Arrival { transport: crate::Transport::Tcp, ..ARRIVAL };
    let rig = rig("erratic {\n drop 0\n delay 1 1m\n}");
    let mut late: Vec<_> = (0..40)
        .map(|_| match rig.handle_from(&query("example.org", rtype::AXFR), &over_tcp).0 {
            Outcome::Transfer(transfer) => transfer,
            _ => panic!("no transfer"),
        })
        .collect();
    assert_eq!(late.iter_mut().map(|transfer| transfer.begin()).filter(|began| *began).count(), 32);
}

#[test]
fn erratic_gives_a_whole_zone_away_without_its_end_late_or_not_at_all() {
    let records = |rig: &Rig, wait: u64| {
        let over_tcp = Arrival { transport: crate::Transport::Tcp, ..ARRIVAL };
        let (Outcome::Transfer(transfer), _) = rig.handle_from(&query("example.org", rtype::AXFR), &over_tcp) else {
            return Vec::new();
        };
        assert_eq!(transfer.after(), std::time::Duration::from_millis(wait));
        let mut types = Vec::new();
        transfer.send(|message| {
            types.extend(told(&message)[1..].iter().map(|record| record.split(' ').next().unwrap().to_owned()));
            true
        });
        types
    };
    let rig = rig("erratic {\n drop 4\n truncate 2\n delay 3 50ms\n}");
    let whole = ["SOA", "NS", "NS", "AAAA", "AAAA", "SOA"];
    assert_eq!(records(&rig, 0), whole);
    assert_eq!(records(&rig, 0), whole[..5], "the second one is cut");
    assert_eq!(records(&rig, 50), whole, "the third one comes late");
    assert!(records(&rig, 0).is_empty(), "the fourth one is dropped");
}

#[test]
fn hosts_serves_its_zones_with_its_time_to_live_and_the_reverse() {
    let lines = "192.0.2.1 a.example.org a\n192.0.2.2 *.example.org\n2001:db8::1 a.example.org\n";
    let rig =
        Rig::with_file(". {\n hosts /hosts example.org {\n ttl 77\n 192.0.2.9 inline.example.org\n }\n}", Some(lines));
    assert_eq!(rig.ask("a.example.org", rtype::A), ["NOERROR", "A 192.0.2.1"]);
    assert_eq!(rig.ask("A.EXAMPLE.org", rtype::AAAA), ["NOERROR", "AAAA 2001:db8::1"]);
    assert_eq!(rig.ask("inline.example.org", rtype::A), ["NOERROR", "A 192.0.2.9"]);
    assert_eq!(rig.ask("apps.example.org", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    assert_eq!(rig.ask("deep.apps.example.org", rtype::A), ["SERVFAIL"], "a wildcard is one label");
    assert_eq!(rig.ask("a", rtype::A), ["SERVFAIL"], "another zone");
    assert_eq!(rig.ask("a.example.org", rtype::TXT), ["NOERROR"]);
    assert_eq!(rig.ask("1.2.0.192.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR a", "PTR a.example.org"]);
    assert_eq!(rig.ask("2.2.0.192.in-addr.arpa", rtype::PTR), ["SERVFAIL"], "wildcards have no pointers");
    assert_eq!(ttl(&rig.answer(&query("a.example.org", rtype::A)), "a.example.org"), 77);
    let without = Rig::with_file(". {\n hosts /hosts {\n no_reverse\n }\n}", Some(lines));
    assert_eq!(without.ask("1.2.0.192.in-addr.arpa", rtype::PTR), ["SERVFAIL"]);
}

#[test]
fn hosts_lets_fall_through_what_it_does_not_know_and_types_where_told() {
    let with = |options: &str| rig(&format!("hosts /nowhere {{\n 192.0.2.1 a.example.org\n {options}\n}}\nwhoami"));
    assert_eq!(with("").ask("b.example.org", rtype::A), ["SERVFAIL"]);
    assert_eq!(with("fallthrough").ask("b.example.org", rtype::A).len(), 3);
    assert_eq!(with("fallthrough example.net").ask("b.example.org", rtype::A), ["SERVFAIL"]);
    assert_eq!(with("fallthrough").ask("a.example.org", rtype::TXT), ["NOERROR"]);
    let further = with("fallthrough\n fallthrough_unsupported");
    assert_eq!(further.ask("a.example.org", rtype::TXT).len(), 3);
    assert_eq!(further.ask("a.example.org", rtype::AAAA), ["NOERROR"], "a type that it knows");
    let alone = ". {\n hosts {\n fallthrough_unsupported\n }\n}";
    let refused = Config::load("Corefile", alone, &Environment::EMPTY).unwrap_err().to_string();
    assert!(refused.contains("fallthrough"), "{refused}");
}

#[test]
fn dns64_translates_for_ipv4_and_beside_ipv6_where_told() {
    let rig = rig("dns64 2001:db8:64::/96 {\n translate_all\n allow_ipv4\n}\nforward . 192.0.2.53");
    let (mut waiting, v6) = rig.forward(&query("www.example.org", rtype::AAAA));
    v6.tells(0, &[]);
    assert_eq!(waiting.response(), None);
    rig.sent().pop().unwrap().tells(0, &[[192, 0, 2, 33]]);
    assert_eq!(waiting.told(), ["NOERROR", "AAAA 2001:db8:64::c000:221"]);
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    assert!(metrics.contains("coredns_dns64_requests_translated_total{server=\"dns://:53\"} 1\n"), "{metrics}");
    // A name that is not there has no IPv4 address either (RFC 6147 §5.1.2).
    let (mut waiting, none) = rig.forward(&query("gone.example.org", rtype::AAAA));
    none.tells(3, &[]);
    assert_eq!(waiting.told(), ["NXDOMAIN"]);
}

/// What becomes of a name's second question after an upstream's answer: the seconds that the first record is told to live.
fn second(options: &str, code: u16, name: &str) -> Option<u32> {
    let rig = rig(&format!("{options}\nforward . 192.0.2.53"));
    let packet = query(name, rtype::A);
    let (mut waiting, sent) = rig.forward(&packet);
    let addrs: &[[u8; 4]] = if code == 0 { &[[192, 0, 2, 1]] } else { &[] };
    sent.tells(code, addrs);
    waiting.response().unwrap();
    rig.at(1);
    match rig.handle(&packet) {
        (Outcome::Answer, response) => {
            Some(walk(&response, packet.len()).next().map_or(0, |record| record.unwrap().ttl))
        }
        _ => None,
    }
}

#[test]
fn cache_keeps_for_as_long_as_the_corefile_lets_it_and_what_it_lets_it() {
    for (options, code, expected) in [
        ("cache", 0, Some(59)),
        ("cache 10", 0, Some(9)),
        ("cache example.org", 0, Some(59)),
        ("cache example.net", 0, None),
        ("cache {\n disable success\n}", 0, None),
        ("cache {\n disable denial\n}", 0, Some(59)),
        ("cache {\n disable success example.net\n}", 0, Some(59)),
        ("cache {\n keepttl\n}", 0, Some(60)),
        ("cache {\n success 100 20\n}", 0, Some(19)),
        ("cache {\n success 100 3600 120\n}", 0, Some(59)),
        ("cache", 2, Some(0)),
        ("cache {\n servfail 0\n}", 2, None),
        ("cache", 5, None),
    ] {
        assert_eq!(second(options, code, "www.example.org"), expected, "{options} {code}");
    }
}

#[test]
fn minimal_leaves_denials_whole() {
    let rig = rig("minimal\nkubernetes cluster.local");
    assert_eq!(rig.ask("nobody.web.svc.cluster.local", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("web.web.svc.cluster.local", rtype::TXT), ["NOERROR", "SOA"]);
}

#[test]
fn whoami_tells_the_client_and_how_it_came() {
    let rig = rig("whoami");
    let arrival = Arrival { from: "[2001:db8::7]:4321".parse().unwrap(), transport: crate::Transport::Tcp, ..ARRIVAL };
    let response = rig.handle_from(&query("www.example.org", rtype::A), &arrival).1;
    let lines = told(&response);
    assert!(lines.contains(&"+AAAA 2001:db8::7".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("+SRV 0 0 4321")), "{lines:?}");
    assert!(response.windows(5).any(|bytes| bytes == b"\x04_tcp"), "{response:02x?}");
}
