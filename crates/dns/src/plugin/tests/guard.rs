//! `cookies` (RFC 7873, RFC 9018) and `rrl`.

use std::net::SocketAddr;

use super::{
    flags, rig,
    zones::{FILE, served, transfer_query, zone},
};
use crate::{
    Outcome, Transport,
    message::{flag, rtype},
    server::{
        Arrival,
        fixture::{ARRIVAL, Rig, query, told, with_edns},
    },
};

const CLIENT: [u8; 8] = *b"a client";

/// A query with a cookie: the client's part, and what the server gave.
fn with_cookie(name: &str, server: &[u8]) -> Vec<u8> {
    cookied(query(name, rtype::A), server)
}

fn cookied(packet: Vec<u8>, server: &[u8]) -> Vec<u8> {
    let mut packet = with_edns(packet, 1232, 0, false);
    let length = packet.len() - 2;
    packet[length + 1] = 12 + server.len() as u8;
    packet.extend_from_slice(&[0, 10, 0, 8 + server.len() as u8]);
    packet.extend_from_slice(&CLIENT);
    packet.extend_from_slice(server);
    packet
}

/// The cookie of a response, which stands last.
fn cookie(response: &[u8]) -> Option<[u8; 16]> {
    let option =
        response.last_chunk::<28>().filter(|option| option[..4] == [0, 10, 0, 24] && option[4..12] == CLIENT)?;
    option.last_chunk().copied()
}

/// The response's code, its upper bits included; the OPT record's options are the cookie alone.
fn code(response: &[u8]) -> u16 {
    let extended = response[response.len() - 28 - 6];
    u16::from(extended) << 4 | flags(response) & flag::RCODE
}

fn ask(rig: &Rig, packet: &[u8], from: [u8; 4]) -> Option<Vec<u8>> {
    let arrival = Arrival { from: SocketAddr::from((from, 4000)), ..ARRIVAL };
    match rig.handle_from(packet, &arrival) {
        (Outcome::Answer, response) => Some(response),
        (Outcome::Drop, _) => None,
        (Outcome::Later(_) | Outcome::Transfer(_), _) => panic!("it takes time"),
    }
}

#[test]
fn who_sends_a_cookie_gets_one_that_is_good_for_an_hour_and_for_its_address() {
    let rig = rig("cookies {\n require\n}\nwhoami");
    let first = rig.answer(&with_cookie("example.org", &[]));
    let given = cookie(&first).expect("a cookie");
    assert_eq!((code(&first), given[0]), (23, 1), "BADCOOKIE, with a cookie of version 1");
    let known = rig.answer(&with_cookie("example.org", &given));
    assert_eq!((code(&known), cookie(&known)), (0, Some(given)));
    let elsewhere = ask(&rig, &with_cookie("example.org", &given), [192, 0, 2, 9]).unwrap();
    assert_eq!(code(&elsewhere), 23);
    rig.at(1700);
    assert_eq!(cookie(&rig.answer(&with_cookie("example.org", &given))), Some(given));
    // RFC 9018 §4.3: after half an hour there is a new one, and the old one is good for the rest of its hour.
    rig.at(1900);
    let renewed = rig.answer(&with_cookie("example.org", &given));
    assert_eq!(code(&renewed), 0);
    assert_ne!(cookie(&renewed), Some(given));
    rig.at(3700);
    assert_eq!(code(&rig.answer(&with_cookie("example.org", &given))), 23);
    assert_eq!(code(&rig.answer(&with_cookie("example.org", &cookie(&renewed).unwrap()))), 0);
    for bad in [&[1; 16][..], &[2; 8], &[1; 32]] {
        assert_eq!(code(&rig.answer(&with_cookie("example.org", bad))), 23, "{bad:?}");
    }
    // Who sends none is answered, and who comes over a connection.
    assert_eq!(told(&rig.answer(&query("example.org", rtype::A)))[0], "NOERROR");
    let over_tcp = Arrival { transport: Transport::Tcp, ..ARRIVAL };
    assert_eq!(told(&rig.handle_from(&with_cookie("example.org", &[]), &over_tcp).1)[0], "NOERROR");
}

#[test]
fn the_secret_of_cookies_rolls_each_day_and_the_one_before_is_known_still() {
    let rig = rig("cookies {\n require\n}\nwhoami");
    rig.at(86_400 - 60);
    let given = cookie(&rig.answer(&with_cookie("example.org", &[]))).unwrap();
    rig.at(86_400 + 60);
    let response = rig.answer(&with_cookie("example.org", &given));
    assert_eq!((code(&response), cookie(&response)), (0, Some(given)));
    // A new one is made with the new secret: same client, same second, another cookie.
    let fresh = cookie(&rig.answer(&with_cookie("example.org", &[]))).unwrap();
    rig.at(2 * 86_400 + 120);
    assert_eq!(code(&rig.answer(&with_cookie("example.org", &fresh))), 23, "a day is too old");
}

#[test]
fn servers_that_share_a_secret_know_each_others_cookies() {
    let (old, new) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let one = rig(&format!("cookies {{\n require\n secret {old}\n}}\nwhoami"));
    let other = rig(&format!("cookies {{\n require\n secret {new} {old}\n}}\nwhoami"));
    let given = cookie(&one.answer(&with_cookie("example.org", &[]))).unwrap();
    assert_eq!(code(&other.answer(&with_cookie("example.org", &given))), 0);
    let given = cookie(&other.answer(&with_cookie("example.org", &[]))).unwrap();
    assert_eq!(code(&one.answer(&with_cookie("example.org", &given))), 23);
}

#[test]
fn without_a_directive_cookies_are_given_and_nobody_needs_one() {
    let rig = rig("whoami");
    let response = rig.answer(&with_cookie("example.org", &[]));
    assert_eq!((code(&response), cookie(&response).map(|cookie| cookie[0])), (0, Some(1)));
    assert_eq!(cookie(&super::rig("cookies off\nwhoami").answer(&with_cookie("example.org", &[]))), None);
}

#[test]
fn answers_to_who_has_no_cookie_are_as_small_as_wanted() {
    let names: String = (1..60).map(|last| format!(" 192.0.2.{last} many.example.org\n")).collect();
    let rig = rig(&format!("cookies {{\n unverified_size 600\n}}\nhosts /nowhere {{\n{names}}}"));
    let stranger = rig.answer(&with_cookie("many.example.org", &[]));
    assert!(stranger.len() <= 600 && flags(&stranger) & flag::TC != 0);
    let known = rig.answer(&with_cookie("many.example.org", &cookie(&stranger).unwrap()));
    assert!(known.len() > 600 && flags(&known) & flag::TC == 0);
    assert!(rig.answer(&with_edns(query("many.example.org", rtype::A), 1232, 0, false)).len() <= 600);
    let over_tcp = Arrival { transport: Transport::Tcp, ..ARRIVAL };
    assert!(rig.handle_from(&query("many.example.org", rtype::A), &over_tcp).1.len() > 600);
}

#[test]
fn rrl_lets_through_what_is_allowed_and_cuts_every_second_of_what_is_not() {
    let rig = rig("rrl {\n responses-per-second 5\n}\nwhoami");
    let packet = query("example.org", rtype::A);
    let mut outcomes = String::new();
    for _ in 0..11 {
        outcomes.push(match ask(&rig, &packet, [192, 0, 2, 9]) {
            Some(response) if flags(&response) & flag::TC != 0 => {
                assert_eq!(
                    (response.len(), &response[12..]),
                    (packet.len(), &packet[12..]),
                    "nothing but the question"
                );
                'c'
            }
            Some(_) => 'a',
            None => '-',
        });
    }
    assert_eq!(outcomes, "aaaaa-c-c-c");
    // Of the same network; another network, another name, another kind have accounts of their own.
    assert!(ask(&rig, &packet, [192, 0, 2, 77]).is_none());
    assert!(ask(&rig, &packet, [192, 0, 3, 9]).is_some());
    assert!(ask(&rig, &query("www.example.org", rtype::A), [192, 0, 2, 9]).is_some());
    let over_tcp = Arrival { transport: Transport::Tcp, from: SocketAddr::from(([192, 0, 2, 9], 1)), ..ARRIVAL };
    assert!(matches!(rig.handle_from(&packet, &over_tcp).0, Outcome::Answer));
    // What was asked too much has to be made up for.
    rig.at(1);
    assert!(ask(&rig, &packet, [192, 0, 2, 9]).is_some_and(|response| flags(&response) & flag::TC != 0));
    rig.at(20);
    assert!(ask(&rig, &packet, [192, 0, 2, 9]).is_some_and(|response| flags(&response) & flag::TC == 0));
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    assert!(metrics.contains("coredns_rrl_responses_exceeded_total{server=\"dns://:53\"} 8"), "{metrics}");
}

#[test]
fn rrl_knows_who_has_a_cookie_who_is_exempt_and_which_names_are_meant() {
    let rig = rig("rrl example.org {\n responses-per-second 1\n slip-ratio 0\n exempt 10.244.0.0/16\n}\nwhoami");
    let packet = query("example.org", rtype::A);
    let asked = |packet: &[u8], from| (0..4).filter(|_| ask(&rig, packet, from).is_some()).count();
    assert_eq!(asked(&packet, [192, 0, 2, 9]), 1);
    assert_eq!(asked(&packet, [10, 244, 1, 2]), 4);
    assert_eq!(asked(&query("example.net", rtype::A), [192, 0, 2, 9]), 4);
    let mut given = None;
    for second in [30, 60] {
        rig.at(second);
        given = ask(&rig, &with_cookie("example.org", &[]), [192, 0, 2, 9])
            .and_then(|response| cookie(&response))
            .or(given);
    }
    assert_eq!(asked(&with_cookie("example.org", &given.unwrap()), [192, 0, 2, 9]), 4);
}

#[test]
fn rrl_counts_names_that_are_not_there_by_zone_and_errors_by_network() {
    let rig = rig("rrl {\n nxdomains-per-second 2\n errors-per-second 3\n slip-ratio 0\n}\n\
         template IN A gone.test {\n rcode NXDOMAIN\n authority \"gone.test. 60 IN SOA ns.gone.test. h.gone.test. 1 2 3 4 5\"\n}\n\
         template IN A bad.test {\n rcode REFUSED\n}\nwhoami");
    let asked = |zone: &str, from| {
        (0..6).filter(|number| ask_slowly(&rig, &query(&format!("n{number}.{zone}"), rtype::A), from)).count()
    };
    assert_eq!(asked("gone.test", [192, 0, 2, 9]), 2);
    assert_eq!(asked("bad.test", [192, 0, 2, 9]), 3);
    assert_eq!(asked("elsewhere.test", [192, 0, 2, 9]), 6, "positive answers are not limited here");
}

#[test]
fn transfers_by_datagrams_are_guarded_too() {
    let guarded = |plugins: &str| {
        served(&FILE.replace(" file db", &format!(" {plugins}\n file db")), &[("db", zone(7, "www A 192.0.2.2"))])
    };
    let (news, peer) = (transfer_query("example.org", Some(1)), [192, 0, 2, 9]);
    let told_by = |rig: &Rig, packet: &[u8]| told(&ask(rig, packet, peer).unwrap());
    // Where the limit of an answer would be reached at once, by who has no cookie of ours.
    let rig = guarded("");
    assert_eq!(told_by(&rig, &news).len(), 2, "the version alone");
    assert_eq!(told_by(&rig, &cookied(news.clone(), &[])).len(), 2);
    let given = cookie(&ask(&rig, &with_cookie("www.example.org", &[]), peer).unwrap()).unwrap();
    assert_eq!(told_by(&rig, &cookied(news.clone(), &given)).len(), 6, "the whole zone");
    let strict = guarded("cookies {\n require\n }");
    assert_eq!(code(&ask(&strict, &cookied(news.clone(), &[]), peer).unwrap()), 23);
    let limited = guarded("rrl {\n responses-per-second 2\n slip-ratio 0\n }");
    assert_eq!((0..5).filter(|_| ask(&limited, &news, peer).is_some()).count(), 2);
    let few = guarded("rrl {\n requests-per-second 3\n }");
    assert_eq!((0..5).filter(|_| ask(&few, &news, peer).is_some()).count(), 3);
    let over_tcp = Arrival { transport: Transport::Tcp, from: SocketAddr::from((peer, 4000)), ..ARRIVAL };
    for _ in 0..5 {
        assert!(matches!(few.handle_from(&news, &over_tcp).0, Outcome::Transfer(_)));
    }
}

/// Whether there is a response, also where it takes time.
fn ask_slowly(rig: &Rig, packet: &[u8], from: [u8; 4]) -> bool {
    use futures::FutureExt as _;
    let arrival = Arrival { from: SocketAddr::from((from, 4000)), ..ARRIVAL };
    match rig.handle_from(packet, &arrival).0 {
        Outcome::Answer => true,
        Outcome::Drop | Outcome::Transfer(_) => false,
        Outcome::Later(later) => {
            std::sync::Arc::clone(&rig.server).finish(later).now_or_never().expect("it takes time").is_some()
        }
    }
}

#[test]
fn rrl_drops_questions_beyond_an_allowance_or_only_counts() {
    let packet = query("example.org", rtype::A);
    let asked = |rig: &Rig| (0..10).filter(|_| ask(rig, &packet, [192, 0, 2, 9]).is_some()).count();
    assert_eq!(asked(&rig("rrl {\n requests-per-second 4\n}\nwhoami")), 4);
    let rig = rig("rrl {\n requests-per-second 4\n responses-per-second 2\n report-only\n}\nwhoami");
    assert_eq!(asked(&rig), 10);
    let metrics = rig.server.metrics().render(&rig.server.gauges());
    assert!(metrics.contains("coredns_rrl_requests_exceeded_total{server=\"dns://:53\"} 6"), "{metrics}");
    assert!(metrics.contains("coredns_rrl_responses_exceeded_total{server=\"dns://:53\"} 8"), "{metrics}");
}

#[test]
fn rrl_bears_any_number_of_networks_with_the_table_it_has() {
    let rig = rig("rrl {\n responses-per-second 1\n max-table-size 64\n}\nwhoami");
    let packet = query("example.org", rtype::A);
    for network in 0..5000_u16 {
        let [high, low] = network.to_be_bytes();
        assert!(ask(&rig, &packet, [10, high, low, 1]).is_some(), "{network}");
    }
}
