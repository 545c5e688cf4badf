//! `searchpath`, beside resolvers that walk along their search path by themselves: each name has to come out alike.

use std::{collections::BTreeMap, sync::Arc};

use domain::base::{Message, ToName};

use crate::{
    message::rtype,
    name::QueryName,
    server::{
        Outcome,
        fixture::{ARRIVAL, Rig, Waiting, query, told},
    },
};

/// What a pod of the namespace `web` has in its resolv.conf.
const SEARCH: [&str; 4] = ["web.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"];

/// What is asked beyond the resolver: a name's addresses, or none where asking for it fails.
type World = BTreeMap<&'static str, Option<(Vec<[u8; 4]>, Vec<[u8; 16]>)>>;

fn world() -> World {
    let v4 = |last: u8| Some((vec![[10, 0, 0, last]], Vec::new()));
    let v6 = |last: u8| Some((Vec::new(), vec![[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]]));
    let both = |last: u8| v4(last).zip(v6(last)).map(|((v4, _), (_, v6))| (v4, v6));
    BTreeMap::from([
        ("db.web.svc.cluster.local", v4(1)),
        ("api.shop.svc.cluster.local", both(2)),
        ("six.web.svc.cluster.local", v6(3)),
        // In two places, of which the first counts; the second has what the first lacks.
        ("twin.cluster.local", v4(4)),
        ("twin.corp.example", both(5)),
        ("mixed.svc.cluster.local", v6(6)),
        ("mixed.corp.example", v4(7)),
        ("empty.cluster.local", Some((Vec::new(), Vec::new()))),
        ("empty.corp.example", v4(8)),
        ("www.example.org", both(9)),
        ("printer.corp.example", v4(10)),
        ("top", v4(11)),
        // The same with as many labels as no name of the namespace has.
        ("of.six.labels.web.svc.cluster.local", v6(3)),
        ("of.twin.labels.cluster.local", v4(4)),
        ("of.twin.labels.corp.example", both(5)),
        ("of.mixed.labels.svc.cluster.local", v6(6)),
        ("of.mixed.labels.corp.example", v4(7)),
        ("of.empty.labels.cluster.local", Some((Vec::new(), Vec::new()))),
        ("of.empty.labels.corp.example", v4(8)),
        ("of.ill.labels.web.svc.cluster.local", None),
        ("of.ill.labels.corp.example", v4(14)),
        ("of.broken.labels.svc.cluster.local", None),
        ("of.broken.labels.corp.example", both(15)),
        ("sad.www.example.org.cluster.local", None),
        ("sad.www.example.org", v4(16)),
        ("late.www.example.org", None),
        // Named as a pod of a Service of `web` is that is not there now.
        ("db-0.peers.corp.example", v4(17)),
        ("api.dev", v4(18)),
        ("_metrics._tcp.api.corp.example", v4(19)),
        // More dots than anybody's ndots.
        ("a.b.c.d.e.example.net", both(12)),
        ("f.g.h.i.j.k.corp.example", v4(13)),
        // Failures: at the first name, on the way, at the end.
        ("ill.web.svc.cluster.local", None),
        ("ill.corp.example", v4(14)),
        ("broken.svc.cluster.local", None),
        ("broken.corp.example", both(15)),
        ("sad.example.org.cluster.local", None),
        ("sad.example.org", v4(16)),
        ("late.example.org", None),
    ])
}

/// What an upstream says to a query.
fn upstream(world: &World, query: &[u8]) -> Vec<u8> {
    let (name, end) = QueryName::parse(query, 12).unwrap();
    let qtype = u16::from_be_bytes([query[end], query[end + 1]]);
    let text = name.to_string();
    let text = text.trim_end_matches('.');
    let (rcode, rdata): (u16, Vec<Vec<u8>>) = match (world.get(text), qtype) {
        (None, _) => (3, Vec::new()),
        (Some(None), _) => (2, Vec::new()),
        (Some(Some((v4, _))), rtype::A) => (0, v4.iter().map(|addr| addr.to_vec()).collect()),
        (Some(Some((_, v6))), _) => (0, v6.iter().map(|addr| addr.to_vec()).collect()),
    };
    let mut message = query[..end + 4].to_vec();
    message[2..4].copy_from_slice(&(0x8180 | rcode).to_be_bytes());
    message[6..8].copy_from_slice(&(rdata.len() as u16).to_be_bytes());
    message[10..12].copy_from_slice(&[0, 0]);
    for rdata in rdata {
        message.extend_from_slice(&[0xc0, 12]);
        message.extend_from_slice(&qtype.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        message.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        message.extend_from_slice(&rdata);
    }
    message
}

/// A node's resolver with a world behind it, and how often each was asked.
struct Resolver {
    rig: Rig,
    world: World,
    asked: usize,
    passed_on: usize,
}

/// What a client makes of one response.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Addresses(Vec<String>),
    NoData,
    NoName,
    Failed,
}

impl Resolver {
    fn new(plugins: &str) -> Self {
        let rig = Rig::new(&format!(". {{\n{plugins}\ncache\nforward . 192.0.2.1\n}}\n"));
        Self { rig, world: world(), asked: 0, passed_on: 0 }
    }

    fn response(&mut self, packet: &[u8]) -> Vec<u8> {
        self.asked += 1;
        let (outcome, response) = self.rig.handle_from(packet, &ARRIVAL);
        let Outcome::Later(later) = outcome else { return response };
        let mut waiting = Waiting::new(Arc::clone(&self.rig.server).finish(later));
        for _ in 0..50 {
            if let Some(response) = waiting.response() {
                return response;
            }
            for sent in self.rig.sent() {
                self.passed_on += 1;
                let answer = upstream(&self.world, &sent.message);
                sent.answered(answer);
            }
            // Another try may wait for its turn.
            self.rig.wake();
        }
        panic!("no response")
    }

    fn hear(&mut self, name: &str, qtype: u16) -> Heard {
        let response = self.response(&query(name, qtype));
        let kind = if qtype == rtype::A { "A " } else { "AAAA " };
        let addresses: Vec<String> = told(&response).into_iter().filter(|line| line.starts_with(kind)).collect();
        match told(&response)[0].as_str() {
            "NOERROR" if addresses.is_empty() => Heard::NoData,
            "NOERROR" => {
                let message = Message::from_octets(response).unwrap();
                // What a resolver calls the canonical name.
                let owner = message.answer().unwrap().last().unwrap().unwrap().owner().to_vec().to_string();
                Heard::Addresses(addresses.into_iter().chain([owner.to_lowercase()]).collect())
            }
            "NXDOMAIN" => Heard::NoName,
            _ => Heard::Failed,
        }
    }

    /// glibc's walk (`resolver(3)`): whatever has no addresses is passed by; how it ended is told by what was passed.
    fn glibc(&mut self, name: &str, types: &[u16], ndots: usize) -> String {
        let searched = SEARCH.iter().map(|place| format!("{name}.{place}"));
        let itself = [name.to_owned()];
        let names: Vec<String> = if name.matches('.').count() >= ndots {
            itself.into_iter().chain(searched).collect()
        } else {
            searched.chain(itself).collect()
        };
        let (mut no_data, mut failed) = (false, false);
        for name in names {
            let heard: Vec<Heard> = types.iter().map(|qtype| self.hear(&name, *qtype)).collect();
            if heard.iter().any(|heard| matches!(heard, Heard::Addresses(_))) {
                return format!("{heard:?}");
            }
            no_data |= heard.contains(&Heard::NoData);
            failed |= heard.contains(&Heard::Failed);
        }
        match (no_data, failed) {
            (true, _) => "no address".to_owned(),
            (_, true) => "try again".to_owned(),
            _ => "no such name".to_owned(),
        }
    }

    /// musl's walk: it goes on only from names that do not exist, and names with enough dots are searched for nowhere.
    fn musl(&mut self, name: &str, types: &[u16], ndots: usize) -> String {
        let searched = SEARCH.iter().filter(|_| name.matches('.').count() < ndots);
        let names: Vec<String> = searched.map(|place| format!("{name}.{place}")).chain([name.to_owned()]).collect();
        for name in names {
            let heard: Vec<Heard> = types.iter().map(|qtype| self.hear(&name, *qtype)).collect();
            if heard.iter().any(|heard| *heard != Heard::NoName) {
                return format!("{heard:?}");
            }
        }
        "no such name".to_owned()
    }
}

const NAMES: [&str; 41] = [
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
    // Names in full that are not there, whose beginnings are elsewhere.
    "printer.web.svc.cluster.local",
    "api.web.svc.cluster.local",
    "top.web.svc.cluster.local",
    "db-0.peers.web.svc.cluster.local",
    "api.dev.web.svc.cluster.local",
    "api.shop.web.svc.cluster.local",
    "_metrics._tcp.api.web.svc.cluster.local",
    "nowhere.web.svc.cluster.local",
];

#[test]
fn every_name_comes_out_as_by_the_client_s_own_search() {
    for types in [&[rtype::A][..], &[rtype::AAAA], &[rtype::A, rtype::AAAA]] {
        for ndots in [1, 2, 5] {
            // What was kept from an earlier question changes nothing: all names go through the same two resolvers.
            let mut with = Resolver::new("searchpath cluster.local");
            let mut without = Resolver::new("");
            for name in NAMES {
                let case = format!("{name}, types {types:?}, ndots:{ndots}");
                let expected = without.glibc(name, types, ndots);
                assert_eq!(with.glibc(name, types, ndots), expected, "glibc, {case}");
                let expected = without.musl(name, types, ndots);
                assert_eq!(with.musl(name, types, ndots), expected, "musl, {case}");
            }
        }
    }
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

/// The ndots tax: a name of three labels with `ndots:5` and a search path of four.
#[test]
fn a_name_costs_one_question_for_each_type_instead_of_five() {
    let both = [rtype::A, rtype::AAAA];
    let mut without = Resolver::new("");
    without.glibc("www.example.org", &both, 5);
    assert_eq!(without.asked, 2 * (SEARCH.len() + 1));
    let mut with = Resolver::new("searchpath cluster.local");
    with.glibc("www.example.org", &both, 5);
    assert_eq!(with.asked, 2);
    assert_eq!(with.passed_on, without.passed_on, "the first time all of them are looked for");
}

#[test]
fn what_may_be_a_name_of_the_namespace_is_searched_for_by_the_client_alone() {
    let mut with = Resolver::new("searchpath cluster.local");
    for (name, answer) in [
        ("printer", "NXDOMAIN"),
        ("api.shop", "NXDOMAIN"),
        ("db-0.peers", "NXDOMAIN"),
        ("_metrics._tcp.api", "NXDOMAIN"),
        // No Service and no pod is called so: it comes from a search, whose answer it gets.
        ("api.shop.svc", "NOERROR"),
        ("www.example.org", "NOERROR"),
    ] {
        let packet = query(&format!("{name}.web.svc.cluster.local"), rtype::A);
        assert_eq!(told(&with.response(&packet))[0], answer, "{name}");
    }
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
