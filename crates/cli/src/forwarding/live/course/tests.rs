use super::*;

const SENT: u64 = 1_000_000;
const OWN: &str = "10.0.0.5:40000";
const ASKED: &str = "10.96.0.1:80";
const BACKENDS: [&str; 2] = ["10.0.0.9:8080", "10.0.1.9:8080"];

fn sent() -> Sent {
    Sent { at: SENT, source: OWN.parse().unwrap() }
}

fn spot(node: &str, device: &str, outbound: bool) -> Option<Spot> {
    Some(Spot { node: node.into(), point: Point::Device(device.into()), outbound })
}

/// From a pod to a Service with a backend on either node: out, in, translated, on.
fn ways() -> Vec<Way> {
    let common = || vec![spot("node1", "inside", true), spot("node1", "pn1", false), None];
    let mut near = common();
    near.extend([spot("node1", "pn2", true)]);
    let mut far = common();
    let tunnel = [("node1", "v", true), ("node1", "eth0", true), ("node2", "eth0", false), ("node2", "v", false)];
    far.extend(tunnel.map(|(node, device, outbound)| spot(node, device, outbound)));
    far.extend([spot("node2", "pn3", true)]);
    let spots = [near, far].into_iter().zip(BACKENDS);
    let way = |(spots, to): (Vec<Option<Spot>>, &str)| {
        let to: SocketAddr = to.parse().unwrap();
        Way { spots, destination: BackendAddress { addr: to.ip(), port: to.port() } }
    };
    spots.map(way).collect()
}

/// One packet, so many nanoseconds after the probe was sent.
fn seen(node: &str, device: &str, outbound: bool, after: i64, to: &str) -> Seen {
    let (source, destination) = (OWN.parse().unwrap(), to.parse().unwrap());
    let found = Found { kind: Kind::Probe, source, destination, within: (device == "eth0").then_some(Tunnel::Vxlan) };
    let sighting = Sighting { point: 0, at: SENT.checked_add_signed(after).unwrap(), outbound, found };
    Seen { node: node.into(), point: Point::Device(device.into()), device: device.into(), sighting }
}

fn answer(node: &str, device: &str, outbound: bool, after: i64) -> Seen {
    let mut one = seen(node, device, outbound, after, OWN);
    one.sighting.found.kind = Kind::Accepted;
    one.sighting.found.source = BACKENDS[1].parse().unwrap();
    one
}

fn to_far() -> Vec<Seen> {
    let to = BACKENDS[1];
    vec![
        seen("node1", "inside", true, 10, ASKED),
        seen("node1", "pn1", false, 20, ASKED),
        seen("node1", "v", true, 50, to),
        seen("node1", "eth0", true, 70, to),
        seen("node2", "eth0", false, 90, to),
        seen("node2", "v", false, 95, to),
        seen("node2", "pn3", true, 120, to),
    ]
}

fn times(course: &Course) -> Vec<Option<i64>> {
    let time = |hop: &Watched| if let Watched::Passed(passing) = hop { Some(passing.after) } else { None };
    course.hops.iter().map(time).collect()
}

#[test]
fn the_way_that_chance_chose_is_found_with_the_time_of_each_hop_in_whatever_order_agents_tell() {
    let mut all = to_far();
    all.extend([
        answer("node2", "pn3", false, 150),
        answer("node1", "pn1", true, 180),
        answer("node1", "inside", false, 190),
    ]);
    for turn in 0..all.len() {
        all.rotate_left(turn);
        let course = course(&ways(), &sent(), &all);
        assert_eq!(course.way, 1);
        let expected = [Some(10), Some(20), None, Some(50), Some(70), Some(90), Some(95), Some(120)];
        assert_eq!(times(&course), expected);
        assert!(course.is_whole() && course.died().is_none() && course.passed_by().next().is_none());
        let answer = course.answer.unwrap();
        assert_eq!((answer.kind, answer.by, answer.back), (Kind::Accepted, "10.0.1.9".parse().unwrap(), Some(190)));
        assert_eq!(answer.first, ("node2".into(), "pn3".into()));
        let Watched::Passed(passing) = &course.hops[4] else { panic!("{:?}", course.hops) };
        assert_eq!((passing.within, passing.destination), (Some(Tunnel::Vxlan), BACKENDS[1].parse().unwrap()));
    }
    let near = [&to_far()[..2], &[seen("node1", "pn2", true, 40, BACKENDS[0])]].concat();
    let course = course(&ways(), &sent(), &near);
    assert_eq!((course.way, course.died(), course.is_whole()), (0, None, false));
}

#[test]
fn where_it_is_seen_last_and_not_seen_next_it_died() {
    let all = to_far();
    for (count, died) in [(0, (0, None)), (1, (1, Some(0))), (3, (4, Some(3))), (4, (5, Some(4))), (6, (7, Some(6)))] {
        let course = course(&ways(), &sent(), &all[..count]);
        assert_eq!(course.died(), Some(died), "{count} seen");
        assert_eq!(course.way, usize::from(count > 2), "{count} seen");
        assert!(!course.is_whole());
    }
    // After it was translated it went nowhere: on the most frequent way it is missed first.
    let course = course(&ways(), &sent(), &all[..2]);
    assert_eq!((course.way, course.died()), (0, Some((3, Some(1)))));
}

#[test]
fn of_two_nodes_that_it_may_have_come_to_first_it_is_the_one_behind_which_nothing_is_missed() {
    let to: SocketAddr = BACKENDS[1].parse().unwrap();
    let destination = BackendAddress { addr: to.ip(), port: to.port() };
    let way = |spots| Way { spots, destination };
    let by_tunnel = [("node1", "eth0", false), ("node1", "v", true), ("node2", "eth0", false), ("node2", "pn3", true)];
    let by_tunnel = by_tunnel.map(|(node, device, outbound)| spot(node, device, outbound)).to_vec();
    let at_once = vec![spot("node2", "eth0", false), None, spot("node2", "pn3", true)];
    let seen = [seen("node2", "eth0", false, 10, ASKED), seen("node2", "pn3", true, 20, BACKENDS[1])];
    let course = course(&[way(by_tunnel), way(at_once)], &sent(), &seen);
    assert_eq!((course.way, times(&course), course.died()), (1, vec![Some(10), None, Some(20)], None));
}

#[test]
fn what_is_missed_on_the_way_is_no_death_and_a_clock_may_be_behind() {
    let mut all = to_far();
    all.remove(4);
    all[4].sighting.at = SENT - 500;
    let course = course(&ways(), &sent(), &all);
    assert_eq!((course.died(), course.passed_by().collect::<Vec<_>>()), (None, vec![5]));
    assert_eq!(times(&course)[6], Some(-500));
}

#[test]
fn what_goes_the_other_way_or_is_an_answer_is_no_passing_of_the_probe() {
    let wrong = [seen("node1", "inside", false, 10, ASKED), answer("node1", "inside", true, 10)];
    let course = course(&ways(), &sent(), &wrong);
    assert_eq!(course.died(), Some((0, None)));
    // It left by where it should have come back.
    assert_eq!(course.answer.unwrap().back, None);
}

#[test]
fn whoever_is_outside_may_be_answered_by_another_node_than_the_probe_came_to() {
    let to: SocketAddr = BACKENDS[1].parse().unwrap();
    let underlay = |node: &str, outbound| Some(Spot { node: node.into(), point: Point::Underlay, outbound });
    let spots = vec![
        underlay("node1", false),
        spot("node1", "v", true),
        underlay("node1", true),
        underlay("node2", false),
        spot("node2", "v", false),
        spot("node2", "pn3", true),
    ];
    let from_outside = [Way { spots, destination: BackendAddress { addr: to.ip(), port: to.port() } }];
    // When an answer is back that is seen at a node's own device.
    let back = |ways: &[Way], node: &str, outbound: bool, within: Option<Tunnel>, to: &str| {
        let mut one = answer(node, "eth0", outbound, 100);
        one.point = Point::Underlay;
        one.sighting.found.within = within;
        one.sighting.found.destination = to.parse().unwrap();
        course(ways, &sent(), &[one]).answer.unwrap().back
    };
    let other = "192.0.2.11:40000";
    for (node, outbound, within, to, expected) in [
        ("node1", true, None, OWN, Some(100)),
        ("node2", true, None, OWN, Some(100)),
        ("node2", true, Some(Tunnel::Vxlan), OWN, None),
        ("node2", true, None, other, None),
        ("node2", false, None, OWN, None),
    ] {
        assert_eq!(back(&from_outside, node, outbound, within, to), expected, "{node} {outbound} {within:?} {to}");
    }
    // To a pod it is not back before it is there.
    assert_eq!(back(&ways(), "node2", true, None, OWN), None);
    // What a node itself sent into a tunnel is answered without one.
    let spots = vec![spot("node1", "v", true), underlay("node1", true), underlay("node2", false)];
    let from_node = [Way { spots, destination: BackendAddress { addr: to.ip(), port: to.port() } }];
    for (node, outbound, within, to, expected) in [
        ("node1", false, None, OWN, Some(100)),
        ("node1", false, Some(Tunnel::Vxlan), OWN, None),
        ("node1", false, None, other, None),
        ("node2", false, None, OWN, None),
    ] {
        assert_eq!(back(&from_node, node, outbound, within, to), expected, "{node} {outbound} {within:?} {to}");
    }
}
