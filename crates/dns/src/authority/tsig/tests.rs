use std::sync::Arc;

use super::*;
use crate::{
    message::{question, u16_at},
    name::Name,
};

const NOW: u64 = 1_700_000_000;

fn key(algorithm: Algorithm) -> Arc<Key> {
    Arc::new(Key::new(Name::parse("k.example").unwrap(), algorithm, b"a secret of some length"))
}

fn query() -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&question(b"\x07example\x00", 6));
    message
}

fn response(text: u8) -> Vec<u8> {
    let mut message = query();
    message[2] = 0x84;
    message[7] = 1;
    message.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 5, 0, 2, 1, text]);
    message
}

fn find(known: &Arc<Key>) -> impl Fn(&Name) -> Option<Arc<Key>> + '_ {
    |name| (name == known.name()).then(|| known.clone())
}

#[test]
fn rfc8945_5_queries_and_answers_are_signed_and_checked() {
    for algorithm in Algorithm::ALL {
        let key = key(algorithm);
        let mut message = query();
        let mut client = Session::request(key.clone(), &mut message, NOW);
        assert_eq!(u16_at(&message, 10), Some(1));
        let mut server = Session::accept(find(&key), &mut message, NOW + 299).unwrap().unwrap();
        assert_eq!(message, query(), "the record is off again");
        let mut answer = response(7);
        server.sign(&mut answer, NOW);
        client.verify(&mut answer, NOW).unwrap();
        client.finish().unwrap();
        assert_eq!(answer, response(7));
        assert_eq!(Algorithm::named(algorithm.text()), Some(algorithm));
    }
    assert_eq!(Algorithm::named("HMAC-SHA256."), Some(Algorithm::Sha256));
    assert_eq!(Algorithm::named("hmac-md5.sig-alg.reg.int."), None);
}

#[test]
fn rfc4231_the_sums_are_the_algorithms() {
    let key = |algorithm| Key::new(Name::root(), algorithm, b"Jefe");
    let sum = |algorithm| data_encoding::HEXLOWER.encode(&key(algorithm).sign(b"what do ya want for nothing?"));
    assert_eq!(sum(Algorithm::Sha224), "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44");
    assert_eq!(sum(Algorithm::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    assert_eq!(sum(Algorithm::Sha256), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#[test]
fn rfc8945_5_2_what_is_wrong_is_told_in_the_order_key_signature_time() {
    let (ours, theirs) = (key(Algorithm::Sha256), key(Algorithm::Sha512));
    let refused = |change: &dyn Fn(&mut Vec<u8>), key: &Arc<Key>, now| {
        let mut message = query();
        let _ = Session::request(ours.clone(), &mut message, NOW);
        change(&mut message);
        Session::accept(find(key), &mut message, now).map(|session| session.is_some()).map_err(|refused| refused.code)
    };
    assert_eq!(refused(&|_| (), &ours, NOW), Ok(true));
    assert_eq!(refused(&|_| (), &theirs, NOW + 999), Err(Code::BadKey));
    assert_eq!(refused(&|message| message[14] ^= 1, &ours, NOW + 999), Err(Code::BadSignature));
    assert_eq!(refused(&|_| (), &ours, NOW + 301), Err(Code::BadTime));
    assert_eq!(refused(&|_| (), &ours, NOW - 301), Err(Code::BadTime));
    // The id may change on the way: the original one is signed.
    assert_eq!(refused(&|message| message[0] = 9, &ours, NOW), Ok(true));
    // A record behind it, and one that is cut.
    let behind = |message: &mut Vec<u8>| {
        message[11] = 2;
        message.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    assert_eq!(refused(&behind, &ours, NOW), Err(Code::Malformed));
    assert_eq!(refused(&|message| message.truncate(message.len() - 1), &ours, NOW), Err(Code::Malformed));
    assert!(Session::accept(find(&ours), &mut query(), NOW).unwrap().is_none());
}

#[test]
fn rfc8945_5_2_refusals_are_answers_the_client_understands() {
    let key = key(Algorithm::Sha256);
    let refusal = |server_key: &Arc<Key>, now| {
        let mut message = query();
        let mut client = Session::request(key.clone(), &mut message, NOW);
        let refused = Session::accept(find(server_key), &mut message, now).unwrap_err();
        let mut answer = query();
        answer[2] = 0x80;
        refused.answer(&mut answer, now);
        assert_eq!(answer[3] & 15, 9);
        (client.verify(&mut answer, NOW).unwrap_err().to_string(), answer)
    };
    let other = Arc::new(Key::new(Name::parse("k.example").unwrap(), Algorithm::Sha256, b"another"));
    assert_eq!(
        refusal(&other, NOW).0,
        "key k.example.: the server finds the request's signature wrong (TSIG error 16)"
    );
    // RFC 8945 §5.2.3: the answer to a wrong time is signed, and tells the server's.
    assert!(refusal(&key, NOW + 4000).0.ends_with("(TSIG error 18)"));
    let mut message = query();
    let mut client = Session::request(key.clone(), &mut message, NOW);
    let refused = Session::accept(find(&key), &mut message, NOW + 4000).unwrap_err();
    let mut answer = query();
    refused.answer(&mut answer, NOW + 4000);
    let last = answer.len() - 1;
    answer[last] ^= 1;
    assert!(matches!(client.verify(&mut answer, NOW), Err(TsigError::Wrong { code: Code::BadSignature, .. })));
}

#[test]
fn rfc8945_5_3_1_long_answers_are_a_chain_of_signatures() {
    let key = key(Algorithm::Sha256);
    let mut message = query();
    let mut client = Session::request(key.clone(), &mut message, NOW);
    let mut server = Session::accept(find(&key), &mut message, NOW).unwrap().unwrap();
    let mut messages: Vec<Vec<u8>> = (0..4).map(response).collect();
    for message in &mut messages {
        server.sign(message, NOW);
    }
    let mut swapped = client.clone();
    for message in &messages {
        client.verify(&mut message.clone(), NOW).unwrap();
    }
    client.finish().unwrap();
    swapped.verify(&mut messages[0].clone(), NOW).unwrap();
    let error = swapped.verify(&mut messages[2].clone(), NOW).unwrap_err();
    assert!(matches!(error, TsigError::Wrong { code: Code::BadSignature, .. }), "a message was left out");
}

#[test]
fn rfc8945_5_3_1_messages_between_signed_ones_may_be_unsigned_for_a_while() {
    let key = key(Algorithm::Sha256);
    let mut message = query();
    let mut client = Session::request(key.clone(), &mut message, NOW);
    let mut server = Session::accept(find(&key), &mut message, NOW).unwrap().unwrap();
    assert!(matches!(client.clone().verify(&mut response(0), NOW), Err(TsigError::Unsigned { .. })));
    let mut first = response(0);
    server.sign(&mut first, NOW);
    client.verify(&mut first, NOW).unwrap();
    for _ in 0..99 {
        client.verify(&mut response(1), NOW).unwrap();
        server.unsigned.extend_from_slice(&response(1));
    }
    assert!(matches!(client.finish(), Err(TsigError::Unsigned { .. })));
    assert!(matches!(client.clone().verify(&mut response(1), NOW), Err(TsigError::Unsigned { .. })));
    let mut last = response(2);
    server.sign(&mut last, NOW);
    client.verify(&mut last, NOW).unwrap();
    client.finish().unwrap();
}

proptest::proptest! {
    #[test]
    fn rfc8945_5_2_a_changed_message_is_never_taken_for_a_signed_one(at in 2_usize..200, bit in 0_u8..8) {
        let key = key(Algorithm::Sha256);
        let mut message = query();
        let _ = Session::request(key.clone(), &mut message, NOW);
        let at = 2 + at % (message.len() - 2);
        message[at] ^= 1 << bit;
        // Upper and lower case of the key's and the algorithm's name are the same.
        let name = message[at].is_ascii_alphabetic() && bit == 5 && at >= query().len();
        let taken = Session::accept(find(&key), &mut message, NOW).is_ok_and(|session| session.is_some());
        proptest::prop_assert!(!taken || name, "byte {}, bit {}", at, bit);
    }

    #[test]
    fn no_message_makes_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120), counts in 0_u8..4) {
        let key = key(Algorithm::Sha224);
        let mut message = query();
        message[11] = counts;
        message.extend_from_slice(&bytes);
        let _ = Session::accept(find(&key), &mut message, NOW);
        let mut raw = bytes.clone();
        let _ = Session::accept(find(&key), &mut raw, NOW);
    }
}
