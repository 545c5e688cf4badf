//! `etcd`: what its documentation, and SkyDNS's, say of keys and records.

use super::{flags, rig};
use crate::{
    message::{flag, rtype},
    plugin::etcd::AT_ONCE,
    server::fixture::{Rig, query, told},
};

const MX: u16 = 15;

/// A server of a zone and of addresses, with these keys and values.
fn skydns(options: &str, keys: &[(&str, &str)]) -> Rig {
    let rig = rig(&format!("etcd skydns.local 10.in-addr.arpa {{\n{options}\n}}\nforward . 192.0.2.1"));
    for (key, value) in keys {
        rig.outside.shelf.put(key, value, None);
    }
    rig
}

#[test]
fn a_name_has_what_its_key_says_and_all_keys_below() {
    let rig = skydns(
        "",
        &[
            ("/skydns/local/skydns/east/a", r#"{"host":"10.0.0.1","ttl":60}"#),
            ("/skydns/local/skydns/east/b", r#"{"host":"10.0.0.2","ttl":"61","owner":"somebody"}"#),
            ("/skydns/local/skydns/east/c", r#"{"host":"2001:db8::1"}"#),
            ("/skydns/local/skydns/east/d", r#"{"host":"10.0.0.2"}"#),
            ("/skydns/local/skydns/eastern", r#"{"host":"10.0.0.9"}"#),
        ],
    );
    assert_eq!(rig.ask("east.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1", "A 10.0.0.2"]);
    assert_eq!(rig.ask("East.skydns.local", rtype::AAAA), ["NOERROR", "AAAA 2001:db8::1"]);
    assert_eq!(rig.ask("b.east.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.2"]);
    assert_eq!(rig.ask("a.east.skydns.local", rtype::AAAA), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("east.skydns.local", 99), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("west.skydns.local", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("eas.skydns.local", rtype::A), ["NXDOMAIN", "SOA"], "half a label is none");
    let response = rig.answer(&query("a.east.skydns.local", rtype::A));
    assert_ne!(flags(&response) & flag::AA, 0);
    assert_eq!(response[response.len() - 10..response.len() - 6], 60_u32.to_be_bytes());
    rig.forward(&query("www.example.org", rtype::A));
}

#[test]
fn a_name_that_no_key_can_spell_does_not_exist() {
    let rig = skydns("", &[("/skydns/local/skydns/a/b", r#"{"host":"10.0.0.1"}"#)]);
    assert_eq!(rig.ask("a/b.skydns.local", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("b.a.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1"]);
}

#[test]
fn aliases_are_followed_here_and_elsewhere_and_never_in_circles() {
    let rig = skydns(
        "",
        &[
            ("/skydns/local/skydns/www", r#"{"host":"web.skydns.local"}"#),
            ("/skydns/local/skydns/web", r#"{"host":"10.0.0.1"}"#),
            ("/skydns/local/skydns/out", r#"{"host":"www.example.org"}"#),
            ("/skydns/local/skydns/self", r#"{"host":"a.self.skydns.local"}"#),
            ("/skydns/local/skydns/one", r#"{"host":"two.skydns.local"}"#),
            ("/skydns/local/skydns/two", r#"{"host":"one.skydns.local"}"#),
        ],
    );
    assert_eq!(rig.ask("www.skydns.local", rtype::A), ["NOERROR", "CNAME web.skydns.local", "A 10.0.0.1"]);
    assert_eq!(rig.ask("www.skydns.local", rtype::CNAME), ["NOERROR", "CNAME web.skydns.local"]);
    assert_eq!(rig.ask("web.skydns.local", rtype::CNAME), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("skydns.local", rtype::CNAME), ["NOERROR", "SOA"], "there are names below it");
    for circle in ["self.skydns.local", "one.skydns.local"] {
        assert_eq!(rig.ask(circle, rtype::A), ["NOERROR", "SOA"], "{circle}");
    }
    let (mut waiting, sent) = rig.forward(&query("out.skydns.local", rtype::A));
    sent.tells(0, &[[192, 0, 2, 9]]);
    assert_eq!(waiting.told(), ["NOERROR", "CNAME www.example.org", "A 192.0.2.9"]);
}

#[test]
fn locations_share_a_hundred_and_bring_their_addresses() {
    let rig = skydns(
        "",
        &[
            ("/skydns/local/skydns/s/1", r#"{"host":"10.0.0.1","port":8080,"priority":20,"weight":100}"#),
            ("/skydns/local/skydns/s/2", r#"{"host":"10.0.0.2","port":8080,"priority":20}"#),
            ("/skydns/local/skydns/s/3", r#"{"host":"web.skydns.local","port":80}"#),
            ("/skydns/local/skydns/t/1/x1", r#"{"host":"10.0.0.3","port":81,"targetstrip":1}"#),
            ("/skydns/local/skydns/web", r#"{"host":"10.0.0.4"}"#),
        ],
    );
    let expected = [
        "NOERROR",
        "SRV 20 50 8080 1.s.skydns.local",
        "SRV 20 50 8080 2.s.skydns.local",
        "SRV 10 100 80 web.skydns.local",
        "+A 10.0.0.1",
        "+A 10.0.0.2",
        "+A 10.0.0.4",
    ];
    assert_eq!(rig.ask("s.skydns.local", rtype::SRV), expected);
    let stripped = ["NOERROR", "SRV 10 100 81 1.t.skydns.local", "+A 10.0.0.3"];
    assert_eq!(rig.ask("x1.1.t.skydns.local", rtype::SRV), stripped);
}

#[test]
fn mail_text_and_reverse_names_are_told() {
    let long = "x".repeat(300);
    let rig = skydns(
        "",
        &[
            ("/skydns/local/skydns/mx/a", r#"{"host":"10.0.0.1","mail":true,"priority":50}"#),
            ("/skydns/local/skydns/mx/b", r#"{"host":"10.0.0.2"}"#),
            ("/skydns/local/skydns/text", r#"{"text":"a random text"}"#),
            ("/skydns/local/skydns/long", &format!(r#"{{"text":"{long}"}}"#)),
            ("/skydns/arpa/in-addr/10/0/0/127", r#"{"host":"reverse.skydns.local."}"#),
        ],
    );
    assert_eq!(rig.ask("mx.skydns.local", MX), ["NOERROR", "MX 50 a.mx.skydns.local", "+A 10.0.0.1"]);
    assert_eq!(rig.ask("b.mx.skydns.local", MX), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("text.skydns.local", rtype::TXT), ["NOERROR", "TXT \"a random text\""]);
    assert_eq!(rig.ask("text.skydns.local", rtype::A), ["NOERROR", "SOA"]);
    let two = format!("TXT \"{}\" \"{}\"", &long[..255], &long[255..]);
    assert_eq!(rig.ask("long.skydns.local", rtype::TXT), ["NOERROR", &two]);
    assert_eq!(rig.ask("127.0.0.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR reverse.skydns.local"]);
    assert_eq!(rig.ask("126.0.0.10.in-addr.arpa", rtype::PTR), ["NXDOMAIN", "SOA"]);
}

#[test]
fn the_zone_itself_has_places_of_its_own() {
    let keys = [
        ("/skydns/local/skydns/dns/ns/n1", r#"{"host":"10.0.0.53"}"#),
        ("/skydns/local/skydns/dns/apex/a1", r#"{"host":"10.0.0.80"}"#),
        ("/skydns/local/skydns/web", r#"{"host":"10.0.0.1"}"#),
    ];
    let rig = skydns("", &keys);
    assert_eq!(rig.ask("skydns.local", rtype::A), ["NOERROR", "A 10.0.0.80"]);
    assert_eq!(rig.ask("skydns.local", rtype::NS), ["NOERROR", "NS n1.ns.dns.skydns.local", "+A 10.0.0.53"]);
    let soa = rig.ask("skydns.local", rtype::SOA);
    assert_eq!(soa[1], "SOA ns.dns.skydns.local hostmaster.skydns.local 1800000000 7200 1800 86400 30");
    assert_eq!(rig.ask("web.skydns.local", rtype::SOA), ["NOERROR", "SOA"]);
    let rest = &keys[2..];
    assert_eq!(skydns("", rest).ask("skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1"]);
    assert_eq!(skydns("no_apex_fallback", rest).ask("skydns.local", rtype::A), ["NOERROR", "SOA"]);
}

#[test]
fn wildcards_in_a_question_stand_for_every_label() {
    let rig = skydns(
        "path /other/path/",
        &[
            ("/other/path/local/skydns/east/web/1", r#"{"host":"10.0.0.1"}"#),
            ("/other/path/local/skydns/west/web/1", r#"{"host":"10.0.0.2"}"#),
            ("/other/path/local/skydns/west/db/1", r#"{"host":"10.0.0.3"}"#),
        ],
    );
    assert_eq!(rig.ask("web.*.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1", "A 10.0.0.2"]);
    assert_eq!(rig.ask("*.west.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.3", "A 10.0.0.2"]);
    assert_eq!(rig.ask("any.any.skydns.local", rtype::A).len(), 4);
    assert_eq!(rig.ask("mail.*.skydns.local", rtype::A), ["NXDOMAIN", "SOA"]);
    let target = rig.ask("1.web.east.skydns.local", rtype::SRV);
    assert_eq!(target[1], "SRV 10 100 0 1.web.east.skydns.local", "the path is no part of the name");
}

#[test]
fn a_group_on_the_shortest_keys_leaves_others_out() {
    let group = |name: &str, host: &str| format!(r#"{{"host":"{host}","group":"{name}"}}"#);
    let (one, two, below) = (group("g1", "10.0.0.1"), group("g2", "10.0.0.2"), group("g2", "10.0.0.3"));
    let rig = skydns(
        "",
        &[
            ("/skydns/local/skydns/a/1", &one),
            ("/skydns/local/skydns/a/sub/1", &below),
            ("/skydns/local/skydns/a/sub/2", r#"{"host":"10.0.0.4"}"#),
            ("/skydns/local/skydns/b/1", &one),
            ("/skydns/local/skydns/b/2", &two),
        ],
    );
    assert_eq!(rig.ask("a.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1", "A 10.0.0.4"]);
    assert_eq!(rig.ask("b.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1", "A 10.0.0.2"], "they disagree");
    assert_eq!(rig.ask("sub.a.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.3", "A 10.0.0.4"]);
}

#[test]
fn what_does_not_exist_falls_through_and_a_store_that_is_away_is_a_failure() {
    let rig = skydns("fallthrough", &[]);
    assert_eq!(rig.ask("a.skydns.local", rtype::A), ["SERVFAIL"], "nobody answers for what may be there");
    rig.outside.shelf.put("/skydns/local/skydns/a", "no record", None);
    rig.outside.shelf.put("/skydns/local/skydns/b", r#"{"host":"10.0.0.1","port":70000}"#, None);
    assert_eq!(rig.ask("a.skydns.local", rtype::A), ["SERVFAIL"]);
    assert_eq!(rig.ask("b.skydns.local", rtype::A), ["SERVFAIL"]);
    let (mut waiting, sent) = rig.forward(&query("c.skydns.local", rtype::A));
    sent.tells(0, &[[192, 0, 2, 9]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.9"]);
}

#[test]
fn a_record_lives_no_longer_than_its_lease_within_the_bounds() {
    let rig = skydns("min-lease-ttl 40\nmax-lease-ttl 2m", &[("/skydns/local/skydns/none", r#"{"host":"10.0.0.1"}"#)]);
    let ttl = |name: &str| {
        let response = rig.answer(&query(&format!("{name}.skydns.local"), rtype::A));
        assert_eq!(told(&response).len(), 2);
        u32::from_be_bytes(response[response.len() - 10..response.len() - 6].try_into().unwrap())
    };
    let leased = |name: &str, value: &str, lease: u32| {
        rig.outside.shelf.put(&format!("/skydns/local/skydns/{name}"), value, Some(lease));
    };
    leased("ending", r#"{"host":"10.0.0.1"}"#, 5);
    leased("some", r#"{"host":"10.0.0.1","ttl":300}"#, 90);
    leased("own", r#"{"host":"10.0.0.1","ttl":60}"#, 90);
    leased("long", r#"{"host":"10.0.0.1"}"#, 86_400);
    assert_eq!([ttl("none"), ttl("ending"), ttl("some"), ttl("own"), ttl("long")], [300, 40, 90, 60, 120]);
}

#[test]
fn aliases_that_branch_are_not_followed_without_end() {
    let rig = skydns("", &[]);
    for level in 0..7 {
        for branch in 0..10 {
            let value = format!(r#"{{"host":"{}.skydns.local"}}"#, level + 1);
            rig.outside.shelf.put(&format!("/skydns/local/skydns/{level}/{branch}"), &value, None);
        }
    }
    assert_eq!(rig.ask("0.skydns.local", rtype::A), ["SERVFAIL"]);
}

#[test]
fn what_etcd_told_is_kept_by_the_cache() {
    let rig = rig("cache\netcd skydns.local");
    rig.outside.shelf.put("/skydns/local/skydns/a", r#"{"host":"10.0.0.1","ttl":60}"#, None);
    assert_eq!(rig.ask("a.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1"]);
    assert_eq!(rig.ask("b.skydns.local", rtype::A), ["NXDOMAIN", "SOA"]);
    for name in ["a", "b"] {
        rig.outside.shelf.put(&format!("/skydns/local/skydns/{name}"), r#"{"host":"10.0.0.2"}"#, None);
    }
    assert_eq!(rig.ask("a.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.1"]);
    assert_eq!(rig.ask("b.skydns.local", rtype::A), ["NXDOMAIN", "SOA"]);
    rig.at(61);
    assert_eq!(rig.ask("a.skydns.local", rtype::A), ["NOERROR", "A 10.0.0.2"]);
}

#[test]
fn what_the_store_is_being_asked_it_is_asked_once_and_too_much_fails_at_once() {
    let rig = skydns("", &[("/skydns/local/skydns/a/1", r#"{"host":"10.0.0.1"}"#)]);
    let shelf = &rig.outside.shelf;
    shelf.pauses();
    let mut waiting: Vec<_> = (0..5).map(|_| rig.wait(&query("a.skydns.local", rtype::A))).collect();
    assert_eq!(shelf.goes_on(), 1);
    for one in &mut waiting {
        assert_eq!(one.told(), ["NOERROR", "A 10.0.0.1"]);
    }
    shelf.pauses();
    let wait = |number: usize| rig.wait(&query(&format!("n{number}.skydns.local"), rtype::A));
    let mut waiting: Vec<_> = (0..AT_ONCE).map(wait).collect();
    assert_eq!(rig.ask("more.skydns.local", rtype::A), ["SERVFAIL"]);
    assert_eq!(shelf.goes_on(), AT_ONCE);
    for one in &mut waiting {
        assert_eq!(one.told(), ["NXDOMAIN", "SOA"]);
    }
    assert_eq!(rig.ask("more.skydns.local", rtype::A), ["NXDOMAIN", "SOA"]);
}
