//! Common mistakes in reading messages; broken questions are tested with [`crate::message`].

use super::{answer_of, rig};
use crate::{message::rtype, server::fixture::query};

/// What becomes of a client whose upstream answers this.
fn heard(counts: [u8; 3], records: &[u8]) -> Option<u16> {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("example.org", rtype::A));
    let message = answer_of(&sent.message, 0x8180, counts, records);
    sent.answered(message);
    waiting.response().map(|response| super::count(&response, 1))
}

const A: [u8; 14] = [0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];

#[test]
fn section_2_pointers_lead_backwards_and_end() {
    let good = [&[0xc0, 12][..], &A].concat();
    assert_eq!(heard([1, 0, 0], &good), Some(1));
    for pointer in [29, 30, 40, 0, 11] {
        let looped = [&[0xc0, pointer][..], &A].concat();
        assert_ne!(heard([1, 0, 0], &looped), Some(1), "to {pointer}");
    }
}

#[test]
fn section_3_names_end_and_are_not_too_long() {
    let mut endless = Vec::new();
    for _ in 0..6 {
        endless.push(63);
        endless.extend_from_slice(&[b'a'; 63]);
    }
    let long = [&endless[..], &[0], &A].concat();
    assert_ne!(heard([1, 0, 0], &long), Some(1));
    assert_ne!(heard([1, 0, 0], &endless[..100]), Some(1), "no end");
}

#[test]
fn section_5_lengths_of_data_are_checked() {
    let mut long = [&[0xc0, 12][..], &A].concat();
    long[11] = 5;
    assert_ne!(heard([1, 0, 0], &long), Some(1));
}

#[test]
fn section_6_counts_are_not_believed() {
    let record = [&[0xc0, 12][..], &A].concat();
    assert_ne!(heard([200, 0, 0], &record), Some(200));
}
