//! `searchpath`, beside resolvers that walk along their search path by themselves: each name has to come out alike.

mod walking;

use walking::{Resolver, SEARCH};

use crate::{
    message::rtype,
    server::{
        Outcome,
        fixture::{ARRIVAL, query, told},
    },
};

const NAMES: &[&str] = &[
    "db",
    "db.web",
    "db.web.svc",
    "db.web.svc.cluster.local",
    "api",
    "api.shop",
    "api.shop.svc",
    "six",
    "twin",
    "mixed",
    "empty",
    "www.example.org",
    "WWW.Example.ORG",
    "printer",
    "top",
    "a.b.c.d.e.example.net",
    "f.g.h.i.j.k",
    "ill",
    "broken",
    "sad.example.org",
    "late.example.org",
    "nowhere",
    "of.six.labels",
    "of.twin.labels",
    "of.mixed.labels",
    "of.empty.labels",
    "of.ill.labels",
    "of.broken.labels",
    "sad.www.example.org",
    "late.www.example.org",
    "nowhere.at.all",
    "db-0.peers",
    "api.dev",
    "example.com",
    "two.mixed",
    "two.empty",
    "two.ill",
    "nowhere.com",
];

/// Names in full that are not there, whose beginnings are elsewhere: of the namespace `web`, where `db`, `peers` and `shop` are.
const IN_FULL: &[&str] = &[
    "printer.web.svc.cluster.local",
    "api.web.svc.cluster.local",
    "top.web.svc.cluster.local",
    "db-0.peers.web.svc.cluster.local",
    "api.shop.web.svc.cluster.local",
    "_metrics._tcp.api.web.svc.cluster.local",
    "east-1._zone.api.web.svc.cluster.local",
    "nowhere.web.svc.cluster.local",
];

/// Asks for all of the names, as both C libraries do, twice each: whoever searched once may be known for it.
fn come_out_alike(names: &[&str], mut with: impl FnMut() -> Resolver) {
    for types in [&[rtype::A][..], &[rtype::AAAA], &[rtype::A, rtype::AAAA]] {
        for ndots in [1, 2, 5] {
            // What was kept from an earlier question changes nothing: all names go through the same two resolvers.
            let (mut with, mut without) = (with(), Resolver::new(""));
            for (name, time) in names.iter().flat_map(|name| [(name, 1), (name, 2)]) {
                let case = format!("{name}, types {types:?}, ndots:{ndots}, time {time}");
                let expected = without.glibc(name, types, ndots);
                assert_eq!(with.glibc(name, types, ndots), expected, "glibc, {case}");
                let expected = without.musl(name, types, ndots);
                assert_eq!(with.musl(name, types, ndots), expected, "musl, {case}");
            }
        }
    }
}

#[test]
fn every_name_comes_out_as_by_the_client_s_own_search() {
    come_out_alike(NAMES, || Resolver::new("searchpath cluster.local"));
}

#[test]
fn an_absent_name_in_full_is_absent_whatever_is_called_alike_elsewhere() {
    come_out_alike(IN_FULL, || Resolver::new("searchpath cluster.local"));
}

#[test]
fn the_walks_of_the_test_tell_names_apart() {
    let mut plain = Resolver::new("");
    let both = [rtype::A, rtype::AAAA];
    assert_eq!(plain.glibc("mixed", &[rtype::A], 5), "[Addresses([\"A 10.0.0.7\", \"mixed.corp.example\"])]");
    assert_eq!(plain.musl("mixed", &[rtype::A], 5), "[NoData]");
    assert_eq!(plain.musl("broken", &both, 5), "[Failed, Failed]");
    assert!(plain.glibc("broken", &both, 5).contains("10.0.0.15"));
    assert_eq!(plain.glibc("late.example.org", &both, 5), "try again");
    assert_eq!(plain.glibc("nowhere", &both, 5), "no such name");
}

/// The ndots tax: a name of few dots with `ndots:5` and a search path of four.
#[test]
fn a_name_costs_one_question_for_each_type_instead_of_five() {
    let both = [rtype::A, rtype::AAAA];
    for name in ["www.example.org", "example.com"] {
        let mut without = Resolver::new("");
        without.glibc(name, &both, 5);
        assert_eq!(without.asked, 2 * (SEARCH.len() + 1), "{name}");
        let mut with = Resolver::new("searchpath cluster.local");
        with.glibc(name, &both, 5);
        assert_eq!(with.asked, 2, "{name}");
        assert_eq!(with.passed_on, without.passed_on, "{name}: the first time all of them are looked for");
    }
}

#[test]
fn a_name_that_may_be_the_namespace_s_costs_as_much_from_the_second_time_on() {
    let both = [rtype::A, rtype::AAAA];
    // Behind `corp.example`, which is the fourth place; of the namespace `shop`, which is found at the second one.
    for (name, alone) in [("printer", 8), ("db-0.peers", 8), ("api.shop", 4)] {
        let mut with = Resolver::new("searchpath cluster.local");
        for asked in [alone, 2, 2] {
            with.asked = 0;
            assert!(with.glibc(name, &both, 5).contains("10.0.0."), "{name}");
            assert_eq!(with.asked, asked, "{name}");
        }
    }
}

#[test]
fn what_may_be_a_name_of_the_namespace_is_completed_for_who_searches_alone() {
    let mut with = Resolver::new("searchpath cluster.local");
    let mut first = |name: &str, place: &str| {
        let packet = query(&format!("{name}.{place}"), rtype::A);
        told(&with.response(&packet)).remove(0)
    };
    for (name, answer) in [
        ("printer", "NXDOMAIN"),
        // The namespace has a Service `shop`, and one `peers`.
        ("api.shop", "NXDOMAIN"),
        ("db-0.peers", "NXDOMAIN"),
        ("_metrics._tcp.api", "NXDOMAIN"),
        ("east-1._zone.api", "NXDOMAIN"),
        // No Service and no pod is called so: it comes from a search, whose answer it gets.
        ("example.com", "NOERROR"),
        ("api.dev", "NOERROR"),
        ("api.shop.svc", "NOERROR"),
        ("www.example.org", "NOERROR"),
    ] {
        // However often that is asked.
        for _ in 0..3 {
            assert_eq!(first(name, "web.svc.cluster.local"), answer, "{name}");
        }
    }
    for (name, second) in [("printer", "NXDOMAIN"), ("api.shop", "NOERROR"), ("db-0.peers", "NXDOMAIN")] {
        assert_eq!(first(name, "svc.cluster.local"), second, "{name}");
        assert_eq!(first(name, "web.svc.cluster.local"), "NOERROR", "{name}");
    }
    // Of a Service nothing is completed but its addresses, walk who may.
    assert_eq!(first("_tcp.api", "svc.cluster.local"), "NXDOMAIN");
    assert_eq!(first("_tcp.api", "web.svc.cluster.local"), "NXDOMAIN");
}

#[test]
fn who_is_not_known_searches_by_itself() {
    let mut stranger = Resolver::new("searchpath cluster.local");
    let from = std::net::SocketAddr::from(([10, 244, 9, 9], 4000));
    let packet = query("www.example.org.web.svc.cluster.local", rtype::A);
    assert_eq!(told(&stranger.response(&packet)), ["NOERROR", "CNAME www.example.org", "A 10.0.0.9"]);
    let arrival = crate::server::Arrival { from, ..ARRIVAL };
    let (outcome, _) = stranger.rig.handle_from(&packet, &arrival);
    assert!(matches!(outcome, Outcome::Later(_)), "what a pod was told is kept for nobody else");
    // An empty name lies on the path; a name without an address of the one family has one of the other.
    assert_eq!(told(&stranger.response(&query("of.empty.labels.web.svc.cluster.local", rtype::A))), ["NXDOMAIN"]);
    let without = query("of.twin.labels.web.svc.cluster.local", rtype::AAAA);
    assert_eq!(told(&stranger.response(&without)), ["NOERROR", "CNAME of.twin.labels.cluster.local"]);
    // Not the first name of its path, or not a name of the cluster.
    for name in ["www.example.org.other.svc.cluster.local", "www.example.org.cluster.local", "web.svc.cluster.local"] {
        assert_eq!(told(&stranger.response(&query(name, rtype::A))), ["NXDOMAIN"], "{name}");
    }
}
