//! How long a connection is kept, told by EDNS.

use super::{WEB, rig, with_options};
use crate::server::{Arrival, Transport, fixture::ARRIVAL};

const ASKED: [u8; 4] = [0, 11, 0, 0];

#[test]
fn section_3_3_2_who_asks_over_a_connection_is_told_how_long_it_is_kept() {
    let over_tcp = Arrival { transport: Transport::Tcp, keepalive: Some(100), ..ARRIVAL };
    let told = rig().handle_from(&with_options(WEB, &ASKED), &over_tcp).1;
    assert_eq!(told[told.len() - 8..], [0, 6, 0, 11, 0, 2, 0, 100]);
    let untold = rig().handle_from(&with_options(WEB, &[]), &over_tcp).1;
    assert_eq!(untold[untold.len() - 2..], [0, 0], "who does not ask is not told");
}

#[test]
fn section_3_2_1_over_udp_the_option_is_not_heard() {
    let told = rig().answer(&with_options(WEB, &ASKED));
    assert_eq!(told[told.len() - 2..], [0, 0]);
}
