use ipnet::IpNet;
use podnet_planner::step::Vxlan;

use super::*;
use crate::{
    addr, fdb, neigh,
    testing::{TestNs, mac},
};

#[test]
fn a_veth_pair_has_its_ends_in_two_namespaces() {
    let (here, there) = (TestNs::new("veth-here"), TestNs::new("veth-there"));
    let mut socket = RtSocket::open_in(&here).unwrap();
    let mut other = RtSocket::open_in(&there).unwrap();
    let peer = VethPeer { name: "far", mac: Some(mac(1, 2)), netns: Some(&there) };
    create_veth(&mut socket, &Veth { name: "near", mac: Some(mac(1, 1)), peer, mtu: 1400 }).unwrap();
    let near = find(&mut socket, "near").unwrap().unwrap();
    let far = find(&mut other, "far").unwrap().unwrap();
    assert_eq!((near.mac, near.mtu, near.kind.as_deref()), (Some(mac(1, 1)), 1400, Some("veth")));
    assert_eq!((far.mac, far.mtu), (Some(mac(1, 2)), 1400));
    assert_eq!((near.peer, far.peer), (Some(far.index), Some(near.index)));
    assert!(!near.is_up);
    delete(&mut other, "far").unwrap();
    assert_eq!(find(&mut socket, "near").unwrap(), None);
    delete(&mut other, "far").unwrap();
}

#[test]
fn a_bridge_takes_ports() {
    let namespace = TestNs::new("bridge");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    create_bridge(&mut socket, "br0").unwrap();
    let peer = VethPeer { name: "b", mac: None, netns: None };
    create_veth(&mut socket, &Veth { name: "a", mac: None, peer, mtu: 1500 }).unwrap();
    set_master(&mut socket, "a", "br0").unwrap();
    for name in ["br0", "a", "b"] {
        set_up(&mut socket, name).unwrap();
    }
    let bridge = find(&mut socket, "br0").unwrap().unwrap();
    let port = find(&mut socket, "a").unwrap().unwrap();
    assert_eq!(port.master, Some(bridge.index));
    assert!(port.is_up);
    set_down(&mut socket, port.index).unwrap();
    assert!(!find(&mut socket, port.index).unwrap().unwrap().is_up);
}

#[test]
fn a_device_is_renamed_and_moved() {
    let (from, to) = (TestNs::new("move-from"), TestNs::new("move-to"));
    let mut socket = RtSocket::open_in(&from).unwrap();
    create_bridge(&mut socket, "old").unwrap();
    rename(&mut socket, "old", "new").unwrap();
    let peer = VethPeer { name: "b", mac: None, netns: None };
    create_veth(&mut socket, &Veth { name: "a", mac: None, peer, mtu: 1500 }).unwrap();
    move_to(&mut socket, "a", &to).unwrap();
    let names: Vec<String> = list(&mut socket).unwrap().iter().map(|link| link.name.to_string()).collect();
    assert_eq!(names, ["lo", "new", "b"]);
    assert!(find(&mut RtSocket::open_in(&to).unwrap(), "a").unwrap().is_some());
    assert!(matches!(rename(&mut socket, "old", "x"), Err(NetlinkError::NoDevice { .. })));
}

#[test]
fn a_vxlan_device_shows_the_parameters_that_it_was_made_with() {
    let namespace = TestNs::new("vxlan");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    for local in ["192.0.2.1", "2001:db8::1"] {
        let vxlan = vxlan(local);
        create_vxlan(&mut socket, &vxlan).unwrap();
        let found = find(&mut socket, "vx0").unwrap().unwrap();
        assert_eq!((found.mac, found.mtu), (Some(vxlan.mac), 1450));
        let local = Some(vxlan.local);
        assert_eq!(found.vxlan, Some(VxlanParameters { vni: 4096, port: 4789, local, learning: false }));
        delete(&mut socket, "vx0").unwrap();
    }
}

#[test]
fn addresses_neighbours_and_fdb_entries_are_set_listed_and_removed_twice() {
    let namespace = TestNs::new("objects");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    create_vxlan(&mut socket, &vxlan("192.0.2.1")).unwrap();
    let index = index_of(&mut socket, "vx0").unwrap();
    set_without_link_local(&mut socket, index).unwrap();
    set_up(&mut socket, index).unwrap();
    let addresses: Vec<IpNet> = ["10.0.0.1/32", "2001:db8::1/128"].map(|addr| addr.parse().unwrap()).to_vec();
    let remotes = ["192.0.2.2", "192.0.2.3"].map(|addr| addr.parse().unwrap());
    let neighbours = ["10.0.0.9", "2001:db8::9"].map(|addr| (addr.parse().unwrap(), mac(7, 9)));
    for _ in 0..2 {
        addresses.iter().for_each(|addr| addr::add(&mut socket, index, *addr).unwrap());
        neighbours.iter().for_each(|(addr, mac)| neigh::replace(&mut socket, index, *addr, *mac).unwrap());
    }
    remotes.iter().for_each(|remote| fdb::replace(&mut socket, index, mac(7, 9), *remote).unwrap());
    assert_eq!(addr::list(&mut socket, index).unwrap(), addresses);
    assert_eq!(neigh::list(&mut socket, index).unwrap(), neighbours);
    assert_eq!(
        fdb::list(&mut socket, index).unwrap(),
        [(mac(7, 9), remotes[1])],
        "the second remote took the first one's place"
    );
    for _ in 0..2 {
        addresses.iter().for_each(|addr| addr::delete(&mut socket, index, *addr).unwrap());
        neighbours.iter().for_each(|(addr, _)| neigh::delete(&mut socket, index, *addr).unwrap());
        fdb::delete(&mut socket, index, mac(7, 9), remotes[1]).unwrap();
    }
    namespace.command("bridge fdb add 02:00:00:00:00:07 dev vx0 dst 192.0.2.7");
    let [(_, by_hand)] = fdb::list(&mut socket, index).unwrap()[..] else { panic!("one entry is there") };
    assert_eq!(by_hand, "192.0.2.7".parse::<IpAddr>().unwrap(), "entries of bridge(8) never age either");
    namespace.command("bridge fdb del 02:00:00:00:00:07 dev vx0 dst 192.0.2.7");
    assert_eq!(addr::list(&mut socket, index).unwrap(), []);
    assert_eq!(neigh::list(&mut socket, index).unwrap(), []);
    assert_eq!(fdb::list(&mut socket, index).unwrap(), []);
}

fn vxlan(local: &str) -> Vxlan {
    let local = local.parse().unwrap();
    Vxlan { name: "vx0".into(), vni: 4096, port: 4789, local, mac: mac(1, 1), mtu: 1450, addrs: Default::default() }
}

#[test]
fn addresses_of_ipv6_that_do_not_last_are_passed_over() {
    let namespace = TestNs::new("lasting");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    create_bridge(&mut socket, "br0").unwrap();
    namespace.command("ip link set br0 addrgenmode none up");
    namespace.command("ip addr add 192.0.2.1/24 dev br0");
    // It means temporary of IPv6.
    namespace.command("ip addr add 192.0.2.2/24 dev br0");
    namespace.command("ip addr add 2001:db8::1/64 dev br0 nodad");
    namespace.command("ip addr add 2001:db8::2/64 dev br0 nodad valid_lft 1000 preferred_lft 0");
    // The bridge has no port that is up: whether somebody has the address is not known yet.
    namespace.command("ip addr add 2001:db8::3/64 dev br0");
    let br0 = index_of(&mut socket, "br0").unwrap();
    let found = crate::addr::list_lasting(&mut socket).unwrap();
    let on_br0: Vec<String> =
        found.iter().filter(|(device, _)| *device == br0).map(|(_, addr)| addr.to_string()).collect();
    assert_eq!(on_br0, ["192.0.2.1/24", "192.0.2.2/24", "2001:db8::1/64"]);
}
