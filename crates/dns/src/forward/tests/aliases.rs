//! What an answer is about.

use super::*;

const TARGET: &[u8] = b"\x01b\x07example\x03net\x00";
const BANK: &[u8] = b"\x04bank\x07example\x00";

fn record(owner: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    [owner, &[0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8], data].concat()
}

/// What becomes of an answer with these records to a question for `a.example.org`.
fn heard(records: &[Vec<u8>]) -> Vec<String> {
    let rig = Rig::new(". {\n forward . 192.0.2.1\n}\n");
    let (mut waiting, sent) = rig.forward(&query("a.example.org", rtype::A));
    let mut message = upstream_answer(&sent.message, 0, &[]);
    message[7] = records.len() as u8;
    message.extend(records.concat());
    sent.answered(message);
    waiting.told()
}

#[test]
fn what_aliases_lead_to_is_the_answer_in_whatever_order_it_is_told() {
    let (alias, addr) = (record(&[0xc0, 12], 5, TARGET), record(TARGET, 1, &[192, 0, 2, 8]));
    let told = ["NOERROR", "CNAME b.example.net", "A 192.0.2.8"];
    assert_eq!(heard(&[alias.clone(), addr.clone()]), told);
    assert_eq!(heard(&[addr, alias]), ["NOERROR", "A 192.0.2.8", "CNAME b.example.net"]);
}

#[test]
fn what_nobody_asked_for_is_left_out_whoever_may_speak_of_it() {
    let (own, banks) = (record(&[0xc0, 12], 1, &ADDR), record(BANK, 1, &[192, 0, 2, 66]));
    assert_eq!(heard(&[own.clone(), banks.clone()]), TOLD);
    assert_eq!(heard(std::slice::from_ref(&banks)), ["NOERROR"]);
    let alias = record(&[0xc0, 12], 5, TARGET);
    assert_eq!(heard(&[alias, banks]), ["NOERROR", "CNAME b.example.net"]);
}

#[test]
fn an_alias_of_a_whole_tree_stays_with_those_that_it_makes() {
    // DNAME of example.org, which stands at 14 in the message.
    let tree = record(&[0xc0, 14], 39, b"\x07example\x03net\x00");
    let made = record(&[0xc0, 12], 5, b"\x01a\x07example\x03net\x00");
    let addr = record(b"\x01a\x07example\x03net\x00", 1, &ADDR);
    assert_eq!(heard(&[tree, made, addr]), ["NOERROR", "DNAME example.net", "CNAME a.example.net", "A 192.0.2.7"]);
}
