//! What is tried on every input: shared by fuzzing (`fuzz/`) and by the test that replays what fuzzing has found.
//!
//! Each `run` panics where a promise is broken. What an input says is up to the fuzzer; that nothing breaks is up to us.

#![allow(dead_code, clippy::expect_used, unreachable_pub)]

mod cluster;
pub mod corefile;
pub mod hosts;
pub mod message;
mod outside;
pub mod proof;
mod signing;
pub mod zonefile;

use podnet_dns::{
    message::{HEADER, Head, Request, flag, walk},
    name::QueryName,
};

/// Where the question of a message ends; at the header's end where there is none.
fn question_end(message: &[u8]) -> usize {
    QueryName::parse(message, HEADER).map_or(HEADER, |(_, end)| end + 4).min(message.len())
}

/// What holds for every response to a packet.
fn check(packet: &[u8], response: &[u8], transport: podnet_dns::Transport) {
    assert!(response.len() >= HEADER, "no header");
    assert_eq!(response[..2], packet[..2], "the id");
    let flags = u16::from_be_bytes([response[2], response[3]]);
    assert_ne!(flags & flag::QR, 0, "no response");
    let questions = u16::from_be_bytes([response[4], response[5]]);
    let end = if questions == 0 { HEADER } else { question_end(response) };
    let mut at = end;
    for record in walk(response, end) {
        at = record.expect("what we write can be read").end;
    }
    assert_eq!(at, response.len(), "something stands behind the last record");
    let limit = match Request::parse(packet, transport) {
        Ok(Request { head: Head { limit, .. }, question, .. }) => {
            assert_eq!(response.get(HEADER..HEADER + question.len()), Some(question), "the question");
            limit
        }
        Err(_) => 1232,
    };
    assert!(response.len() <= usize::from(limit), "{} bytes where {limit} are allowed", response.len());
}

/// Splits an input: so many bytes for one, the rest for the other.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((size, rest)) = data.split_first_chunk::<2>() else { return (data, &[]) };
    rest.split_at(usize::from(u16::from_be_bytes(*size)).min(rest.len()))
}
