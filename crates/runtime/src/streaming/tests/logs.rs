//! What kubectl logs relies on.

use std::{fs::OpenOptions, io::Write, time::Instant};

use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{
    client::{DEADLINE, body, get},
    fixture::Fixture,
};

const LOGS: &str = "/containerLogs/default/web/main";

fn append(fixture: &Fixture, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(fixture.log()).unwrap();
    for line in text.lines() {
        writeln!(file, "2026-01-01T00:00:00.123456789Z stdout F {line}").unwrap();
    }
}

#[tokio::test]
async fn a_log_is_what_was_written_so_far() {
    let fixture = Fixture::start().await;
    append(&fixture, "one\ntwo\nthree");
    assert_eq!(body(get(&fixture, LOGS).await).await, b"one\ntwo\nthree\n");
    assert_eq!(body(get(&fixture, &format!("{LOGS}?tailLines=1")).await).await, b"three\n");
    let stamped = body(get(&fixture, &format!("{LOGS}?tailLines=1&timestamps=true")).await).await;
    assert_eq!(stamped, b"2026-01-01T00:00:00.123456789Z three\n");
    assert_eq!(body(get(&fixture, &format!("{LOGS}?limitBytes=5")).await).await, b"one\nt");
    assert!(body(get(&fixture, &format!("{LOGS}?sinceSeconds=1")).await).await.len() <= 14);
}

#[tokio::test]
async fn a_container_that_has_written_nothing_has_an_empty_log() {
    let fixture = Fixture::start().await;
    assert!(body(get(&fixture, LOGS).await).await.is_empty());
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_container_ends() {
    let fixture = Fixture::start().await;
    append(&fixture, "before");
    let mut response = get(&fixture, &format!("{LOGS}?follow=true")).await;
    let mut seen = Vec::new();
    let mut expected = b"before\n".to_vec();
    for word in ["one", "two", "three"] {
        while seen != expected {
            let frame = timeout(DEADLINE, response.frame()).await.unwrap().unwrap().unwrap();
            seen.extend_from_slice(&frame.into_data().unwrap());
        }
        append(&fixture, word);
        expected.extend_from_slice(format!("{word}\n").as_bytes());
    }
    append(&fixture, "last");
    fixture.node.ended.send_replace(true);
    seen.extend(body(response).await);
    assert_eq!(String::from_utf8_lossy(&seen), "before\none\ntwo\nthree\nlast\n");
}

#[tokio::test]
async fn a_followed_line_is_seen_within_a_tenth_of_a_second() {
    let fixture = Fixture::start().await;
    append(&fixture, "first");
    let mut response = get(&fixture, &format!("{LOGS}?follow=true")).await;
    timeout(DEADLINE, response.frame()).await.unwrap().unwrap().unwrap();
    // The best of some: a machine busy with other tests must not fail this one.
    let mut best = DEADLINE;
    for _ in 0..5 {
        let begin = Instant::now();
        append(&fixture, "line");
        timeout(DEADLINE, response.frame()).await.unwrap().unwrap().unwrap();
        best = best.min(begin.elapsed());
    }
    assert!(best.as_millis() < 100, "{best:?}");
}

#[tokio::test]
async fn a_followed_log_survives_rotation() {
    let fixture = Fixture::start().await;
    append(&fixture, "old");
    let mut response = get(&fixture, &format!("{LOGS}?follow=true")).await;
    timeout(DEADLINE, response.frame()).await.unwrap().unwrap().unwrap();
    std::fs::rename(fixture.log(), fixture.log().with_extension("1")).unwrap();
    append(&fixture, "new");
    fixture.node.ended.send_replace(true);
    assert_eq!(body(response).await, b"new\n");
}

#[tokio::test]
async fn a_large_log_arrives_whole() {
    let fixture = Fixture::start().await;
    let line = "x".repeat(1023);
    append(&fixture, &format!("{line}\n").repeat(10 * 1024));
    assert_eq!(body(get(&fixture, LOGS).await).await.len(), 10 * 1024 * 1024);
}
