//! Extended errors.

use super::{answer_of, record};
use crate::{
    message::rtype,
    server::fixture::{Rig, query, with_edns},
};

/// The code and text of the extended error that a response ends with.
fn extended(response: &[u8]) -> Option<(u16, String)> {
    let opt = response.windows(3).rposition(|bytes| bytes == [0, 0, 41])?;
    let options = &response[opt + 11..];
    let (head, rest) = options.split_first_chunk::<6>()?;
    (head[..2] == [0, 15]).then(|| (u16::from_be_bytes([head[4], head[5]]), String::from_utf8_lossy(rest).into_owned()))
}

fn asked(name: &str) -> Vec<u8> {
    with_edns(query(name, rtype::A), 1232, 0, false)
}

#[test]
fn section_2_who_has_no_edns_is_told_nothing() {
    let rig = Rig::new(". {\n acl {\n block\n }\n whoami\n}");
    assert_eq!(rig.answer(&query("a.test", rtype::A)).len(), query("a.test", rtype::A).len());
}

#[test]
fn section_4_14_a_server_that_knows_nothing_yet_is_not_ready() {
    let rig = Rig::new(". {\n kubernetes cluster.local\n}");
    rig.at(5);
    let (code, text) = extended(&rig.answer(&asked("a.b.svc.cluster.local"))).unwrap();
    assert_eq!((code, text.contains("not known yet")), (14, true));
}

#[test]
fn section_4_16_what_acl_blocks_and_filters_is_told_as_that() {
    let rig = Rig::new(". {\n acl a.test {\n block\n }\n acl b.test {\n filter\n }\n whoami\n}");
    assert_eq!(extended(&rig.answer(&asked("a.test"))), Some((15, String::new())));
    assert_eq!(extended(&rig.answer(&asked("b.test"))), Some((17, String::new())));
    assert_eq!(extended(&rig.answer(&asked("c.test"))), None);
}

#[test]
fn section_4_23_silence_of_all_upstreams_is_told_and_section_4_14_a_kept_failure_as_such() {
    let rig = Rig::new(". {\n cache\n forward . 192.0.2.53\n}");
    let mut waiting = rig.wait(&asked("a.test"));
    let response = loop {
        if let Some(response) = waiting.response() {
            break response;
        }
        rig.sent().into_iter().for_each(crate::server::fixture::Sent::failed);
    };
    assert_eq!(extended(&response).unwrap().0, 22);
    let (mut waiting, sent) = rig.forward(&asked("b.test"));
    sent.tells(2, &[]);
    assert_eq!(extended(&waiting.response().unwrap()), None, "the upstream's own failure");
    assert_eq!(extended(&rig.answer(&asked("b.test"))), Some((13, String::new())));
}

#[test]
fn section_4_4_what_has_ended_is_told_as_stale() {
    for (code, told) in [(0, 3), (3, 19)] {
        let rig = Rig::new(". {\n cache {\n serve_stale 1h immediate\n }\n forward . 192.0.2.53\n}");
        let (mut waiting, sent) = rig.forward(&asked("a.test"));
        let (counts, records) = match code {
            0 => ([1, 0, 0], record(1, 60, &[192, 0, 2, 1])),
            _ => ([0, 1, 0], record(rtype::SOA, 60, &super::soa(60))),
        };
        let message = answer_of(&sent.message, 0x8180 | code, counts, &records);
        sent.answered(message);
        assert_eq!(extended(&waiting.response().unwrap()), None);
        assert_eq!(extended(&rig.answer(&asked("a.test"))), None);
        rig.at(61);
        assert_eq!(extended(&rig.answer(&asked("a.test"))), Some((told, String::new())));
    }
}
