//! `tsig` over a whole chain: what has to be signed, and what is signed in return; and what this server signs itself.

use std::sync::Arc;

use super::{
    zones::{FILE, served, transfer_query, zone},
    *,
};
use crate::{
    authority::{
        transfer::{Notify, notify_reply},
        tsig::{Algorithm, Key, Session, TsigError},
    },
    name::Name,
    server::Transport,
};

/// What the surroundings of these tests have as the time.
const NOW: u64 = 1_800_000_000;

const CHAIN: &str = "example.org {\n tsig {\n secret k. c2VjcmV0c2VjcmV0c2VjcmV0\n require A AXFR\n }\n file db\n \
                     transfer {\n to *\n }\n}\nexample.net {\n whoami\n}\n";

fn key(secret: &str) -> Arc<Key> {
    Arc::new(Key::from_base64(Name::parse("k.").unwrap(), Algorithm::Sha256, secret).unwrap())
}

fn ours() -> Arc<Key> {
    key("c2VjcmV0c2VjcmV0c2VjcmV0")
}

fn rig() -> Rig {
    served(CHAIN, &[("db", zone(1, "www A 192.0.2.2"))])
}

/// The message with a signature, and what checks that of the response.
fn signed(mut message: Vec<u8>, key: Arc<Key>) -> (Vec<u8>, Session) {
    let session = Session::request(key, &mut message, NOW);
    (message, session)
}

#[test]
fn what_has_to_be_signed_is_refused_without_and_answered_signed_with_a_signature() {
    let rig = rig();
    assert_eq!(rig.ask("www.example.org", rtype::A), ["REFUSED"]);
    assert!(rig.events.lock().unwrap().is_empty(), "without the plugin errors nothing is told");
    // Other types need none, nor do other server blocks.
    assert_eq!(rig.ask("www.example.org", rtype::AAAA), ["NOERROR", "SOA"]);
    assert_eq!(rig.ask("www.example.net", rtype::A)[0], "NOERROR");
    let (query, mut session) = signed(query("www.example.org", rtype::A), ours());
    let mut response = rig.answer(&query);
    session.verify(&mut response, NOW).unwrap();
    assert_eq!(told(&response), ["NOERROR", "A 192.0.2.2"]);
}

#[test]
fn a_wrong_signature_is_told_as_such() {
    let rig = rig();
    let (query, mut session) = signed(query("www.example.org", rtype::AAAA), key("AAAA"));
    let mut response = rig.answer(&query);
    assert_eq!(told(&response)[0], "NOTAUTH");
    let refused = session.verify(&mut response, NOW).unwrap_err();
    assert!(matches!(refused, TsigError::Refused { code: 16, .. }), "{refused}");
    // Where no tsig looks at it, it is answered as if it had none.
    let (query, _) = signed(super::query("www.example.net", rtype::A), key("AAAA"));
    let response = rig.answer(&query);
    assert_eq!((flags(&response) & flag::RCODE, response[11]), (0, 2));
}

#[test]
fn what_is_rewritten_has_the_signature_that_it_was_asked_with() {
    let chain = CHAIN.replace(" file db", " rewrite name old.example.org www.example.org\n file db");
    let rig = served(&chain, &[("db", zone(1, "www A 192.0.2.2"))]);
    assert_eq!(rig.ask("old.example.org", rtype::A), ["REFUSED"]);
    let (right, mut session) = signed(query("old.example.org", rtype::A), ours());
    let mut response = rig.answer(&right);
    session.verify(&mut response, NOW).unwrap();
    assert_eq!(told(&response), ["NOERROR", "A 192.0.2.2"]);
    // A wrong one is told as such, although a rewritten question takes time.
    let (wrong, mut session) = signed(query("old.example.org", rtype::A), key("AAAA"));
    let mut response = rig.answer(&wrong);
    assert_eq!(told(&response)[0], "NOTAUTH");
    let refused = session.verify(&mut response, NOW).unwrap_err();
    assert!(matches!(refused, TsigError::Refused { code: 16, .. }), "{refused}");
}

#[test]
fn a_message_whose_id_was_changed_on_the_way_is_still_signed() {
    let rig = rig();
    let (mut query, mut session) = signed(query("www.example.org", rtype::A), ours());
    query[..2].copy_from_slice(&[0xab, 0xcd]);
    let mut response = rig.answer(&query);
    assert_eq!(response[..2], [0xab, 0xcd]);
    session.verify(&mut response, NOW).unwrap();
}

#[test]
fn answers_that_take_time_are_signed_and_have_room_for_it() {
    let rig =
        Rig::new(". {\n tsig {\n secret k. c2VjcmV0c2VjcmV0c2VjcmV0\n require all\n }\n forward . 192.0.2.1\n}\n");
    let (packet, mut session) = signed(query("many.example", rtype::A), ours());
    let (mut waiting, sent) = rig.forward(&packet);
    let mut parsed = sent.message.clone();
    assert!(Session::accept(|_| None, &mut parsed, NOW).unwrap().is_none(), "upstreams know no such key");
    sent.tells(0, &[[192, 0, 2, 1]; 28]);
    let mut response = waiting.response().unwrap();
    assert!(response.len() <= 512, "{}", response.len());
    session.verify(&mut response, NOW).unwrap();
    assert_eq!(flags(&response) & flag::TC, flag::TC, "28 addresses and a signature are more than 512 bytes");
}

#[test]
fn every_message_of_a_transfer_is_signed() {
    let more: String = (0..2000).map(|number| format!("h{number} TXT some-text-that-takes-room\n")).collect();
    let rig = served(CHAIN, &[("db", zone(1, &more))]);
    let arrival = Arrival { transport: Transport::Tcp, ..ARRIVAL };
    assert_eq!(told(&rig.handle_from(&transfer_query("example.org", None), &arrival).1), ["REFUSED"]);
    let (query, mut session) = signed(transfer_query("example.org", None), ours());
    let (Outcome::Transfer(transfer), _) = rig.handle_from(&query, &arrival) else { panic!("refused") };
    let mut messages = 0;
    transfer.send(|mut message| {
        messages += 1;
        session.verify(&mut message, NOW).unwrap();
        session.finish().unwrap();
        true
    });
    assert!(messages > 3, "{messages}");
}

#[test]
fn messages_of_a_kind_can_have_to_be_signed() {
    let corefile = "example.org {\n tsig {\n secret k. c2VjcmV0c2VjcmV0c2VjcmV0\n require_opcode NOTIFY\n }\n \
                    secondary {\n transfer from 10.244.1.2\n }\n}\n";
    let rig = Rig::new(corefile);
    let mut note = query("example.org", rtype::SOA);
    note[2] = 4 << 3;
    assert_eq!(told(&rig.answer(&note)), ["REFUSED"]);
    let (note, mut session) = signed(note, ours());
    let mut response = rig.answer(&note);
    session.verify(&mut response, NOW).unwrap();
    assert_eq!(told(&response), ["NOERROR"]);
}

const SECONDARY: &str = "example.org {\n tsig {\n secret k. c2VjcmV0c2VjcmV0c2VjcmV0\n }\n secondary {\n \
                         transfer from 192.0.2.1\n key k\n }\n transfer {\n to 192.0.2.7\n key k\n }\n}\n";

/// What a primary sends over the connection: the zone's transfer, every message signed by `key`; none: by nobody.
fn transferred(query: &[u8], key: Option<&Arc<Key>>) -> Vec<u8> {
    let primary = served(&FILE.replace("to 192.0.2.9", "to *"), &[("db", zone(1, "www A 192.0.2.2"))]);
    let mut bare = query.to_vec();
    let mut session = Session::accept(|_| Some(ours()), &mut bare, NOW).expect("its signature").expect("it is signed");
    if let Some(key) = key {
        let mut again = bare.clone();
        session = Session::request(Arc::clone(key), &mut again, NOW);
    }
    let (Outcome::Transfer(transfer), _) =
        primary.handle_from(&bare, &Arrival { transport: Transport::Tcp, ..ARRIVAL })
    else {
        panic!("refused")
    };
    let mut stream = Vec::new();
    transfer.send(|mut message| {
        if key.is_some() {
            session.sign(&mut message, NOW);
        }
        stream.extend_from_slice(&(message.len() as u16).to_be_bytes());
        stream.extend_from_slice(&message);
        true
    });
    stream
}

#[test]
fn secondary_asks_with_its_key_and_believes_what_is_signed_with_it_alone() {
    for (by, believed) in [(Some(ours()), true), (None, false), (Some(key("AAAA")), false)] {
        let rig = served(SECONDARY, &[]);
        let ask = rig.sent().pop().unwrap();
        let stream = transferred(&ask.message, by.as_ref());
        ask.delivered(stream);
        rig.work();
        let expected: &[&str] = if believed { &["NOERROR", "A 192.0.2.2"] } else { &["SERVFAIL"] };
        assert_eq!(rig.ask("www.example.org", rtype::A), expected);
        let events = rig.events.lock().unwrap().join("\n");
        assert_eq!(events.contains("key k."), !believed, "{events}");
    }
}

#[test]
fn those_who_are_told_of_changes_can_check_who_tells_them() {
    let rig = served(SECONDARY, &[]);
    let ask = rig.sent().pop().unwrap();
    let stream = transferred(&ask.message, Some(&ours()));
    ask.delivered(stream);
    rig.work();
    rig.work();
    let note = rig.sent().pop().expect("nobody is told");
    assert_eq!(note.upstream.to_string(), "192.0.2.7:53");
    let mut bare = note.message.clone();
    let mut session = Session::accept(|_| Some(ours()), &mut bare, NOW).unwrap().expect("it is signed");
    let mut reply = notify_reply(&Notify::parse(&bare).unwrap());
    session.sign(&mut reply, NOW);
    note.answered(reply);
    rig.work();
    assert!(rig.sent().is_empty(), "it has confirmed");
}
