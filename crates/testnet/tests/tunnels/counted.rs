//! Flows are counted on a kernel that is older than the newer hooks (`tcx`, Linux 6.6), also those that pass by the stack.

use std::{net::IpAddr, slice, time::Duration};

use podnet_flow::{Entry, Transport, Way};
use podnet_kernel::{
    fastpath::Behind,
    flows::{self, Flows, Sizes, Told},
};
use podnet_model::{
    EncapMode::{Always, Never},
    LinkName,
};
use podnet_testnet::wait;

use crate::{
    lab::{LINK, Lab, Outside, Underlay, pool, pool6},
    probes::{Connection, Datagrams},
};

const SMALL: Sizes = Sizes { entries: 1024, ring: 1 << 16 };
const SOON: Duration = Duration::from_secs(20);
/// So many datagrams are exchanged before it is looked whether they passed by.
const BATCH: u64 = 20;
const DATAGRAM: [u8; 100] = [7; 100];

/// Two nodes that are joined by VXLAN, with a pod each.
fn lab(tag: &str) -> Lab {
    Lab::with(tag, Underlay::OneSubnet, Outside::Both, 1450, &[&pool(Always, Never), &pool6(Always)])
}

/// Counts at the link of the first node's pod.
fn counting(lab: &mut Lab) -> Flows {
    let (socket, link) = (&mut lab.nodes[0].socket, LinkName::from(LINK));
    let flows = Flows::open(socket, slice::from_ref(&link), None, SMALL).unwrap();
    assert!(!flows::is_at(socket, &link).unwrap());
    assert!(flows.attach(socket, &link).unwrap() && !flows.attach(socket, &link).unwrap());
    assert!(flows::is_at(socket, &link).unwrap());
    flows
}

/// The entry of the one flow to an address by a protocol.
fn only(flows: &Flows, to: IpAddr, transport: Transport) -> Entry {
    let mut found = flows.entries().unwrap();
    found.retain(|entry| entry.key.remote == to && entry.key.transport == transport);
    let [entry] = found[..] else { panic!("{to} by {transport}: {found:?}") };
    assert!(entry.pod_began, "{entry:?}");
    entry
}

/// So many datagrams passed in both directions.
fn assert_counted(entry: &Entry, datagrams: u64) {
    // The headers of IP and UDP.
    let headers = if entry.key.remote.is_ipv4() { 28 } else { 48 };
    let expected = (datagrams, datagrams * (DATAGRAM.len() as u64 + headers));
    let passed = [entry.out, entry.into].map(|way| (way.packets, way.bytes));
    assert_eq!(passed, [expected; 2], "{entry:?}");
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_flows_are_counted() {
    let mut lab = lab("counted");
    let flows = counting(&mut lab);
    let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
    for to in [second.pod_address, second.pod_address6] {
        let datagrams = Datagrams::open(&first.pod, &second.pod, to);
        (0..3).for_each(|_| datagrams.exchange(&DATAGRAM));
        let entry = only(&flows, to, Transport::UDP);
        assert_counted(&entry, 3);
        assert!(!entry.ended && flows.bells().is_empty(), "{entry:?}");

        let mut connection = Connection::open(&first.pod, &second.pod, to);
        connection.exchange();
        drop(connection);
        let ended = wait::eventually("the end of the connection rings", SOON, || {
            let rung = |told| if let Told::Ended(entry) = told { Some(entry) } else { None };
            flows.bells().into_iter().find_map(rung).ok_or("nothing rang")
        });
        let both = Way::SYN | Way::FIN;
        for way in [ended.out, ended.into] {
            assert!(way.flags & both == both && way.resets == 0 && way.bytes > 300_000, "{ended:?}");
        }
        assert!(ended.ended && ended.handshake_micros > 0, "{ended:?}");
        let entry = only(&flows, to, Transport::TCP);
        assert!(entry.key == ended.key && entry.born == ended.born && entry.ended, "{entry:?} after {ended:?}");
    }
    assert!(flows.missed().unwrap().is_empty());
    // Who opens them next finds what is counted by the filters that are there.
    let (socket, link) = (&mut lab.nodes[0].socket, LinkName::from(LINK));
    let next = Flows::open(socket, slice::from_ref(&link), None, SMALL).unwrap();
    assert!(next.goes_on() && !next.abandons());
    assert_eq!(next.entries().unwrap().len(), flows.entries().unwrap().len());
    assert!(flows::detach(socket, &link).unwrap() && !flows::is_at(socket, &link).unwrap());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_flows_that_pass_by_the_stack_are_counted() {
    let mut lab = lab("countedfast");
    let flows = counting(&mut lab);
    let fast_path = flows.fast_path().unwrap();
    fast_path.live_for(Duration::from_mins(10)).unwrap();
    let socket = &mut lab.nodes[0].socket;
    for (device, behind) in [(LINK, Behind::Pod), ("podnet.vxlan", Behind::Nodes)] {
        assert!(fast_path.attach(socket, &device.into(), behind).unwrap(), "{device}");
    }
    let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
    for to in [second.pod_address, second.pod_address6] {
        let datagrams = Datagrams::open(&first.pod, &second.pod, to);
        let mut sent = 0;
        wait::eventually("datagrams pass by the stack in both directions", SOON, || {
            let before = fast_path.passed().unwrap().forwarded;
            (0..BATCH).for_each(|_| datagrams.exchange(&DATAGRAM));
            sent += BATCH;
            // More than there are of one direction.
            match fast_path.passed().unwrap().forwarded - before {
                passed if passed > BATCH => Ok(()),
                passed => Err(format!("{passed} of {} do", 2 * BATCH)),
            }
        });
        assert_counted(&only(&flows, to, Transport::UDP), sent);
    }
}
