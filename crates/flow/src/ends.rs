//! One record of what the nodes of both ends tell of a flow: the source's, with what the destination's counted.

mod kept;

use std::sync::Arc;

use jiff::Timestamp;

use crate::record::{AtDestination, Class, Key, Record, Report, Reporter, Verdict};
use kept::{Kept, apart};

/// Of what is told as from outside this part of what is kept of each other kind: few of it is a pod's.
const OUTSIDE: usize = 10;

/// What the destinations' nodes told, by flow, until the source's tell the same.
#[derive(Debug)]
pub struct Destinations {
    /// What the source's node tells as well ([`Record::is_secondary`]).
    secondary: Kept,
    /// What is told as from a node. There may be a pod behind that address, whose node tells it.
    fronts: Kept,
    /// What is told as from outside, of which the same holds: a node may have addresses that nobody knows. Apart, since whoever is outside may
    /// send any number of flows.
    outside: Kept,
    /// What sources' nodes told of pods that are behind such addresses, by these ([`Record::seen_as`]).
    masked: Kept,
}

impl Destinations {
    /// For no more than that many records of each kind, of 1 or more: where there are as many, the oldest goes, since both nodes tell of a flow at
    /// about the same time. Of what is told as from outside it is a tenth.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let outside = Kept::new((most / OUTSIDE).max(1));
        Self { secondary: Kept::new(most), fronts: Kept::new(most), outside, masked: Kept::new(most) }
    }

    /// Keeps what was heard now, if another node may tell the same flow: of each its last record.
    pub fn keep(&mut self, record: &Arc<Record>, now: Timestamp) {
        if record.is_secondary() {
            self.secondary.keep(record.key(), record, now);
        } else if record.reporter == Reporter::Destination {
            let fronts = if record.class == Class::WorldPod { &mut self.outside } else { &mut self.fronts };
            fronts.keep(record.key(), record, now);
        } else if let Some(key) = record.seen_key() {
            self.masked.keep(key, record, now);
        }
    }

    /// What the source's node told, with what is kept of the same flow.
    #[must_use]
    pub fn joined(&self, record: &Arc<Record>) -> Arc<Record> {
        if record.reporter != Reporter::Source || record.destination_counts.is_some() {
            return Arc::clone(record);
        }
        self.other(record).map_or_else(|| Arc::clone(record), |other| Arc::new(join(record, other)))
    }

    /// Whether the destination's node told as much of the flow as this record of the source's: its end, where this is its end.
    #[must_use]
    pub fn is_told(&self, record: &Record) -> bool {
        let is_last = |other: &Arc<Record>| matches!(other.report, Report::End | Report::Part);
        self.other(record).is_some_and(|other| record.report != Report::End || is_last(other))
    }

    fn other(&self, record: &Record) -> Option<&Arc<Record>> {
        let own = self.secondary.nearest(&record.key(), record.start);
        own.or_else(|| self.front(&record.seen_key()?, record.start))
    }

    /// Whether what is told as from a node, or from outside, is what a source's node told of a pod, since it said that its destination sees the pod
    /// as that. Of several from one port it is the one that began nearest to it.
    #[must_use]
    pub fn is_of_pod(&self, record: &Arc<Record>) -> bool {
        if record.reporter != Reporter::Destination || record.is_secondary() {
            return false;
        }
        let key = record.key();
        let mut told = self.masked.near(&key, record.start);
        told.any(|source| self.front(&key, source.start).is_some_and(|front| front.id == record.id))
    }

    /// What is told as from a node, or from outside, of that flow: the one that began nearest to it.
    fn front(&self, key: &Key, start: Timestamp) -> Option<&Arc<Record>> {
        let all = self.fronts.near(key, start).chain(self.outside.near(key, start));
        all.min_by_key(|record| apart(record, start))
    }

    /// Forgets records of which nothing is heard any more: those that were heard, and whose flows' last packets were, before that time.
    pub fn forget(&mut self, before: Timestamp) {
        let all = [&mut self.secondary, &mut self.fronts, &mut self.outside, &mut self.masked];
        all.into_iter().for_each(|kept| kept.forget(before));
    }
}

/// The source's record stays what it is; what it does not know comes from the other.
pub(crate) fn join(source: &Record, destination: &Record) -> Record {
    let mut joined = source.clone();
    joined.reporter = Reporter::Both;
    if destination.service.is_some() {
        // It was translated there: who answers is known there alone.
        joined.destination = destination.destination.clone();
        joined.service = joined.service.or_else(|| destination.service.clone());
        if joined.source.pod.is_some() {
            joined.class = Class::PodService;
        }
    }
    for (end, other) in [(&mut joined.source, &destination.source), (&mut joined.destination, &destination.destination)]
    {
        end.pod = end.pod.take().or_else(|| other.pod.clone());
    }
    joined.handshake_micros = joined.handshake_micros.or(destination.handshake_micros);
    if joined.cause.is_none() && destination.cause.is_some() {
        joined.cause = destination.cause;
        // What the destination's end said did not come to who asked; nor did what it answered, if it did.
        if joined.received.packets == 0 && destination.verdict != Verdict::Forwarded {
            joined.verdict = destination.verdict;
        }
    }
    joined.destination_counts = Some(Box::new(AtDestination {
        node: destination.node.clone(),
        sent: destination.sent,
        received: destination.received,
    }));
    joined
}

#[cfg(test)]
mod tests {
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
        let asked = Asked {
            service: podnet_model::ServiceKey::new("shop", "web"),
            ip: "192.0.2.2".parse().unwrap(),
            port: 30080,
        };
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
}
