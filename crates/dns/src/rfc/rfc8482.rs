//! Questions for all types.

use super::{WEB, count, flags, rig};
use crate::{
    message::{flag, rtype},
    server::{
        Arrival, Outcome, Transport,
        fixture::{ARRIVAL, Rig, query, told, with_edns},
    },
};

#[test]
fn section_4_2_one_record_that_says_why_is_enough() {
    let rig = Rig::new(". {\n any\n forward . 192.0.2.53\n}");
    let response = rig.answer(&query("example.org", rtype::ANY));
    assert_eq!(told(&response), ["NOERROR", "HINFO \"ANY obsoleted\" \"See RFC 8482\""]);
    assert!(response.len() < 3 * query("example.org", rtype::ANY).len(), "{} bytes", response.len());
}

#[test]
fn section_4_1_without_the_plugin_own_names_answer_with_few_records() {
    let response = rig().answer(&query(WEB, rtype::ANY));
    assert!(count(&response, 1) <= 4 && response.len() <= 512);
}

#[test]
fn section_4_4_all_that_others_told_goes_out_over_connections_alone() {
    let rig = Rig::new(". {\n forward . 192.0.2.53\n}");
    let asked = with_edns(query("example.org", rtype::ANY), 1232, 0, false);
    let addrs: Vec<[u8; 4]> = (0..60).map(|last| [192, 0, 2, last]).collect();
    for (transport, whole) in [(Transport::Udp, false), (Transport::Tcp, true)] {
        let (Outcome::Later(later), _) = rig.handle_from(&asked, &Arrival { transport, ..ARRIVAL }) else {
            panic!("answered at once")
        };
        let mut waiting = rig.waiting(later);
        rig.sent().pop().expect("nobody is asked").tells(0, &addrs);
        let response = waiting.response().expect("no response yet");
        assert_eq!((flags(&response) & flag::TC == 0, response.len() > 512), (whole, whole));
    }
}
