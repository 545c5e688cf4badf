use std::time::{Duration, Instant};

use super::{Age, Cache, Divided, Half, Hit, Key};
use crate::{
    Config, Environment,
    message::{HEADER, Rcode, Upstream, question, records, rtype},
    name::Name,
    server::Reply,
};

fn cache(options: &str) -> Cache {
    let config = Config::load("Corefile", &format!(". {{\n cache {options}\n}}"), &Environment::EMPTY).unwrap();
    Cache::new(config.blocks[0].cache().cloned().unwrap())
}

fn key(name: &str) -> Key {
    Key::new(&question(Name::parse(name).unwrap().wire(), rtype::A), false, false)
}

/// A response with `answers` A records of the time to live `ttl`, or with an SOA of that minimum.
fn response(key: &Key, flags: u16, answers: u16, ttl: u32) -> Reply {
    let mut message = vec![0, 0];
    for word in [0x8000 | flags, 1, answers, u16::from(answers == 0), 0] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(key.question());
    for last in 0..answers {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        message.extend_from_slice(&ttl.to_be_bytes());
        message.extend_from_slice(&[0, 4, 192, 0, 2, last as u8]);
    }
    if answers == 0 {
        message.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0x0e, 0x10, 0, 22, 0, 0]);
        for value in [1, 2, 3, 4, ttl] {
            message.extend_from_slice(&value.to_be_bytes());
        }
    }
    let upstream = Upstream::parse(&message, key.question()).unwrap();
    Reply { answer: upstream.answer, truncated: upstream.truncated, fresh: false }
}

#[test]
fn an_answer_is_kept_for_its_least_time_to_live_and_counts_down() {
    let (mut cache, now, key) = (cache("3600"), Instant::now(), key("example.org"));
    cache.insert(&key, &response(&key, 0, 2, 100), now);
    let later = now + Duration::from_secs(40);
    let Hit { half, kept, .. } = cache.find(&key, later).unwrap();
    assert_eq!(half, Half::Success);
    let head =
        crate::message::Head { id: 1, flags: 0, edns: None, limit: 512, signature: crate::message::Signature::Absent };
    let mut out = Vec::new();
    records(&head, key.question(), &kept.answer, true, 0, &mut out);
    kept.age(&mut out, key.question().len(), later);
    let ttl = HEADER + key.question().len() + 6;
    assert_eq!(out[ttl..ttl + 4], 60_u32.to_be_bytes());
    assert!(cache.find(&key, now + Duration::from_secs(99)).is_some());
    assert!(cache.find(&key, now + Duration::from_secs(100)).is_none());
}

#[test]
fn the_corefile_bounds_how_long_answers_are_kept() {
    let (mut cache, now, key) = (cache("30"), Instant::now(), key("example.org"));
    cache.insert(&key, &response(&key, 0, 1, 100), now);
    assert!(cache.find(&key, now + Duration::from_secs(29)).is_some());
    assert!(cache.find(&key, now + Duration::from_secs(30)).is_none());
}

#[test]
fn nothing_is_kept_for_as_long_as_its_soa_says() {
    let (mut cache, now, key) = (cache("3600"), Instant::now(), key("none.example.org"));
    let response = response(&key, Rcode::NXDOMAIN.0, 0, 60);
    cache.insert(&key, &response, now);
    assert_eq!(cache.find(&key, now + Duration::from_secs(59)).unwrap().half, Half::Denial);
    assert!(cache.find(&key, now + Duration::from_secs(60)).is_none());
    let mut without = response;
    without.answer.counts = [0; 3];
    cache.insert(&key, &without, now + Duration::from_secs(70));
    assert!(cache.find(&key, now + Duration::from_secs(70)).is_none());
}

#[test]
fn a_failure_is_kept_for_a_moment_and_a_refusal_not_at_all() {
    let (mut cache, now, key) = (cache("3600"), Instant::now(), key("example.org"));
    cache.insert(&key, &response(&key, Rcode::REFUSED.0, 0, 60), now);
    assert!(cache.find(&key, now).is_none());
    cache.insert(&key, &response(&key, Rcode::SERVFAIL.0, 0, 60), now);
    assert!(cache.find(&key, now + Duration::from_secs(4)).is_some());
    assert!(cache.find(&key, now + Duration::from_secs(5)).is_none());
}

#[test]
fn the_cache_never_holds_more_than_its_capacity_and_keeps_what_is_asked_for() {
    let mut cache = cache("3600 {\n success 100\n}");
    let now = Instant::now();
    let wanted = key("wanted.example.org");
    cache.insert(&wanted, &response(&wanted, 0, 1, 600), now);
    for index in 0..1000 {
        let key = key(&format!("{index}.example.org"));
        cache.insert(&key, &response(&key, 0, 1, 600), now);
        assert!(cache.find(&wanted, now).is_some(), "after {index}");
    }
    assert_eq!(cache.entries(), (100, 0));
}

#[test]
fn large_answers_take_the_places_of_many_small_ones() {
    let mut cache = cache("3600 {\n success 1000\n}");
    let now = Instant::now();
    let wanted = key("wanted.example.org");
    cache.insert(&wanted, &response(&wanted, 0, 1, 600), now);
    let mut insert = |index: u16, answers| {
        let key = key(&format!("{index}.example.org"));
        cache.insert(&key, &response(&key, 0, answers, 600), now);
        assert!(cache.find(&wanted, now).is_some(), "after {index}");
        assert!(cache.success.place(key.hash(), key.bytes()).is_some(), "{index} itself");
        let bytes: usize = cache.success.slots.iter().map(super::ring::Slot::size).sum();
        assert_eq!(bytes, cache.success.bytes);
        assert!(bytes <= 1000 * 1024, "{bytes} after {index}");
        for (at, slot) in cache.success.slots.iter().enumerate() {
            assert_eq!(cache.success.place(slot.hash, &slot.key), Some(at));
        }
        cache.entries().0
    };
    for index in 0..999 {
        insert(index, 1);
    }
    let small = insert(999, 1);
    let large = (1000..1200).map(|index| insert(index, 3000)).last().unwrap();
    assert!(small > 999 && (10..20).contains(&large), "{small} small ones, {large} large ones");
    // The same name with another answer.
    let again = (1000..1200).map(|_| insert(1200, 3000)).last().unwrap();
    assert!(again >= large, "{again}");
    for index in 2000..4000 {
        insert(index, 1);
    }
    assert_eq!(insert(4000, 1), 1000);
}

#[test]
fn what_is_forgotten_is_gone_and_the_others_are_found() {
    let (mut cache, now) = (cache("3600"), Instant::now());
    let keys: Vec<Key> = (0..5).map(|index| key(&format!("{index}.example.org"))).collect();
    for key in &keys {
        cache.insert(key, &response(key, 0, 1, 600), now);
    }
    cache.insert(&keys[1], &response(&keys[1], Rcode::NXDOMAIN.0, 0, 60), now);
    for (forgotten, left) in [(1, 4), (4, 3), (0, 2), (0, 2)] {
        cache.forget(keys[forgotten].hash(), &keys[forgotten]);
        assert_eq!(cache.entries(), (left, 0), "{forgotten}");
    }
    let found: Vec<bool> = keys.iter().map(|key| cache.find(key, now).is_some()).collect();
    assert_eq!(found, [false, false, true, true, false]);
    let bytes: usize = cache.success.slots.iter().map(super::ring::Slot::size).sum();
    assert_eq!((bytes, cache.denial.bytes), (cache.success.bytes, 0));
}

#[test]
fn questions_with_and_without_signatures_have_answers_of_their_own() {
    let (mut cache, now, plain) = (cache("30"), Instant::now(), key("example.org"));
    let signed = Key::new(plain.question(), true, false);
    cache.insert(&plain, &response(&plain, 0, 1, 100), now);
    assert!(cache.find(&signed, now).is_none());
}

fn divided(options: &str) -> Divided {
    Divided::new(cache(options).options().clone())
}

#[test]
fn a_large_cache_in_parts_never_holds_more_than_its_capacity_and_keeps_what_is_asked_for() {
    let (cache, now) = (divided("3600 {\n success 4096\n denial 4096\n}"), Instant::now());
    let wanted = key("wanted.example.org");
    let found = |key: &Key| cache.find(key, now, |hit| hit.is_some_and(|hit| hit.age == Age::Fresh));
    cache.insert(&wanted, &response(&wanted, 0, 1, 600), now);
    for index in 0..6000 {
        let key = key(&format!("{index}.example.org"));
        cache.insert(&key, &response(&key, 0, 1, 600), now);
        assert!(found(&wanted), "after {index}");
    }
    assert!(found(&key("5999.example.org")));
    assert_eq!(cache.entries(), (4096, 0));
}

#[test]
fn a_small_cache_in_parts_has_its_whole_capacity_for_any_names() {
    let (cache, now) = (divided("3600 {\n success 100\n}"), Instant::now());
    for index in 0..100 {
        let key = key(&format!("{index}.example.org"));
        cache.insert(&key, &response(&key, 0, 1, 600), now);
    }
    assert_eq!(cache.entries(), (100, 0));
}

#[test]
fn a_cache_takes_over_what_another_one_with_the_same_options_holds() {
    let (key, now) = (key("example.org"), Instant::now());
    let (one, same, other) = (divided("30"), divided("30"), divided("60"));
    let found = |cache: &Divided| cache.find(&key, now, |hit| hit.is_some());
    one.insert(&key, &response(&key, 0, 1, 100), now);
    other.inherit(&one);
    assert!(found(&one) && !found(&other));
    same.inherit(&one);
    assert!(found(&same) && !found(&one));
}

#[test]
fn of_an_answer_and_a_denial_the_one_that_has_not_ended_counts_and_then_the_later_one() {
    let (mut cache, now, key) = (cache("3600 {\n serve_stale 1h\n}"), Instant::now(), key("example.org"));
    let at = |seconds| now + Duration::from_secs(seconds);
    let told = |cache: &mut Cache, seconds| cache.find(&key, at(seconds)).map(|hit| (hit.half, hit.age));
    cache.insert(&key, &response(&key, 0, 1, 10), now);
    cache.insert(&key, &response(&key, Rcode::NXDOMAIN.0, 0, 60), at(20));
    assert_eq!(told(&mut cache, 21), Some((Half::Denial, Age::Fresh)));
    assert_eq!(told(&mut cache, 90), Some((Half::Denial, Age::Stale)));
    cache.insert(&key, &response(&key, 0, 1, 10), at(22));
    assert_eq!(told(&mut cache, 23), Some((Half::Success, Age::Fresh)));
    assert_eq!(told(&mut cache, 40), Some((Half::Denial, Age::Fresh)));
    cache.insert(&key, &response(&key, 0, 1, 70), at(41));
    assert_eq!(told(&mut cache, 120), Some((Half::Success, Age::Stale)));
    assert_eq!(told(&mut cache, 111 + 3600), None);
}

#[test]
fn a_key_is_its_question_its_bits_and_its_options() {
    let name = format!("{0}.{0}.{0}.example.org", "a".repeat(60));
    for name in ["example.org", &name, "."] {
        let name = crate::name::QueryName::from(&Name::parse(name).unwrap());
        let plain = Key::of(&name, rtype::A, false, true);
        assert_eq!(plain, Key::new(&question(name.wire(), rtype::A), false, true));
        assert_eq!((plain.dnssec_ok(), plain.checking_disabled(), plain.options()), (false, true, &[][..]));
        let with = plain.clone().with(b"abc").with(b"de");
        assert_eq!((with.question(), with.options()), (plain.question(), &b"de"[..]));
        assert_eq!(with.clone().with(b""), plain);
        assert_ne!(with.hash(), plain.hash());
        assert_ne!(Key::of(&name, rtype::A, true, false).hash(), Key::of(&name, rtype::A, false, true).hash());
    }
}
