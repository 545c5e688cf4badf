use super::*;
use crate::testing::{TestNs, eventually, mac};

/// A container on the bridge `cni0`, with this address and that Ethernet address.
fn on_bridge(netns: &NetNs, number: u8) -> SegmentInterface {
    SegmentInterface {
        netns: netns.clone(),
        container_ifname: "eth0".into(),
        addrs: vec!["10.9.0.2/24".parse().unwrap()],
        routes: vec![("0.0.0.0/0".parse().unwrap(), "10.9.0.1".parse().unwrap())],
        mtu: 1400,
        mac: Some(mac(1, number)),
        segment: Segment::Bridge {
            bridge: "cni0".into(),
            port: format!("port{number}").into(),
            hairpin: true,
            checked: false,
        },
    }
}

#[test]
fn who_gets_an_address_that_another_had_is_known_at_once() {
    let (node, one, other) = (TestNs::new("seg-node"), TestNs::new("seg-one"), TestNs::new("seg-other"));
    let mut host = RtSocket::open_in(&node).unwrap();
    let gateway = ["10.9.0.1/24".parse().unwrap()];
    bridge::prepare(&mut host, &"cni0".into(), 1400, &gateway, false).unwrap();
    let first = on_bridge(&one, 1);
    first.create(&mut host).unwrap();
    assert_eq!(first.check(&mut host).unwrap(), [""; 0]);
    assert!(node.command("bridge -d link show dev port1").contains("hairpin on"));
    let neighbour = TestNs::new("seg-neighbour");
    let mut third = on_bridge(&neighbour, 3);
    third.addrs = vec!["10.9.0.3/24".parse().unwrap()];
    third.create(&mut host).unwrap();
    neighbour.command("ping -c 1 -W 2 10.9.0.2");
    node.command("ping -c 1 -W 2 10.9.0.2");
    let knows = |who: &TestNs, number| who.command("ip neigh show 10.9.0.2").contains(&mac(1, number).to_string());
    assert!(knows(&node, 1) && knows(&neighbour, 1));
    link::delete(&mut host, "port1").unwrap();

    on_bridge(&other, 2).create(&mut host).unwrap();
    eventually("all know the new Ethernet address without asking", || knows(&node, 2) && knows(&neighbour, 2));
    node.command("ping -c 1 -W 2 10.9.0.2");
}

#[test]
fn a_bridge_learns_nothing_from_what_no_rule_sees_also_one_that_was_there() {
    let node = TestNs::new("seg-learn");
    let mut host = RtSocket::open_in(&node).unwrap();
    node.command("ip link add old type bridge");
    assert!(link::find(&mut host, "old").unwrap().unwrap().learns_link_local);
    for name in ["old", "new"] {
        bridge::prepare(&mut host, &name.into(), 1400, &[], false).unwrap();
        assert!(!link::find(&mut host, name).unwrap().unwrap().learns_link_local);
        assert!(node.command(&format!("ip -d link show dev {name}")).contains("no_linklocal_learn 1"));
    }
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let (node, pod) = (TestNs::new("seg-undo"), TestNs::new("seg-undo-pod"));
    let mut host = RtSocket::open_in(&node).unwrap();
    let interface = on_bridge(&pod, 1);
    assert!(interface.create(&mut host).is_err(), "there is no bridge");
    assert!(!interface.is_name_taken().unwrap());
    assert_eq!(link::find(&mut host, "port1").unwrap(), None);
    let mut unreachable = interface;
    unreachable.routes[0].1 = "192.0.2.1".parse().unwrap();
    bridge::prepare(&mut host, &"cni0".into(), 1400, &[], false).unwrap();
    assert!(unreachable.create(&mut host).is_err(), "the next hop is on no link");
    assert_eq!(link::find(&mut host, "port1").unwrap(), None);
}
