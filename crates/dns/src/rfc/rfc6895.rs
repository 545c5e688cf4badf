//! Numbers: operations, codes, types.

use super::{WEB, flags, rig};
use crate::{
    message::{flag, rtype},
    server::fixture::{query, told},
};

#[test]
fn section_2_2_other_operations_are_not_implemented() {
    for opcode in [1, 2, 3, 5, 6, 15] {
        let mut packet = query(WEB, rtype::A);
        packet[2] = opcode << 3;
        let response = rig().answer(&packet);
        assert_eq!((told(&response)[0].as_str(), flags(&response) & flag::OPCODE), ("NOTIMP", u16::from(opcode) << 11));
    }
}

#[test]
fn section_3_1_types_of_messages_are_no_types_of_data() {
    assert_eq!(told(&rig().answer(&query(WEB, rtype::OPT))), ["FORMERR"]);
    for qtype in [rtype::AXFR, rtype::IXFR] {
        assert_eq!(told(&rig().answer(&query(WEB, qtype))), ["REFUSED"], "{qtype}");
    }
}

#[test]
fn section_3_1_a_type_that_nobody_knows_is_a_type_without_data() {
    assert_eq!(told(&rig().answer(&query(WEB, 65_280))), ["NOERROR", "SOA"]);
}
