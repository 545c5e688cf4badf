//! What each plugin's documentation says that it does, over a whole chain.

mod autopath;
mod balance;
mod bounds;
mod catalog;
mod challenge;
mod conformance;
mod dnssec;
mod documented;
mod etcd;
mod grpc;
mod guard;
mod metadata;
mod rewrite;
mod searchpath;
mod template;
mod tsig;
mod view;
mod zones;

use std::net::SocketAddr;

use crate::{
    message::{flag, rtype, u16_at},
    server::{
        Arrival, Outcome,
        fixture::{ARRIVAL, Rig, Waiting, query, told, with_edns},
    },
    zone::tests::cluster,
};

fn rig(plugins: &str) -> Rig {
    let mut rig = Rig::new(&format!(". {{\n{plugins}\n}}\n"));
    cluster(&mut rig);
    rig
}

fn flags(response: &[u8]) -> u16 {
    u16_at(response, 2).unwrap()
}

/// A query of class CH.
fn of_chaos(name: &str, qtype: u16) -> Vec<u8> {
    let mut packet = query(name, qtype);
    let class = packet.len() - 1;
    packet[class] = 3;
    packet
}

#[test]
fn acl_lets_in_refuses_filters_and_drops() {
    let rig = rig("acl example.org {\n allow net 192.0.2.0/24\n block type A net 10.244.1.0/24\n \
         filter type AAAA net 10.244.0.0/16\n drop type TXT\n}\nwhoami");
    assert_eq!(rig.ask("www.example.org", rtype::A), ["REFUSED"]);
    assert_eq!(rig.ask("www.example.org", rtype::AAAA), ["NOERROR"]);
    assert!(matches!(rig.handle(&query("www.example.org", rtype::TXT)).0, Outcome::Drop));
    assert_eq!(rig.ask("www.example.org", rtype::SRV).len(), 3);
    assert_eq!(rig.ask("www.example.net", rtype::A).len(), 3);
    let arrival = Arrival { from: SocketAddr::from(([192, 0, 2, 7], 4000)), ..ARRIVAL };
    assert_eq!(told(&rig.handle_from(&query("www.example.org", rtype::A), &arrival).1).len(), 3);
}

#[test]
fn any_is_short() {
    let rig = rig("any\nwhoami");
    assert_eq!(rig.ask("www.example.org", rtype::ANY), ["NOERROR", "HINFO \"ANY obsoleted\" \"See RFC 8482\""]);
    assert_eq!(rig.ask("www.example.org", rtype::A).len(), 3);
}

#[test]
fn chaos_tells_of_the_server_in_its_own_class_alone() {
    let rig = rig("chaos ours-1.2 \"someone <a@example.org>\" another\nwhoami");
    let ask = |name: &str, qtype: u16| told(&rig.answer(&of_chaos(name, qtype)));
    assert_eq!(ask("VERSION.bind", rtype::TXT), ["NOERROR", "TXT \"ours-1.2\""]);
    assert_eq!(ask("version.server", rtype::TXT), ["NOERROR", "TXT \"ours-1.2\""]);
    assert_eq!(ask("hostname.bind", rtype::TXT), ["NOERROR", "TXT \"dns-1\""]);
    assert_eq!(ask("id.server", rtype::TXT), ["NOERROR", "TXT \"dns-1\""]);
    let authors = ["NOERROR", "TXT \"someone <a@example.org>\"", "TXT \"another\""];
    assert_eq!(ask("authors.bind", rtype::TXT), authors);
    assert_eq!(ask("www.example.org", rtype::A), ["REFUSED"]);
    assert_eq!(rig.ask("version.bind", rtype::TXT).len(), 3, "in class IN it is a name like others");
    let without = self::rig("whoami");
    assert_eq!(told(&without.answer(&of_chaos("version.bind", rtype::TXT))), ["REFUSED"]);
}

#[test]
fn local_names_stay_here() {
    let rig = rig("local\nforward . 192.0.2.1");
    assert_eq!(rig.ask("localhost", rtype::A), ["NOERROR", "A 127.0.0.1"]);
    assert_eq!(rig.ask("Localhost", rtype::AAAA), ["NOERROR", "AAAA ::1"]);
    assert_eq!(rig.ask("localhost.example.org", rtype::A), ["NOERROR", "A 127.0.0.1"]);
    assert_eq!(rig.ask("1.0.0.127.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR localhost"]);
    assert_eq!(rig.ask("9.0.0.127.in-addr.arpa", rtype::PTR), ["NXDOMAIN", "SOA"]);
    assert_eq!(rig.ask("255.in-addr.arpa", rtype::NS), ["NOERROR", "NS localhost"]);
    assert_eq!(rig.ask("0.in-addr.arpa", rtype::TXT), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("localhost", rtype::TXT), ["NOERROR", "SOA"]);
    rig.forward(&query("www.example.org", rtype::A));
}

#[test]
fn erratic_drops_and_truncates_every_so_many() {
    let rig = rig("erratic {\n drop 3\n truncate 2\n}");
    let mut seen = Vec::new();
    for _ in 0..6 {
        let (Outcome::Later(later), _) = rig.handle(&query("www.example.org", rtype::A)) else { panic!("at once") };
        let response = futures::FutureExt::now_or_never(std::sync::Arc::clone(&rig.server).finish(later)).unwrap();
        seen.push(response.map(|response| flags(&response) & flag::TC != 0));
    }
    assert_eq!(seen, [Some(false), Some(true), None, Some(true), Some(false), None]);
    let late = self::rig("erratic {\n drop 0\n delay 1 5s\n}");
    assert_eq!(late.wait(&query("www.example.org", rtype::A)).response(), None);
}

#[test]
fn header_sets_and_clears_flags_in_the_file_s_order() {
    let rig = rig("header {\n response set ra aa\n response clear aa\n query clear rd\n}\nwhoami");
    let response = rig.answer(&query("www.example.org", rtype::A));
    assert_eq!(flags(&response) & (flag::RA | flag::AA | flag::RD), flag::RA);
}

#[test]
fn bufsize_bounds_what_edns_asks_for_and_nothing_else() {
    let names: String = (1..60).map(|last| format!(" 192.0.2.{last} many.example.org\n")).collect();
    let rig = rig(&format!("bufsize 600\nhosts /nowhere {{\n{names}}}"));
    let packet = with_edns(query("many.example.org", rtype::A), 1232, 0, false);
    let response = rig.answer(&packet);
    assert!(response.len() <= 600 && flags(&response) & flag::TC != 0);
    let over_tcp = Arrival { transport: crate::Transport::Tcp, ..ARRIVAL };
    assert!(rig.handle_from(&packet, &over_tcp).1.len() > 600);
}

#[test]
fn minimal_leaves_out_what_no_answer_needs() {
    let plugins = "kubernetes cluster.local";
    let packet = with_edns(query("_http._tcp.headless.web.svc.cluster.local", rtype::SRV), 1232, 0, false);
    let whole = rig(plugins).answer(&packet);
    assert!(told(&whole).iter().any(|line| line.starts_with('+')), "{:?}", told(&whole));
    let minimal = rig(&format!("minimal\n{plugins}"));
    let short = minimal.answer(&packet);
    let expected: Vec<String> = told(&whole).into_iter().filter(|line| !line.starts_with('+')).collect();
    assert_eq!(told(&short), expected);
    assert_eq!(short[short.len() - 11..], whole[whole.len() - 11..], "the OPT record stays");
    assert_eq!(minimal.ask("none.web.svc.cluster.local", rtype::A), ["NXDOMAIN", "SOA"]);
}

#[test]
fn nsid_is_told_to_those_who_ask() {
    let rig = rig("nsid ours\nwhoami");
    let mut packet = with_edns(query("www.example.org", rtype::A), 1232, 0, false);
    let plain = rig.answer(&packet);
    let length = packet.len() - 1;
    packet[length] = 4;
    packet.extend_from_slice(&[0, 3, 0, 0]);
    let response = rig.answer(&packet);
    assert_eq!(response[plain.len() - 2..], *b"\0\x08\0\x03\0\x04ours");
    told(&response);
}

#[test]
fn dns64_makes_addresses_for_who_has_none() {
    let rig = rig("dns64\ncache\nforward . 192.0.2.1");
    let from_v6 = Arrival { from: "[2001:db8::1]:4000".parse().unwrap(), ..ARRIVAL };
    let packet = query("www.example.org", rtype::AAAA);
    let (Outcome::Later(later), _) = rig.handle_from(&packet, &from_v6) else { panic!("answered at once") };
    let mut waiting = rig.waiting(later);
    let none = rig.sent().pop().unwrap();
    none.tells(0, &[]);
    assert_eq!(waiting.response(), None);
    let v4 = rig.sent().pop().unwrap();
    v4.tells(0, &[[192, 0, 2, 33]]);
    assert_eq!(waiting.told(), ["NOERROR", "AAAA 64:ff9b::c000:221"]);
    // Who asks over IPv4 has no translator, as far as is known.
    let (_, sent) = rig.forward(&query("net.example.org", rtype::AAAA));
    drop(sent);
}

const FORWARDED: &str = "forward . 192.0.2.1";

/// Has a question asked and answered for the first time.
fn keeps_first(rig: &Rig, packet: &[u8]) {
    let (mut first, sent) = rig.forward(packet);
    sent.tells(0, &[[192, 0, 2, 1]]);
    assert_eq!(first.told(), ["NOERROR", "A 192.0.2.1"]);
}

/// Has an upstream answer the question that was sent last.
fn upstream_tells(rig: &Rig, last: u8) {
    rig.sent().pop().expect("nothing was sent").tells(0, &[[192, 0, 2, last]]);
}

#[test]
fn what_is_asked_for_often_is_fetched_before_it_ends() {
    let rig = rig(&format!("cache 60 {{\n prefetch 3 10s 50%\n}}\n{FORWARDED}"));
    let packet = query("www.example.org", rtype::A);
    keeps_first(&rig, &packet);
    for seconds in [25, 28, 29] {
        rig.at(seconds);
        rig.answer(&packet);
    }
    rig.work();
    assert!(rig.sent().is_empty(), "too early");
    rig.at(31);
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.1"]);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.1"]);
    upstream_tells(&rig, 2);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.2"]);
    rig.work();
    assert!(rig.sent().is_empty(), "once is enough");
}

#[test]
fn what_has_ended_is_given_out_while_there_is_nothing_newer() {
    let rig = rig(&format!("cache 60 {{\n serve_stale 1h\n}}\n{FORWARDED}"));
    let packet = query("www.example.org", rtype::A);
    keeps_first(&rig, &packet);
    rig.at(100);
    let old = rig.answer(&packet);
    assert_eq!(told(&old), ["NOERROR", "A 192.0.2.1"]);
    assert_eq!(old[old.len() - 10..old.len() - 6], [0; 4], "nobody is to keep it");
    rig.work();
    let failure = rig.sent().pop().unwrap();
    failure.tells(2, &[]);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.1"], "a failure is no news");
    rig.at(106);
    rig.answer(&packet);
    rig.work();
    upstream_tells(&rig, 2);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.2"]);
    rig.at(106 + 60 + 3601);
    rig.forward(&packet);
}

#[test]
fn serve_stale_can_ask_first_and_wait_no_longer_than_it_is_told() {
    let rig = rig(&format!("cache 60 {{\n serve_stale 1h verify 1s\n}}\n{FORWARDED}"));
    let packet = query("www.example.org", rtype::A);
    keeps_first(&rig, &packet);
    rig.at(100);
    let mut waiting = rig.wait(&packet);
    upstream_tells(&rig, 2);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.2"]);
    rig.at(200);
    let mut waiting = rig.wait(&packet);
    rig.wake();
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.2"]);
}

#[test]
fn what_failed_to_be_fetched_anew_is_not_asked_for_again_for_as_long_as_is_said() {
    let packet = query("www.example.org", rtype::A);
    for (mode, verifies) in [("immediate 30s 30s", false), ("verify 1s 30s 30s", true)] {
        let rig = rig(&format!("cache 60 {{\n serve_stale 1h {mode}\n}}\n{FORWARDED}"));
        keeps_first(&rig, &packet);
        for (seconds, code) in [(100, 2), (130, 5)] {
            rig.at(seconds);
            let mut waiting = verifies.then(|| rig.wait(&packet));
            let at_once = (!verifies).then(|| rig.answer(&packet));
            rig.work();
            rig.sent().pop().expect("it is asked for").tells(code, &[]);
            rig.work();
            let old = at_once.or_else(|| waiting.as_mut()?.response()).expect("no response");
            assert_eq!(told(&old), ["NOERROR", "A 192.0.2.1"], "{mode}, code {code}");
            assert_eq!(old[old.len() - 10..old.len() - 6], 30_u32.to_be_bytes(), "{mode}");
            rig.at(seconds + 29);
            assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.1"], "{mode}");
            rig.work();
            assert!(rig.sent().is_empty(), "{mode}: it failed less than 30 seconds ago");
        }
        rig.at(160);
        let mut waiting = verifies.then(|| rig.wait(&packet));
        if !verifies {
            rig.answer(&packet);
        }
        rig.work();
        upstream_tells(&rig, 2);
        rig.work();
        let newer = waiting.as_mut().and_then(Waiting::response).unwrap_or_else(|| rig.answer(&packet));
        assert_eq!(told(&newer), ["NOERROR", "A 192.0.2.2"], "{mode}");
    }
}

#[test]
fn what_lives_for_seconds_is_fetched_before_it_ends_in_its_last_second() {
    let rig = rig(&format!("cache 5 {{\n prefetch 1 1m 10%\n}}\n{FORWARDED}"));
    let packet = query("www.example.org", rtype::A);
    keeps_first(&rig, &packet);
    rig.at(3);
    rig.answer(&packet);
    rig.work();
    assert!(rig.sent().is_empty(), "it lives for two seconds still");
    rig.at(4);
    rig.answer(&packet);
    rig.work();
    upstream_tells(&rig, 2);
    rig.work();
    assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "A 192.0.2.2"]);
}
