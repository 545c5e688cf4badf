//! SRV records.

use super::rig;
use crate::{
    message::{rtype, walk},
    server::fixture::query,
};

#[test]
fn a_target_is_spelled_out_and_stands_behind_priority_weight_and_port() {
    let packet = query("_http._tcp.web.web.svc.cluster.local", rtype::SRV);
    let response = rig().answer(&packet);
    let record = walk(&response, packet.len()).next().unwrap().unwrap();
    let data = &response[record.rdata..record.end];
    assert_eq!(data[4..6], 80_u16.to_be_bytes(), "the port");
    assert_eq!(data[6..], *b"\x03web\x03web\x03svc\x07cluster\x05local\0", "no compression");
}

#[test]
fn the_addresses_of_targets_stand_beside_them() {
    let packet = query("_http._tcp.headless.web.svc.cluster.local", rtype::SRV);
    let response = rig().answer(&packet);
    let records: Vec<_> = walk(&response, packet.len()).map(Result::unwrap).collect();
    assert!(records.iter().any(|record| record.section == 2 && record.rtype == rtype::A));
    assert!(records.iter().any(|record| record.section == 2 && record.rtype == rtype::AAAA));
}
