//! What the RFCs say about odd packets.

use domain::base::Message;
use proptest::prelude::*;

use super::{HEADER, Times, Upstream, question, rtype, walk};
use crate::{
    Outcome,
    server::fixture::{Rig, name, query, told, upstream_answer, with_edns},
    zone::tests::{cluster, endpoint, slice},
};

fn rig() -> Rig {
    let mut rig = Rig::new(". {\n kubernetes cluster.local\n forward . 192.0.2.53\n loadbalance\n cache\n}");
    cluster(&mut rig);
    rig
}

const WEB: &str = "web.web.svc.cluster.local";

#[test]
fn rfc_1035_what_is_no_query_gets_no_answer() {
    let rig = rig();
    let mut response = query(WEB, rtype::A);
    response[2] |= 0x80;
    for packet in [&[][..], &[0; 11], &response] {
        assert!(matches!(rig.handle(packet).0, Outcome::Drop));
    }
}

#[test]
fn rfc_1035_other_operations_are_not_implemented() {
    let mut packet = query(WEB, rtype::A);
    packet[2] |= 4 << 3;
    let response = rig().answer(&packet);
    assert_eq!(told(&response), ["NOTIMP"]);
    assert_eq!(response[2] >> 3 & 15, 4);
    assert_eq!(&response[..2], &packet[..2]);
}

#[test]
fn rfc_9267_broken_questions_are_format_errors() {
    let rig = rig();
    let base = query(WEB, rtype::A);
    let mut none = base.clone();
    none[5] = 0;
    let mut two = base.clone();
    two[5] = 2;
    let mut pointer = base[..12].to_vec();
    pointer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    let mut reserved = base.clone();
    reserved[12] = 0x80;
    let mut long = base[..12].to_vec();
    for _ in 0..5 {
        long.push(63);
        long.extend_from_slice(&[b'a'; 63]);
    }
    long.extend_from_slice(&[0, 0, 1, 0, 1]);
    let cut = base[..base.len() - 3].to_vec();
    let mut lying = base.clone();
    lying[11] = 200;
    let mut loops = lying.clone();
    loops[11] = 1;
    loops.extend_from_slice(&[0xc0, base.len() as u8, 0, 41, 0, 1, 0, 0, 0, 0, 0, 0]);
    for packet in [none, two, pointer, reserved, long, cut, lying, loops] {
        assert_eq!(told(&rig.answer(&packet)), ["FORMERR"], "{packet:02x?}");
    }
}

#[test]
fn rfc_6891_an_opt_record_is_answered_with_one_and_its_size_holds() {
    let mut rig = rig();
    let plain = rig.answer(&query(WEB, rtype::A));
    assert_eq!(plain[10..12], [0, 0]);
    let response = rig.answer(&with_edns(query(WEB, rtype::A), 4096, 0, true));
    let message = Message::from_octets(response.as_slice()).unwrap();
    let opt = message.opt().unwrap();
    assert_eq!((opt.udp_payload_size(), opt.version(), opt.dnssec_ok()), (1232, 0, true));
    let many = (0..100).map(|last| endpoint(&format!("10.244.9.{last}"), true, None)).collect();
    rig.apply(&slice("web", "headless", &[("http", 80)], many));
    let asked = query("headless.web.svc.cluster.local", rtype::A);
    for (packet, limit) in [
        (asked.clone(), 512),
        (with_edns(asked.clone(), 100, 0, false), 512),
        (with_edns(asked.clone(), 900, 0, false), 900),
        (with_edns(asked, 65_000, 0, false), 1232),
    ] {
        let response = rig.answer(&packet);
        assert!(response.len() <= limit && response.len() + 16 > limit, "{} of {limit}", response.len());
        assert_eq!(response[2] & 2, 2, "TC");
        let records = Message::from_octets(response.as_slice()).unwrap().answer().unwrap().count();
        assert!(records > 20 && records < 100);
    }
}

#[test]
fn rfc_6891_versions_and_doubled_records_are_refused() {
    let rig = rig();
    let response = rig.answer(&with_edns(query(WEB, rtype::A), 1232, 1, false));
    let message = Message::from_octets(response.as_slice()).unwrap();
    assert_eq!(message.opt_rcode().to_int(), 16);
    assert_eq!(message.header_counts().ancount(), 0);
    let twice = with_edns(with_edns(query(WEB, rtype::A), 1232, 0, false), 1232, 0, false);
    assert_eq!(told(&rig.answer(&twice)), ["FORMERR"]);
}

#[test]
fn transfers_and_other_classes_are_refused() {
    let rig = rig();
    assert_eq!(told(&rig.answer(&query("cluster.local", rtype::AXFR))), ["REFUSED"]);
    let mut chaos = query("version.bind", rtype::TXT);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(told(&rig.answer(&chaos)), ["REFUSED"]);
}

#[test]
fn rfc_9267_an_upstreams_broken_answer_is_no_answer() {
    let asked = question(name("example.org").wire(), rtype::A);
    let good = upstream_answer(&query("example.org", rtype::A), 0, &[[192, 0, 2, 1]]);
    assert!(Upstream::parse(&good, &asked).is_ok());
    for cut in 0..good.len() {
        assert!(Upstream::parse(&good[..cut], &asked).is_err(), "cut at {cut}");
    }
    let mut forwards = good.clone();
    let record = good.len() - 16;
    forwards[record + 1] = record as u8;
    assert!(Upstream::parse(&forwards, &asked).is_err());
    let mut long = good;
    long[record + 11] = 200;
    assert!(Upstream::parse(&long, &asked).is_err());
}

#[test]
fn rfc_2181_a_time_to_live_with_the_top_bit_is_zero() {
    let asked = question(name("example.org").wire(), rtype::A);
    let mut message = upstream_answer(&query("example.org", rtype::A), 0, &[[192, 0, 2, 1]]);
    let ttl = message.len() - 10;
    message[ttl] = 0x80;
    let answer = Upstream::parse(&message, &asked).unwrap().answer;
    assert_eq!(Times::of(&asked, &answer).ttls[0].1, 0);
}

#[test]
fn rfc_2181_9_what_stands_beside_an_answer_is_left_out_by_whole_sets_and_without_tc() {
    let mut message = query("example.org", 15);
    message[2] = 0x81;
    message[7] = 1;
    message[11] = 5;
    // The answer, then two addresses of one name, then three of another that is spelled out and pointed to in turn.
    message.extend_from_slice(&[0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 60, 0, 6, 0, 1, 1, b'm', 0xc0, 12]);
    let beside = |message: &mut Vec<u8>, owner: &[u8], last| {
        message.extend_from_slice(owner);
        message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
        message.len()
    };
    beside(&mut message, &[0xc0, 43], 1);
    let first = beside(&mut message, &[1, b'M', 0xc0, 12], 2);
    let owner = [&[0xc0, first as u8][..], b"\x01n\x07example\x03org\x00"];
    beside(&mut message, owner[1], 3);
    beside(&mut message, owner[0], 4);
    let whole = beside(&mut message, owner[0], 5);
    let cut = |limit| {
        let mut cut = message.clone();
        super::truncate(&mut cut, limit, false);
        (cut.len(), cut[11], cut[2] & 2 != 0)
    };
    assert_eq!(cut(whole), (whole, 5, false));
    assert_eq!(cut(whole - 1), (first, 2, false), "the second set is left out whole");
    assert_eq!(cut(first - 1), (47, 0, false), "the first set, too");
    assert_eq!(cut(46), (29, 0, true), "the answer itself");
}

#[test]
fn rfc_9471_3_1_a_referral_without_all_its_addresses_is_cut() {
    let mut message = query("www.example.org", rtype::A);
    message[2] = 0x81;
    (message[9], message[11]) = (1, 1);
    message.extend_from_slice(&[0xc0, 16, 0, 2, 0, 1, 0, 0, 0, 60, 0, 5, 2, b'n', b's', 0xc0, 16]);
    let end = message.len();
    message.extend_from_slice(&[0xc0, end as u8 - 5, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    super::truncate(&mut message, end, false);
    assert_eq!((message.len(), message[2] & 2), (end, 2));
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    let random = proptest::collection::vec(any::<u8>(), 0..600);
    // Valid queries with some bytes changed reach deeper than noise does.
    let near = (proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), any::<bool>()).prop_map(
        |(edits, edns)| {
            let mut packet = query("inside.web.svc.cluster.local", rtype::A);
            if edns {
                packet = with_edns(packet, 1232, 0, true);
            }
            for (index, byte) in edits {
                let at = index.index(packet.len());
                packet[at] = byte;
            }
            packet
        },
    );
    prop_oneof![random, near]
}

proptest! {
    #[test]
    fn no_packet_breaks_the_server_and_every_answer_can_be_decoded(packet in packets()) {
        let rig = rig();
        let (outcome, response) = rig.handle(&packet);
        if matches!(outcome, Outcome::Answer) {
            let message = Message::from_octets(response.as_slice()).unwrap();
            prop_assert_eq!(&response[..2], &packet[..2]);
            prop_assert!(message.header().qr());
            told(&response);
        }
    }

    #[test]
    fn no_upstream_breaks_the_server(noise in proptest::collection::vec(any::<u8>(), 0..300), keep in 0_usize..60) {
        let rig = rig();
        let (mut waiting, sent) = rig.forward(&query("example.org", rtype::A));
        let mut message = upstream_answer(&sent.message, 0, &[[192, 0, 2, 1], [192, 0, 2, 2]]);
        message.truncate(keep);
        message.extend_from_slice(&noise);
        if sent.accepts(&message) {
            sent.answered(message);
            if let Some(response) = waiting.response() {
                let end = walk(&response, HEADER + 17).last().map_or(HEADER + 17, |record| record.unwrap().end);
                prop_assert_eq!(end, response.len());
            }
        }
    }

    #[test]
    fn no_corefile_breaks_the_parser(text in "[ -~\n\u{e4}{}\"#$]{0,200}") {
        let _ = crate::Config::load("Corefile", &text, &crate::Environment::EMPTY);
    }
}

#[test]
fn caches_of_http_keep_a_response_as_long_as_dns_does() {
    let mut rig = Rig::new(
        ". {\n kubernetes cluster.local {\n  ttl 7\n }\n hosts /nowhere {\n  10.0.0.1 a.example.org\n  ttl 90\n  fallthrough\n }\n}",
    );
    cluster(&mut rig);
    let age = |name: &str, qtype: u16| super::max_age(&rig.answer(&query(name, qtype)));
    assert_eq!(age("a.example.org", rtype::A), 90);
    assert_eq!(age("web.web.svc.cluster.local", rtype::A), 7);
    assert_eq!(age("none.web.svc.cluster.local", rtype::A), 7, "as the zone's SOA says");
    assert_eq!(age("b.example.org", rtype::A), 0, "failures are not kept");
    assert_eq!(super::max_age(&[0; 3]), 0);
}
