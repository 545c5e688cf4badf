//! One record of what the nodes of both ends tell of a flow: the source's, with what the destination's counted.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use crate::record::{AtDestination, FlowId, Key, Record, Reporter, Verdict};

/// So far apart two nodes' clocks and the two ends' first packets may be; ports are seldom used again sooner.
const APART: SignedDuration = SignedDuration::from_secs(30);

/// What the destination's nodes told, by flow, until the source's tell the same.
#[derive(Debug)]
pub struct Destinations {
    by_key: HashMap<Key, Vec<Arc<Record>>>,
    /// In the order in which they were kept, with some that are not any more.
    order: VecDeque<(Key, FlowId)>,
    most: usize,
    kept: usize,
}

impl Destinations {
    /// For no more than that many records, of 1 or more: where there are as many, the oldest goes, since both nodes tell of a flow at about the same
    /// time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new(), most, kept: 0 }
    }

    /// Keeps what a destination's node told ([`Record::is_secondary`]): of each flow its last record.
    pub fn keep(&mut self, record: &Arc<Record>) {
        let key = record.key();
        let mut same = self.by_key.get_mut(&key).into_iter().flatten();
        if let Some(kept) = same.find(|kept| kept.id == record.id) {
            *kept = Arc::clone(record);
        } else {
            self.make_room();
            self.by_key.entry(key).or_default().push(Arc::clone(record));
            self.order.push_back((key, record.id));
            self.kept += 1;
        }
    }

    fn make_room(&mut self) {
        while self.kept >= self.most
            && let Some((key, id)) = self.order.pop_front()
        {
            let Some(kept) = self.by_key.get_mut(&key) else { continue };
            let before = kept.len();
            kept.retain(|kept| kept.id != id);
            self.kept -= before - kept.len();
            if kept.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// What the source's node told, with what is kept of the same flow.
    #[must_use]
    pub fn joined(&self, record: &Arc<Record>) -> Arc<Record> {
        if record.reporter != Reporter::Source || record.destination_counts.is_some() {
            return Arc::clone(record);
        }
        let apart = |other: &Arc<Record>| other.start.duration_since(record.start).abs();
        let same = self.by_key.get(&record.key()).into_iter().flatten().filter(|other| apart(other) <= APART);
        same.min_by_key(|other| apart(other)).map_or_else(|| Arc::clone(record), |other| Arc::new(join(record, other)))
    }

    /// Forgets records of which nothing is heard any more: those whose flows' last packets were before that time.
    pub fn forget(&mut self, before: Timestamp) {
        self.by_key.retain(|_, kept| {
            kept.retain(|kept| kept.end >= before);
            !kept.is_empty()
        });
        self.kept = self.by_key.values().map(Vec::len).sum();
        if self.order.len() > 2 * self.kept {
            let is_kept = |(key, id): &(Key, FlowId)| {
                self.by_key.get(key).is_some_and(|kept| kept.iter().any(|kept| kept.id == *id))
            };
            self.order.retain(is_kept);
        }
    }
}

/// The source's record stays what it is; what it does not know comes from the other.
fn join(source: &Record, destination: &Record) -> Record {
    let mut joined = source.clone();
    joined.reporter = Reporter::Both;
    if destination.service.is_some() {
        // It was translated there: who answers is known there alone.
        joined.destination = destination.destination.clone();
        joined.service = joined.service.or_else(|| destination.service.clone());
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
    use super::*;
    use crate::{
        Item, Transport, Way,
        record::{Asked, Cause, Class, FlowId},
        testing,
    };

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
            destinations.keep(&told(Reporter::Destination, 2, start));
        }
        destinations.keep(&told(Reporter::Destination, 3, "2026-01-01T00:00:10Z"));
        let joined = destinations.joined(&source);
        assert_eq!((joined.id, joined.reporter, joined.sent.packets), (source.id, Reporter::Both, 6));
        assert_eq!((joined.node.as_str(), joined.service.as_ref()), ("node1", source.service.as_ref()));
        let counts = joined.destination_counts.as_deref().unwrap();
        assert_eq!((counts.node.as_str(), counts.sent.packets, counts.received.packets), ("node2", 4, 9));
        assert_eq!(joined.destination.pod.as_ref().map(|pod| &*pod.name), Some("web"));
        assert_eq!(destinations.joined(&joined), joined);
        destinations.keep(&told(Reporter::Destination, 4, "2026-01-01T00:00:00Z"));
        let mut elsewhere = Record::clone(&told(Reporter::Destination, 5, "2026-01-01T00:00:00Z"));
        elsewhere.protocol = Transport::UDP;
        destinations.keep(&Arc::new(elsewhere));
        assert_eq!((destinations.kept, destinations.by_key.len()), (2, 2), "the oldest went");
        let later = told(Reporter::Source, 1, "2026-01-01T00:00:41Z");
        assert_eq!(destinations.joined(&later), later, "that was another one with the same ports");
        destinations.forget("2026-01-01T00:00:02.5Z".parse().unwrap());
        assert_eq!(destinations.kept, 2);
        destinations.forget("2026-01-01T00:00:02.6Z".parse().unwrap());
        assert!(destinations.by_key.is_empty() && destinations.order.is_empty() && destinations.kept == 0);
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
            destinations.keep(&port(Reporter::Destination, number));
            let joined = destinations.joined(&port(Reporter::Source, number));
            assert!(joined.destination_counts.is_some(), "{number}");
            assert!(destinations.kept <= 100 && destinations.order.len() <= 100);
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
        destinations.keep(&Arc::new(destination.clone()));
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
            destinations.keep(destination);
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
    fn other_flows_are_left_alone() {
        let mut destinations = Destinations::new(1);
        destinations.keep(&told(Reporter::Destination, 2, "2026-01-01T00:00:00Z"));
        let mut other = Record::clone(&told(Reporter::Source, 1, "2026-01-01T00:00:00Z"));
        other.protocol = Transport::UDP;
        let other = Arc::new(other);
        assert_eq!(destinations.joined(&other), other);
    }
}
