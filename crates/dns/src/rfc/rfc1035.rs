//! Domain names: implementation and specification.

use super::{WEB, count, flagged, flags, of_class, rig};
use crate::{
    Outcome, Transport,
    message::{flag, rtype},
    server::{
        Arrival,
        fixture::{ARRIVAL, query, told},
    },
};

#[test]
fn section_4_1_1_a_response_repeats_id_opcode_and_rd_and_says_what_it_is() {
    let response = rig().answer(&flagged(WEB, flag::RD));
    assert_eq!(response[..2], [0x12, 0x34]);
    assert_eq!(flags(&response), flag::QR | flag::AA | flag::RD | flag::RA);
    let response = rig().answer(&flagged(WEB, 0));
    assert_eq!(flags(&response), flag::QR | flag::AA | flag::RA);
}

#[test]
fn section_4_1_1_the_reserved_bit_is_zero_in_responses() {
    assert_eq!(flags(&rig().answer(&flagged(WEB, flag::RD | 0x0040))) & 0x0040, 0);
}

#[test]
fn section_4_1_1_aa_is_of_own_zones_alone() {
    let rig = rig();
    let (mut waiting, sent) = rig.forward(&query("example.org", rtype::A));
    sent.tells(0, &[[192, 0, 2, 1]]);
    assert_eq!(flags(&waiting.response().unwrap()) & flag::AA, 0);
}

#[test]
fn section_4_1_2_the_question_comes_back_as_it_was_spelled() {
    let packet = query("wEb.WEB.svc.Cluster.LOCAL", rtype::A);
    let response = rig().answer(&packet);
    assert_eq!(response[12..packet.len()], packet[12..]);
    assert_eq!(count(&response, 1), 1, "names are compared without case (section 2.3.3)");
}

#[test]
fn section_4_2_1_a_datagram_has_512_octets_at_most() {
    let names: String = (1..60).map(|last| format!(" 192.0.2.{last} many.test\n")).collect();
    let rig = crate::server::fixture::Rig::new(&format!(". {{\n hosts /nowhere {{\n{names} }}\n}}"));
    let packet = query("many.test", rtype::A);
    let response = rig.answer(&packet);
    assert!(response.len() <= 512 && flags(&response) & flag::TC != 0);
    // Section 4.2.2: a connection bears 65,535.
    let (_, whole) = rig.handle_from(&packet, &Arrival { transport: Transport::Tcp, ..ARRIVAL });
    assert_eq!((count(&whole, 1), flags(&whole) & flag::TC), (59, 0));
}

#[test]
fn section_3_1_labels_have_63_octets_and_names_255() {
    let rig = rig();
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert!(matches!(rig.handle(&query(&longest, rtype::A)).0, Outcome::Later(_)), "255 octets are a name");
    assert_eq!(told(&rig.answer(&query(&format!("{longest}a"), rtype::A))), ["FORMERR"], "256 are none");
}

#[test]
fn section_3_2_4_other_classes_are_refused() {
    for class in [2, 4, 254, 255] {
        assert_eq!(told(&rig().answer(&of_class(WEB, rtype::A, class))), ["REFUSED"], "{class}");
    }
}

#[test]
fn section_3_2_3_a_name_without_the_type_is_there() {
    assert_eq!(told(&rig().answer(&query(WEB, 15))), ["NOERROR", "SOA"]);
}
