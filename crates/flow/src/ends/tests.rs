//! What two nodes tell of flows.

use std::net::SocketAddr;

use super::*;
use crate::{
    Item, Transport, Way,
    record::{Asked, Cause, FlowId},
    testing,
};

/// As it ended.
fn keep(destinations: &mut Destinations, record: &Arc<Record>) {
    destinations.keep(record, record.end);
}

fn told(reporter: Reporter, id: u128, start: &str) -> Arc<Record> {
    let Item::Flow(record) = testing::flow(0).item else { panic!("no flow") };
    let mut record = Record::clone(&record);
    record.id = FlowId(uuid::Uuid::from_u128(id));
    record.class = Class::PodPodOtherNode;
    record.start = start.parse().unwrap();
    if reporter == Reporter::Destination {
        (record.node, record.reporter, record.service) = ("node2".into(), reporter, None);
        (record.sent.packets, record.received.packets) = (4, 9);
    } else {
        record.destination.pod = None;
    }
    Arc::new(record)
}

#[test]
fn a_pod_that_only_the_destinations_node_knew_yet_is_none_of_the_world() {
    let at = "2026-01-01T00:00:00Z";
    let joined = |class, service: Option<Asked>, is_known: bool| {
        let mut source = Record::clone(&told(Reporter::Source, 1, at));
        (source.class, source.service) = (class, service);
        if class == Class::WorldPod {
            source.source.pod = None;
        }
        let mut destination = Record::clone(&told(Reporter::Destination, 2, at));
        if !is_known {
            (destination.source.pod, destination.destination.pod) = (None, None);
        }
        let mut destinations = Destinations::new(1);
        keep(&mut destinations, &Arc::new(destination));
        let joined = destinations.joined(&Arc::new(source));
        assert_eq!((joined.reporter, joined.is_pod_to_pod()), (Reporter::Both, is_known));
        joined.class
    };
    for class in [Class::PodWorld, Class::WorldPod] {
        assert_eq!(joined(class, None, true), Class::PodPodOtherNode, "{class}");
        assert_eq!(joined(class, Some(node_port()), true), Class::PodService, "{class}");
        assert_eq!(joined(class, None, false), class, "its name is left out");
    }
    assert_eq!(joined(Class::PodPodOtherNode, None, false), Class::PodPodOtherNode);
}

fn node_port() -> Asked {
    Asked { service: podnet_model::ServiceKey::new("shop", "web"), ip: "192.0.2.2".parse().unwrap(), port: 30080 }
}

#[test]
fn what_the_destinations_node_counted_is_in_the_record_of_the_sources() {
    let mut destinations = Destinations::new(2);
    let source = told(Reporter::Source, 1, "2026-01-01T00:00:00Z");
    assert_eq!(destinations.joined(&source), source);
    for start in ["2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.2Z"] {
        // Of the same flow the last one counts.
        keep(&mut destinations, &told(Reporter::Destination, 2, start));
    }
    keep(&mut destinations, &told(Reporter::Destination, 3, "2026-01-01T00:00:10Z"));
    let joined = destinations.joined(&source);
    assert_eq!((joined.id, joined.reporter, joined.sent.packets), (source.id, Reporter::Both, 6));
    assert_eq!((joined.node.as_str(), joined.service.as_ref()), ("node1", source.service.as_ref()));
    let counts = joined.destination_counts.as_deref().unwrap();
    assert_eq!((counts.node.as_str(), counts.sent.packets, counts.received.packets), ("node2", 4, 9));
    assert_eq!(joined.destination.pod.as_ref().map(|pod| &*pod.name), Some("web"));
    assert_eq!(destinations.joined(&joined), joined);
    keep(&mut destinations, &told(Reporter::Destination, 4, "2026-01-01T00:00:00Z"));
    let mut elsewhere = Record::clone(&told(Reporter::Destination, 5, "2026-01-01T00:00:00Z"));
    elsewhere.protocol = Transport::UDP;
    keep(&mut destinations, &Arc::new(elsewhere));
    let sizes = |kept: &Kept| (kept.len, kept.by_key.len());
    assert_eq!(sizes(&destinations.secondary), (2, 2), "the oldest went");
    let later = told(Reporter::Source, 1, "2026-01-01T00:00:41Z");
    assert_eq!(destinations.joined(&later), later, "that was another one with the same ports");
    destinations.forget("2026-01-01T00:00:02.5Z".parse().unwrap());
    assert_eq!(destinations.secondary.len, 2);
    destinations.forget("2026-01-01T00:00:02.6Z".parse().unwrap());
    assert!(destinations.secondary.order.is_empty() && sizes(&destinations.secondary) == (0, 0));
}

#[test]
fn what_was_told_just_now_is_joined_however_much_was_told_before() {
    let port = |of: Reporter, port: u16| {
        let id = 2 * u128::from(port) + u128::from(of == Reporter::Source);
        let mut record = Record::clone(&told(of, id, "2026-01-01T00:00:00Z"));
        record.source.port = port;
        Arc::new(record)
    };
    let mut destinations = Destinations::new(100);
    for number in 1..=10_000 {
        keep(&mut destinations, &port(Reporter::Destination, number));
        let joined = destinations.joined(&port(Reporter::Source, number));
        assert!(joined.destination_counts.is_some(), "{number}");
        assert!(destinations.secondary.len <= 100 && destinations.secondary.order.len() <= 100);
    }
    let is_joined = |number| destinations.joined(&port(Reporter::Source, number)).destination_counts.is_some();
    assert_eq!((1..=10_000).filter(|number| is_joined(*number)).count(), 100);
    assert!(is_joined(9_901) && !is_joined(9_900));
}

#[test]
fn who_answers_at_a_port_of_another_node_is_what_that_one_knows() {
    let at = "2026-01-01T00:00:00Z";
    let asked = node_port();
    let mut source = Record::clone(&told(Reporter::Source, 1, at));
    (source.service, source.class) = (Some(asked.clone()), Class::PodService);
    let backend = source.destination.clone();
    (source.destination.ip, source.destination.port) = (asked.ip, asked.port);
    source.destination.node = Some("node2".into());
    let mut destination = Record::clone(&told(Reporter::Destination, 2, at));
    (destination.service, destination.class) = (Some(asked.clone()), Class::PodService);
    assert!(destination.is_secondary());
    let mut destinations = Destinations::new(1);
    keep(&mut destinations, &Arc::new(destination.clone()));
    let joined = destinations.joined(&Arc::new(source));
    assert_eq!((joined.reporter, joined.destination.at()), (Reporter::Both, backend.at()));
    assert_eq!((&joined.destination, joined.service.as_ref()), (&destination.destination, Some(&asked)));
}

#[test]
fn what_tells_who_answers_at_a_port_of_another_node_stands_alone_unless_it_is_told_who_asked() {
    let (first, second) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:20Z");
    let asking = |of: Reporter, id, start| {
        let mut record = Record::clone(&told(of, id, start));
        let asked = node_port();
        if of == Reporter::Source {
            (record.destination.ip, record.destination.port) = (asked.ip, asked.port);
        }
        (record.service, record.class) = (Some(asked), Class::PodService);
        Arc::new(record)
    };
    let mut destinations = Destinations::new(10);
    let [one, next] = [(2, first), (4, second)].map(|(id, start)| asking(Reporter::Destination, id, start));
    keep(&mut destinations, &one);
    assert!(!destinations.is_of_source(&one), "nobody told who asked");
    let source = asking(Reporter::Source, 1, "2026-01-01T00:00:00.001Z");
    keep(&mut destinations, &source);
    assert!(destinations.is_of_source(&one) && !destinations.is_of_source(&source));
    // The next one from that port is another flow.
    keep(&mut destinations, &next);
    assert!(!destinations.is_of_source(&next) && destinations.is_of_source(&one));
    keep(&mut destinations, &asking(Reporter::Source, 3, second));
    assert!(destinations.is_of_source(&next) && destinations.is_of_source(&one));
    // What its own node translated that one tells with who answers.
    assert!(!destinations.is_of_source(&told(Reporter::Destination, 5, first)));
    destinations.forget(Timestamp::MAX);
    assert!(!destinations.is_of_source(&one));
}

#[test]
fn the_cause_is_what_either_end_knows() {
    let at = "2026-01-01T00:00:00Z";
    let outcome = |of: Reporter, verdict, cause, answers| {
        let mut record = Record::clone(&told(of, if of == Reporter::Source { 1 } else { 2 }, at));
        (record.verdict, record.cause) = (verdict, cause);
        record.received = Way { packets: answers, ..Way::default() };
        Arc::new(record)
    };
    let joined = |source: &Arc<Record>, destination: &Arc<Record>| {
        let mut destinations = Destinations::new(1);
        keep(&mut destinations, destination);
        let joined = destinations.joined(source);
        (joined.verdict, joined.cause)
    };
    let (closed, none) = (Some(Cause::PortClosed), None);
    let (unanswered, refused) = (Verdict::Unanswered, Verdict::Refused);
    let silent = outcome(Reporter::Source, unanswered, none, 0);
    let reset = outcome(Reporter::Source, refused, none, 1);
    let lost = outcome(Reporter::Source, Verdict::Dropped, Some(Cause::NoRoute), 0);
    let answered = outcome(Reporter::Source, Verdict::Forwarded, none, 3);
    let said_no = outcome(Reporter::Destination, refused, closed, 1);
    let said_nothing = outcome(Reporter::Destination, unanswered, none, 0);
    let said_yes_first = outcome(Reporter::Destination, Verdict::Forwarded, closed, 2);
    assert_eq!(joined(&silent, &said_no), (refused, closed));
    assert_eq!(joined(&reset, &said_no), (refused, closed));
    assert_eq!(joined(&lost, &said_no), (Verdict::Dropped, Some(Cause::NoRoute)));
    assert_eq!(joined(&answered, &said_no), (Verdict::Forwarded, closed));
    assert_eq!(joined(&silent, &said_nothing), (unanswered, none));
    assert_eq!(joined(&silent, &said_yes_first), (unanswered, closed));
}

#[test]
fn what_is_told_as_from_a_node_is_part_of_what_that_node_told_of_the_pod_behind_it_and_of_nothing_else() {
    let (first, second) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:20Z");
    let [seen, other]: [SocketAddr; 2] = ["172.16.0.1:4000", "172.16.0.1:4001"].map(|at| at.parse().unwrap());
    let front = |id, start, from: SocketAddr| {
        let mut record = Record::clone(&told(Reporter::Destination, id, start));
        (record.source.ip, record.source.port, record.source.pod) = (from.ip(), from.port(), None);
        (record.source.node, record.class) = (Some("node1".into()), Class::NodePod);
        Arc::new(record)
    };
    let masked = |id, start| {
        let mut record = Record::clone(&told(Reporter::Source, id, start));
        (record.seen_as, record.class) = (Some(seen), Class::PodService);
        Arc::new(record)
    };
    let mut destinations = Destinations::new(10);
    let [own, nodes] = [front(1, first, seen), front(2, first, other)];
    [&own, &nodes].into_iter().for_each(|front| keep(&mut destinations, front));
    assert!(!destinations.is_of_pod(&own), "as far as anybody told it is the node's");
    let source = masked(3, "2026-01-01T00:00:00.001Z");
    keep(&mut destinations, &source);
    assert!(destinations.is_of_pod(&own) && !destinations.is_of_pod(&nodes) && !destinations.is_of_pod(&source));
    let joined = destinations.joined(&source);
    assert_eq!((joined.id, joined.reporter, joined.source.at()), (source.id, Reporter::Both, source.source.at()));
    assert_eq!((&joined.service, joined.class), (&source.service, Class::PodService));
    let counts = joined.destination_counts.as_deref().unwrap();
    assert_eq!((counts.node.as_str(), counts.sent.packets, counts.received.packets), ("node2", 4, 9));
    // The next one from that port is another flow, until it is told of a pod as well.
    let next = front(4, second, seen);
    keep(&mut destinations, &next);
    assert!(!destinations.is_of_pod(&next) && destinations.is_of_pod(&own));
    keep(&mut destinations, &masked(5, second));
    assert!(destinations.is_of_pod(&next) && destinations.is_of_pod(&own));
    destinations.forget("2026-01-01T00:00:02.6Z".parse().unwrap());
    assert!(!destinations.is_of_pod(&own) && destinations.joined(&source).destination_counts.is_none());
}

#[test]
fn whoever_is_outside_pushes_nothing_out_that_is_told_as_from_a_node() {
    let at = "2026-01-01T00:00:00Z";
    let seen = |port| SocketAddr::from(([172, 16, 0, 1], port));
    let front = |class, port: u16| {
        let mut record = Record::clone(&told(Reporter::Destination, port.into(), at));
        (record.source.ip, record.source.port, record.source.pod) = (seen(port).ip(), port, None);
        record.class = class;
        Arc::new(record)
    };
    let mut destinations = Destinations::new(20);
    keep(&mut destinations, &front(Class::NodePod, 1));
    (2..=40).for_each(|port| keep(&mut destinations, &front(Class::WorldPod, port)));
    let is_joined = |port| {
        let mut source = Record::clone(&told(Reporter::Source, 100, at));
        source.seen_as = Some(seen(port));
        destinations.joined(&Arc::new(source)).destination_counts.is_some()
    };
    let joined: Vec<u16> = (1..=40).filter(|port| is_joined(*port)).collect();
    assert_eq!(joined, [1, 39, 40], "of those from outside a tenth is kept");
}

#[test]
fn what_is_told_long_after_its_last_packet_is_waited_for_from_when_it_was_heard() {
    let mut destinations = Destinations::new(1);
    let heard: Timestamp = "2026-01-01T02:04:00Z".parse().unwrap();
    destinations.keep(&told(Reporter::Destination, 2, "2026-01-01T00:00:00Z"), heard);
    destinations.forget(heard);
    let source = told(Reporter::Source, 1, "2026-01-01T00:00:00Z");
    assert!(destinations.joined(&source).destination_counts.is_some());
}

#[test]
fn other_flows_are_left_alone() {
    let mut destinations = Destinations::new(1);
    keep(&mut destinations, &told(Reporter::Destination, 2, "2026-01-01T00:00:00Z"));
    let mut other = Record::clone(&told(Reporter::Source, 1, "2026-01-01T00:00:00Z"));
    other.protocol = Transport::UDP;
    let other = Arc::new(other);
    assert_eq!(destinations.joined(&other), other);
}
