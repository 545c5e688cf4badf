//! Only flows to some ranges.

use super::*;

#[test]
fn ranges_take_the_place_of_others_also_where_there_is_no_room_for_both() {
    let lab = Lab::new("ranges");
    let flows = lab.counting(SMALL);
    let socket = lab.udp(v4(2));
    let port = socket.local_addr().unwrap().port();
    let many = |first: u8| -> BTreeSet<IpNet> {
        let addr = |number: u32| Ipv4Addr::from(u32::from_be_bytes([first, 0, 0, 0]) + number);
        (0..40_000).map(|number| IpNet::from(IpAddr::from(addr(number)))).collect()
    };
    // The second pod is 10.0.0.2.
    for (first, packets) in [(11, None), (10, Some(1)), (11, Some(1)), (10, Some(2))] {
        flows.set_ranges(Some(&many(first))).unwrap();
        datagrams(&socket, 1, 100);
        assert_eq!(both(&flows, port).map(|(source, _)| source.out.packets), packets, "{first}");
    }
}
