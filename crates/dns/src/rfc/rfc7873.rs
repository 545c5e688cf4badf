//! DNS cookies, the server's side: the rest is tested with the `cookies` directive.

use super::{WEB, flags, rig, with_options};
use crate::{
    message::flag,
    server::fixture::{Rig, told},
};

fn cookie(client: &[u8]) -> Vec<u8> {
    [&[0, 10, 0, client.len() as u8][..], client].concat()
}

#[test]
fn section_5_2_1_who_sends_none_gets_none() {
    let response = rig().answer(&with_options(WEB, &[]));
    assert_eq!(response[response.len() - 2..], [0, 0]);
}

#[test]
fn section_5_2_2_a_cookie_of_a_length_that_there_is_none_of_is_a_format_error() {
    for length in [0, 1, 7, 9, 15, 41, 60] {
        assert_eq!(told(&rig().answer(&with_options(WEB, &cookie(&vec![7; length])))), ["FORMERR"], "{length}");
    }
    for length in [8, 16, 24, 40] {
        assert_eq!(told(&rig().answer(&with_options(WEB, &cookie(&vec![7; length]))))[0], "NOERROR", "{length}");
    }
}

#[test]
fn section_5_2_3_a_client_without_ours_is_answered_with_one() {
    let response = rig().answer(&with_options(WEB, &cookie(b"a client")));
    assert_eq!(response[response.len() - 28..response.len() - 16], *b"\0\x0a\0\x18a client");
}

#[test]
fn section_5_2_of_several_the_first_counts() {
    let two = [cookie(b"a client"), cookie(b"another1")].concat();
    let response = rig().answer(&with_options(WEB, &two));
    assert_eq!(response[response.len() - 24..response.len() - 16], *b"a client");
}

#[test]
fn section_5_4_a_query_without_a_question_asks_for_a_cookie() {
    let ask = |rig: &Rig, options: &[u8]| {
        let mut packet = with_options("", options);
        packet.drain(12..17);
        packet[5] = 0;
        rig.answer(&packet)
    };
    let response = ask(&rig(), &cookie(b"a client"));
    assert_eq!((response.len(), response[5], flags(&response) & flag::RCODE), (12 + 11 + 28, 0, 0));
    assert_eq!(told(&ask(&rig(), &[])), ["FORMERR"]);
}

#[test]
fn section_5_2_4_refusals_have_the_cookie_too() {
    let rig = Rig::new("example.org {\n whoami\n}");
    let mut version = with_options("example.org", &cookie(b"a client"));
    let at = version.len() - 12 - 5;
    version[at] = 1;
    let response = rig.answer(&version);
    assert_eq!(response[response.len() - 24..response.len() - 16], *b"a client");
}
