//! Unknown types.

use super::{answer_of, record, rig};
use crate::{message::walk, server::fixture::query};

const UNKNOWN: u16 = 65_280;

#[test]
fn section_3_data_of_an_unknown_type_is_passed_on_and_kept_as_it_is() {
    let rig = rig();
    let packet = query("example.org", UNKNOWN);
    let (mut waiting, sent) = rig.forward(&packet);
    // Looks like a pointer, and is none.
    let data = [0xc0, 12, 0xff, 0];
    let message = answer_of(&sent.message, 0x8180, [1, 0, 0], &record(UNKNOWN, 60, &data));
    sent.answered(message);
    for response in [waiting.response().unwrap(), rig.answer(&packet)] {
        let record = walk(&response, packet.len()).next().unwrap().unwrap();
        assert_eq!((record.rtype, &response[record.rdata..record.end]), (UNKNOWN, &data[..]));
    }
}

#[test]
fn section_4_it_stays_as_it_is_where_answers_are_taken_apart() {
    let plugins =
        "rewrite name exact a.test b.test answer auto\n minimal\n loadbalance round_robin {\n prefer 10.0.0.0/8\n }";
    let rig = crate::server::fixture::Rig::new(&format!(". {{\n {plugins}\n forward . 192.0.2.53\n}}"));
    let (mut waiting, sent) = rig.forward(&query("a.test", UNKNOWN));
    let data = [0xc0, 12, 0xff, 0];
    let records = [record(UNKNOWN, 60, &data), record(1, 60, &[10, 0, 0, 1])].concat();
    let message = answer_of(&sent.message, 0x8180, [2, 0, 0], &records);
    sent.answered(message);
    let response = waiting.response().unwrap();
    let records: Vec<_> = walk(&response, 12 + 8 + 4).map(Result::unwrap).collect();
    let unknown = records.iter().find(|record| record.rtype == UNKNOWN).expect("it was lost");
    assert_eq!(response[unknown.rdata..unknown.end], data);
}
