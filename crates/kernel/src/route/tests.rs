use super::*;
use crate::{addr, link, testing::TestNs};

const OURS: u8 = 88;

fn prepared(tag: &str) -> (TestNs, RtSocket, u32) {
    let namespace = TestNs::new(tag);
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    link::create_bridge(&mut socket, "br0").unwrap();
    link::set_without_link_local(&mut socket, "br0").unwrap();
    link::set_up(&mut socket, "br0").unwrap();
    let index = link::index_of(&mut socket, "br0").unwrap();
    for addr in ["192.0.2.1/24", "2001:db8::1/64"] {
        addr::add(&mut socket, index, addr.parse().unwrap()).unwrap();
    }
    (namespace, socket, index)
}

fn route(dst: &str, target: Target) -> Route {
    Route { dst: dst.parse().unwrap(), target, protocol: OURS, source: None }
}

fn sorted(mut routes: Vec<Route>) -> Vec<Route> {
    routes.sort_by_key(|route| route.dst);
    routes
}

#[test]
fn every_kind_of_route_is_listed_as_it_was_made_and_others_are_not() {
    let (_namespace, mut socket, index) = prepared("routes");
    let via = |addr: &str, onlink| Target::Gateway { device: Some(index), via: addr.parse().unwrap(), onlink };
    let mut routes = vec![
        route("10.0.0.7/32", Target::Device(index)),
        route("10.1.0.0/26", via("192.0.2.2", false)),
        route("10.2.0.0/26", via("198.51.100.9", true)),
        route("10.3.0.0/26", Target::Blackhole),
        route("0.0.0.0/0", via("192.0.2.254", false)),
        route("2001:db8:1::/64", via("2001:db8::2", false)),
        route("2001:db8:2::7/128", Target::Device(index)),
        route("2001:db8:3::/64", Target::Blackhole),
        route("2001:db8:4::/64", via("fe80::7", true)),
        route("10.4.0.0/26", via("2001:db8::2", false)),
        route("10.5.0.0/26", via("fe80::7", true)),
    ];
    routes[0].source = Some("192.0.2.1".parse().unwrap());
    for _ in 0..2 {
        routes.iter().for_each(|route| replace(&mut socket, route).unwrap());
    }
    let foreign = Route { protocol: PROTOCOL_STATIC, ..route("10.9.0.0/16", Target::Blackhole) };
    replace(&mut socket, &foreign).unwrap();
    assert_eq!(sorted(list(&mut socket, OURS).unwrap()), sorted(routes.clone()));
    for _ in 0..2 {
        routes.iter().for_each(|route| delete(&mut socket, route.dst, OURS).unwrap());
    }
    delete(&mut socket, foreign.dst, OURS).unwrap();
    assert_eq!(list(&mut socket, OURS).unwrap(), []);
    assert_eq!(list(&mut socket, PROTOCOL_STATIC).unwrap(), [foreign]);
}

#[test]
fn the_default_gateway_is_that_of_ipv4_before_that_of_ipv6() {
    let (_namespace, mut socket, index) = prepared("route-gateway");
    let via = |addr: &str| Target::Gateway { device: Some(index), via: addr.parse().unwrap(), onlink: true };
    assert_eq!(default_gateway(&mut socket).unwrap(), None);
    replace(&mut socket, &route("::/0", via("fe80::1"))).unwrap();
    assert_eq!(default_gateway(&mut socket).unwrap(), Some("fe80::1".parse().unwrap()));
    replace(&mut socket, &route("0.0.0.0/0", via("192.0.2.254"))).unwrap();
    assert_eq!(default_gateway(&mut socket).unwrap(), Some("192.0.2.254".parse().unwrap()));
}

#[test]
fn a_route_to_the_same_destination_takes_the_others_place() {
    let (_namespace, mut socket, index) = prepared("route-replace");
    replace(&mut socket, &route("10.1.0.0/26", Target::Blackhole)).unwrap();
    let better = route("10.1.0.0/26", Target::Device(index));
    replace(&mut socket, &better).unwrap();
    assert_eq!(list(&mut socket, OURS).unwrap(), [better]);
}

#[test]
fn the_removal_of_a_route_leaves_another_one_to_the_same_destination() {
    let (_namespace, mut socket, index) = prepared("route-other");
    for (mine, via) in [("10.1.0.7/32", "192.0.2.2"), ("2001:db8:1::7/128", "2001:db8::2"), ("10.1.0.8/32", "fe80::7")]
    {
        let gateway = Target::Gateway { device: Some(index), via: via.parse().unwrap(), onlink: true };
        let (mine, borrowers) = (route(mine, Target::Device(index)), route(mine, gateway));
        replace(&mut socket, &mine).unwrap();
        socket.perform(removal_of(&borrowers)).unwrap();
        assert_eq!(list(&mut socket, OURS).unwrap(), std::slice::from_ref(&mine));
        socket.perform(removal_of(&mine)).unwrap();
        replace(
            &mut socket,
            &Route { source: Some("192.0.2.1".parse().unwrap()).filter(|_| via.contains('.')), ..borrowers },
        )
        .unwrap();
        socket.perform(removal_of(&borrowers)).unwrap();
        assert_eq!(list(&mut socket, OURS).unwrap(), []);
    }
    for blackhole in ["10.1.0.0/26", "2001:db8:1::/64"].map(|dst| route(dst, Target::Blackhole)) {
        replace(&mut socket, &blackhole).unwrap();
        socket.perform(removal_of(&blackhole)).unwrap();
        assert_eq!(list(&mut socket, OURS).unwrap(), []);
    }
}

#[test]
fn a_route_of_ipv6_takes_the_others_place_whatever_kind_it_is_of() {
    let (_namespace, mut socket, index) = prepared("route-replace6");
    let gateway = |via: &str| Target::Gateway { device: Some(index), via: via.parse().unwrap(), onlink: true };
    let kinds = [Target::Blackhole, gateway("fe80::7"), gateway("2001:db8::2"), Target::Device(index)];
    for first in kinds {
        for second in kinds {
            for target in [first, second] {
                replace(&mut socket, &route("2001:db8:1::/64", target)).unwrap();
            }
            assert_eq!(list(&mut socket, OURS).unwrap(), [route("2001:db8:1::/64", second)], "after {first:?}");
        }
    }
}

#[test]
fn a_next_hop_that_nobody_knows_is_refused_with_both_names() {
    let (_namespace, mut socket, _) = prepared("route-error");
    let via = "198.51.100.9".parse().unwrap();
    let error =
        replace(&mut socket, &route("10.1.0.0/26", Target::Gateway { device: None, via, onlink: false })).unwrap_err();
    assert!(error.to_string().starts_with("cannot make route 10.1.0.0/26 via 198.51.100.9"), "{error}");
}
