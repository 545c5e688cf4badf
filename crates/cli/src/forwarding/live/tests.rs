use podnet_model::{PodKey, Protocol};
use podnet_planner::{
    ruleset::BackendAddress,
    trace::{End, Source, Target, Verdict},
};

use super::*;
use crate::forwarding::{lab, operand};

/// To the pod of the second node, by a datagram or a ping.
fn question(from: Source, is_echo: bool) -> Question {
    let target = Target { addr: [10, 1, 2, 5].into(), protocol: Protocol::Udp, port: if is_echo { 0 } else { 80 } };
    Question {
        from,
        targets: vec![(target, 1.0)],
        title: String::new(),
        names: Vec::new(),
        object: None,
        is_echo,
        stands_in: None,
    }
}

fn planned(from: Source, is_echo: bool) -> Plan {
    let (state, question) = (lab::state(), question(from, is_echo));
    let trace = operand::follow(&state, &question).unwrap();
    plan(&state, &question, &trace).unwrap()
}

/// Somebody outside whose packets come to a node.
fn outside(number: u8) -> Source {
    Source::World([192, 0, 2, 254].into(), lab::node(number))
}

/// By a node, where it is only received.
fn path(number: u8) -> Path {
    Path {
        share: 0.2,
        hops: vec![Hop::new(Place::Node(lab::node(number)), Kind::Received, "")],
        end: End { verdict: Verdict::Arrives, why: String::new() },
        destination: BackendAddress { addr: [10, 1, 2, 5].into(), port: 80 },
        source: [192, 0, 2, 254].into(),
    }
}

#[test]
fn a_ping_is_sent_as_an_echo_without_ports_and_what_comes_from_outside_by_this_machine() {
    let pod = Source::Pod(PodKey::new("default", "p1"));
    let ping = planned(pod.clone(), true);
    assert_eq!((ping.protocol, ping.to), (ProbeProtocol::Icmp, "10.1.2.5:0".parse().unwrap()));
    let Sender::Agent(node, Some(sender)) = ping.from else { panic!("{:?}", ping.from) };
    assert_eq!((node, sender.name.as_str()), (lab::node(1), "p1"));
    assert_eq!(planned(pod, false).protocol, ProbeProtocol::Udp);
    assert_eq!(planned(Source::Node(lab::node(1)), true).from, Sender::Agent(lab::node(1), None));
    let outside = planned(outside(1), true);
    assert_eq!((outside.from, outside.protocol), (Sender::Here, ProbeProtocol::Icmp));
}

#[test]
fn of_each_node_that_a_packet_may_come_to_first_so_many_ways_are_watched() {
    let trace = Trace { paths: [1, 1, 1, 2, 2, 2].map(path).into() };
    assert_eq!(watched(&trace, 2), [0, 1, 3, 4]);
}

#[test]
fn nodes_that_a_packet_may_come_to_first_are_counted_and_a_pod_has_one() {
    assert_eq!(planned(Source::Pod(PodKey::new("default", "p1")), false).entries, 1);
    assert_eq!(planned(outside(1), false).entries, 1);
    let (state, question) = (lab::state(), question(outside(1), false));
    let trace = operand::follow_from(&state, &question, &[outside(1), outside(2)]).unwrap();
    assert_eq!(plan(&state, &question, &trace).unwrap().entries, 2);
}

#[test]
fn who_does_not_watch_is_told_of_where_a_packet_may_come_to_another_and_else_nothing_is_sent() {
    // Of nodes that watch or not, where there are so many that it may come to first.
    let told = |watches: &[bool], entries: usize| {
        let answer = |(number, watches): (usize, &bool)| match watches {
            true => Ok(number),
            false => Err(Failure::new(format!("node {number} is down"))),
        };
        let answers = watches.iter().enumerate().map(answer).collect();
        tolerated(answers, entries).map_err(|failure| failure.sentence())
    };
    let down = |number: usize| format!("node {number} is down");
    assert_eq!(told(&[true, true], 1), Ok((vec![0, 1], vec![])));
    assert_eq!(told(&[true, false], 1), Err(down(1)));
    assert_eq!(told(&[true, false, true], 3), Ok((vec![0, 2], vec![down(1)])));
    assert_eq!(told(&[false, false], 2), Err(down(0)), "nobody watches");
}

#[test]
fn where_nothing_is_seen_of_a_probe_that_may_come_to_several_nodes_none_of_them_is_blamed() {
    let trace = Trace { paths: [1, 2].map(path).into() };
    let failure = |entries: usize, lost: &[&str]| {
        let live = Live {
            protocol: ProbeProtocol::Tcp,
            sent: Sent { at: 0, source: "192.0.2.254:40000".parse().unwrap() },
            course: Course { way: 0, hops: vec![Watched::Missed], answer: None },
            entries,
            lost: lost.iter().map(|why| (*why).to_owned()).collect(),
            clocks_differ: false,
        };
        live.failure(&trace).unwrap().to_string()
    };
    let one = failure(1, &[]);
    assert!(one.contains("node node1 (hop 1)") && one.contains("→ podnet why names"), "{one}");
    let several = failure(2, &[]);
    let words = "the probe died: it was sent, and seen at none of 2 nodes that it may come to first";
    assert!(several.contains(words) && several.contains("→ does a node announce the address?"), "{several}");
    assert!(!several.contains("node1"), "{several}");
    let unheard = failure(2, &["node node2 is down"]);
    assert!(unheard.contains("is not known, as not all was heard (node node2 is down): it was sent"), "{unheard}");
}
